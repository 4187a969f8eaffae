"""How a password is stored and checked, and the file of those that people chose.

A generated secret of 138 random bits is never guessed: chasquid checks it by itself, in
microseconds. One that a person chose is guessed at, so a check of it is made to cost memory
(scrypt, RFC 7914), and is made by the auth service alone (entrypoint/services/auth.py), which
bounds how much of that there is at once. To chasquid such a login is one that never logs in.

The file (/run/tambo/auth/passwords.json, rendered with chasquid's own) holds those logins:

    {"logins": {"i@example.com": {"scrypt": [12, 8, 4, "c2FsdA==", "a2V5…"]},
                "j@example.com": {"plain": "…"}}}

Names are as chasquid says them: lower case, the domain as U-labels (RFC 5890); bytes are base64.
It is for the auth service's user and nobody else: hashes of chosen passwords can be guessed at.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

# A generated secret has 138 random bits: no work factor makes guessing it harder, and a cheap one
# lets a client that logs in for every message send four times as many.
GENERATED_LOG_N = 1
# 4 MiB and about 35 ms a check: as long as chasquid's own (logN 14, p 1), at a quarter of the
# memory.
CHOSEN_LOG_N = 12
CHOSEN_P = 4
UNIT = 128 * 8 << CHOSEN_LOG_N  # bytes of one check of such a password
MAX_MEMORY = 64 << 20  # bytes that one check may cost


@dataclass(frozen=True)
class Scrypt:
    """A password's hash. `matches` is constant-time in the hash."""

    log_n: int
    r: int
    p: int
    salt: bytes = field(repr=False)
    key: bytes = field(repr=False)

    @classmethod
    def of(cls, password: str, log_n: int, p: int = 1) -> Scrypt:
        blank = cls(log_n=log_n, r=8, p=p, salt=secrets.token_bytes(16), key=bytes(32))
        return replace(blank, key=blank._derive(password.encode()))

    @classmethod
    def chosen(cls, password: str) -> Scrypt:
        """Of a password that a person chose."""
        return cls.of(password, CHOSEN_LOG_N, CHOSEN_P)

    @property
    def memory(self) -> int:
        """Bytes that a check costs."""
        return 128 * self.r * (1 << self.log_n)

    def _derive(self, password: bytes) -> bytes:
        return hashlib.scrypt(
            password, salt=self.salt, n=1 << self.log_n, r=self.r, p=self.p,
            dklen=len(self.key), maxmem=2 * MAX_MEMORY,
        )  # fmt: skip

    def matches(self, password: str | bytes) -> bool:
        raw = password.encode() if isinstance(password, str) else password
        return hmac.compare_digest(self._derive(raw), self.key)


@dataclass(frozen=True)
class Plain:
    """A password in clear, as chasquid allows for tests. Read, kept, never written by tambo."""

    password: bytes = field(repr=False)

    @property
    def memory(self) -> int:
        return 0

    def matches(self, password: str | bytes) -> bool:
        raw = password.encode() if isinstance(password, str) else password
        return hmac.compare_digest(raw, self.password)


@dataclass(frozen=True)
class Denied:
    """The address exists and receives, but never logs in."""

    def matches(self, _password: str | bytes) -> bool:
        return False


Secret = Scrypt | Plain | Denied
Chosen = Scrypt | Plain


def is_chosen(secret: Secret) -> bool:
    """Whether a person may have chosen it: all but what tambo generates."""
    if isinstance(secret, Scrypt):
        return secret.log_n > GENERATED_LOG_N
    return isinstance(secret, Plain)


def is_outdated(secret: Secret) -> bool:
    """Whether a check costs more memory than one of today's, or the password is stored in clear."""
    return isinstance(secret, Plain) or (isinstance(secret, Scrypt) and secret.memory > UNIT)


def fingerprint(login: str, secret: Secret) -> str:
    """Another one for every change of a login's secret. It tells nothing of the password to who has
    not the hash: that has a random salt. One in clear has none, so it is made as dear to guess."""
    match secret:
        case Scrypt(salt=salt, key=key):
            stored = b"scrypt" + salt + key
        case Plain(password):
            stored = b"plain" + _stretched(login, password)
        case Denied():
            stored = b"denied"
    return hashlib.sha256(b"tambo fingerprint of a login\0" + stored).hexdigest()[:24]


@functools.lru_cache(maxsize=64)
def _stretched(login: str, password: bytes) -> bytes:
    salt = hashlib.sha256(login.encode()).digest()
    return hashlib.scrypt(password, salt=salt, n=1 << CHOSEN_LOG_N, r=8, p=CHOSEN_P, dklen=32)


def dump(logins: Mapping[str, Chosen]) -> str:
    """The file's text, sorted by name; `load(dump(logins)) == logins`."""

    def stored(secret: Chosen) -> dict[str, object]:
        if isinstance(secret, Plain):
            return {"plain": _text(secret.password)}
        numbers = (secret.log_n, secret.r, secret.p)
        return {"scrypt": [*numbers, _text(secret.salt), _text(secret.key)]}

    content = {"logins": {name: stored(logins[name]) for name in sorted(logins)}}
    return json.dumps(content, indent=1) + "\n"


def load(text: str) -> dict[str, Chosen]:
    """Raises ValueError, KeyError or TypeError for what `dump` did not make."""
    found: dict[str, Chosen] = {}
    for name, item in json.loads(text)["logins"].items():
        if "plain" in item:
            found[name] = Plain(_bytes(item["plain"]))
        else:
            log_n, r, p, salt, key = item["scrypt"]
            found[name] = Scrypt(int(log_n), int(r), int(p), _bytes(salt), _bytes(key))
    return found


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
