"""The header section of a message (RFC 5322 2.2), as far as the sender rule needs it.

Two readers of one header may see two senders in it, and then the one who checks and the one who
shows disagree. So this takes the strict grammar (RFC 5322 3.4, with UTF-8 by RFC 6532), adds what
mail programs really write, and raises HeaderError for everything else: nothing is guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import idna

from entrypoint.common.errors import shown
from entrypoint.common.names import Domain

MAX_HEADER = 256 * 1024  # bytes of a header section that is looked at
MAX_LINE = 998  # octets of a line, without its end (RFC 5322 2.1.1)
MAX_VALUE = 16 * 1024  # bytes of From and Sender: reading more could take somebody's second
_MAX_MAILBOXES = 50

_NAME = re.compile(rb"[!-9;-~]+")
_LINE_ENDS = bytes.maketrans(b"\r", b"\n")
_NOT_NAME = bytes(set(range(256)) - set(range(0x21, 0x7F)))
_ATEXT = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~"
)
_SPECIAL = frozenset("<>@,:;.")
_ENCODED = re.compile(r"=\?[^?\s]+\?[bBqQ]\?[^?\s]*\?=")  # RFC 2047 section 2
_ADDRESS = re.compile(r"@\s*([^\s@<>()\[\]\",;:\\]+)")


class HeaderError(ValueError):
    """What is wrong with the header section, as a clause with its subject."""


@dataclass(frozen=True)
class Field:
    """A header field: its name in lower case, and its value, unfolded."""

    name: str
    value: bytes


@dataclass(frozen=True)
class Mailbox:
    """An address as a header names it: the local part unquoted, the domain as A-labels."""

    local: str
    domain: Domain

    def __str__(self) -> str:
        return f"{self.local}@{self.domain}"


def end_of(raw: bytes | bytearray, start: int = 0) -> int:
    """Where the header section ends: behind the line end before the empty line; -1 if not yet.

    Lines end in LF alone, as chasquid gives them to its hooks.
    """
    if raw.startswith(b"\n"):
        return 0
    found = raw.find(b"\n\n", start)
    return found + 1 if found >= 0 else -1


def strict(section: bytes) -> tuple[Field, ...]:
    """The fields of a header section that has nothing doubtful in it. Raises HeaderError."""
    found: list[tuple[str, list[bytes]]] = []
    for line in section.removesuffix(b"\n").split(b"\n"):
        # Named by how it begins: chasquid's own lines come first, so a number would mislead.
        where = f"the header line {shown(line[:24].decode(errors='replace'))}"
        if len(line) > MAX_LINE:
            msg = f"{where} is longer than {MAX_LINE} octets"
            raise HeaderError(msg)
        if b"\0" in line:
            msg = f"{where} has a NUL"
            raise HeaderError(msg)
        if b"\r" in line:
            msg = f"{where} has a bare CR"
            raise HeaderError(msg)
        if line[:1] in (b" ", b"\t"):
            if not found or not line.strip(b" \t"):
                msg = f"{where} continues nothing, or with nothing"
                raise HeaderError(msg)
            found[-1][1].append(line)
            continue
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            msg = f"{where} does not begin with the name of a field and a colon"
            raise HeaderError(msg)
        found.append((name.decode("ascii").lower(), [value]))
    return tuple(Field(name, b"".join(parts)) for name, parts in found)


def lenient(section: bytes, names: Collection[str] = ()) -> tuple[Field, ...]:
    """The fields that any reader might see, or those of these names: for what must not be missed.
    Never raises."""
    # Unfolded first: some readers take a name that is folded before its colon.
    lines = re.sub(rb"\n(?=[ \t])", b"", section.translate(_LINE_ENDS, b"\0")).split(b"\n")
    if lines[0][:1] in (b" ", b"\t"):
        del lines[0]  # it continues nothing
    wanted = frozenset(map(str.encode, names))
    found = []
    for line in lines:
        name, colon, value = line.partition(b":")
        # Whatever stands for a space to somebody: RFC 5322 4.5 has them before the colon.
        plain = name.translate(None, _NOT_NAME).lower()
        if colon and (not wanted or plain in wanted):
            found.append(Field(plain.decode("ascii"), value))
    return tuple(found)


def mailboxes(value: bytes) -> tuple[Mailbox, ...]:
    """The mailboxes of From (RFC 5322 3.6.2, a mailbox-list). Raises HeaderError."""
    if len(value) > MAX_VALUE:
        msg = f"it is longer than {MAX_VALUE // 1024} KiB"
        raise HeaderError(msg)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        msg = "it is not UTF-8"
        raise HeaderError(msg) from None
    tokens = list(_tokens(text))
    if not tokens:
        msg = "it is empty"
        raise HeaderError(msg)
    found = [_mailbox(part) for part in _split(tokens)]
    if len(found) > _MAX_MAILBOXES:
        msg = f"it has more than {_MAX_MAILBOXES} addresses"
        raise HeaderError(msg)
    return tuple(found)


def domains_named(value: bytes) -> frozenset[Domain]:
    """Every domain that stands behind an @ in a value that has no one meaning. Never raises."""
    text = re.sub(r"[\x00-\x20\x7f-\xa0\u00ad\u200b-\u200f\u2060\ufeff]+", " ",
                  value.decode(errors="replace"))  # fmt: skip
    found = set()
    for match in _ADDRESS.finditer(text):
        try:
            found.add(Domain.parse(match[1].strip(".'`")))
        except ValueError:
            continue
    return frozenset(found)


def domain(text: str) -> Domain:
    """A domain as A-labels. Raises ValueError for what IDNA 2008 does not take as it stands.

    Unlike Domain.parse this maps nothing but case: to another reader the unmapped form is another
    domain.
    """
    name = text.lower()
    if not name.isascii():
        if unicodedata.normalize("NFC", name) != name:
            msg = f"{shown(text)} is not in its composed form (NFC)"
            raise ValueError(msg)
        try:
            name = idna.encode(name).decode("ascii")
        except idna.IDNAError:
            msg = f"{shown(text)} is not a valid internationalized domain name"
            raise ValueError(msg) from None
    if name.endswith("."):
        msg = f"{shown(text)} ends in a dot"
        raise ValueError(msg)
    return Domain.parse(name)


@dataclass(frozen=True)
class _Token:
    """`kind` is a special character, `atom` or `quoted`; `spaced`: white space or a comment came
    before it."""

    kind: str
    text: str
    spaced: bool


def _tokens(text: str) -> Iterator[_Token]:
    """Raises HeaderError for a character that has no place here."""
    index, spaced = 0, False
    while index < len(text):
        char = text[index]
        if char in " \t":
            spaced, index = True, index + 1
        elif char == "(":
            spaced, index = True, _comment_end(text, index)
        elif char == '"':
            content, index = _quoted(text, index + 1)
            yield _Token("quoted", content, spaced)
            spaced = False
        elif char in _SPECIAL:
            yield _Token(char, char, spaced)
            spaced, index = False, index + 1
        elif _is_atext(char):
            end = index
            while end < len(text) and _is_atext(text[end]):
                end += 1
            yield _Token("atom", text[index:end], spaced)
            spaced, index = False, end
        else:
            msg = f"{shown(char)} has no place in it"
            raise HeaderError(msg)


def _is_atext(char: str) -> bool:
    return char in _ATEXT or (char > "\x7f" and _is_visible(char))


def _is_visible(char: str) -> bool:
    """Whether a character beyond ASCII is one that shows: no space of any kind, no control, no
    mark of direction (Unicode categories Z and C)."""
    return unicodedata.category(char)[0] not in "ZC"


def _is_text(char: str) -> bool:
    """What a quoted string or a comment may hold: a no-break space too, as French names have."""
    return char in "\t\u00a0\u202f" or " " <= char <= "~" or (char > "\x7f" and _is_visible(char))


def _comment_end(text: str, start: int) -> int:
    """The index behind a comment (RFC 5322 3.2.2), which may hold others."""
    depth, index = 0, start
    while index < len(text):
        char = text[index]
        if char == "\\":
            index += 1
            if index >= len(text) or not _is_text(text[index]):
                break
        elif not _is_text(char):
            msg = f"{shown(char)} has no place in a comment"
            raise HeaderError(msg)
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                return index + 1
        index += 1
    msg = "a comment in it does not end"
    raise HeaderError(msg)


def _quoted(text: str, index: int) -> tuple[str, int]:
    """A quoted string's content (RFC 5322 3.2.4), and the index behind it."""
    content: list[str] = []
    while index < len(text):
        char = text[index]
        if char == '"':
            return "".join(content), index + 1
        if char == "\\":
            index += 1
            char = text[index : index + 1]
        if not char or not _is_text(char):
            break
        content.append(char)
        index += 1
    else:
        msg = "a quoted string in it does not end"
        raise HeaderError(msg)
    msg = f"{shown(text[index : index + 1])} has no place in a quoted string"
    raise HeaderError(msg)


