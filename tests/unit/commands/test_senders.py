"""What a login may do: grants, limits, pauses, and what would be answered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from entrypoint.common import rpc
from entrypoint.common.limit import Limit
from entrypoint.common.rpc import UnreachableError
from entrypoint.policy import decide
from entrypoint.policy.decide import Rules
from tests.unit.commands.conftest import Server
from tests.unit.kit import put

ME, YOU = "i@example.com", "j@example.com"
MESSAGE = "From: {}\nDate: x\nMessage-ID: <x@example.com>\n\nText.\n"


@pytest.fixture
def mine(server: Server) -> Server:
    """With two users."""
    for user in (ME, YOU):
        assert server.run("add-user", user).status == 0
    return server


def rules(server: Server) -> Rules:
    """As the service is given them."""
    return decide.load(server.context.paths.policy_rules.read_text())


def senders(server: Server) -> Path:
    return server.context.paths.domains / "example.com/senders"


def test_a_grant_is_in_service_when_the_verb_returns(mine: Server) -> None:
    assert not rules(mine).may(ME, YOU)
    done = mine.run("allow-sender", ME, YOU, "*@example.org")
    assert (done.status, done.err) == (0, "")
    assert done.out == (f"{ME} may send as itself and its aliases, and as {YOU}, *@example.org.\n")
    assert rules(mine).may(ME, YOU)
    assert rules(mine).may(ME, "anybody@example.org")
    assert senders(mine).read_text() == f"i may-send={YOU},*@example.org\n"
    done = mine.run("allow-sender", ME, YOU, "*@example.org", "--remove")
    assert done.out == f"{ME} may send as itself and its aliases.\n"
    assert not rules(mine).may(ME, YOU)
    assert not senders(mine).exists()
    assert not (mine.context.paths.good / "example.com/senders").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("allow-sender", ME, "x@example.net"), 1, "example.net is not one of the domains served"),
        (("allow-sender", ME, "x*@example.com"), 2, "a whole name, or * alone"),
        (("allow-sender", ME), 2, "ADDRESS"),
        (("allow-sender", ME, YOU, "--remove"), 1, "no permission to send as j@example.com"),
        (("allow-sender", "k@example.com", YOU), 1, "k@example.com is no user"),
        (("allow-sender", "postmaster@example.com", YOU), 1, "is no user"),
        (("set-limit", ME, "500"), 2, "is not a limit"),
        (("set-limit", "k@example.com", "5/h"), 1, "is no user"),
        (("add-user", "k@example.com", "--may-send", "x@example.net"), 1, "not one of the domains"),
        (("pause-user", "k@example.com"), 1, "is no user"),
        (("pause-user", ME, "--why", "\n"), 2, "printable ASCII"),
        (("pause-user", ME, "--why", "x" * 201), 2, "printable ASCII"),
    ],
)
def test_what_is_wrong_changes_nothing(
    mine: Server, arguments: tuple[str, ...], status: int, words: str
) -> None:
    before = rules(mine)
    done = mine.run(*arguments)
    assert done.status == status
    assert words in done.err
    assert rules(mine) == before


def test_a_limit_is_set_and_taken_back(mine: Server) -> None:
    assert mine.run("set-limit", ME, "9/h").out == f"The limit of {ME} is 9/h.\n"
    assert (rules(mine).limit_of(ME), rules(mine).limit_of(YOU)) == (Limit(9), Limit(500, 5000))
    mine.run("set-limit", ME, "none")
    assert rules(mine).limit_of(ME) == Limit()
    done = mine.run("set-limit", ME, "default")
    assert done.out == f"The limit of {ME} is SEND_LIMIT: 500/h,5000/d.\n"
    assert rules(mine).limit_of(ME) == Limit(500, 5000)


def test_grant_and_limit_leave_each_other_alone(mine: Server) -> None:
    mine.run("allow-sender", ME, YOU)
    mine.run("set-limit", ME, "9/h")
    mine.run("allow-sender", ME, "*@example.org")
    mine.run("set-limit", YOU, "8/h")
    assert senders(mine).read_text() == (f"i may-send={YOU},*@example.org limit=9/h\nj limit=8/h\n")


def test_add_user_grants_and_remove_user_forgets(mine: Server) -> None:
    mine.run("set-limit", ME, "9/h")
    mine.run("add-user", "web@example.com", "--may-send", ME, "--may-send", "*@example.org")
    assert rules(mine).may("web@example.com", ME)
    mine.run("remove-user", "web@example.com")
    mine.run("add-user", "web@example.com")
    assert not rules(mine).may("web@example.com", ME)
    assert senders(mine).read_text() == "i limit=9/h\n"


def test_a_broken_file_is_not_written_over_and_its_good_copy_serves(mine: Server) -> None:
    mine.run("set-limit", ME, "9/h")
    put(senders(mine), "i limit=nonsense\n")
    for arguments in (("set-limit", YOU, "8/h"), ("allow-sender", ME, YOU)):
        done = mine.run(*arguments)
        assert done.status == 1
        assert "senders: line 1: 'nonsense' is not a limit" in done.err
    assert senders(mine).read_text() == "i limit=nonsense\n"
    assert rules(mine).limit_of(ME) == Limit(9)


# The service


class Door:
    """Stands where the service does: what it is asked, and what it says."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, dict[str, object]] = {}
        patch.setattr(rpc, "request", self._request)

    def _request(self, path: Path, command: str, timeout: float = 0) -> dict[str, object]:
        if path.name != "policy-control.sock":
            msg = "nobody there"
            raise UnreachableError(msg)
        assert 0 < timeout < 10
        self.asked.append(command)
        return self.answers[command.partition(" ")[0]]


