"""State → Plan → apply, whole, on a real folder."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint.common import locks
from entrypoint.common.errors import UserError
from entrypoint.common.findings import Level
from entrypoint.common.identity import Ids
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.converge import apply, reconcile
from entrypoint.converge.plan import Effect
from entrypoint.dns.authoritative import Absent, Found, Unknown
from entrypoint.keys.dkim import Algorithm
from entrypoint.state import load
from tests.unit import chasquid_reference
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, HOST, asked, key_pem, put, put_domain, tree

USERS = 'users { key: "i" value { denied {} } }\n'
PLAIN = {"DKIM_KEYS": "ed25519", "DKIM_SELECTOR": "t1"}
ONE, TWO = Domain("mx1.example.net"), Domain("mx2.example.net")


def run(paths: Paths, ids: Ids, **environ: str) -> apply.Outcome:
    paths.state.mkdir(parents=True, exist_ok=True)
    with locks.edit_lock(paths, ids):
        return reconcile.reconcile(asked(**PLAIN, **environ), paths, ids)[1]


def changed(outcome: apply.Outcome, paths: Paths) -> set[str]:
    return {str(path.relative_to(paths.root)) for path in outcome.changed}


def test_the_second_run_changes_nothing(paths: Paths, ids: Ids) -> None:
    assert run(paths, ids).effect is Effect.RESTART
    before = tree(paths.root)
    assert run(paths, ids) == apply.Outcome((), Effect.NONE)
    assert tree(paths.root) == before


def test_what_run_loses_is_made_again_and_data_is_not_touched(paths: Paths, ids: Ids) -> None:
    """A new container on an old volume: /run is a tmpfs."""
    run(paths, ids)
    before = tree(paths.root)
    shutil.rmtree(paths.root / "run")
    outcome = run(paths, ids)
    after = tree(paths.root)
    assert [name for name in before if before[name] != after.pop(name)] == ["run/tambo/changes"]
    assert after == {}
    assert not [path for path in outcome.changed if path.is_relative_to(paths.data)]


_WATCHER = """
import os, select, sys
looks = missing = 0
while not select.select([0], [], [], 0)[0]:
    for _ in range(200):
        looks += 1
        try:
            os.stat(sys.argv[1])
        except OSError:
            missing += 1
