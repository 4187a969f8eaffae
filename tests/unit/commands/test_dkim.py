"""rotate-dkim; what a rotation does is tested in tests/unit/test_rotation.py."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from entrypoint.commands import dkim
from entrypoint.common import locks
from entrypoint.common.errors import Exit, UserError
from entrypoint.dns.authoritative import Absent, Answer, Answers, Found, Unknown
from entrypoint.keys.dkim import Algorithm
from entrypoint.renewal.dkim import begin, pending_records
from entrypoint.state import load
from tests.unit.commands.conftest import Server
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, key_pem, put

SLOW = Unknown("the name server ns1.example.net (198.51.100.53): no answer in time")
Say = Callable[[Callable[[str], Answer]], None]


@pytest.fixture
def dns_says(server: Server) -> Say:
    """Sets what the authoritative servers say of a name's TXT."""

    def says(answer: Callable[[str], Answer]) -> None:
        def ask(name: str, kind: str) -> Answers:
            assert kind == "TXT"
            return {"ns1.example.net": answer(name)}

        server.patch.setattr(dkim, "Authoritative", lambda: ask)

    says(lambda _: Absent())
    return says


def right(server: Server) -> Callable[[str], Answer]:
    """A zone that has the records of all keys that there are now or later."""

    def answer(name: str) -> Answer:
        current = load.load(server.context.paths)
        for domain in (EXAMPLE_COM, EXAMPLE_ORG):
            for record in pending_records(current, domain):
                if record.name == name:
                    return Found((record.value or "",))
        return Absent()

    return answer


def selectors(server: Server) -> tuple[list[str], list[str], list[str]]:
    have = load.load(server.context.paths).domain(EXAMPLE_COM)
    return (
        [key.selector for key in have.keys],
        [key.selector for key in have.pending],
        [key.selector for key, _ in have.retired],
    )


@pytest.mark.usefixtures("dns_says")
def test_it_begins_and_says_what_to_enter(server: Server) -> None:
    done = server.run("rotate-dkim", "example.com")
    assert (done.status, done.err) == (0, "")
    assert selectors(server) == (["t1e"], ["t12e"], [])
    [record] = pending_records(load.load(server.context.paths), EXAMPLE_COM)
    assert done.out == (
        "example.com\n"
        "  signing   t1e\n"
        "  pending   t12e: its record is not in DNS yet\n"
        "\n"
        "Enter these records, or: docker exec mail publish-dns --apply\n"
        "When every name server shows them, the new keys take over by themselves.\n"
        "\n"
        "DNS of example.com\n"
        "==================\n"
        "\n"
        f"TXT   t12e._domainkey{'TTL 3600':>59}\n"
        f"      {record.value}\n"
        "      DKIM: the next public key.\n\n"
    )


@pytest.mark.usefixtures("dns_says")
def test_again_is_the_same(server: Server) -> None:
    assert server.run("rotate-dkim", "example.com") == server.run("rotate-dkim", "example.com")


@pytest.mark.usefixtures("dns_says")
def test_every_domain_if_none_is_named(server: Server) -> None:
    done = server.run("rotate-dkim")
    assert [line for line in done.out.splitlines() if line in ("example.com", "example.org")] == [
        "example.com", "example.org",
    ]  # fmt: skip
    assert load.load(server.context.paths).domain(EXAMPLE_ORG).pending


@pytest.mark.usefixtures("dns_says")
def test_a_domain_of_somebody_else(server: Server) -> None:
    done = server.run("rotate-dkim", "example.com", "other.example")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "error: other.example: not one of the domains served here (example.com, example.org)\n"
    )
    assert selectors(server) == (["t1e"], [], [])


