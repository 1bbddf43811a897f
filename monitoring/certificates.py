"""Certificates with which the servers of one environment know each other: a CA made anew, its key kept nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID = timedelta(days=825)
RENEW = timedelta(days=365)  # of what is left: any `monitoring.up` in the last year renews


@dataclass(frozen=True)
class Identity:
    """What one server shows and whom it believes, as PEM."""

    ca: str
    certificate: str
    key: str


def issue(addresses: Sequence[str], now: datetime) -> Mapping[str, Identity]:
    """Return an identity for each private address, all of one new CA whose key ends with this call."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tidegate monitoring")])
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    ca = _builder(name, name, ca_key.public_key(), now).add_extension(constraints, critical=True).sign(ca_key, hashes.SHA256())
    return {address: _identity(address, ca, ca_key, now) for address in addresses}


def is_good(certificate: str, ca: str, address: str, now: datetime) -> bool:
    """Return whether a certificate is of this CA and this address, and valid for long; what is none of them is not."""
    try:
        shown, authority = (x509.load_pem_x509_certificate(text.encode()) for text in (certificate, ca))
        shown.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return shown.not_valid_after_utc - now > RENEW and ip_address(address) in names.get_values_for_type(x509.IPAddress)


def _identity(address: str, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey, now: datetime) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address)])
    uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = (
        _builder(name, ca.subject, key.public_key(), now)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .add_extension(uses, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return Identity(_pem(ca), _pem(certificate), secret)


def _builder(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # of a server whose clock is behind
        .not_valid_after(now + VALID)
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
