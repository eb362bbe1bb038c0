"""A file of trusted authorities for clients: those the machine trusts, and ours.

Clients take one file (REQUESTS_CA_BUNDLE). With ours alone they would trust nothing else any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestrator.record import files

SYSTEM = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/cert.pem"),
)
_NAMED = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")


def write_bundle(target: Path, ca: Path, environment: Mapping[str, str]) -> Path:
    """Write the bundle; the machine's part is what the environment names, else the system's, else certifi's."""
    import certifi

    named = [Path(environment[name]) for name in _NAMED if environment.get(name)]
    known = next((path for path in (*named, *SYSTEM) if path.is_file() and path != target), Path(certifi.where()))
    with files.translating("reading", known):
        theirs = known.read_bytes()
    ours = ca.read_bytes()
    files.publish(target, (b"" if ours in theirs else ours) + theirs, mode=0o644)
    return target