@pytest.fixture
def door(mine: Server, monkeypatch: pytest.MonkeyPatch) -> Door:
    assert mine.users()
    return Door(monkeypatch)


def used(**more: object) -> dict[str, object]:
    return {
        "recipients": {"hour": 3, "day": 7}, "messages": {"hour": 2, "day": 5}, "limit": "500/h",
        "paused": None, "notes": [], **more,
    }  # fmt: skip


def test_the_list_says_what_is_allowed_sent_and_paused(mine: Server, door: Door) -> None:
    mine.run("allow-sender", ME, "*@example.org")
    pause = {"why": "a reason", "at": 1.0, "by": "tambo", "told": True}
    door.answers["status"] = {
        "logins": {ME: used(notes=["does something"]), YOU: used(paused=pause)}, "alarms": [],
    }  # fmt: skip
    done = mine.run("list-senders")
    assert done.status == 1
    assert done.out == (
        "i@example.com\n"
        "    may send as  *@example.org\n"
        "    sent         3 recipients (2 messages) in the last hour, 7 (5) in the last day\n"
        "    limit        500/h,5000/d\n"
        "    note         does something\n"
        "j@example.com\n"
        "    sent         3 recipients (2 messages) in the last hour, 7 (5) in the last day\n"
        "    limit        500/h,5000/d\n"
        "    PAUSED       a reason\n"
    )
    found = json.loads(mine.run("list-senders", "--json").out)
    assert found[ME]["may_send"] == [ME, "*@example.org"]
    assert found[YOU]["paused"]["why"] == "a reason"
    door.answers["status"] = {"logins": {YOU: used(paused={**pause, "by": "person"})}}
    assert mine.run("list-senders").status == 0, "by hand is no alarm"


def test_without_the_service_the_list_says_what_it_can(mine: Server) -> None:
    done = mine.run("list-senders")
    assert done.status == 0
    assert f"{ME}\n    limit        500/h,5000/d\n" in done.out
    assert done.err.startswith("note: The policy service does not answer")


def test_without_users_the_list_says_how_to_add_one(server: Server) -> None:
    assert "add-user i@example.com" in server.run("list-senders").err
    assert json.loads(server.run("list-senders", "--json").out) == {}


