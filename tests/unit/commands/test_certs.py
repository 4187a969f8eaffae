"""The verbs for certificates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from entrypoint.commands.context import Context
from entrypoint.common import locks, tlsprobe
from entrypoint.common.names import Domain
from entrypoint.converge import reconcile
from entrypoint.keys import certs
from entrypoint.renewal import acmesh, renewer
from entrypoint.state import load
from entrypoint.state.load import Issue
from tests.unit import acmekit
from tests.unit.acmekit import DAY, Pretender, certificate, install, remember
from tests.unit.commands.conftest import SETTINGS, Server
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, asked, put

HOST = Domain("smtp.example.com")
NAMES = ("example.com", "*.example.com")


@pytest.fixture
def pretender(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pretender:
    """In acme.sh's place, beside a chasquid that serves what it is given."""
    pretender = Pretender()
    paths = server.context.paths

    def fingerprint(_port: int, name: str) -> str:
        for folder in sorted((paths.chasquid / "certs").iterdir()):
            pair = certs.load(
                (folder / certs.CHAIN).read_bytes(), (folder / certs.KEY).read_bytes()
            )
            if pair.covers(Domain(name)):
                return pair.fingerprint
        raise ConnectionRefusedError

    monkeypatch.setattr(acmesh, "run", pretender)
    monkeypatch.setattr(acmesh, "renewal_window", lambda *_: None)
    monkeypatch.setattr(reconcile, "serve", lambda *_: "")
    monkeypatch.setattr(tlsprobe, "fingerprint", fingerprint)
    monkeypatch.setattr(renewer, "_SYSTEM_ROOTS", put(tmp_path / "roots.pem", b"roots"))
    return pretender


@pytest.fixture
def configure(
    server: Server, pretender: Pretender, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Server]:
    """Gives the server other settings: by default TLS=dns for both domains."""
    hooks = acmekit.put_hooks(tmp_path / "dnsapi", monkeypatch)
    assert pretender.requests == []

    def apply_settings(**environ: str) -> Server:
        other = {**SETTINGS, **environ}
        settings = asked(**other) if environ else acmekit.asked(hooks, **SETTINGS)
        context = replace(server.context, settings=settings)
        monkeypatch.setattr(Context, "enter", classmethod(lambda _cls: context))
        return Server(context, server.capture, server.patch)

    return apply_settings


def put_in_place(server: Server, name: str, held: certs.Certificate) -> None:
    install(server.context.paths, name, held)
    with locks.edit_lock(server.context.paths, server.context.ids):
        reconcile.reconcile(server.context.settings, server.context.paths, server.context.ids)


def rows(server: Server) -> dict[str, dict[str, object]]:
    result = server.run("list-certs", "--json")
    found: list[dict[str, object]] = json.loads(result.out)
    return {str(row["name"]): row for row in found}


# --- list-certs ----------------------------------------------------------------------------------


def test_a_self_signed_one_is_listed_as_such(configure: Callable[..., Server]) -> None:
    server = configure(TLS="self-signed")
    result = server.run("list-certs")
    assert result.status == 0
    assert result.out.startswith("self-signed\n")
    assert "not by tambo" in result.out
    assert list(rows(server)) == ["self-signed"]


def test_what_is_yet_to_be_issued_is_listed(configure: Callable[..., Server]) -> None:
    result = configure().run("list-certs")
    assert result.status == 1
    assert result.out.count("not issued yet") == 2


def test_one_that_is_served(configure: Callable[..., Server]) -> None:
    server = configure()
    put_in_place(server, "example.com", certificate(*NAMES, left=45 * DAY))
    row = rows(server)["example.com"]
    assert row["names"] == list(NAMES)
    assert row["issuer"] == "CN=Root of the tests"
    assert row["days_left"] == 44
    assert row["served"] is True
    assert row["error"] == ""
    assert row["next_try"] is None
    renewal_time = datetime.fromisoformat(str(row["renewal"]))
    assert 11 * DAY < renewal_time - datetime.now(UTC) < 16 * DAY
    text = server.run("list-certs").out
    assert "  for       example.com, *.example.com\n" in text
    assert "44 days left" in text
    assert "  served    yes, on 25, 465 and 587\n" in text


