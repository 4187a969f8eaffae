"""One form for every line in the container's log: text, or a JSON object; addresses shortened."""

from __future__ import annotations

import json
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

TEXT, JSON, SHORT = "text", "json", "short"  # the words of a style
# One write(2) of so many bytes reaches the log in one piece, whatever others write (pipe(7)).
_MAX_LINE = 4000
_as_json = False
_shorten = False
_source = ""


def configure(style: str = TEXT, source: str = "") -> None:
    """How this process logs: `text` or `json`, and perhaps `,short` for shortened addresses.

    With a `source`, what ends the process unexpectedly is logged in that form too.
    """
    global _as_json, _shorten, _source
    words = style.split(",")
    _as_json, _shorten, _source = JSON in words, SHORT in words, source
    if source and _as_json:

        def hook(
            kind: type[BaseException], error: BaseException, trace: TracebackType | None
        ) -> None:
            log(source, "error: " + "".join(traceback.format_exception(kind, error, trace)))

        sys.excepthook = hook


def is_json() -> bool:
    """Whether lines are JSON objects (LOG_FORMAT=json): set by `configure`, text before."""
    return _as_json


def is_short() -> bool:
    """Whether addresses are shortened (LOG_PRIVACY): set by `configure`."""
    return _shorten


def complain(text: str) -> None:
    """What ends a program: a line of the log, or for a verb, to standard error."""
    if _as_json:
        log(_source, text)
    else:
        print(shortened(text) if _shorten else text, file=sys.stderr, flush=True)


def log(
    source: str,
    text: str,
    *,
    at: float | None = None,
    fields: Mapping[str, Any] | None = None,
) -> None:
    """`time source text`, UTC (RFC 3339), one write: lines of several programs do not mix.

    `at` is in seconds since 1970; now, if it is not given. `fields` replace the text in JSON.
    """
    when = datetime.now(UTC) if at is None else datetime.fromtimestamp(at, UTC)
    stamp = when.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if _as_json:
        head = {"time": stamp, "source": source}
        if fields is not None:
            lines = [_object(head, dict(fields))]
        else:
            whole = _object(head, {"text": text}, cut=False)
            parts = [text] if len(whole) < _MAX_LINE else text.splitlines()
            lines = [_object(head, {"text": part}) for part in parts]
    else:
        lines = [
            _cut(f"{stamp} {source:<8} {shortened(line) if _shorten else line}\n")
            for line in text.splitlines() or [""]
        ]
    for chunk in _chunks(lines):
        _write(chunk)


def _object(head: Mapping[str, str], fields: dict[str, Any], *, cut: bool = True) -> bytes:
    """One line of JSON; the last fields of a too long one give way."""
    if _shorten:
        fields = {name: _shortened(value) for name, value in fields.items()}

    def render() -> bytes:
        return (
            json.dumps({**head, **fields}, ensure_ascii=False).encode(errors="backslashreplace")
            + b"\n"
        )

    line = render()
    while cut and len(line) > _MAX_LINE:
        name = max(fields, key=lambda name: len(json.dumps(fields[name], ensure_ascii=False)))
        value = fields[name]
        if isinstance(value, list):
            fields["more"] = fields.get("more", 0) + len(value) - len(value) // 2
            fields[name] = value[: len(value) // 2]
        else:
            fields[name] = f"{str(value)[: len(str(value)) // 2]}…"
        line = render()
    return line


def _shortened(value: Any) -> Any:
    if isinstance(value, str):
        return shortened(value)
    if isinstance(value, list | tuple):
        return [_shortened(item) for item in value]
    return value


def _cut(text: str) -> bytes:
    line = text.encode(errors="backslashreplace")
    if len(line) <= _MAX_LINE:
        return line
    return line[: _MAX_LINE - 10].decode(errors="ignore").encode() + "…\n".encode()


def _chunks(lines: list[bytes]) -> list[bytes]:
    """Whole lines together, as many as one write takes."""
    chunks = [b""]
    for line in lines:
        if len(chunks[-1]) + len(line) > _MAX_LINE:
            chunks.append(b"")
        chunks[-1] += line
    return chunks


def _write(chunk: bytes) -> None:
    sys.stdout.write(chunk.decode())
    sys.stdout.flush()


# What ends a local part in a sentence, a header or a list. An address begins after one of these,
# and is looked for nowhere else: that keeps the time in proportion to the length.
_END = r"""\s<>()\[\],;:"'|`@"""
_LOCAL = re.compile(rf"(?<![^{_END}])((?:(?:from|to|login)=)?[^{_END}])[^{_END}]*+@")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.){0,200}+"@')
_ENCODED = re.compile(rf"(?<![^{_END}/?&=])([^{_END}/?&=%])[^{_END}/?&=%]*+%40")
_MAILDIR = re.compile(r"""(data/mail/[^/\s]++/[^/\s])[^/\s'"]*+""")


def shortened(text: str) -> str:
    """Every e-mail address in a text as `i…@example.com`."""
    if "@" in text:
        text = _LOCAL.sub(r"\1…@", _QUOTED.sub('"…"@', text))
    if "%40" in text:
        text = _ENCODED.sub(r"\1…%40", text)
    if "data/mail/" in text:
        text = _MAILDIR.sub(r"\1…", text)
    return text
