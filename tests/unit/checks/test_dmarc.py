"""DMARC reports of the last week."""

from __future__ import annotations

from typing import Any

import pytest

from entrypoint.chasquid.aliases import Mailbox
from entrypoint.checks import dmarc
from entrypoint.common.findings import Level
from entrypoint.common.names import Domain
from entrypoint.common.rpc import UnreachableError
from tests.unit.checks.kit import REPORTS, V4, Scene
from tests.unit.kit import asked


def source(address: str, passed: int, failed: int) -> dict[str, Any]:
    return {"domain": "example.com", "address": address, "passed": passed, "failed": failed}


def test_reports_that_are_fine_are_summed_up(scene: Scene) -> None:
    assert scene.ids(dmarc.check) == []
    found = scene.only(dmarc.check, Level.INFO)
    assert found.seen == "2 from big, large; 40 messages, 0 failed"
    assert scene.box.commands[0] == "reports rua@example.com example.com"


def test_no_reports_are_no_trouble(scene: Scene) -> None:
    scene.box.holder["reports"] = {
        **REPORTS, "messages": 0, "reports": 0, "reporters": [], "sources": [], "passed": 0,
    }  # fmt: skip
    assert scene.only(dmarc.check, Level.INFO).seen == "none; 0 messages, 0 failed"


@pytest.mark.parametrize(
    "answer",
    [UnreachableError("Connection refused"), {"error": "not in time"}, {}, {"sources": [1]}],
)
def test_reports_that_cannot_be_read_are_unknown(scene: Scene, answer: Any) -> None:
    scene.box.holder["reports"] = answer
    found = scene.only(dmarc.check)
    assert (found.id, found.level) == ("reports-unknown", Level.UNKNOWN)


def test_own_mail_that_fails(scene: Scene) -> None:
    scene.box.holder["reports"] = {**REPORTS, "sources": [source(str(V4), 38, 2)], "failed": 2}
    found = scene.only(dmarc.check)
    assert (found.id, found.level, found.seen) == (
        "reports-own-fail", Level.WARN, "2 of 40 failed",
    )  # fmt: skip


def test_other_sources_that_fail_are_news(scene: Scene) -> None:
    others = [source(f"198.51.100.{number}", 0, 9 - number) for number in range(1, 9)]
    scene.box.holder["reports"] = {**REPORTS, "sources": others, "failed": 36}
    assert scene.ids(dmarc.check) == []
    [found] = [item for item in scene.found(dmarc.check) if item.id == "reports-others-fail"]
    assert found.seen.startswith("198.51.100.1 as example.com: 8 of 8 failed; 198.51.100.2 as")
    assert found.seen.endswith("; and 3 more")


def test_mail_that_was_no_report(scene: Scene) -> None:
    scene.box.holder["reports"] = {**REPORTS, "unreadable": 3}
    assert scene.ids(dmarc.check, Level.INFO) == ["reports", "reports-unread"]


@pytest.mark.parametrize("rua", ["reports@provider.example", "none"])
def test_reports_that_go_elsewhere(scene: Scene, rua: str) -> None:
    scene.settings = asked(DMARC_RUA=rua)
    assert scene.ids(dmarc.check, Level.INFO) == ["reports-elsewhere"]
    assert scene.box.commands == []


def test_reports_that_are_forwarded(scene: Scene) -> None:
    target = Mailbox("me", Domain("example.net"))
    scene.with_domain(aliases={"rua": (target,)})
    assert scene.ids(dmarc.check, Level.INFO) == ["reports-elsewhere"]


def test_reports_of_domains_that_receive_elsewhere_come_to_the_host(scene: Scene) -> None:
    scene.settings = asked(MAIL_DOMAINS="example.com,example.org", MAIL_RECEIVE="example.com")
    scene.found(dmarc.check)
    assert scene.box.commands == [
        "reports rua@example.com rua@smtp.example.com example.com example.org"
    ]
