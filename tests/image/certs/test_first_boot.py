"""The first boot in dns mode: two domains at two providers, each with credentials of its own."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import PurePosixPath

import pytest

from tests.image.certs.conftest import FIRST_KEY, ONE, SECOND_KEY, TWO, TwoDomains
from tests.support.certserver import ACME, PORTS, openssl_says
from tests.support.container import checked
from tests.support.wait import wait_until
from tests.world.world import World


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("name", [ONE, f"smtp.{ONE}", f"any.{ONE}", TWO, f"mail.{TWO}"])
def test_it_ends_with_a_wildcard_certificate_for_each_domain(
    two: TwoDomains, world: World, roots: str, name: str, port: int
) -> None:
    said = openssl_says(world, two.server.ipv4, port, name, roots)
    assert "Verification: OK" in said, said
    assert f"Verified peername: *.{name.partition('.')[2]}" in said or name in (ONE, TWO), said


def test_openssl_tells_when_the_certificate_is_another_one(
    two: TwoDomains, world: World, roots: str
) -> None:
    assert "hostname mismatch" in openssl_says(world, two.server.ipv4, 465, "three.example", roots)


def test_without_a_server_name_the_host_s_certificate_is_served(
    two: TwoDomains, world: World
) -> None:
    command = f"openssl s_client -connect {two.server.ipv4}:465 -noservername </dev/null"
    names = f"{command} 2>/dev/null | openssl x509 -noout -ext subjectAltName"
    said = world.exec("resolver", "sh", "-c", names)
    assert f"DNS:*.{ONE}" in said


def test_both_are_listed_as_served(two: TwoDomains) -> None:
    rows = json.loads(two.server.ok("list-certs", "--json"))
    assert {row["name"]: row["names"] for row in rows} == {
        name: [name, f"*.{name}"] for name in (ONE, TWO)
    }
    for row in rows:
        assert row["served"] is True
        assert row["error"] == ""
        assert 80 < row["days_left"] <= 90
        assert row["renewal"] < row["expires"]
    assert "yes, on 25, 465 and 587" in two.server.ok("list-certs")


def test_mail_was_served_before_there_was_a_certificate(two: TwoDomains) -> None:
    log = two.server.container.log()
    assert log.index("daemon listening on") < log.index("certificate for ")
    assert "TLS: a self-signed certificate, until the first one is issued" in log


def test_the_executables_ran_for_each_domain_as_tambo(two: TwoDomains) -> None:
    server = two.server
    assert two.notes()[:2] == [
        (name, server.installed(name), "Key is valid", "tambo") for name in (ONE, TWO)
    ]


def test_one_that_fails_is_kept_in_mind_and_stops_nobody_else(two: TwoDomains) -> None:
    path = two.server.data / "state/reload.json"
    pending = json.loads(two.server.machine.read(path))
    assert pending["10-stubborn"]["domains"] == [ONE, TWO]
    assert pending["10-stubborn"]["failures"] == 1
    assert "20-notes" not in pending
    log = two.server.container.log()
    for name in (ONE, TWO):
        words = "ended with status 3: no route to the web server; tried again"
        assert f"warn: {name}: reload/10-stubborn {words}" in log


def test_each_provider_gets_its_own_credentials_and_no_others(two: TwoDomains) -> None:
    server = two.server
    saved = {
        name: server.machine.read(server.data / "acme" / name / "account.conf")
        for name in (ONE, TWO)
    }
    assert f"SAVED_PDNS_Token='{FIRST_KEY}'\n" in saved[ONE]
    assert f"SAVED_PDNS_Token='{SECOND_KEY}'\n" in saved[TWO], "no character has been changed"
    assert SECOND_KEY not in saved[ONE]
    assert FIRST_KEY not in saved[TWO]


def test_what_acme_sh_keeps_is_tambo_s_alone(two: TwoDomains) -> None:
    server = two.server
    entries = server.machine.tree(server.data / "acme")
    assert f"{ONE}/account.conf" in entries
    assert f"{TWO}/{TWO}_ecc/{TWO}.key" in entries
    for path, entry in entries.items():
        assert (entry.uid, entry.gid) == (10465, 10465), path
        assert entry.mode == (0o700 if entry.kind == "d" else 0o600), path


# --- credentials ---------------------------------------------------------------------------------

SECRETS = (FIRST_KEY, SECOND_KEY, SECOND_KEY[:14])


def leaks(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


def test_no_credential_is_in_a_command_line_not_even_for_a_moment(two: TwoDomains) -> None:
    seen = two.command_lines
    # acme.sh and curl were among what was seen, so that this test can see.
    assert any(ACME in line for line in seen)
    assert any(line.startswith("curl ") for line in seen)
    assert not [line for line in seen if leaks(line)]


def test_no_credential_is_in_the_log(two: TwoDomains) -> None:
    assert not leaks(two.server.container.log())


def test_no_credential_is_in_what_docker_inspect_shows(two: TwoDomains) -> None:
    # The one of a variable would be; this one came by PDNS_Token_FILE and acme.env.
    assert not leaks(checked(two.server.container.docker("inspect")).stdout)


def test_no_credential_is_within_reach_of_chasquid(two: TwoDomains) -> None:
    server = two.server
    chasquid = server.process("chasquid").pid
    assert not leaks(str(server.machine.environ(chasquid)))
    rendered = PurePosixPath(f"/proc/{chasquid}/root/run/tambo/chasquid")
    grep = server.machine.run("grep", "-rlF", *(f"-e{secret}" for secret in SECRETS), str(rendered))
    assert grep.status == 1, grep
    for path in (f"/data/acme/{ONE}/account.conf", f"/data/domains/{TWO}/acme.env"):
        assert "Permission denied" in server.container.exec("cat", path, user="chasquid").stderr


# --- the second boot -----------------------------------------------------------------------------


def test_the_second_boot_has_nothing_issued_and_changes_nothing(two: TwoDomains) -> None:
    server = two.server

    def issued() -> list[tuple[str, float]]:
        return [(server.installed(name), server.memory(name)["issued"]) for name in (ONE, TWO)]

    before, attempts = issued(), server.attempts()
    checked(server.container.docker("restart", "--time", "5"))
    server.wait_until_it_serves()
    log = server.container.log()
    assert f"TLS: the certificate of smtp.{ONE} is valid until " in log[log.rindex("TLS: ") :]
    wait_until(lambda: server.processes("keeper"), "the keeper runs")
    wait_until(lambda: server.listed(TWO)["served"], "it is served")
    # The keeper has looked at them when it has asked the authority about both.
    wait_until(
        lambda: all(server.memory(name)["window"] for name in (ONE, TWO)), "asked", timeout=20
    )
    assert issued() == before
    assert server.attempts() == attempts


def test_renewal_is_when_the_authority_would_like_it(two: TwoDomains) -> None:
    for name in (ONE, TWO):
        begin, end = two.server.memory(name)["window"]
        renewal = datetime.fromisoformat(two.server.listed(name)["renewal"]).timestamp()
        assert begin - 1 <= renewal <= end
