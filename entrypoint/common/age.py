"""age: encryption to a public key (age-encryption.org/v1, X25519). In memory, without a file."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyrage
from pyrage import x25519

_RECIPIENT = re.compile(r"age1[a-z0-9]{58}")
_IDENTITY = re.compile(r"AGE-SECRET-KEY-1[A-Z0-9]{58}")
HEADER = b"age-encryption.org/v1\n"


def check_recipient(text: str) -> str:
    """A public key, lower case. Raises ValueError."""
    word = text.strip().lower()
    if word.startswith("age-secret-key-"):
        msg = "is a private half; the recipient is the public half, which begins with age1"
        raise ValueError(msg)
    try:
        if not _RECIPIENT.fullmatch(word):
            raise ValueError
        x25519.Recipient.from_str(word)
    except (ValueError, pyrage.RecipientError):
        msg = (
            f"{word[:80]!a} is not an age recipient (age1 and 58 characters); "
            "backup --new-key makes one"
        )
        raise ValueError(msg) from None
    return word


def new_identity() -> tuple[str, str]:
    """A new pair: the private half, the public half."""
    identity = x25519.Identity.generate()
    return str(identity), str(identity.to_public())


def identities(text: str) -> tuple[str, ...]:
    """The private halves in a text, as age-keygen writes it. Raises ValueError; never shows it."""
    found = tuple(dict.fromkeys(_IDENTITY.findall(text.upper())))
    usable = [item for item in found if _usable(item)]
    if not usable:
        msg = "holds no private half: that is a line of AGE-SECRET-KEY-1 and 58 characters"
        raise ValueError(msg)
    return tuple(usable)


def _usable(identity: str) -> bool:
    try:
        x25519.Identity.from_str(identity)
    except pyrage.IdentityError:
        return False
    return True


def recipient_of(identity: str) -> str:
    """The public half of a private one."""
    return str(x25519.Identity.from_str(identity).to_public())


def encrypt(plain: bytes, recipients: Sequence[str]) -> bytes:
    """Never the same twice. Each recipient alone can decrypt it."""
    content: bytes = pyrage.encrypt(plain, [x25519.Recipient.from_str(item) for item in recipients])
    return content


def decrypt(cipher: bytes, identities: Sequence[str]) -> bytes:
    """Raises ValueError if it is damaged, or encrypted to somebody else."""
    try:
        plain: bytes = pyrage.decrypt(cipher, [x25519.Identity.from_str(i) for i in identities])
    except pyrage.DecryptError as error:
        raise ValueError(str(error) or "cannot be decrypted") from None
    return plain
