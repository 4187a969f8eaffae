"""A certificate authority of the tests' own: certificates of any age, for any name."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)
_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False,
    key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False,
    decipher_only=False,
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain, and its key: PEM."""

    chain: str
    key: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the leaf, hexadecimal."""
        return fingerprint(self.chain)


def fingerprint(chain: str) -> str:
    """SHA-256 of the first certificate of a PEM text, hexadecimal."""
    return x509.load_pem_x509_certificate(chain.encode()).fingerprint(hashes.SHA256()).hex()


class Authority:
    """`pem` is its root."""

    def __init__(self, name: str = "Root of the tests", *, strict: bool = False) -> None:
        """`strict`: with all that RFC 5280 asks of a root, and that Python checks since 3.13."""
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._public = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .public_key(self._key.public_key())
            .not_valid_before(now - 400 * DAY)
            .not_valid_after(now + 400 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
            .add_extension(self._public, False)
        )
        if strict:
            builder = builder.add_extension(_SIGNS_CERTIFICATES, True)
        self.pem = _pem(self._sign(builder))

    def issue(
        self,
        *names: str,
        addresses: Sequence[str] = (),
        lifetime: timedelta = 90 * DAY,
        left: timedelta | None = None,
    ) -> Pair:
        """A certificate that lives for `lifetime`, of which `left` is left (default: all)."""
        key = ec.generate_private_key(ec.SECP256R1())
        end = datetime.now(UTC) + (lifetime if left is None else left)
        alternatives = [
            *(x509.DNSName(name) for name in names),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
        ]
        leaf = self._sign(
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .public_key(key.public_key())
            .not_valid_before(end - lifetime)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(alternatives), True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._public), False
            )
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Pair(_pem(leaf) + self.pem, private.decode())

    def _sign(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        serial = x509.random_serial_number()
        return (
            builder.issuer_name(self._name).serial_number(serial).sign(self._key, hashes.SHA256())
        )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
