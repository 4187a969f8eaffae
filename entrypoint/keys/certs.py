"""Certificates: load a pair, make a self-signed one."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from entrypoint.common.names import Domain

SELF_SIGNED = "self-signed"  # a folder of certs/; not a domain, so it meets none
CHAIN, KEY = "fullchain.pem", "privkey.pem"
_SELF_SIGNED_DAYS = 3650


@dataclass(frozen=True)
class Certificate:
    """A chain and its private key, both PEM, known to belong together."""

    names: tuple[str, ...]
    issuer: str
    not_before: datetime
    not_after: datetime
    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the leaf, hexadecimal."""
        return x509.load_pem_x509_certificate(self.chain).fingerprint(hashes.SHA256()).hex()

    @property
    def lifetime(self) -> timedelta:
        return self.not_after - self.not_before

    @property
    def host(self) -> str:
        """A server name for which it is the one to serve."""
        return min(self.names, key=lambda name: name[0] == "*").replace("*", "host", 1)

    def covers(self, name: Domain) -> bool:
        return name in self.names or f"*.{name.parent}" in self.names


def load(chain: bytes, key: bytes) -> Certificate:
    """Raises ValueError for what chasquid would not start with."""
    try:
        leaf = x509.load_pem_x509_certificates(chain)[0]
        private = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        msg = "not a PEM certificate chain with its unencrypted PEM key"
        raise ValueError(msg) from None
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        msg = "the private key does not belong to the certificate"
        raise ValueError(msg)
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = tuple(extension.value.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        names = ()
    if not names:
        msg = "the certificate names no host (no DNS name in subjectAltName)"
        raise ValueError(msg)
    # Some authorities leave the common name out, Pebble all of it.
    issuer = leaf.issuer.rfc4514_string() or "unnamed"
    return Certificate(
        names, issuer, leaf.not_valid_before_utc, leaf.not_valid_after_utc, chain, key
    )


def ari_identifier(certificate: Certificate) -> str | None:
    """How a certificate is named to the authority's renewal information (RFC 9773 4.1)."""
    leaf = x509.load_pem_x509_certificate(certificate.chain)
    try:
        extension = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    if not extension.value.key_identifier:
        return None
    # The serial number as DER has it: with a leading zero octet if its first bit is set.
    serial = leaf.serial_number.to_bytes(leaf.serial_number.bit_length() // 8 + 1)
    parts = (extension.value.key_identifier, serial)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def self_signed(names: Sequence[Domain]) -> Certificate:
    """A certificate that encrypts and proves nothing. The first name is the subject."""
    key = ec.generate_private_key(ec.SECP256R1())
    # X.520 gives a common name at most 64 characters; clients look at subjectAltName.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))  # a client's clock may be behind
        .not_valid_after(now + timedelta(days=_SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(item) for item in names]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        .sign(key, hashes.SHA256())
    )
    return load(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
