"""The doctor in the small internet: a healthy server, then one thing after the other broken.

The lists of bad senders and the large receivers are zones of the world, by their real names: what
is asked is what is asked outside, and nothing can get there.
"""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any

import pytest

from entrypoint.checks.context import RECEIVERS
from entrypoint.dns.blocklists import LISTS
from tests.image.conftest import TAMBO, Servers
from tests.support import smtp
from tests.support.container import checked, docker
from tests.support.server import DOMAIN, Server
from tests.support.wait import PATIENCE, wait_until
from tests.world.world import World

LIMIT = 15.0  # seconds
CLOSED = "closed.example"  # its exchanger refuses connections
SILENT = 99  # a host number that nobody has
ZEN = next(item for item in LISTS if item.zone == "zen.spamhaus.org")

Key = tuple[str, str, str, str]  # theme, level, id, subject


def zone_of(server: Server) -> str:
    """What tambo prints for the domain."""
    return server.ok("dns", "--format", "zone")


def load_domain(world: World, fragment: str) -> None:
    [text] = re.findall(rf"(?ms)^\$ORIGIN {DOMAIN}\.$(.*?)(?=^\$ORIGIN|\Z)", fragment)
    world.load_zone(DOMAIN, text)


def load_receivers(world: World, host4: int = 25) -> None:
    net = world.net
    for receiver in RECEIVERS:
        text = f"@ MX 10 mx\nmx A {net.v4(host4)}\nmx AAAA {net.v6(25)}\n"
        world.load_zone(receiver, text)


def load_list(world: World, zone: str, *lines: str) -> None:
    [item] = [item for item in LISTS if item.zone == zone]
    test = [f"{item.test} A 127.0.0.2"] if item.test else []
    world.load_zone(zone, "\n".join([*test, *lines]))


@pytest.fixture(scope="module")
def server(module_servers: Servers, world: World) -> Iterator[Server]:
    """All as it should be."""
    server = module_servers.make(host=TAMBO)
    server.up()
    load_domain(world, zone_of(server))
    load_receivers(world)
    for item in LISTS:
        load_list(world, item.zone)
    yield server
    for zone in (*RECEIVERS, *(item.zone for item in LISTS)):
        world.exec("authoritative", "pdnsutil", "delete-zone", zone)
    world.load_zone(DOMAIN, "")


def doctor(server: Server, *options: str) -> dict[str, Any]:
    started = time.monotonic()
    done = server.verb("doctor", "--json", *options)
    assert time.monotonic() - started < LIMIT * PATIENCE
    assert done.stderr == ""
    found: dict[str, Any] = done.json()
    assert done.status == (1 if found["failed"] else 0)
    return found


def findings(server: Server) -> set[Key]:
    """What is not as it should be, or not known."""
    return {
        (theme["theme"], item["level"], item["id"], item["subject"])
        for theme in doctor(server)["themes"]
        for item in theme["findings"]
        if item["level"] != "info"
    }


def one(server: Server, theme: str, name: str) -> dict[str, str]:
    """The one finding of that id."""
    found = doctor(server)["themes"]
    [item] = [
        item for each in found if each["theme"] == theme
        for item in each["findings"] if item["id"] == name
    ]  # fmt: skip
    assert isinstance(item, dict)
    return item


@pytest.fixture(scope="module")
def healthy(server: Server) -> set[Key]:
    """What is found on a server to which nothing was done."""
    return findings(server)


def test_a_healthy_server_fails_in_nothing(server: Server, healthy: set[Key]) -> None:
    assert not [item for item in healthy if item[1] == "fail"]
    # The first depends on the machine that the tests run on.
    assert {item[:3] for item in healthy} - {("host", "warn", "clock-not-kept")} == {
        ("network", "unknown", "ports-from-outside"), ("certificates", "warn", "self-signed"),
    }  # fmt: skip
    done = server.verb("doctor")
    assert (done.status, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if len(line) > 80] == []


def test_reverse_dns_is_gone(server: Server, healthy: set[Key], world: World) -> None:
    address = world.net.v6(TAMBO)
    world.remove_ptr(address)
    try:
        new = findings(server)
    finally:
        world.set_ptr(address, "smtp.example.com")
    assert new ^ healthy == {("names", "fail", "record-missing", f"PTR {address}")}


