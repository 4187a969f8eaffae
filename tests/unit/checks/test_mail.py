"""The queue."""

from __future__ import annotations

from typing import Any

import pytest

from entrypoint.checks import mail
from entrypoint.common.findings import Level
from entrypoint.common.rpc import UnreachableError
from entrypoint.history.client import Query
from tests.unit.checks.kit import NOW, QUEUE, Scene
from tests.unit.kit import asked


def waiting(scene: Scene, depth: int, age: float = 60, answer: str = "451 later") -> None:
    created = NOW.timestamp() - age
    destination = {"domain": "big.example", "waiting": depth, "oldest": created, "answer": answer}
    scene.box.holder["queue"] = {
        **QUEUE, "depth": depth, "looked_at": depth, "oldest": created,
        "destinations": [destination],
    }  # fmt: skip


def test_an_empty_queue(scene: Scene) -> None:
    assert scene.ids(mail.check) == []
    queue, deferrals = scene.found(mail.check)
    assert (queue.seen, deferrals.seen) == ("empty", "no attempt")


def test_messages_that_wait_a_little_are_news_with_the_last_answer(scene: Scene) -> None:
    waiting(scene, 3)
    assert scene.ids(mail.check) == []
    depth, destination, _ = scene.found(mail.check)
    assert depth.seen == "3 of 2000, the oldest 60 s old"
    assert destination.message == "3 messages wait for big.example for 60 s."
    assert (destination.subject, destination.seen) == ("big.example", "451 later")


def test_messages_that_wait_for_long(scene: Scene) -> None:
    waiting(scene, 1, age=7 * 3600, answer="")
    found = scene.only(mail.check)
    assert (found.id, found.level) == ("queue-waiting", Level.WARN)
    assert found.message == "1 message waits for big.example for 7 h."
    assert found.seen == "no answer yet"


def test_what_waits_for_better_tls_has_a_verb_of_its_own(scene: Scene) -> None:
    waiting(scene, 3, answer="last error: security level check failed: connection is PLAIN")
    found = scene.only(mail.check)
    assert (found.id, found.level) == ("queue-waiting", Level.WARN)
    assert found.fix.endswith("\ndocker exec mail forget-domain big.example")
    waiting(scene, 3)
    found = next(item for item in scene.found(mail.check) if item.id == "queue-waiting")
    assert found.fix.endswith("\ndocker exec mail list-queue --to big.example")


def test_the_largest_are_shown_and_those_with_a_verb(scene: Scene) -> None:
    waiting(scene, 3)
    [first] = scene.box.holder["queue"]["destinations"]
    answers = {8: "security level check failed: connection is PLAIN"}
    scene.box.holder["queue"]["destinations"] = [
        {**first, "domain": f"big{number}.example", "answer": answers.get(number, "451")}
        for number in range(10)
    ]
    found = [item.subject for item in scene.found(mail.check) if item.id == "queue-waiting"]
    assert found == [f"big{number}.example" for number in (0, 1, 2, 3, 4, 8)]


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(9, []), (10, [("queue-long", Level.WARN)]), (19, [("queue-long", Level.WARN)]),
     (20, [("queue-full", Level.FAIL)]), (21, [("queue-full", Level.FAIL)])],
)  # fmt: skip
def test_depth(scene: Scene, depth: int, expected: list[tuple[str, Level]]) -> None:
    scene.settings = asked(MAX_QUEUE="20")
    waiting(scene, depth)
    found = [item for item in scene.found(mail.check) if item.level is not Level.INFO]
    assert [(item.id, item.level) for item in found] == expected


def test_damaged_files(scene: Scene) -> None:
    scene.box.holder["queue"] = {**QUEUE, "depth": 3, "looked_at": 2, "damaged": 1}
    found = scene.only(mail.check)
    assert (found.id, found.seen) == ("queue-damaged", "1 of 2")


@pytest.mark.parametrize(
    "answer", [UnreachableError("Connection refused"), {"error": "not in time"}, {}]
)
def test_a_queue_that_cannot_be_read_is_unknown(scene: Scene, answer: Any) -> None:
    scene.box.holder["queue"] = answer
    found = scene.only(mail.check)
    assert (found.id, found.level) == ("queue-unknown", Level.UNKNOWN)


def took(scene: Scene, **totals: tuple[int, int, int]) -> None:
    rows = [
        {"destination": name.replace("_", "."), "sent": one, "deferred": two, "bounced": three}
        for name, (one, two, three) in totals.items()
    ]
    scene.box.holder["events"] = {"totals": rows, "deliveries": {}}


def test_few_deferrals_are_news(scene: Scene) -> None:
    took(scene, a_example=(9, 1, 0), b_example=(5, 0, 1))
    assert scene.ids(mail.check) == []
    [found] = [item for item in scene.found(mail.check) if item.id == "deferrals"]
    assert found.message == "6% of the attempts of the last day were deferred."
    assert found.seen == "14 sent, 1 deferred, 1 bounced; most by a.example: 1"


def test_many_deferrals(scene: Scene) -> None:
    took(scene, a_example=(4, 6, 0))
    found = scene.only(mail.check)
    assert (found.id, found.level) == ("deferrals-many", Level.WARN)
    took(scene, a_example=(0, 9, 0))
    assert scene.ids(mail.check) == [], "too few to say"


def test_when_a_large_provider_took_mail_last(scene: Scene) -> None:
    took(scene, big_example=(2, 1, 0))
    deliveries = {
        "big.example": NOW.timestamp() - 7200,
        "large.example": NOW.timestamp() - 8 * 86400,
    }
    scene.box.holder["events"]["deliveries"] = deliveries
    assert scene.ids(mail.check) == []
    found = {item.subject: item.seen for item in scene.found(mail.check) if item.id == "provider"}
    assert found == {
        "big.example": "last delivery 2 h ago", "large.example": "last delivery 8 d ago"
    }  # fmt: skip


def test_a_large_provider_that_takes_nothing_any_more(scene: Scene) -> None:
    took(scene, big_example=(0, 3, 1), other_example=(20, 0, 0))
    found = scene.only(mail.check)
    assert (found.id, found.subject) == ("provider-takes-nothing", "big.example")
    assert found.seen == "3 deferred, 1 bounced in the last day; no delivery in the last 30 days"


def test_one_question_for_each_period(scene: Scene) -> None:
    mail.check(scene.context())
    asked_for = [Query.parse(item.split()[1]) for item in scene.box.commands if "events" in item]
    now = NOW.timestamp()
    assert [(item.what, now - item.since) for item in asked_for] == [
        ("totals", 86400.0), ("deliveries", 30 * 86400.0)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [UnreachableError("Connection refused"), {"error": "not in time"}, {}, {"totals": [{}]},
     {"totals": [], "deliveries": {"x": None}}],
)  # fmt: skip
def test_a_history_that_cannot_be_read_is_unknown(scene: Scene, answer: Any) -> None:
    scene.box.holder["events"] = answer
    found = scene.only(mail.check)
    assert (found.id, found.level) == ("history-unknown", Level.UNKNOWN)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "0 s"), (45, "45 s"), (119, "119 s"), (720, "12 min"), (7200, "2 h"), (260_000, "3 d")],
)
def test_ages(seconds: float, expected: str) -> None:
    assert mail.age(seconds) == expected