def test_pause_and_resume_are_passed_on(mine: Server, door: Door) -> None:
    door.answers = {"pause": {"done": True}, "resume": {"done": True, "was_paused": True}}
    assert "resume-user i@example.com" in mine.run("pause-user", ME, "--why", "it  was\tlost").out
    assert mine.run("resume-user", ME).out == f"{ME} may send again.\n"
    assert door.asked == [f"pause {ME} it was lost", f"resume {ME}"]
    door.answers["resume"] = {"done": True, "was_paused": False}
    assert mine.run("resume-user", ME).out == f"{ME} was not paused.\n"


def test_a_silent_service_is_worth_another_try(mine: Server) -> None:
    for verb in ("pause-user", "resume-user"):
        done = mine.run(verb, ME)
        assert done.status == 75
        assert "the policy service does not answer" in done.err


def explain(server: Server, message: str, *options: str) -> tuple[int, list[str]]:
    argv = ("explain-policy", "-", "--to", "you@example.net", *options)
    done = server.run(*argv, stdin=message.encode(errors="surrogateescape"))
    return done.status, done.out.splitlines()


LOGIN = ("--login", ME, "--from", ME)


def test_an_explanation_names_what_was_looked_at(mine: Server, door: Door) -> None:
    door.answers["room"] = {"answer": ""}
    assert explain(mine, MESSAGE.format(ME), *LOGIN) == (0, [
        f"250 2.0.0 {ME} may send this",
        f"  From: {ME}",
        f"  MAIL FROM: '{ME}'",
        f"  {ME} may send as {ME}",
        "  its limit is 500/h,5000/d",
    ])  # fmt: skip
    assert door.asked == [f"room {ME} 1"]
    status, lines = explain(mine, MESSAGE.format(YOU), *LOGIN)
    assert (status, lines[0]) == (1, f"554 5.7.1 {ME} may not send as {YOU} (From)")
    status, lines = explain(mine, MESSAGE.format("<i @example.com>"), *LOGIN)
    assert status == 1
    assert "'<i @example.com>' has no certain meaning" in lines[1]


def test_an_explanation_counts_limits_and_pauses_in(mine: Server, door: Door) -> None:
    door.answers["room"] = {"answer": "451 4.7.1 paused"}
    status, lines = explain(mine, MESSAGE.format(ME), *LOGIN)
    assert (status, lines[0]) == (75, "451 4.7.1 paused")
    argv = ("explain-policy", "-", "--to", "you@example.net", *LOGIN, "--json")
    found = json.loads(mine.run(*argv, stdin=MESSAGE.format(ME).encode()).out)
    assert found["answer"] == "451 4.7.1 paused"
    assert found["because"][0] == f"From: {ME}"


def test_an_explanation_without_the_service_says_so(mine: Server) -> None:
    status, lines = explain(mine, MESSAGE.format(ME), *LOGIN)
    assert status == 0
    assert lines[-1].startswith("  The policy service does not answer")


def test_an_explanation_of_incoming_mail(mine: Server) -> None:
    status, lines = explain(mine, MESSAGE.format(ME), "--from", ME)
    assert status == 1
    assert lines[0].startswith("554 5.7.1 From names example.com")
    assert lines[-1] == "  DKIM, as chasquid found it: no signature"
    assert explain(mine, MESSAGE.format(ME), "--from", ME, "--spf-pass")[0] == 0
    assert explain(mine, MESSAGE.format("x@outside.example"))[0] == 0


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (MESSAGE.format(ME).replace("\n", "\r\n"), "250 "),
        (MESSAGE.format(ME).replace("x\n", "x\rX: y\n"), "a bare CR: chasquid ends the connection"),
        (MESSAGE.format(ME) + "\0", "554 5.6.0 the message has a NUL in its body"),
        ("From: i@example.com", "554 5.6.0 no Date"),
        (MESSAGE.format(ME).replace("Message-ID", "X-Other"), "250 "),
    ],
)
def test_line_ends_are_chasquid_s_matter(mine: Server, message: str, words: str) -> None:
    _, lines = explain(mine, message, *LOGIN)
    assert words in lines[0]
    assert ("sends messages without Message-ID" in lines[-1]) is ("X-Other" in message)
