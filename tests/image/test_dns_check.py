"""dns --check asks the authoritative servers themselves, and never takes silence for a no."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from docker import DockerClient

from tests.image.conftest import PROJECT, TAMBO, Servers
from tests.support.container import Result, checked, docker
from tests.support.nameserver import NameServer
from tests.support.server import DOMAIN, HOST, Server
from tests.support.wait import PATIENCE, wait_until
from tests.world.world import World

KEYS = "elsewhere-keys.example"  # another provider's zone
LIMIT = 20.0  # seconds for a look at DNS, however silent: two addresses, over UDP and TCP
LONG = "".join(f'@ TXT "verification-{number}={"x" * 200}"\n' for number in range(8))


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    server = module_servers.make(
        {"DKIM_KEYS": "rsa2048,ed25519", "DKIM_SELECTOR": "k"}, host=TAMBO
    )  # fmt: skip
    server.up()
    return server


@pytest.fixture
def printed(server: Server, world: World) -> Iterator[str]:
    """The zone that tambo prints, which is loaded; empty again afterwards."""
    zone = server.ok("dns", "--format", "zone")
    world.load_zone(DOMAIN, zone)
    yield zone
    world.load_zone(DOMAIN, "")


@pytest.fixture
def second(client: DockerClient, world: World) -> Iterator[NameServer]:
    found = NameServer(client, f"{PROJECT}-other-nameserver", world)
    yield found
    found.remove()


def check(server: Server, *options: str) -> Result:
    since = time.monotonic()
    done = server.verb("dns", "--check", *options)
    assert time.monotonic() - since < LIMIT * PATIENCE
    assert done.stderr == ""
    return done


def rows(server: Server) -> tuple[int, dict[tuple[str, str], dict[str, Any]]]:
    """The exit status, and what was found by type and name."""
    done = check(server, "--json")
    return done.status, {(row["type"], row["name"]): row for row in done.json()}


def statuses(found: dict[tuple[str, str], dict[str, Any]]) -> set[str]:
    return {row["status"] for row in found.values()}


@contextmanager
def without_pointers(server: Server, world: World) -> Iterator[None]:
    for address in (server.ipv4, server.ipv6):
        world.remove_ptr(address)
    try:
        yield
    finally:
        for address in (server.ipv4, server.ipv6):
            world.set_ptr(address, HOST)


def test_an_empty_zone_lacks_everything(server: Server, world: World) -> None:
    world.load_zone(DOMAIN, "")
    with without_pointers(server, world):
        done = check(server)
    assert done.status == 1
    wanted = server.verb("dns", "--json").json()
    lines = [line.split() for line in done.stdout.splitlines() if re.match(r"\S", line)]
    assert {(line[0].upper(), line[2]) for line in lines[:-1]} == {
        ("MISSING", {"PTR": {4: server.ipv4, 6: server.ipv6}}.get(item["type"], {}).get(
            6 if "ip6" in item["name"] else 4, item["name"]))
        for item in wanted
    }  # fmt: skip
    for item in wanted:
        assert f" {item['value']}" in done.stdout, "each with what to enter"
    count = len(wanted)
    assert done.stdout.endswith(
        f"{count} records: 0 ok, {count} missing, 0 different, 0 unknown\n"
    )  # fmt: skip


def test_a_domain_that_is_not_registered(server: Server, world: World) -> None:
    world.exec("authoritative", "pdnsutil", "delete-zone", DOMAIN, check=False)
    try:
        status, found = rows(server)
    finally:
        world.load_zone(DOMAIN, "")
    assert status == 1
    assert {row["status"] for row in found.values() if row["type"] != "PTR"} == {"missing"}


@pytest.mark.usefixtures("printed")
def test_what_is_printed_is_found_right(server: Server) -> None:
    done = check(server)
    assert done.status == 0, done.stdout
    *records, summary = done.stdout.splitlines()
    assert all(re.match(r"ok +[A-Z]+ +\S+(  \(optional\))?$", line) for line in records)
    count = len(server.verb("dns", "--json").json())
    assert summary == f"{count} records: {count} ok, 0 missing, 0 different, 0 unknown"
    status, found = rows(server)
    assert (status, statuses(found), len(found)) == (0, {"ok"}, count)


@pytest.mark.usefixtures("printed")
def test_pointers_are_looked_at(server: Server, world: World) -> None:
    with without_pointers(server, world):
        status, found = rows(server)
    assert status == 1
    assert {key[0] for key, row in found.items() if row["status"] == "missing"} == {"PTR"}


def test_an_edit_shows_at_once(server: Server, world: World, printed: str) -> None:
    """The servers themselves are asked, not a cache."""
    for value, status in (("v=DMARC1; p=none", 1), ("", 0)):
        zone = re.sub(r'(?<=")v=DMARC1[^"]*', value, printed) if value else printed
        world.load_zone(DOMAIN, zone)
        found, by_name = rows(server)
        assert found == status
        row = by_name["TXT", f"_dmarc.{DOMAIN}"]
        assert row["status"] == ("different" if value else "ok")


def test_a_long_answer_comes_by_tcp(server: Server, world: World, printed: str) -> None:
    world.load_zone(DOMAIN, printed + LONG)
    dig = ("dig", "+notcp", "+ignore", "+bufsize=1232", f"@{world.net.v4(2)}")
    said = world.exec("resolver", *dig, DOMAIN, "TXT")
    assert re.search(r"flags:[^;]* tc", said), "else this tests nothing"
    status, found = rows(server)
    assert (status, statuses(found)) == (0, {"ok"})


def test_aliases_are_followed_into_another_zone(server: Server, world: World, printed: str) -> None:
    key = re.search(r"(?m)^kr\._domainkey\t.*TXT\t(.*)$", printed)
    assert key
    zone = printed.replace(key[0], f"kr._domainkey CNAME kr.{KEYS}.")
    world.load_zone(DOMAIN, zone)
    try:
        world.load_zone(KEYS, f"kr TXT {key[1]}")
        status, found = rows(server)
        assert (status, statuses(found)) == (0, {"ok"})
        world.load_zone(KEYS, 'kr TXT "v=DKIM1; k=rsa; p="')
        status, found = rows(server)
        assert status == 1
        assert "revoked" in found["TXT", f"kr._domainkey.{DOMAIN}"]["reason"]
    finally:
        world.exec("authoritative", "pdnsutil", "delete-zone", KEYS)


@pytest.mark.parametrize("service", ["resolver", "authoritative"])
@pytest.mark.usefixtures("printed")
def test_a_server_that_is_silent_makes_nothing_wrong(
    server: Server, world: World, service: str
) -> None:
    checked(docker("pause", world.container(service)))
    try:
        since = time.monotonic()
        status, found = rows(server)
        done = check(server)
        assert time.monotonic() - since < 2 * LIMIT * PATIENCE
    finally:
        checked(docker("unpause", world.container(service)))
    assert (status, statuses(found)) == (75, {"unknown"})
    assert all(row["reason"] for row in found.values())
    assert done.status == 75
    assert not re.search("(?i)^(missing|different|ok)", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("which says nothing about the record itself\n")
    wait_until(lambda: rows(server)[0] == 0, "all is right again", timeout=30)


def test_one_of_two_servers_lags_behind(
    server: Server, world: World, printed: str, second: NameServer
) -> None:
    """A resolver may ask either of them."""
    zone = printed + second.delegation
    world.load_zone(DOMAIN, zone)
    old = re.sub(r"(?m)^_dmarc\t.*\n", "", zone)
    second.load_zone(DOMAIN, old)
    status, found = rows(server)
    assert status == 1
    row = found.pop(("TXT", f"_dmarc.{DOMAIN}"))
    assert row["status"] == "missing"
    assert row["reason"] == f"right at ns.example.net, but not at second.{DOMAIN}"
    assert statuses(found) == {"ok"}
    second.load_zone(DOMAIN, zone)
    status, found = rows(server)
    assert (status, statuses(found)) == (0, {"ok"})


def test_one_of_two_servers_is_silent_or_does_not_know_the_zone(
    server: Server, world: World, printed: str, second: NameServer
) -> None:
    """The other's word holds; that one is of no use is said."""
    world.load_zone(DOMAIN, printed + second.delegation)
    second.load_zone(DOMAIN, printed)
    # Without any zone, it refuses.
    for zone in second.exec("pdnsutil", "list-all-zones").stdout.split():
        checked(second.exec("pdnsutil", "delete-zone", zone))
    status, found = rows(server)
    assert (status, statuses(found)) == (0, {"ok"})
    note = found["MX", DOMAIN]["note"]
    assert note.startswith(f"not every name server could be asked: the name server second.{DOMAIN}")
    assert "answered REFUSED" in note
    checked(second.docker("pause"))
    status, found = rows(server)
    assert (status, statuses(found)) == (0, {"ok"})
    assert found["MX", DOMAIN]["note"].endswith("no answer in time")


def test_watching_ends_by_itself_when_the_zone_gets_right(
    server: Server, world: World, printed: str
) -> None:
    world.load_zone(DOMAIN, re.sub(r"(?m)^_dmarc\t.*\n", "", printed))
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(server.verb, "dns", "--watch")
        time.sleep(4)
        assert not watching.done()
        world.load_zone(DOMAIN, printed)
        done = watching.result(timeout=30)
    assert (done.status, done.stderr) == (0, "")
    first, second, rest = done.stdout.split(" unknown\n")
    assert rest == ""
    assert f"MISSING    TXT   _dmarc.{DOMAIN}\n" in first
    news, summary = second.splitlines()
    assert news == f"ok         TXT   _dmarc.{DOMAIN}"
    assert " 0 missing, 0 different, 0" in summary
