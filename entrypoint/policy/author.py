"""Which domain a message says it is from, as any reader may see it: the Author Domain of DMARC.

DMARC (RFC 9989) compares the domain in From with those that SPF and DKIM vouch for. Mail that is
forwarded leaves with an envelope sender of ours, so SPF vouches for us then, whatever From says.
Therefore a stranger's From must not be readable as ours by anybody: not by the strict grammar
(RFC 5322 3.6.2), not by a program that decodes encoded words (RFC 2047) before it looks for
addresses, drops white space, comments and quotes, or takes the first of two From headers.

`read` says what the strict grammar finds, or why it finds nothing certain. `named` looks for a
domain in whatever a field holds, in every form that a lenient program may turn into that domain;
it may find too much, never too little. All take time in proportion to the field's length. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from base64 import b64decode
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from encodings.aliases import aliases as _codec_aliases
from functools import lru_cache

import idna

from entrypoint.common.names import Domain
from entrypoint.policy import header
from entrypoint.policy.header import Field, HeaderError

FIELDS = ("from", "sender")  # what `read` looks at
MAX_DOUBTFUL = 4096  # bytes of a From without one meaning, which takes longer to look through
_MARK = "\0"  # stands for a run of what a reader may drop, or may take for an end
_BREAK = "\1"  # stands for what no domain reaches across
_ROUNDS = 3  # times that encoded words are decoded: some programs do it more than once
_DEPTH = 12  # levels of comments within comments
_WORD = re.compile(r"=\?([^?]*)\?([bBqQ])\?(.*?)\?=", re.DOTALL)
_PAIR = re.compile(r"\\.", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)(?:"|$)', re.DOTALL)
_COMMENT = re.compile(r"\([^)]*(?:\)|$)")  # as who knows none within another takes it
_INNERMOST = re.compile(r"\([^()]*\)")
# Nothing in these is read as an address, by any rule for quotes and comments that is in use.
_PLAIN_QUOTED = re.compile(r'"[^"\\()<>,;:\[\]]*"')
_PLAIN_COMMENT = re.compile(r"\([^()\"\\<>,;:\[\]]*\)")
# Decoders that are no charsets, or take time in proportion to the square of the length.
_NO_CHARSETS = frozenset(
    ("punycode", "idna", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem")
)
# Only these are looked up: Python remembers each unknown name that it was asked for, for ever.
_CHARSETS = frozenset({*_codec_aliases, *_codec_aliases.values()}) - _NO_CHARSETS


@dataclass(frozen=True)
class Author:
    """What From says. `domains` are those of its mailboxes; if it has not one meaning, they are
    none, and `doubt` says why, as a clause. `values` are the fields that were read: of From, and of
    Sender too where From has not one meaning."""

    domains: frozenset[Domain]
    values: tuple[bytes, ...]
    doubt: str = ""


def read(fields: Iterable[Field]) -> Author:
    """From among what `header.lenient` found, as strictly as in a submission. Never raises."""
    found: dict[str, list[bytes]] = {"from": [], "sender": []}
    for item in fields:
        if item.name in found:
            found[item.name].append(item.value)
    values = tuple(found["from"])
    everything = (*values, *found["sender"])
    if len(values) != 1:
        count = f"{len(values)} From headers" if values else "no From header"
        return Author(frozenset(), everything, f"it has {count}")
    try:
        mailboxes = header.mailboxes(values[0])
    except HeaderError as error:
        return Author(frozenset(), everything, f"From is unclear: {error}")
    return Author(frozenset(item.domain for item in mailboxes), values)


def named(values: Iterable[bytes], ours: frozenset[str]) -> str:
    """The domain of `ours` that somebody may read in these values, in whatever place; else empty.

    A name that only ends alike (`notexample.com`) or goes on (`example.com.example.net`) is
    another one.
    """
    # A reader may join two fields, or take either: a line end is a mark like any other.
    for text in _decoded(b"\n".join(values)):
        for reading in _without_comments(text):
            if reading is None:
                return min(ours)
            for skeleton in _skeletons(reading):
                for form, name in _forms(ours):
                    for _ in _matches(form, skeleton):
                        return name
    return ""


def shows_address(values: Iterable[bytes], ours: frozenset[str]) -> str:
    """The domain of `ours` that a program may find behind an @ in a From which has one meaning by
    the grammar, because it decodes before it parses, or knows quotes only roughly; else empty.

    A display name in plain quotes, and a plain comment, may have any address in it.
    """
    raw = b"\n".join(values)
    for text in _decoded(raw):
        rest = _less(_PLAIN_COMMENT, "()", _less(_PLAIN_QUOTED, '"', text))
        for reading in _without_comments(rest) if len(raw) <= MAX_DOUBTFUL else (rest,):
            if reading is None:
                return min(ours)
            for name in _behind_an_at(reading, ours):
                return name
    return ""


def _behind_an_at(text: str, ours: frozenset[str]) -> Iterator[str]:
    for skeleton in _skeletons(re.sub("[,>]+", _BREAK, text), keep=f"@{_BREAK}"):
        for form, name in _forms(ours):
            for start in _matches(form, skeleton):
                if skeleton.rfind("@", 0, start) > skeleton.rfind(_BREAK, 0, start):
                    yield name


def _less(pattern: re.Pattern[str], delimiters: str, text: str) -> str:
    """Without what matches; as it is, if it is doubtful where one begins and ends."""
    rest = pattern.sub(_MARK, text)
    doubtful = '""' in text or "\\" in text or any(char in rest for char in delimiters)
    return text if doubtful else rest


# What readers make of a text. Each step may only add: what is wrong for one reader is right for
# another.


def _decoded(raw: bytes) -> tuple[str, ...]:
    """The text as UTF-8 and as Latin-1, and with its encoded words decoded, up to three times."""
    found: dict[str, None] = {}
    for start in dict.fromkeys((raw.decode("utf-8", "replace"), raw.decode("latin-1"))):
        found[_folded(start)] = None
        for decode in (_as_declared, _as_declared_to_the_padding, _as_utf_8, _as_bytes):
            text = start
            for _ in range(_ROUNDS):
                if "=?" not in text:
                    break
                text = _WORD.sub(decode, text)
                found[_folded(text)] = None
    return tuple(found)


def _as_declared(word: re.Match[str]) -> str:
    """An encoded word's text in the charset that it names."""
    return _text(b"".join(_octets(word)), word[1])


