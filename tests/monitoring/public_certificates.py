"""Certificates as a house's authority would issue them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)


def pem_of(key: ec.EllipticCurvePrivateKey, passphrase: bytes = b"") -> str:
    how = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode()


@dataclass(frozen=True)
class Authority:
    """An authority that issues certificates; `certificate` is what clients believe."""

    key: ec.EllipticCurvePrivateKey
    certificate: str

    @classmethod
    def new(cls) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        built = _builder("The house", "The house", key, NOW, 30)
        built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        built = built.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        return cls(key, _signed(built.add_extension(usage, critical=True), key))

    def issue(self, *domains: str, begins: datetime = NOW - timedelta(hours=1), days: float = 10) -> tuple[str, str]:
        """Return a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        built = _builder("The house", domains[0] if domains else "nobody", key, begins, days)
        if domains:
            names = x509.SubjectAlternativeName([x509.DNSName(domain) for domain in domains])
            built = built.add_extension(names, critical=False)
        parent = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return _signed(built.add_extension(parent, critical=False), self.key), pem_of(key)


def _builder(issuer: str, name: str, key: ec.EllipticCurvePrivateKey, begins: datetime, days: float) -> x509.CertificateBuilder:
    return x509.CertificateBuilder(
        issuer_name=_name(issuer), subject_name=_name(name), public_key=key.public_key(), serial_number=x509.random_serial_number(),
        not_valid_before=begins, not_valid_after=begins + timedelta(days=days),
    )  # fmt: skip


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _signed(built: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> str:
    return built.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
