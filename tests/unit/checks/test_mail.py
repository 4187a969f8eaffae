"""The queue."""

from __future__ import annotations

from typing import Any

import pytest

from entrypoint.checks import mail
from entrypoint.control import UnreachableError
from entrypoint.findings import Level
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
    assert scene.only(mail.check, Level.INFO).seen == "empty"


def test_messages_that_wait_a_little_are_news_with_the_last_answer(scene: Scene) -> None:
    waiting(scene, 3)
    assert scene.ids(mail.check) == []
    depth, destination = scene.found(mail.check)
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
    [_, found] = scene.found(mail.check)
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


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-5, "0 s"), (45, "45 s"), (119, "119 s"), (720, "12 min"), (7200, "2 h"), (260_000, "3 d")],
)
def test_ages(seconds: float, expected: str) -> None:
    assert mail.age(seconds) == expected
