"""The server's own certificate authority, made once per AIB_HOME, and the certificate that it gives the server.

Clients trust `ca.pem` (REQUESTS_CA_BUNDLE); its private key never leaves the folder. The server's certificate is made
anew when it is about to end or when the server listens under another name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.record import files, locks

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

ALWAYS = ("127.0.0.1", "::1", "localhost")
"""Names of every server's certificate."""
CA_DAYS = 10 * 365
LEAF_DAYS = 397
"""Longer-lived server certificates are refused by some clients."""
RENEW_DAYS = 30
BACKDATED = timedelta(days=1)
"""A clock may be a little behind."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of what a server and its clients need."""

    ca: Path
    chain: Path
    key: Path


def ensure(folder: Path, names: Sequence[str] = ()) -> Certificates:
    """The authority and a server certificate for `names` (addresses or host names) beside the loopback's.

    Makes what is missing, about to end, or no longer fits. Raises `HostError` when the folder cannot be written.
    """
    wanted = tuple(dict.fromkeys((*ALWAYS, *names)))
    found = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    with files.translating("making certificates in", folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locks.locked(folder / "certificates.lock", exclusive=True):
            authority = _authority(found.ca, folder / "ca.key")
            if not _still_good(found, wanted, authority[0]):
                _give(found, wanted, *authority)
    return found


def _authority(certificate: Path, key: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """The authority of this home, made when there is none, or when its time is nearly over."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    known: x509.Certificate | None = None
    private: object = None
    try:
        known = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), None)
    except (FileNotFoundError, ValueError):  # half of it is none
        pass
    good = known is not None and _fits(known, private) and not _ends_soon(known, LEAF_DAYS + RENEW_DAYS)
    if good and known is not None and isinstance(private, ec.EllipticCurvePrivateKey):
        key.chmod(0o600)
        return known, private
    private = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"aib on this machine {x509.random_serial_number():x}"[:48])
    identifier = x509.SubjectKeyIdentifier.from_public_key(private.public_key())
    usage = _usage(digital_signature=False, signs=True)
    made = _sign(
        _builder(name, name, private, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False),
        private,
    )
    files.publish(key, _pem(private))
    files.publish(certificate, made.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return made, private


def _give(
    found: Certificates, names: Sequence[str], authority: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> None:
    """A fresh key and a certificate for it, with the authority's behind it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    private = ec.generate_private_key(ec.SECP256R1())
    signer = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    made = _sign(
        _builder(_name("aib serve"), authority.subject, private, LEAF_DAYS)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True, signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(signer), critical=False),
        key,
    )
    pem = serialization.Encoding.PEM
    files.publish(found.key, _pem(private))
    files.publish(found.chain, made.public_bytes(pem) + authority.public_bytes(pem), mode=0o644)


def _still_good(found: Certificates, names: Sequence[str], authority: x509.Certificate) -> bool:
    """Whether the server's certificate has time left, names all names, is the authority's, and has its key."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization

    try:
        known = x509.load_pem_x509_certificate(found.chain.read_bytes())
        private = serialization.load_pem_private_key(found.key.read_bytes(), None)
        known.verify_directly_issued_by(authority)
        named = known.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    found.key.chmod(0o600)
    return _fits(known, private) and not _ends_soon(known) and all(_general_name(name) in named for name in names)


def _fits(certificate: x509.Certificate, private: object) -> bool:
    """Whether the key is the certificate's."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return isinstance(private, ec.EllipticCurvePrivateKey) and private.public_key() == certificate.public_key()


def _ends_soon(certificate: x509.Certificate, days: int = RENEW_DAYS) -> bool:
    return certificate.not_valid_after_utc < datetime.now(UTC) + timedelta(days=days)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + timedelta(days=days))
    )


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography.hazmat.primitives import hashes

    return builder.sign(key, hashes.SHA256())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _name(common: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(name: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, digital_signature: bool, signs: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=digital_signature, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, key_cert_sign=signs, crl_sign=signs,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
