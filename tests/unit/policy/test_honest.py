"""Honest mail is taken, given what chasquid finds out about it."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from entrypoint.dns.dmarc import Answer, Policies
from entrypoint.policy import decide, header
from entrypoint.policy.decide import Envelope, Rules
from entrypoint.policy.routes import Route
from entrypoint.services.vouching import Vouching
from tests.support import honest
from tests.support.honest import Honest

RULES = Rules(
    "smtp.example.com", frozenset({"example.com"}), {},
    routes={"example.com": Route({"*": True, "i": True})},
)  # fmt: skip


async def ask(name: str, _kind: str) -> Answer:
    text = honest.RECORDS.get(name.removeprefix("_dmarc."), "")
    found = [line.split('"')[1] for line in text.splitlines() if line.startswith("_dmarc")]
    return Answer(tuple(found), exists=bool(text))


@pytest.mark.parametrize("case", honest.cases(), ids=lambda case: case.name)
def test_honest_mail_is_taken(case: Honest) -> None:
    signer = case.sign or ("example.com" if case.echo else "")
    result = "fail" if case.add else "pass" if signer else "none"
    top = f"Authentication-Results: h\r\n\t;spf={'pass' if case.spf else 'none'} (x)"
    top += f"\r\n\t;dkim={result}" + (f"  header.b=AAAA  header.d={signer}" if signer else "")
    section = f"{top}\n".encode() + case.message[: header.end_of(case.message)]
    envelope = Envelope(
        sender=case.sender, recipients=("i@example.com",), remote="192.0.2.1:25", spf=case.spf
    )
    assert str(decide.decide(RULES, envelope, section))[:3] == "250"
    assert asyncio.run(Vouching(Policies(ask)).refusal(RULES, envelope, section)) is None


def test_there_are_kinds_enough() -> None:
    found = honest.cases()
    assert len(found) >= 40
    assert Counter(case.sender == "<>" for case in found)[True] >= 5
    assert sum(case.family == 6 for case in found) >= 1
    assert sum("encoded-name" in case.name for case in found) >= 8