print(looks, missing)
"""


def test_the_hook_is_there_at_every_moment(paths: Paths, ids: Ids) -> None:
    """chasquid takes every message unasked while os.Stat says that there is no hook."""
    run(paths, ids)
    put(paths.lib / "hooks/post-data", "")
    put(paths.lib / "hooks/other", "")
    watcher = subprocess.Popen(  # noqa: S603 (this interpreter)
        [sys.executable, "-I", "-S", "-c", _WATCHER, paths.post_data],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    for number in range(30):
        put_domain(paths, EXAMPLE_COM, users=USERS, aliases=f"a{number}: i\n")
        if number % 3 == 0:
            aside = paths.post_data.with_name("aside")
            aside.symlink_to(paths.lib / "hooks/other")
            aside.replace(paths.post_data)
            put(paths.chasquid / "hooks/alias-resolve", "not planned")
            put(paths.chasquid / "domains/example.net/users", "not planned")
        run(paths, ids, MAIL_DOMAINS="example.com example.org" if number % 2 else "example.com")
        assert paths.post_data.readlink() == paths.lib / "hooks/post-data"
    printed, _ = watcher.communicate("\n", timeout=10)
    looks, missing = map(int, printed.split())
    assert looks > 1000
    assert missing == 0


def test_users_and_aliases_need_a_reload(paths: Paths, ids: Ids) -> None:
    run(paths, ids)
    put_domain(paths, EXAMPLE_COM, users=USERS)
    outcome = run(paths, ids)
    assert outcome.effect is Effect.RELOAD
    assert changed(outcome, paths) == {
        "data/state/good/example.com/users",
        "run/tambo/chasquid/domains/example.com/users",
    }


def test_a_domain_whose_folder_is_gone_goes_on(paths: Paths, ids: Ids) -> None:
    run(paths, ids)
    put_domain(paths, EXAMPLE_COM, users=USERS, aliases="a: i\n")
    run(paths, ids)
    served = tree(paths.chasquid)
    shutil.rmtree(paths.domains)
    run(paths, ids)
    assert tree(paths.chasquid) == served, "also the key, and no other"
    assert sorted(item.message.partition(". ")[0] for item in load.load(paths).findings) == [
        f"data/domains/example.com/{name}: is gone" for name in ("aliases", "dkim:t1e.pem", "users")
    ]


def test_domains_and_limits_need_a_restart(paths: Paths, ids: Ids) -> None:
    run(paths, ids)
    assert run(paths, ids, MAX_QUEUE="10").effect is Effect.RESTART
    assert run(paths, ids, MAX_QUEUE="10", MAIL_DOMAINS="example.com example.org").effect is (
        Effect.RESTART
    )
    outcome = run(paths, ids, MAX_QUEUE="10")
    assert outcome.effect is Effect.RESTART
    assert "run/tambo/chasquid/domains/example.org" in changed(outcome, paths)
    assert not (paths.chasquid / "domains/example.org").exists()
    assert (paths.domain(EXAMPLE_ORG) / "dkim:t1e.pem").exists(), "what the owner has stays"


def test_a_broken_edit_leaves_what_serves(paths: Paths, ids: Ids) -> None:
    put_domain(paths, EXAMPLE_COM, users=USERS, aliases="a: i\n")
    run(paths, ids)
    before = tree(paths.root)
    put_domain(paths, EXAMPLE_COM, users="users {", aliases="a\n")
    assert run(paths, ids) == apply.Outcome((), Effect.NONE)
    after = tree(paths.root)
    different = {name for name in before if before[name] != after[name]}
    assert different == {"data/domains/example.com/users", "data/domains/example.com/aliases"}
    put_domain(paths, EXAMPLE_COM, users=USERS, aliases="a: i\n")
    assert run(paths, ids).effect is Effect.NONE


@pytest.mark.parametrize("content", ["", "x"])
def test_a_damaged_key_signs_on_and_is_never_replaced(paths: Paths, ids: Ids, content: str) -> None:
    run(paths, ids)
    path = paths.domain(EXAMPLE_COM) / "dkim:t1e.pem"
    pem = path.read_bytes()
    put(path, content)
    assert run(paths, ids) == apply.Outcome((), Effect.NONE)
    assert path.read_text() == content
    assert (paths.chasquid / "domains/example.com/dkim:t1e.pem").read_bytes() == pem
    # Even without a copy: no key signs, but none is made in silence.
    shutil.rmtree(paths.good)
    outcome = run(paths, ids)
    assert outcome.effect is Effect.RESTART
    assert path.read_text() == content
    assert not list(paths.chasquid.glob("domains/*/dkim:*"))
    assert [item.name for item in paths.domain(EXAMPLE_COM).glob("dkim:*")] == ["dkim:t1e.pem"]


def test_a_key_with_the_longest_selector_stays_the_same(paths: Paths, ids: Ids) -> None:
    wanted = asked(DKIM_KEYS="ed25519", DKIM_SELECTOR="s" * 40)
    paths.state.mkdir(parents=True)
    reconcile.reconcile(wanted, paths, ids)
    before = tree(paths.root)
    _, outcome = reconcile.reconcile(wanted, paths, ids)
    assert outcome.changed == ()
    assert tree(paths.root) == before


def test_the_owners_own_key_is_used(paths: Paths, ids: Ids) -> None:
    put(paths.domain(EXAMPLE_COM) / "dkim:google.pem", key_pem(Algorithm.ED25519))
    run(paths, ids)
    assert [item.name for item in paths.chasquid.glob("domains/*/dkim:*")] == ["dkim:google.pem"]


# Telling chasquid


class Door:
    """A holder that notes what it is asked for."""

    def __init__(self, path: Path, answer: str = '{"done": true}') -> None:
        self.answer = answer
        path.parent.mkdir(parents=True, exist_ok=True)
        self.asked: list[str] = []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        connection, _ = self.socket.accept()
        with connection, connection.makefile("rw") as stream:
            self.asked.append(stream.readline().strip())
            stream.write(f"{self.answer}\n")

    def close(self) -> None:
        self.thread.join(10)
        self.socket.close()


@pytest.mark.parametrize(
    ("effect", "command"), [(Effect.RELOAD, "reload"), (Effect.RESTART, "restart")]
)
def test_the_holder_is_told(paths: Paths, ids: Ids, effect: Effect, command: str) -> None:
    door = Door(paths.holder_socket)
    assert reconcile.serve(paths, ids, effect) == ""
    door.close()
    assert door.asked == [command]


def test_a_change_that_is_not_in_service_yet_is_said_so(paths: Paths, ids: Ids) -> None:
    door = Door(paths.holder_socket, '{"done": false, "last_words": "it is tired"}')
    note = reconcile.serve(paths, ids, Effect.RESTART)
    door.close()
    assert "has not taken it over yet" in note
    assert "it is tired" in note


def test_no_effect_asks_nobody(paths: Paths, ids: Ids) -> None:
    assert reconcile.serve(paths, ids, Effect.NONE) == ""


def test_without_a_holder_the_person_is_told(paths: Paths, ids: Ids) -> None:
    assert "The mail server is not running" in reconcile.serve(paths, ids, Effect.RELOAD)


# Exchangers of domains that receive elsewhere

Answer = Found[Domain] | Absent | Unknown


def answering(**answers: Answer) -> Callable[[Domain], Answer]:
    return lambda domain: answers[domain.partition(".")[2]]


ELSEWHERE = {"MAIL_DOMAINS": "example.com example.org example.net", "MAIL_RECEIVE": "example.com"}


@pytest.fixture
def ready(paths: Paths) -> Paths:
    paths.state.mkdir(parents=True)
    return paths


def test_what_is_found_is_kept(ready: Paths, ids: Ids) -> None:
    wanted = asked(**ELSEWHERE)
    findings = reconcile.refresh_exchangers(
        wanted, ready, ids, answering(org=Found((ONE, TWO)), net=Absent())
    )
    assert findings == ()
    assert load.load(ready).exchangers == {EXAMPLE_ORG: (ONE, TWO), "example.net": ()}
    assert ready.mx.stat().st_mode & 0o777 == 0o600


def test_an_unknown_answer_keeps_what_was_known(ready: Paths, ids: Ids) -> None:
    put(ready.mx, json.dumps({"example.org": [ONE]}))
    findings = reconcile.refresh_exchangers(
        asked(**ELSEWHERE), ready, ids, answering(org=Unknown("no answer"), net=Unknown("refused"))
    )
    assert [(item.id, item.level) for item in findings] == [("mx-unknown", Level.WARN)] * 2
    assert "example.org could not be looked up (no answer)" in findings[0].message
    assert "the one seen last is used" in findings[0].message
    assert "mail to it is refused for now (451)" in findings[1].message
    assert load.load(ready).exchangers == {EXAMPLE_ORG: (ONE,)}


def test_a_domain_whose_mx_is_this_server_is_no_loop(ready: Paths, ids: Ids) -> None:
    put(ready.mx, json.dumps({"example.org": [ONE]}))
    here = Domain(HOST)
    findings = reconcile.refresh_exchangers(
        asked(**ELSEWHERE), ready, ids, answering(org=Found((here,)), net=Found((here, TWO)))
    )
    assert [(item.id, item.level) for item in findings] == [("mx-points-here", Level.FAIL)]
    assert "The MX of example.org is smtp.example.com, this server" in findings[0].message
    assert "add example.org to MAIL_RECEIVE" in findings[0].fix
    # This server is left out, and what was known before stays.
    assert load.load(ready).exchangers == {EXAMPLE_ORG: (ONE,), "example.net": (TWO,)}


def test_nobody_is_asked_when_all_is_received_here(paths: Paths, ids: Ids) -> None:
    def ask(domain: Domain) -> Answer:
        pytest.fail(f"asked for {domain}")

    assert reconcile.refresh_exchangers(asked(), paths, ids, ask) == ()
    assert not paths.mx.exists()


def test_a_new_exchanger_reaches_chasquid(ready: Paths, ids: Ids) -> None:
    environ = {"MAIL_DOMAINS": "example.com example.org", "MAIL_RECEIVE": "example.com"}

    def served() -> tuple[str, ...]:
        text = (ready.chasquid / "domains/example.org/aliases").read_text()
        return chasquid_reference.read_aliases(text, EXAMPLE_ORG)["*@example.org"][0].via

    run(ready, ids, **environ)
    assert served() == ()
    reconcile.refresh_exchangers(asked(**environ), ready, ids, answering(org=Found((ONE,))))
    assert run(ready, ids, **environ).effect is Effect.RELOAD
    assert served() == ("mx1.example.net",)


def test_looking_up_waits_for_nobody_for_ever(
    ready: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = locks.edit_lock
    monkeypatch.setattr(locks, "edit_lock", lambda paths, ids: real(paths, ids, 0.02))
    with real(ready, ids), pytest.raises(UserError, match="another change"):
        reconcile.refresh_exchangers(
            asked(**ELSEWHERE), ready, ids, answering(org=Absent(), net=Absent())
        )
