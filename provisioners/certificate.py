"""The certificate that a Windows guest's WinRM listener shows: made for one build, and known before the guest boots."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

BACKDATED = timedelta(days=2 * 365)
"""A guest whose clock was set back to its checkpoint's, or is plainly wrong, must find it valid."""
VALID = timedelta(days=10 * 365)
_KEY_BITS = 2048
NAME = "aib-winrm"


def self_signed(hostname: str, *, now: datetime | None = None) -> tuple[str, str]:
    """(certificate, private key) in PEM; WinRM wants the computer's name as subject, and the purpose serverAuth."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = rsa.generate_private_key(public_exponent=65537, key_size=_KEY_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname)])
    begins = (now or datetime.now(UTC)) - BACKDATED
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + VALID)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def pfx(certificate: str, key: str, password: str) -> bytes:
    """Both as Windows imports them. Windows Server 2016 knows no newer protection than 3DES and SHA-1."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.serialization import pkcs12

    private = serialization.load_pem_private_key(key.encode(), None)
    protection = (
        serialization.PrivateFormat.PKCS12.encryption_builder()
        .key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC)
        .hmac_hash(hashes.SHA1())  # noqa: S303 - no secret rests on it: the file lies beside its password
        .build(password.encode())
    )
    loaded = x509.load_pem_x509_certificate(certificate.encode())
    return pkcs12.serialize_key_and_certificates(NAME.encode(), private, loaded, None, protection)  # type: ignore[arg-type]


def thumbprint(certificate: str) -> str:
    """What Windows calls a certificate: its SHA-1, upper case."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    return x509.load_pem_x509_certificate(certificate.encode()).fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303