def _split(tokens: Sequence[_Token]) -> Iterator[Sequence[_Token]]:
    start = 0
    for index, token in enumerate((*tokens, _Token(",", ",", spaced=False))):
        if token.kind == ",":
            if index == start:
                msg = "it has an empty place in its list of addresses"
                raise HeaderError(msg)
            yield tokens[start:index]
            start = index + 1


def _mailbox(tokens: Sequence[_Token]) -> Mailbox:
    kinds = [token.kind for token in tokens]
    if ":" in kinds or ";" in kinds:
        msg = "it has a group, or a colon or semicolon that is not quoted"
        raise HeaderError(msg)
    if "<" not in kinds and ">" not in kinds:
        return _address(tokens)
    opened = kinds.index("<") if "<" in kinds else -1
    if opened < 0 or kinds.count("<") != 1 or kinds.count(">") != 1 or kinds[-1] != ">":
        msg = "it has angle brackets that do not enclose one address at the end"
        raise HeaderError(msg)
    if "@" in kinds[:opened]:
        msg = "it has an @ before the angle bracket, outside quotes"
        raise HeaderError(msg)
    _check_phrase(tokens[:opened], tokens[opened])
    if tokens[-1].spaced or (len(tokens) > opened + 1 and tokens[opened + 1].spaced):
        msg = "it has white space or a comment within the angle brackets"
        raise HeaderError(msg)
    return _address(tokens[opened + 1 : -1])