def test_status_changes_nothing(server: Server, dns_says: Say) -> None:
    dns_says(right(server))
    done = server.run("rotate-dkim", "--status", "example.com")
    assert (done.status, done.out) == (0, "example.com\n  signing   t1e\n")
    assert selectors(server) == (["t1e"], [], [])
    begin(server.context.settings, server.context.paths, server.context.ids, EXAMPLE_COM)
    done = server.run("rotate-dkim", "--status", "example.com")
    assert "  pending   t12e: every name server shows its record\n" in done.out
    assert "Enter these records" not in done.out, "nothing is left to enter"
    assert selectors(server) == (["t1e"], ["t12e"], [])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Absent(), "its record is not in DNS yet"),
        (SLOW, f"whether its record is in DNS is not known ({SLOW.reason})"),
        (
            Found(("v=DKIM1; k=ed25519; p=",)),
            "its record in DNS is not right (the key is empty, which means: revoked)",
        ),
    ],
)
def test_status_says_how_far_it_is(
    server: Server, dns_says: Say, answer: Answer, words: str
) -> None:
    dns_says(lambda _: answer)
    server.run("rotate-dkim", "example.com")
    done = server.run("rotate-dkim", "--status", "example.com")
    assert f"  pending   t12e: {words}\n" in done.out
    assert "publish-dns --apply" in done.out


def test_what_dns_shows_takes_over_at_once(server: Server, dns_says: Say) -> None:
    dns_says(right(server))
    done = server.run("rotate-dkim", "example.com")
    assert selectors(server) == (["t12e"], [], ["t1e"])
    assert done.err == (
        "example.com: every name server shows the new DKIM key; from now on mail is signed with "
        "t12e\n"
    )
    assert done.out.startswith("example.com\n  signing   t12e\n  retired   t1e: keep its record ")


def test_waiting_for_dns(server: Server, dns_says: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            dns_says(right(server))

    monkeypatch.setattr(time, "sleep", sleep)
    done = server.run("rotate-dkim", "example.com", "--wait", "600")
    assert len(pauses) == 3
    assert selectors(server) == (["t12e"], [], ["t1e"])
    assert "signed with t12e" in done.err


@pytest.mark.usefixtures("dns_says")
def test_waiting_comes_to_an_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dkim, "_PAUSE", 0.01)
    done = server.run("rotate-dkim", "example.com", "--wait", "1")
    assert (done.status, done.err) == (0, "")
    assert selectors(server) == (["t1e"], ["t12e"], [])


@pytest.mark.parametrize("seconds", ["-1", "86401", "soon"])
@pytest.mark.usefixtures("dns_says")
def test_a_wait_that_is_none(server: Server, seconds: str) -> None:
    assert server.run("rotate-dkim", "--wait", seconds).status == 2
    assert selectors(server) == (["t1e"], [], [])


def test_json(server: Server, dns_says: Say) -> None:
    dns_says(lambda _: SLOW)
    done = server.run("rotate-dkim", "example.com", "--json")
    [record] = pending_records(load.load(server.context.paths), EXAMPLE_COM)
    assert json.loads(done.out) == [
        {
            "domain": "example.com",
            "signing": ["t1e"],
            "pending": [
                {
                    "selector": "t12e",
                    "name": "t12e._domainkey.example.com",
                    "value": record.value,
                    "dns": "unknown",
                    "reason": SLOW.reason,
                }
            ],
            "retired": [],
        }
    ]
    dns_says(right(server))
    done = server.run("rotate-dkim", "example.com", "--json")
    [row] = json.loads(done.out)
    assert row["signing"] == ["t12e"]
    assert row["pending"] == []
    assert [item["selector"] for item in row["retired"]] == ["t1e"]


@pytest.mark.usefixtures("dns_says")
def test_keys_that_do_not_sign_are_not_said_to(server: Server) -> None:
    """DKIM_KEYS once had both; the other key is kept, and signs nothing."""
    put(server.context.paths.domain(EXAMPLE_COM) / "dkim:old.pem", key_pem(Algorithm.RSA))
    done = server.run("rotate-dkim", "--status", "example.com")
    assert done.out == "example.com\n  signing   t1e\n"


@pytest.mark.usefixtures("dns_says")
def test_a_volume_that_is_busy(server: Server) -> None:
    def busy(*_: object) -> None:
        msg = "another change has been going on for 30 seconds"
        raise UserError(msg, exit_code=Exit.TRY_AGAIN)

    server.patch.setattr(locks, "edit_lock", busy)
    done = server.run("rotate-dkim", "example.com")
    assert (done.status, done.out) == (75, "")
    assert "another change" in done.err