def test_a_dkim_record_that_a_console_has_cut(
    server: Server, healthy: set[Key], world: World
) -> None:
    fragment = zone_of(server)
    [name] = re.findall(r"(?m)^(\S+\._domainkey)\t", fragment)
    broken = re.sub(r'(?m)^(\S+\._domainkey\t.*TXT\t"[^"]{200})[^"]*".*$', r'\1"', fragment)
    assert broken != fragment
    load_domain(world, broken)
    try:
        new = findings(server)
    finally:
        load_domain(world, fragment)
    assert new ^ healthy == {("keys", "fail", "record-different", f"TXT {name}.{DOMAIN}")}


def test_on_a_list(server: Server, healthy: set[Key], world: World) -> None:
    address = world.net.v4(TAMBO)
    entry = ".".join(reversed(address.split(".")))
    load_list(world, ZEN.zone, f"{entry} A 127.0.0.4")
    try:
        new = findings(server)
        seen = one(server, "lists", "listed")["seen"]
    finally:
        load_list(world, ZEN.zone)
    assert new ^ healthy == {("lists", "fail", "listed", f"{address} {ZEN.zone}")}
    assert seen == "127.0.0.4 as a compromised machine (XBL)"


@pytest.mark.parametrize("text", ["* A 127.255.255.254", ""])
def test_a_list_that_does_not_answer_us_says_nothing(
    server: Server, healthy: set[Key], world: World, text: str
) -> None:
    """It says that we may not ask, or something on the way hides it."""
    world.load_zone(ZEN.zone, text)
    try:
        new = findings(server)
    finally:
        load_list(world, ZEN.zone)
    addresses = (world.net.v4(TAMBO), world.net.v6(TAMBO))
    assert new ^ healthy == {
        ("lists", "unknown", "list-unknown", f"{address} {ZEN.zone}") for address in addresses
    }


def test_port_25_that_is_blocked(server: Server, healthy: set[Key], world: World) -> None:
    load_receivers(world, host4=SILENT)
    try:
        new = findings(server)
    finally:
        load_receivers(world)
    assert new ^ healthy == {("network", "fail", "port-25-blocked", "IPv4")}


@contextmanager
def paused(world: World, service: str) -> Iterator[None]:
    checked(docker("pause", world.container(service)))
    try:
        yield
    finally:
        checked(docker("unpause", world.container(service)))


@pytest.mark.parametrize("service", ["resolver", "authoritative"])
def test_dns_that_does_not_answer_makes_nothing_absent(
    server: Server, healthy: set[Key], world: World, service: str
) -> None:
    with paused(world, service):
        new = findings(server)
    assert healthy <= new
    news = new - healthy
    assert {item for item in news if item[1] != "unknown"} == {("network", "fail", "resolver", "")}
    assert {item[0] for item in news} == {
        "network", "names", "records", "dnssec", "keys", "lists",
    }  # fmt: skip
    assert len([item for item in news if item[0] == "lists"]) == sum(
        len(item.families) or 1 for item in LISTS
    )
    wait_until(lambda: findings(server) == healthy, "all is well again", timeout=30, pause=1)


def test_ipv6_that_is_switched_off(server: Server, healthy: set[Key], world: World) -> None:
    def inside(*argv: str) -> None:
        pid = str(server.container.pid)
        checked(server.machine.run("nsenter", "--target", pid, "--net", *argv))

    switch = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
    inside("sh", "-c", f"echo 1 >{switch}")
    try:
        new = findings(server)
        fix = one(server, "host", "ipv6-off")["fix"]
    finally:
        inside("sh", "-c", f"echo 0 >{switch}")
        inside("ip", "-6", "addr", "add", f"{world.net.v6(TAMBO)}/64", "dev", "eth0", "nodad")
    assert new ^ healthy == {("host", "fail", "ipv6-off", "")}
    assert "sudo sysctl --system" in fix
    assert f'["{world.net.v6(TAMBO)}/64"]' in fix


def test_aliases_in_an_alias_loop(server: Server, healthy: set[Key]) -> None:
    path = server.data / f"domains/{DOMAIN}/aliases"
    # The keeper says it too, if it looks meanwhile.
    server.log.tolerate(rf"fail: data/domains/{DOMAIN}/aliases: line [12]: .* in a loop")
    server.machine.write(path, "a: b\nb: a\nc: nobody-here\n")
    try:
        new = findings(server)
    finally:
        server.machine.write(path, "# none\n")
    assert new ^ healthy == {
        ("accounts", "fail", "alias-loop", f"a@{DOMAIN}"),
        ("accounts", "fail", "alias-loop", f"b@{DOMAIN}"),
        ("accounts", "warn", "alias-nowhere", f"c@{DOMAIN} nobody-here@{DOMAIN}"),
    }