def test_one_that_is_not_served(
    configure: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = configure()
    put_in_place(server, "example.com", certificate(*NAMES))
    monkeypatch.setattr(tlsprobe, "fingerprint", lambda _port, _name: "of another")
    assert rows(server)["example.com"]["served"] is False
    result = server.run("list-certs")
    assert result.status == 1
    assert "  served    no\n" in result.out


def test_the_last_error_its_fix_and_the_next_try(configure: Callable[..., Server]) -> None:
    server = configure()
    for name in ("example.com", "example.org"):
        put_in_place(server, name, certificate(name, f"*.{name}"))
    issue = Issue(failures=1, error="the cause", fix="the fix", next_try=1767268800)
    remember(server.context.paths, "example.org", issue)
    result = server.run("list-certs")
    assert result.status == 1
    assert "  error     the cause\n  fix       the fix\n" in result.out
    assert "  next try  2026-01-01T12:00:00Z\n" in result.out
    found = rows(server)
    assert found["example.com"]["error"] == ""
    assert (found["example.org"]["error"], found["example.org"]["fix"]) == ("the cause", "the fix")


def test_a_wildcard_alone_is_asked_for_by_a_name_that_it_covers(
    configure: Callable[..., Server],
) -> None:
    server = configure(TLS="files", TLS_FILES="/x")
    put_in_place(server, "example.org", certificate("*.example.org"))
    assert rows(server)["example.org"]["served"] is True


# --- renew-cert ----------------------------------------------------------------------------------


def test_all_that_are_missing_are_issued_with_progress(
    configure: Callable[..., Server], pretender: Pretender
) -> None:
    server = configure()
    result = server.run("renew-cert")
    assert result.status == 0
    assert [request.name for request in pretender.requests] == [EXAMPLE_COM, EXAMPLE_ORG]
    assert "having a certificate issued: there is none yet" in result.out
    assert "acme.sh: Cert success." in result.out
    assert "the new certificate is served on ports 25, 465, 587" in result.out
    assert all(line.startswith("[") for line in result.out.splitlines()), "seconds since the start"
    assert set(load.load(server.context.paths).certificates) == {EXAMPLE_COM, EXAMPLE_ORG}


def test_what_is_not_due_is_not_issued_unless_it_is_forced(
    configure: Callable[..., Server], pretender: Pretender
) -> None:
    server = configure()
    server.run("renew-cert")
    result = server.run("renew-cert")
    assert result.status == 0
    assert result.out.count("not due; --force has one issued all the same") == 2
    assert len(pretender.requests) == 2
    assert server.run("renew-cert", "--force").status == 0
    assert len(pretender.requests) == 4


@pytest.mark.parametrize("name", ["example.org", "EXAMPLE.ORG"])
def test_one_alone(configure: Callable[..., Server], pretender: Pretender, name: str) -> None:
    assert configure().run("renew-cert", name).status == 0
    assert [request.name for request in pretender.requests] == [EXAMPLE_ORG]


def test_a_name_that_is_not_there(configure: Callable[..., Server]) -> None:
    result = configure().run("renew-cert", "example.net")
    assert result.status == 2
    assert "there are: example.com, example.org" in result.err


@pytest.mark.parametrize(
    "environ", [{"TLS": "self-signed"}, {"TLS": "files", "TLS_FILES": "/certificates"}]
)
def test_where_none_are_issued(configure: Callable[..., Server], environ: dict[str, str]) -> None:
    result = configure(**environ).run("renew-cert")
    assert result.status == 1
    assert f"TLS is {environ['TLS']}" in result.err


def test_a_failure_is_told_and_does_not_stop_the_next_one(
    configure: Callable[..., Server], pretender: Pretender
) -> None:
    pretender.answers.append((1, ["invalid domain"]))
    result = configure().run("renew-cert")
    assert result.status == 1
    assert "warn: example.com: no new certificate: the DNS provider did not" in result.out
    assert "example.org: the new certificate is served" in result.out


def test_no_waiting_time_is_kept(configure: Callable[..., Server], pretender: Pretender) -> None:
    server = configure()
    later = datetime.now(UTC).timestamp() + 3600
    remember(server.context.paths, "example.com", Issue(failures=3, next_try=later, error="x"))
    assert server.run("renew-cert", "example.com").status == 0
    assert len(pretender.requests) == 1


def test_it_does_not_wait_for_the_keeper(
    configure: Callable[..., Server], pretender: Pretender
) -> None:
    server = configure()
    with locks.acme_lock(server.context.paths, server.context.ids):
        result = server.run("renew-cert")
    assert result.status == 75
    assert "another issuing is going on" in result.err
    assert pretender.requests == []


def test_the_executables_run(configure: Callable[..., Server]) -> None:
    server = configure()
    notes = server.context.paths.root / "notes"
    path = put(server.context.paths.reload / "note", f'#!/bin/sh\necho $DOMAIN >>"{notes}"\n')
    path.chmod(0o700)
    result = server.run("renew-cert", "example.com")
    assert notes.read_text() == "example.com\n"
    assert "example.com: reload/note done" in result.out


def test_by_http_the_host_s_own_is_issued(
    configure: Callable[..., Server], pretender: Pretender
) -> None:
    server = configure(TLS="http", ACME_WEBROOT="/webroot")
    assert server.run("renew-cert").status == 0
    [request] = pretender.requests
    assert (request.names, request.webroot) == ((HOST,), "/webroot")
