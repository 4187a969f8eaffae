"""The boot, up to where it becomes another program."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pytest

from entrypoint import boot, cli
from entrypoint.common import identity, locks, log, process, version
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.converge import reconcile
from entrypoint.dns.authoritative import Unknown
from tests.unit.kit import EXAMPLE_COM, put_domain, tree

ENVIRON = {"MAIL_HOSTNAME": "smtp.example.com", "DKIM_KEYS": "ed25519", "DKIM_SELECTOR": "t1",
           "PUBLIC_IPV4": "203.0.113.10", "PUBLIC_IPV6": "2001:db8::10"}  # fmt: skip
USERS = 'users { key: "i" value { plain { password: "x" } } }\n'


class Container:
    """Boots on a temporary root. What would take this process over is noted instead."""

    def __init__(
        self, paths: Paths, ids: Ids, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.paths, self.capture = paths, capture
        self.became: list[tuple[list[str], dict[str, str]]] = []
        self.steps: list[Any] = []
        patch.setattr(boot, "Paths", lambda: paths)
        patch.setattr(version, "number", lambda: "0.0")  # nothing is installed here
        patch.setattr(Ids, "image", classmethod(lambda _cls: ids))
        patch.setattr(os, "environ", dict(ENVIRON))
        patch.setattr(process, "replace", self._replace)
        # It would take descriptor 3, which is the tests' runner's.
        patch.setattr(locks, "hold_instance", self._hold)
        patch.setattr(identity, "mend", lambda path, _ids, owner: self.steps.append((path, owner)))

    def _hold(self, paths: Paths, _ids: Ids) -> None:
        self.steps.append("lock")
        paths.state.mkdir(parents=True, exist_ok=True)

    def _replace(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self.became.append((list(argv), dict(environ)))

    def boot(self) -> tuple[int, str]:
        self.capture.readouterr()
        status = cli.run(["boot"])
        out, err = self.capture.readouterr()
        return status, out + err


@pytest.fixture
def container(
    paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Container:
    return Container(paths, ids, monkeypatch, capsys)


def records_in(text: str) -> str:
    _, title, rest = text.partition("DNS of example.com\n")
    assert title
    return rest.partition(" next: ")[0].rpartition("\n")[0]


def test_the_first_and_the_second(container: Container) -> None:
    status, text = container.boot()
    assert status == 0
    assert "smtp.example.com for example.com" in text
    assert f"  made {container.paths.domain(EXAMPLE_COM)}/dkim:t1e.pem" in text
    assert "v=DKIM1; k=ed25519; p=" in text
    assert "next: docker exec mail add-user i@example.com" in text
    [(argv, environ)] = container.became
    environ.pop("PYTEST_CURRENT_TEST", None)
    assert environ == ENVIRON
    assert argv[-4:-2] == ["entrypoint.services.init", "text"]
    assert argv[-2] == "yes 20/conn,60/h,100/unknown,5/auth 26214400 2000 30", "no credential"
    assert argv[-1] == "default yes no"
    before = tree(container.paths.data)
    shutil.rmtree(container.paths.run)
    status, again = container.boot()
    assert status == 0
    assert f"no changes in {container.paths.data}" in again
    assert "  made " not in again
    assert tree(container.paths.data) == before
    assert records_in(again) == records_in(text)


def test_the_volume_is_locked_before_anything_in_it_is_touched(container: Container) -> None:
    container.boot()
    assert container.steps[0] == "lock"
    owners = dict(container.steps[1:])
    paths = container.paths
    assert owners[paths.domains] is owners[paths.certs] is owners[paths.state] is Owner.TAMBO
    assert owners[paths.queue] is owners[paths.mail] is Owner.CHASQUID
    assert owners[paths.events] is Owner.CHASQUID


def test_a_server_with_users_is_told_of_no_next_step(container: Container) -> None:
    put_domain(container.paths, EXAMPLE_COM, users=USERS)
    assert "add-user" not in container.boot()[1]


def test_bad_settings_stop_it_before_the_volume(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"MAIL_HOSTNAME": "smtp"})
    before = tree(container.paths.root)
    status, text = container.boot()
    assert status == 64
    assert text.startswith("error: The settings have 1 problem:")
    assert container.became == container.steps == []
    assert tree(container.paths.root) == before


@pytest.fixture
def as_shown() -> Iterator[None]:
    yield
    log.configure()
    sys.excepthook = sys.__excepthook__


@pytest.mark.usefixtures("as_shown")
@pytest.mark.parametrize("settings", [{}, {"MAIL_HOSTNAME": "smtp"}, {"MAX_QUEUE": "1\n2"}])
def test_json_is_an_object_a_line_whatever_happens(
    container: Container, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    monkeypatch.setattr(os, "environ", {**ENVIRON, "LOG_FORMAT": "json", **settings})
    status, text = container.boot()
    found = [json.loads(line) for line in text.splitlines()]
    assert found
    assert {item["source"] for item in found} == {"boot"}
    if not settings:
        assert container.became[0][0][-3] == "json"
        assert any("docker exec mail dns" in item["text"] for item in found)
    else:
        assert status == 64
        assert "The settings have 1 problem:" in found[0]["text"]


@pytest.mark.usefixtures("as_shown")
def test_privacy_from_the_first_line_on(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = {**ENVIRON, "LOG_PRIVACY": "on", "FORWARD_TO": "owner@example.net"}
    monkeypatch.setattr(os, "environ", private)
    _, text = container.boot()
    assert "i…@example.com" in text
    assert not re.findall(r"[a-z]{2,}@", text), "the table has report addresses"
    assert container.became[0][0][-3] == "text,short"
    monkeypatch.setattr(os, "environ", {**private, "FORWARD_TO": "owner@example.com"})
    status, text = container.boot()
    assert status == 64
    assert "o…@example.com is received by this very server" in text


def test_a_name_server_that_is_down_delays_nothing(
    container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {**ENVIRON, "MAIL_RECEIVE": "none"})
    monkeypatch.setattr(
        reconcile.refresh_exchangers, "__defaults__", (lambda _domain: Unknown("no answer"),)
    )
    status, _ = container.boot()
    assert status == 0
    aliases = container.paths.chasquid / "domains/example.com/aliases"
    assert aliases.read_text() == "*: *@example.com\n"


def test_a_broken_file_stops_nothing(container: Container) -> None:
    put_domain(container.paths, EXAMPLE_COM, users="users {", aliases="x")
    status, _ = container.boot()
    assert status == 0
    assert len(container.became) == 1
