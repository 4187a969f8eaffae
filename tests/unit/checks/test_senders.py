"""Who may send as whom, and what the policy service has to say."""

from __future__ import annotations

from entrypoint.chasquid.userdb import Denied, Scrypt
from entrypoint.checks import senders
from entrypoint.common.findings import Level
from entrypoint.common.rpc import UnreachableError
from entrypoint.policy.grants import parse
from tests.unit.checks.kit import Scene

SECRET = Scrypt(1, 8, 1, b"salt", bytes(32))


def test_a_healthy_server(scene: Scene) -> None:
    scene.with_domain(
        users={"i": SECRET, "j+phone": SECRET},
        senders=parse("i may-send=*@example.com\nj limit=none\nj+phone limit=5/h"),
    )
    [one] = scene.found(senders.check)
    assert (one.id, one.level) == ("policy", Level.INFO)


def test_lines_for_nobody_and_for_what_is_not_served(scene: Scene) -> None:
    scene.with_domain(
        users={"i": SECRET, "abuse": Denied()},
        senders=parse("i may-send=x@example.net,y@example.com\nabuse limit=1/h\nk limit=1/h"),
    )
    found = [
        (item.id, item.subject) for item in scene.found(senders.check) if item.level is Level.WARN
    ]
    assert found == [
        ("senders-nobody", "abuse@example.com"),
        ("senders-elsewhere", "i@example.com x@example.net"),
        ("senders-nobody", "k@example.com"),
    ]


def test_a_silent_service_fails(scene: Scene) -> None:
    scene.box.policy = UnreachableError("timed out")
    found = scene.only(senders.check)
    assert (found.id, found.level, found.seen) == ("policy-down", Level.FAIL, "timed out")


def test_alarms_fail_and_notes_warn(scene: Scene) -> None:
    scene.box.policy = {"alarms": ["i@example.com is paused: why."], "notes": ["j@ does it."]}
    assert [(item.id, item.level, item.message) for item in scene.found(senders.check)] == [
        ("policy-alarm", Level.FAIL, "i@example.com is paused: why."),
        ("policy-note", Level.WARN, "j@ does it."),
    ]
