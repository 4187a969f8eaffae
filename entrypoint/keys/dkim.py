"""DKIM keys (RFC 6376, RFC 8463): make, load, prove.

A key is a PKCS #8 file `dkim:<selector>.pem`, as chasquid wants it. Its public half is never
stored: it is derived, so that what is published cannot differ from what signs.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from entrypoint.common.names import Domain, Selector
from entrypoint.dns.policies import DkimRecord

_FILE = re.compile(r"dkim:(?P<selector>.+)\.pem")


class Algorithm(Enum):
    """How a key signs; the value is the word used in DKIM_KEYS."""

    RSA = "rsa2048"
    ED25519 = "ed25519"

    @property
    def letter(self) -> str:
        """What follows the prefix in a selector made here."""
        return {Algorithm.RSA: "r", Algorithm.ED25519: "e"}[self]


@dataclass(frozen=True)
class DkimKey:
    """A private key as PKCS #8 PEM, and `public`: the octets of the p= tag before base64."""

    selector: Selector
    algorithm: Algorithm
    pem: bytes = field(repr=False)
    public: bytes = field(repr=False)

    @property
    def record(self) -> DkimRecord:
        tag = {Algorithm.RSA: "rsa", Algorithm.ED25519: "ed25519"}[self.algorithm]
        return DkimRecord(key_type=tag, public=base64.b64encode(self.public).decode())

    @property
    def file_name(self) -> str:
        return file_name(self.selector)


def file_name(selector: Selector) -> str:
    """The file's name in a domain's folder, by the selector: two keys must not share one."""
    return f"dkim:{selector}.pem"


def selector_of(name: str) -> Selector | None:
    """The selector in a file's name; None if it is no key's name. Raises ValueError if bad."""
    match = _FILE.fullmatch(name)
    if not match:
        return None
    selector = Selector.parse(match["selector"])
    if selector != match["selector"]:  # else it would be two keys, of the file and of its copy
        msg = f"a selector is written in lower case: {selector}"
        raise ValueError(msg)
    return selector


def make(algorithm: Algorithm) -> bytes:
    """A new private key as PKCS #8 PEM, unencrypted."""
    key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if algorithm is Algorithm.RSA:
        # 2048: a longer key's TXT value is mangled by many DNS consoles.
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load(selector: Selector, pem: bytes) -> DkimKey:
    """Raises ValueError for what chasquid would not start with."""
    if b"-----BEGIN PRIVATE KEY-----" not in pem:
        msg = "not an unencrypted PKCS #8 private key (BEGIN PRIVATE KEY)"
        raise ValueError(msg)
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        msg = "the private key is damaged"
        raise ValueError(msg) from None
    # Written anew: what else stands in the file, chasquid may take for the key.
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    match key:
        case rsa.RSAPrivateKey():
            if key.key_size < 1024:
                msg = f"an RSA key of {key.key_size} bits; receivers want 1024 or more (RFC 8301)"
                raise ValueError(msg)
            public = key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            return DkimKey(selector, Algorithm.RSA, pem, public)
        case ed25519.Ed25519PrivateKey():
            public = key.public_key().public_bytes(
                serialization.Encoding.Raw, serialization.PublicFormat.Raw
            )
            return DkimKey(selector, Algorithm.ED25519, pem, public)
    msg = f"a {type(key).__name__}; DKIM knows RSA and Ed25519"
    raise ValueError(msg)


def prove(domain: Domain, key: DkimKey) -> None:
    """Sign a message and verify it against the record that will be published.

    Raises ValueError if an independent verifier (dkimpy) does not accept the pair.
    """
    record = str(key.record)
    if not verifies(signed(domain, key), lambda _name: record):
        msg = f"the new {key.algorithm.value} key does not verify against its own record"
        raise ValueError(msg)


def signed(domain: Domain, key: DkimKey) -> bytes:
    """A message of a line, with the key's signature."""
    import dkim as dkimpy  # 0.1 s, and few need it

    message = f"From: <postmaster@{domain}>\r\nSubject: proof\r\n\r\nproof\r\n".encode()
    private = key.pem
    if key.algorithm is Algorithm.ED25519:
        loaded = serialization.load_pem_private_key(key.pem, password=None)
        assert isinstance(loaded, ed25519.Ed25519PrivateKey)  # noqa: S101 (load saw to it)
        private = base64.b64encode(loaded.private_bytes_raw())
    name = {Algorithm.RSA: b"rsa-sha256", Algorithm.ED25519: b"ed25519-sha256"}[key.algorithm]
    header: bytes = dkimpy.sign(
        message, key.selector.encode(), domain.encode(), private, signature_algorithm=name
    )
    return header + message


def verifies(message: bytes, txt: Callable[[str], str | None]) -> bool:
    """Whether an independent verifier (dkimpy) accepts a signature; `txt` looks records up."""
    import dkim as dkimpy

    def look_up(name: bytes, **_: object) -> bytes | None:
        found = txt(name.decode().removesuffix("."))
        return None if found is None else found.encode()

    return bool(dkimpy.verify(message, dnsfunc=look_up))
