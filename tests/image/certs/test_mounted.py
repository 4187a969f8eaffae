"""TLS=files: certificates that the owner mounts, readable by the host's root alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.image.certs.conftest import CertServers
from tests.support.ca import DAY, Authority, Pair
from tests.support.certserver import PORTS, CertServer, leaf
from tests.support.container import checked
from tests.support.machine import Machine
from tests.support.wait import wait_until

HOST, OTHER, THIRD = "smtp.mounted.example", "other.example", "third.example"
NOTICED = 15.0  # seconds


@pytest.fixture(scope="module")
def folder(base: Path) -> Path:
    path = base / "certificates"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def first(authority: Authority) -> Pair:
    return authority.issue(HOST)


@pytest.fixture(scope="module")
def server(
    module_cert_servers: CertServers, folder: Path, machine: Machine, first: Pair
) -> CertServer:
    put(machine, folder, first)
    settings = {
        "TLS": "files", "TLS_FILES": "/certificates", "MAIL_HOSTNAME": HOST,
        "MAIL_DOMAINS": f"mounted.example,{OTHER},{THIRD}",
    }  # fmt: skip
    server = module_cert_servers.make(settings, mounts=[f"{folder}:/certificates:ro"])
    reload = server.data / "reload"
    reload.mkdir()
    (reload / "notes").write_text('#!/bin/sh\necho "$DOMAIN" >>/data/notes\n')
    (reload / "notes").chmod(0o755)
    server.up()
    return server


def put(machine: Machine, folder: Path, pair: Pair) -> None:
    """As certbot leaves them: root's, 0600."""
    machine.run("mkdir", "-p", str(folder))
    put_file(machine, folder / "privkey.pem", pair.key)
    put_file(machine, folder / "fullchain.pem", pair.chain)


def put_file(machine: Machine, path: Path, text: str) -> None:
    machine.write(path, text)
    for command in (("chown", "0:0"), ("chmod", "0600")):
        checked(machine.run(*command, str(path)))


def test_it_is_served_on_every_port(server: CertServer, first: Pair) -> None:
    wait_until(lambda: server.serves(first.fingerprint, HOST), "it is served", timeout=NOTICED)
    assert server.listed(HOST)["renewal"] is None, "not by tambo"
    assert "not by tambo" in server.ok("list-certs")


def test_renew_cert_says_that_nothing_is_issued_here(server: CertServer) -> None:
    result = server.verb("renew-cert")
    assert result.status == 1
    assert "TLS is files" in result.stderr


@pytest.fixture(scope="module")
def third(authority: Authority) -> Pair:
    return authority.issue(THIRD)


@pytest.fixture(scope="module")
def changed(server: CertServer, folder: Path, authority: Authority, third: Pair) -> dict[str, Pair]:
    """The folder after the owner has been at work: some of it is of use, some is not."""
    pairs = {
        ".": authority.issue(HOST),
        # A wildcard alone: the name of its folder is not among its names.
        "other": authority.issue(f"*.{OTHER}"),
        "half": Pair(third.chain, authority.issue(THIRD).key),
        "nonsense": Pair("nonsense\n", "nonsense\n"),
        "address": authority.issue(addresses=("192.0.2.1",)),
    }
    for name, pair in pairs.items():
        put(server.machine, folder / name, pair)
    for name, host in ((".", HOST), ("other", f"mail.{OTHER}")):
        wait_until(
            lambda: server.serves(pairs[name].fingerprint, host),  # noqa: B023 (at once)
            f"{host} is served",
            timeout=NOTICED,
        )
    return pairs


def test_a_new_one_is_noticed_and_the_executable_runs(
    server: CertServer, changed: dict[str, Pair]
) -> None:
    assert server.installed(HOST) == changed["."].fingerprint
    wait_until(
        lambda: sorted(server.machine.read(server.data / "notes").split()) == [OTHER, HOST, HOST],
        "the executable has run for all",
    )


def test_one_for_another_domain_is_served_to_who_asks_for_that(
    server: CertServer, changed: dict[str, Pair]
) -> None:
    assert server.listed(OTHER)["served"] is True
    assert f"{OTHER}: the new certificate is served on ports" in server.container.log()
    assert {leaf(server.ipv4, port, HOST) for port in PORTS} == {changed["."].fingerprint}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("half", "the private key does not belong to the certificate"),
        ("nonsense", "not a PEM certificate chain with its unencrypted PEM key"),
        ("address", "the certificate names no host (no DNS name in subjectAltName)"),
    ],
)
@pytest.mark.usefixtures("changed")
def test_what_is_of_no_use_is_told_once(server: CertServer, name: str, words: str) -> None:
    line = f"TLS_FILES: /certificates/{name}: {words}; what was there stays in service"
    wait_until(lambda: line in server.container.log(), "it is told", timeout=NOTICED)
    assert server.container.log().count(line) == 1


@pytest.mark.usefixtures("changed")
def test_half_a_change_is_taken_over_when_it_is_whole(
    server: CertServer, folder: Path, third: Pair
) -> None:
    assert leaf(server.ipv4, 465, THIRD) == server.installed(HOST)
    put_file(server.machine, folder / "half/privkey.pem", third.key)
    wait_until(lambda: server.serves(third.fingerprint, THIRD), "it is served", timeout=NOTICED)


@pytest.mark.usefixtures("changed")
def test_one_that_has_expired_is_unhealthy_and_one_that_ends_soon_is_told_of(
    server: CertServer, folder: Path, authority: Authority
) -> None:
    fix = "Fix: put a new one into the folder of TLS_FILES"
    server.log.expect(
        f"fail: The certificate of {HOST} expired on .* {fix}",
        f"warn: The certificate of {THIRD} expires on .*: less than a sixth of its life .* {fix}",
    )
    server.log.tolerate(f"warn: The certificate of {HOST} expires on")
    put(server.machine, folder / "half", authority.issue(THIRD, left=10 * DAY))
    put(server.machine, folder, authority.issue(HOST, left=-DAY))
    wait_until(lambda: server.verb("tambo", "health").status == 1, "it is ill", timeout=NOTICED)
    words = f"The certificate of {THIRD} expires"
    wait_until(lambda: words in server.container.log(), "it is told", timeout=NOTICED)
    assert server.greets()