def _as_declared_to_the_padding(word: re.Match[str]) -> str:
    """The same as those see it who begin anew behind each = of base64, or stop there."""
    return _MARK.join(_text(item, word[1]) for item in _octets(word, apart=True))


def _as_utf_8(word: re.Match[str]) -> str:
    return b"".join(_octets(word)).decode("utf-8", "replace")


def _as_bytes(word: re.Match[str]) -> str:
    return b"".join(_octets(word)).decode("latin-1")


def _text(octets: bytes, name: str) -> str:
    """RFC 2231 5 lets a language follow the charset's name."""
    charset = re.sub(r"[ .-]+", "_", name.partition("*")[0].strip().lower())
    if charset in _CHARSETS:
        with suppress(UnicodeError, LookupError, ValueError):
            return octets.decode(charset, "replace")
    return octets.decode("utf-8", "replace")


def _octets(word: re.Match[str], *, apart: bool = False) -> list[bytes]:
    """What an encoded word encodes, also a broken one."""
    text = word[3].encode("utf-8", "replace")
    if word[2] in "qQ":
        plain = re.sub(rb"=([0-9A-Fa-f]{2})", lambda match: bytes((int(match[1], 16),)), text)
        return [plain.replace(b"_", b" ")]
    found = []
    for piece in text.split(b"=") if apart else (text,):
        digits = re.sub(rb"[^A-Za-z0-9+/]", b"", piece)
        digits = digits[:-1] if len(digits) % 4 == 1 else digits
        found.append(b64decode(digits + b"=" * (-len(digits) % 4)))
    return found


def _folded(text: str) -> str:
    """NFKC_Casefold (UAX 31), with the full stops of IDNA 2003, and a mark for each run of
    characters that do not show: spaces, controls, format characters."""
    if not text.isascii():
        # Twice: what is not there any more may have kept two others from being composed.
        for _ in range(2):
            text = "".join(filter(_shows, text))
            text = unicodedata.normalize("NFKC", text).casefold()
        text = re.sub("[\u3002\uff0e\uff61]", ".", unicodedata.normalize("NFKC", text))
    return text.lower()


# Letters to Python that nobody sees (Default_Ignorable_Code_Point of category Lo).
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0")


def _shows(char: str) -> bool:
    return char <= "~" or (char not in _FILLERS and unicodedata.category(char) != "Cf")


def _without_comments(text: str) -> Iterator[str | None]:
    """The text as it is, and less its comments by each rule that somebody has for them. None if
    they are nested too deeply to be looked at."""
    yield text
    if "(" not in text:
        return
    unquoted = _QUOTED.sub(lambda match: re.sub(r"[()]", _MARK, match[1]), text)
    for start in dict.fromkeys(
        (text, unquoted, _PAIR.sub(_MARK, text), _PAIR.sub(_MARK, unquoted))
    ):
        yield _COMMENT.sub(_MARK, start)
        start, count = _INNERMOST.subn(_MARK, start)
        yield start
        for _ in range(_DEPTH):
            if not count:
                break
            start, count = _INNERMOST.subn(_MARK, start)
        else:
            yield None
        yield start


def _skeletons(text: str, keep: str = "") -> Iterator[str]:
    """Letters, digits, dots and hyphens, with a mark for each run of anything else; once more with
    only those of ASCII, for readers who drop what is not."""
    kept = re.escape(keep)
    skeleton = re.sub(rf"[^\w.\-{kept}]+|_+", _MARK, text)
    skeleton = re.sub(f"{_MARK}+", _MARK, skeleton)
    yield skeleton
    if not skeleton.isascii():
        plain = re.sub(rf"[^a-z0-9.\-{kept}]+", _MARK, skeleton)
        yield plain


@lru_cache(maxsize=8)
def _forms(ours: frozenset[str]) -> tuple[tuple[str, str], ...]:
    """Each domain as it may be written, folded, with its name: as A-labels and as U-labels."""
    found = {}
    for name in sorted(ours):
        found[name] = name
        with suppress(idna.IDNAError):
            found[_folded(idna.decode(name))] = name
    return tuple(found.items())


def _matches(form: str, skeleton: str) -> Iterator[int]:
    """Where a domain stands in a skeleton, with any marks within."""
    if form not in skeleton.replace(_MARK, ""):
        return iter(())
    return (match.start() for match in _pattern(form).finditer(skeleton))


@lru_cache(maxsize=1024)
def _pattern(form: str) -> re.Pattern[str]:
    letters = f"{_MARK}?".join(map(re.escape, form))
    return re.compile(rf"(?<![^\W_])(?<!-){letters}(?!-*[^\W_])(?!\.[^\W_])")