def _check_phrase(tokens: Sequence[_Token], after: _Token) -> None:
    """A display name (RFC 5322 3.2.5), also with dots that follow a word: `John Q. Public <…>` is
    obsolete (4.1), yet everywhere. Raises HeaderError."""
    words: list[str] = []
    for index, token in enumerate(tokens):
        if token.kind == ".":
            following = tokens[index + 1] if index + 1 < len(tokens) else after
            if (
                index == 0
                or tokens[index - 1].kind != "atom"
                or token.spaced
                or (following is after and not after.spaced)
            ):
                msg = "it has a dot in a display name that follows no word"
                raise HeaderError(msg)
        if token.kind == "quoted":
            words.append("")
        elif token.spaced or not words:
            words.append(token.text)
        else:
            words[-1] += token.text
    for word in words:
        if ("=?" in word or "?=" in word) and not _ENCODED.fullmatch(word):
            msg = f"it has {shown(word)}, which is no encoded word (RFC 2047)"
            raise HeaderError(msg)


def _address(tokens: Sequence[_Token]) -> Mailbox:
    """An addr-spec (RFC 5322 3.4.1) without white space or comments within."""
    kinds = [token.kind for token in tokens]
    if kinds.count("@") != 1:
        msg = "it has no address" if "@" not in kinds else "it has an address with more than one @"
        raise HeaderError(msg)
    if any(token.spaced for token in tokens[1:]):
        msg = "it has white space or a comment within an address"
        raise HeaderError(msg)
    at = kinds.index("@")
    left, right = tokens[:at], tokens[at + 1 :]
    local = _unquoted(left[0].text) if [item.kind for item in left] == ["quoted"] else _dotted(left)
    name = _dotted(right)
    if any(mark in text for text in (local, name) for mark in ("=?", "?=")):
        msg = "it has an encoded word in the place of an address"
        raise HeaderError(msg)
    try:
        return Mailbox(local.lower(), domain(name))
    except ValueError as error:
        msg = f"it has an address whose domain is none: {error}"
        raise HeaderError(msg) from None


def _dotted(tokens: Sequence[_Token]) -> str:
    """A dot-atom's text."""
    wanted = [("atom", ".")[index % 2] for index in range(len(tokens))]
    if len(tokens) % 2 == 0 or [token.kind for token in tokens] != wanted:
        msg = "it has an address that is not name@domain"
        raise HeaderError(msg)
    return "".join(token.text for token in tokens)


def _unquoted(local: str) -> str:
    """A quoted local part (RFC 5321 4.1.2) that need not be quoted: no other is understood alike
    everywhere."""
    if not re.fullmatch(r"[^.]+(\.[^.]+)*", local) or not all(
        map(_is_atext, local.replace(".", ""))
    ):
        msg = f"it has an address with the name {shown(local)}"
        raise HeaderError(msg)
    return local
