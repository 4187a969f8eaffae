"""SPF as a receiver evaluates it (RFC 7208), by pyspf, with our own look-ups."""

from __future__ import annotations

import re
from contextvars import ContextVar
from typing import Any

import spf

from entrypoint.dns.authoritative import Absent, Ask, Unknown, one

_ask: ContextVar[Ask] = ContextVar("ask")
_RESULTS = ("pass", "fail", "softfail", "neutral", "none", "permerror", "temperror")
# What pyspf puts before its reasons; the result says as much.
_PREFIX = re.compile(r"^SPF (Permanent|Temporary) Error: (DNS )?")


def evaluate(address: str, domain: str, ask: Ask) -> tuple[str, str]:
    """(result, reason) for mail from postmaster@`domain` that comes from `address`."""
    token = _ask.set(ask)
    try:
        result, reason = spf.check2(i=address, s=f"postmaster@{domain}", h=domain)
    finally:
        _ask.reset(token)
    return (result if result in _RESULTS else "permerror"), _PREFIX.sub("", reason)


def _look_up(
    name: str, kind: str, _tcp: bool = True, _timeout: float = 30
) -> list[tuple[tuple[str, str], Any]]:
    """pyspf's one way to DNS."""
    answer = one(_ask.get()(name, kind))
    if isinstance(answer, Unknown):
        msg = f"DNS {answer.reason}"
        raise spf.TempError(msg)
    if isinstance(answer, Absent):
        return []
    return [((name, kind), _value(kind, text)) for text in answer.values]


def _value(kind: str, text: str) -> Any:
    if kind == "TXT":
        return (text.encode(),)
    if kind == "MX":
        preference, _, host = text.partition(" ")
        return (int(preference) if preference.isdecimal() else 0), host.removesuffix(".")
    return text.removesuffix(".")


# The library has one resolver for the whole process; a context variable makes it each caller's.
spf.DNSLookup = _look_up
