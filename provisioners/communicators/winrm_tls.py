"""The one certificate that a guest's WinRM listener may show."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from requests.adapters import HTTPAdapter

from provisioners.communicators.base import CommunicatorError


@dataclass(frozen=True, slots=True)
class PinnedCertificate:
    """A certificate in PEM: whoever shows another one is not the guest. Names and issuers do not matter then."""

    pem: str

    @property
    def sha256(self) -> str:
        """The fingerprint, lower-case hex digits."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.pem)).hexdigest()

    def check(self, now: datetime | None = None) -> None:
        """Raise `CommunicatorError` when the certificate is not valid by this host's clock."""
        from cryptography import x509

        certificate = x509.load_pem_x509_certificate(self.pem.encode())
        now = now or datetime.now(UTC)
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now > ends:
            raise CommunicatorError(
                f"the certificate of the guest's WinRM listener expired on {ends:%Y-%m-%d %H:%M} UTC",
                hint="give the listener a new certificate, or correct this host's clock",
            )
        if now < begins:
            raise CommunicatorError(
                f"the certificate of the guest's WinRM listener is not valid before {begins:%Y-%m-%d %H:%M} UTC",
                hint="this host's clock is behind",
            )


class PinnedAdapter(HTTPAdapter):
    """Connections to nobody but the holder of one certificate."""

    def __init__(self, sha256: str) -> None:
        self._fingerprint = sha256
        super().__init__()

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """See `HTTPAdapter`; urllib3 compares the fingerprint before it sends anything."""
        super().init_poolmanager(connections, maxsize, block, assert_fingerprint=self._fingerprint, **options)
