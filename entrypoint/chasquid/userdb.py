"""chasquid's users file: who may log in, and with what.

Reading and writing are text to text; the volume is State's and apply's business. How a password is
stored and checked: passwords.py.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from entrypoint.chasquid import textproto
from entrypoint.chasquid.passwords import CHOSEN_LOG_N as CHOSEN_LOG_N
from entrypoint.chasquid.passwords import GENERATED_LOG_N as GENERATED_LOG_N
from entrypoint.chasquid.passwords import MAX_MEMORY
from entrypoint.chasquid.passwords import Denied as Denied
from entrypoint.chasquid.passwords import Plain as Plain
from entrypoint.chasquid.passwords import Scrypt as Scrypt
from entrypoint.chasquid.passwords import Secret as Secret
from entrypoint.common.errors import shown

MIN_PASSWORD = 8  # characters (NIST SP 800-63B 5.1.1.2)
MAX_PASSWORD = 512  # bytes; an AUTH line may have 1000 octets of base64 (chasquid)

# Without i, l, o, 0, 1: it is sometimes read aloud or typed.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"

Users = Mapping[str, Secret]

# Between a user and the purpose of one of several credentials: `i+newsletter`. chasquid cuts there
# (suffix_separators): to mail such a name is the user's.
SEPARATOR = "+"


def owner(name: str) -> str:
    """The user to whom a credential belongs."""
    return name.partition(SEPARATOR)[0]


def purpose(name: str) -> str:
    """What a credential is for; empty for the user's own."""
    return name.partition(SEPARATOR)[2]


def owners(users: Users) -> tuple[str, ...]:
    """The users, each once, also those who have nothing but credentials with a purpose."""
    return tuple(dict.fromkeys(owner(name) for name in users))


def parse(text: str) -> dict[str, Secret]:
    """Users by local part. Raises ValueError for what chasquid could not, or must not, serve.

    Its text has the line and the reason. An empty file is an error: it is what a full disk or a
    crashed editor leaves.
    """
    if not text.strip():
        msg = "the file is empty; if it shall hold nobody, write a comment into it, such as # none"
        raise ValueError(msg)
    users: dict[str, Secret] = {}
    entries = textproto.parse(text, textproto.UserDatabase).users
    for number, entry in enumerate(entries):
        try:
            _check_name(entry.key)
            if entry.key in users:
                msg = f"user {shown(entry.key)} stands twice"
                raise ValueError(msg)
            users[entry.key] = _secret(entry.key, entry.value)
        except ValueError as error:
            # Only now: to look for it takes as long as to parse the file.
            msg = f"line {textproto.entry_lines(text)[number]}: {error}"
            raise ValueError(msg) from None
    return users


def _check_name(name: str) -> None:
    if not name or name != name.lower() or any(char.isspace() or char == "@" for char in name):
        msg = f"user {shown(name)}: a name here is lower case, without spaces or @domain"
        raise ValueError(msg)
    # A user's name may become that of an alias, where chasquid reads these as something else.
    if name[0] in "*#+" or any(char in ":," or not char.isprintable() for char in name):
        msg = f"user {shown(name)}: a name has no *, # or + first, and no colon, comma or control"
        raise ValueError(msg)


def _secret(name: str, value: Any) -> Secret:
    scheme = value.WhichOneof("scheme")
    if scheme == "scrypt":
        scrypt = value.scrypt
        # Out of these bounds chasquid ends at the first log-in, or one log-in takes all memory.
        if not (
            1 <= scrypt.logN <= 20
            and 1 <= scrypt.r <= 32
            and 1 <= scrypt.p <= 16
            and scrypt.logN < 16 * scrypt.r  # RFC 7914 section 2
            and 128 * scrypt.r * (1 << scrypt.logN) <= MAX_MEMORY
            and scrypt.keyLen == len(scrypt.encrypted)
            and 16 <= scrypt.keyLen <= 64
            and scrypt.salt
        ):
            msg = f"user {shown(name)}: scrypt parameters out of range; set the password again"
            raise ValueError(msg)
        return Scrypt(scrypt.logN, scrypt.r, scrypt.p, scrypt.salt, scrypt.encrypted)
    if scheme == "plain":
        return Plain(value.plain.password)
    if scheme == "denied":
        return Denied()
    msg = f"user {shown(name)} has no password entry"
    raise ValueError(msg)


def render(users: Users) -> str:
    """The file's text, sorted by name; `parse(render(users)) == users`."""
    database: Any = textproto.UserDatabase()
    for name in sorted(users):
        entry = database.users.add(key=name)
        match users[name]:
            case Scrypt(log_n, r, p, salt, key):
                value = entry.value.scrypt
                value.logN, value.r, value.p, value.keyLen = log_n, r, p, len(key)
                value.salt, value.encrypted = salt, key
            case Plain(password):
                entry.value.plain.password = password
            case Denied():
                entry.value.denied.SetInParent()
    return textproto.dump(database)


def generate() -> str:
    """A new secret: 28 letters and digits in groups of seven, 138 bits."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(7)) for _ in range(4))


def check_chosen(password: str) -> None:
    """Raises ValueError if a password that a person chose cannot be used."""
    if not password:
        msg = "the password is empty"
        raise ValueError(msg)
    if len(password) < MIN_PASSWORD:
        msg = f"the password has {len(password)} characters; at least {MIN_PASSWORD} are needed"
        raise ValueError(msg)
    if len(password.encode()) > MAX_PASSWORD:
        msg = f"the password has more than {MAX_PASSWORD} bytes, which mail programs cannot send"
        raise ValueError(msg)
    if any(ord(char) < 32 or ord(char) == 127 for char in password):
        msg = "the password holds a control character, which AUTH PLAIN cannot carry safely"
        raise ValueError(msg)