def test_a_disk_that_is_full(servers: Servers) -> None:
    settings = {"MAX_MESSAGE_MB": "5"}
    overlay = {"tmpfs": ["/data/mail:size=40m"]}
    server = servers.make(settings, overlay=overlay)
    server.up()
    before = findings(server)
    checked(server.container.exec("dd", "if=/dev/zero", "of=/data/mail/large", "bs=1M", "count=30"))
    assert findings(server) ^ before == {("host", "fail", "disk-full", "data/mail")}


def test_what_has_changed(server: Server, healthy: set[Key], world: World) -> None:
    assert healthy
    doctor(server)
    assert "Nothing has changed since " in server.ok("doctor", "--changes")
    address = world.net.v4(TAMBO)
    world.remove_ptr(address)
    try:
        done = server.verb("doctor", "--changes")
        assert done.status == 1
        assert f"PTR {address} is missing." in done.stdout
        assert "self-signed" not in done.stdout
    finally:
        world.set_ptr(address, "smtp.example.com")
    assert f"mended   PTR {address} is missing." in server.ok("doctor", "--changes")


def test_the_keeper_looks_without_any_right_of_root_s(server: Server, healthy: set[Key]) -> None:
    code = (
        "import os; from entrypoint.settings.environment import load;"
        "from entrypoint.services import doctor;"
        "from entrypoint.common.paths import Paths; from entrypoint.common.identity import Ids;"
        "done = doctor.look_if_due(load(os.environ), Paths(), Ids.image(), print);"
        "print('looked' if done else 'not due')"
    )

    def look() -> list[str]:
        command = ("/opt/tambo/bin/python", "-c", code)
        return checked(server.container.exec(*command, user="tambo")).stdout.splitlines()

    assert look() == ["not due"], "somebody has just looked"
    server.machine.delete(server.data / "state/doctor.json")
    *lines, last = look()
    assert last == "looked"
    assert len(lines) == len(healthy), "one line for each that is not as it should be"
    assert "warn: The certificate in use is self-signed. (docker exec mail doctor)" in lines
    assert look() == ["not due"]


def test_what_waits_and_what_receivers_answer(server: Server, world: World) -> None:
    world.load_zone(CLOSED, "@ MX 10 ns.example.net.")
    server.log.expect("deferred id=")
    secret = server.add_user(f"i@{DOMAIN}")
    smtp.submit(server.endpoint(), f"i@{DOMAIN}", secret, f"you@{CLOSED}")
    wait_until(
        lambda: any("last_failure_message" in text for text in server.queued()), "it was tried once"
    )
    assert one(server, "mail", "queue")["seen"].startswith("1 of 2000, the oldest ")
    found = one(server, "mail", "queue-waiting")
    assert (found["level"], found["subject"]) == ("info", CLOSED)
    assert "refused" in found["seen"]


def test_reports_that_have_come(server: Server, world: World) -> None:
    def record(source: str, count: int, result: str) -> str:
        return (
            f"<record><row><source_ip>{source}</source_ip><count>{count}</count>"
            f"<policy_evaluated><dkim>{result}</dkim><spf>{result}</spf></policy_evaluated>"
            "</row></record>"
        )

    xml = (
        "<feedback><report_metadata><org_name>Big Provider</org_name><report_id>1</report_id>"
        f"</report_metadata><policy_published><domain>{DOMAIN}</domain></policy_published>"
        f"{record(world.net.v4(TAMBO), 40, 'pass')}{record('192.0.2.66', 2, 'fail')}</feedback>"
    )
    message = EmailMessage()
    message["From"], message["To"] = "dmarc@big.example", f"rua@{DOMAIN}"
    message["Subject"] = f"Report domain: {DOMAIN}"
    message.set_content("A report is attached.\n")
    content = gzip.compress(xml.encode())
    message.add_attachment(content, maintype="application", subtype="gzip", filename="x.xml.gz")
    with smtp.mail_server(server.ipv4) as session:
        session.send_message(message)
    wait_until(lambda: server.kept(f"rua@{DOMAIN}"), "the report is kept")
    assert one(server, "reports", "reports")["seen"] == (
        "1 from Big Provider; 42 messages, 2 failed"
    )
    seen = one(server, "reports", "reports-others-fail")["seen"]
    assert seen == f"192.0.2.66 as {DOMAIN}: 2 of 2 failed"
