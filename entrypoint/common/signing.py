"""The key pair that a backup is signed with: Ed25519 (RFC 8032), as text.

`tambo-sign-…` is the signing key, a secret of the server (BACKUP_SIGNING_KEY); `tambo-verify-…` the
verification key, which its owner keeps beside the age identity. Both are 32 octets and the first
three of their SHA-256, in base32 (RFC 4648, lower case): 56 characters, and a slip of the pen is
told from another key. A verification key that is mistyped must never pass for one that is not
there: a restore would then ask where it has to refuse.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

_SIGN, _VERIFY = "tambo-sign-", "tambo-verify-"
_CHECKSUM = 3  # octets
_KEY = 32  # octets


def new_key() -> str:
    """A new signing key."""
    return _text(_SIGN, Ed25519PrivateKey.generate().private_bytes_raw())


def check_signing_key(text: str) -> str:
    """Lower case. Raises ValueError, which never shows it."""
    word = text.strip().lower()
    if word.startswith(_VERIFY):
        msg = (
            "is the verification key, which stays beside the age identity; the signing key begins "
            f"with {_SIGN}"
        )
        raise ValueError(msg)
    try:
        _octets(_SIGN, word)
    except ValueError:
        msg = f"is not a signing key ({_SIGN} and 56 characters); backup --new-key makes one"
        raise ValueError(msg) from None
    return word


def verification_key(signing_key: str) -> str:
    """The public half of a signing key."""
    return _text(_VERIFY, _private(signing_key).public_key().public_bytes_raw())


def verification_keys(text: str) -> tuple[str, ...]:
    """The verification keys in a text, such as the file of the age identity.

    Raises ValueError if there is one that is mistyped, and for a signing key.
    """
    words = text.lower()
    if _SIGN in words:
        msg = (
            f"holds a signing key ({_SIGN}…), which is the server's alone: what goes here is the "
            f"verification key ({_VERIFY}…)"
        )
        raise ValueError(msg)
    found = re.findall(rf"{_VERIFY}\S*", words)
    for word in found:
        try:
            Ed25519PublicKey.from_public_bytes(_octets(_VERIFY, word))
        except ValueError:
            msg = f"holds a verification key ({_VERIFY} and 56 characters) that is mistyped"
            raise ValueError(msg) from None
    return tuple(dict.fromkeys(found))


def sign(signing_key: str, content: bytes) -> str:
    """The signature, in base64."""
    return base64.b64encode(_private(signing_key).sign(content)).decode()


def verifies(key: str, signature: str, content: bytes) -> bool:
    """Whether `signature` is that of the verification key's owner; False for what is none."""
    try:
        raw = base64.b64decode(signature, validate=True)
        Ed25519PublicKey.from_public_bytes(_octets(_VERIFY, key)).verify(raw, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _private(signing_key: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(_octets(_SIGN, signing_key))


def _text(prefix: str, key: bytes) -> str:
    return prefix + base64.b32encode(key + _checksum(prefix, key)).decode().lower()


def _octets(prefix: str, word: str) -> bytes:
    """Raises ValueError if the word is none of ours, or mistyped."""
    try:
        raw = base64.b32decode(word.removeprefix(prefix).upper())
    except binascii.Error:
        raw = b""
    key = raw[:_KEY]
    if _text(prefix, key) != word or len(key) != _KEY:
        raise ValueError
    return key


def _checksum(prefix: str, key: bytes) -> bytes:
    return hashlib.sha256(prefix.encode() + key).digest()[:_CHECKSUM]
