"""The owner's executables, run after a certificate has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from entrypoint.common.identity import Ids
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.keys import certs
from entrypoint.renewal import deployhooks
from entrypoint.renewal.deployhooks import Pending, Reloads
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, put

NOTE = '#!/bin/sh\necho "$0 $DOMAIN" >>"{notes}"\n'


class Owner:
    """What the owner puts there, and what came of it."""

    def __init__(self, paths: Paths, ids: Ids) -> None:
        self.paths, self.ids = paths, ids
        self.clock = 1_000_000.0
        self.log: list[str] = []
        paths.state.mkdir(parents=True)

    @property
    def _notes(self) -> Path:
        return self.paths.root / "notes"

    def put(self, name: str, text: str = NOTE, mode: int = 0o700) -> None:
        path = put(self.paths.reload / name, text.replace("{notes}", str(self._notes)))
        path.chmod(mode)

    def reloads(self) -> Reloads:
        """As after a restart."""
        return Reloads(self.paths, self.ids, self.log.append, lambda: self.clock)

    def runs(self) -> list[tuple[str, str]]:
        """Name and domain of each run so far."""
        if not self._notes.exists():
            return []
        lines = [line.split() for line in self._notes.read_text().splitlines()]
        return [(Path(program).name, domain) for program, domain in lines]


@pytest.fixture
def owner(paths: Paths, ids: Ids) -> Owner:
    return Owner(paths, ids)


def test_each_runs_once_for_each_domain_in_the_order_of_the_names(owner: Owner) -> None:
    owner.put("20-second")
    owner.put("10-first")
    reload = owner.reloads()
    for domain in (EXAMPLE_COM, EXAMPLE_ORG, EXAMPLE_COM):
        reload.want(domain)
    reload.run()
    assert owner.runs() == [
        ("10-first", "example.com"), ("10-first", "example.org"),
        ("20-second", "example.com"), ("20-second", "example.org"),
    ]  # fmt: skip
    assert owner.log[0] == "example.com: reload/10-first done"
    reload.run()
    owner.reloads().run()
    assert len(owner.runs()) == 4


def test_nothing_there_is_fine(owner: Owner) -> None:
    reload = owner.reloads()
    reload.want(EXAMPLE_COM)
    reload.run()
    owner.paths.reload.mkdir()
    reload.want(EXAMPLE_COM)
    reload.run()
    assert owner.log == []


def test_only_executables_run(owner: Owner) -> None:
    owner.put("README", mode=0o600)
    owner.put(".hidden")
    (owner.paths.reload / "folder").mkdir(mode=0o700)
    (owner.paths.reload / "dangling").symlink_to("/absent")
    owner.put("real")
    reload = owner.reloads()
    reload.want(EXAMPLE_COM)
    reload.run()
    assert owner.runs() == [("real", "example.com")]


def test_it_is_told_which_files(owner: Owner) -> None:
    owner.put("show", '#!/bin/sh\nenv | sort >"{notes}"\n')
    reload = owner.reloads()
    reload.want(EXAMPLE_COM)
    reload.run()
    folder = owner.paths.certs / "example.com"
    environ = dict(line.split("=", 1) for line in (owner.paths.root / "notes").read_text().split())
    assert {name: environ[name] for name in sorted(set(environ) - {"PWD", "_", "SHLVL"})} == {
        "CERT_FULLCHAIN": str(folder / certs.CHAIN), "CERT_KEY": str(folder / certs.KEY),
        "DOMAIN": "example.com", "HOME": environ["HOME"], "PATH": "/usr/local/bin:/usr/bin:/bin",
    }  # fmt: skip


def test_one_that_fails_is_told_tried_again_and_stops_nobody_else(owner: Owner) -> None:
    owner.put("10-fails", "#!/bin/sh\necho nobody reads this\necho no route >&2\nexit 3\n")
    owner.put("20-works")
    reload = owner.reloads()
    reload.want(EXAMPLE_COM)
    reload.run()
    words = "ended with status 3: no route; tried again"
    assert owner.log[0] == f"warn: example.com: reload/10-fails {words}"
    assert owner.runs() == [("20-works", "example.com")]
    assert reload.pending() == {"10-fails": Pending(("example.com",), 1, owner.clock + 60)}
    owner.put("10-fails")
    owner.clock += 59
    owner.reloads().run()
    assert len(owner.runs()) == 1
    owner.clock += 1
    owner.reloads().run()
    assert owner.runs()[1:] == [("10-fails", "example.com")]
    assert reload.pending() == {}


def test_it_is_tried_ever_more_rarely_up_to_six_hours(owner: Owner) -> None:
    owner.put("fails", "#!/bin/sh\nexit 1\n")
    reload = owner.reloads()
    reload.want(EXAMPLE_COM)
    waits = []
    for _ in range(12):
        reload.run()
        waits.append((reload.pending()["fails"].next_try - owner.clock) / 60)
        owner.clock = reload.pending()["fails"].next_try
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]


def test_a_new_certificate_is_no_longer_waited_with(owner: Owner) -> None:
    owner.put("fails", "#!/bin/sh\nexit 1\n")
    reload = owner.reloads()
    reload.want(EXAMPLE_COM)
    reload.run()
    owner.put("fails")
    reload.want(EXAMPLE_ORG)
    reload.run()
    assert owner.runs() == [("fails", "example.com"), ("fails", "example.org")]


def test_only_what_failed_is_tried_again(owner: Owner) -> None:
    owner.put("half", NOTE + '[ "$DOMAIN" = example.com ]\n')
    reload = owner.reloads()
    reload.want(EXAMPLE_COM)
    reload.want(EXAMPLE_ORG)
    reload.run()
    assert reload.pending()["half"].domains == ("example.org",)


def test_a_wrong_clock_makes_nothing_wait_for_ever(owner: Owner) -> None:
    owner.put("fails", "#!/bin/sh\nexit 1\n")
    reload = owner.reloads()
    reload.want(EXAMPLE_COM)
    reload.run()
    owner.put("fails")
    owner.clock -= 400 * 86400
    reload.run()
    assert owner.runs() == [("fails", "example.com")]


def test_one_that_is_gone_is_forgotten(owner: Owner) -> None:
    owner.put("gone")
    reload = owner.reloads()
    reload.want(EXAMPLE_COM)
    (owner.paths.reload / "gone").unlink()
    reload.run()
    assert reload.pending() == {}
    assert owner.log == []


def test_one_that_never_ends_is_ended(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployhooks, "_TIMEOUT", 0.2)
    owner.put("sleeps", "#!/bin/sh\nsleep 60\n")
    reload = owner.reloads()
    reload.want(EXAMPLE_COM)
    reload.run()
    assert owner.log == [
        "warn: example.com: reload/sleeps ended with status 124; tried again",
    ]


def test_one_that_cannot_be_run_is_told(owner: Owner) -> None:
    owner.put("strange", "#!/absent/interpreter\n")
    reload = owner.reloads()
    reload.want(EXAMPLE_COM)
    reload.run()
    assert owner.log[0].startswith("warn: example.com: reload/strange ended with status 12")


def test_what_is_wanted_while_it_runs_stays_wanted(owner: Owner) -> None:
    """As by renew-cert beside the keeper: another process, the same file."""
    owner.put("runs")
    reload = owner.reloads()
    reload.want(EXAMPLE_COM)
    real = owner.log.append

    def meanwhile(text: str) -> None:
        real(text)
        if "example.com" in text:
            owner.reloads().want(EXAMPLE_ORG)

    reload.log = meanwhile
    reload.run()
    assert reload.pending() == {"runs": Pending(("example.org",))}


def test_the_memory_is_private(owner: Owner) -> None:
    owner.put("runs")
    owner.reloads().want(EXAMPLE_COM)
    assert owner.paths.reloads.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "{}", "null", '{"runs": null}', '{"runs": {}}', '{"runs": []}',
     json.dumps({"runs": {"domains": 1, "failures": 0, "next_try": 0}}),
     json.dumps({"runs": {"domains": [], "failures": "x", "next_try": 0}})],
)  # fmt: skip
def test_a_broken_memory_is_none(owner: Owner, text: str) -> None:
    owner.put("runs")
    put(owner.paths.reloads, text)
    reload = owner.reloads()
    reload.run()
    assert reload.pending() == {}
    reload.want(Domain("example.com"))
    reload.run()
    assert owner.runs() == [("runs", "example.com")]
