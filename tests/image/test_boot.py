"""How it starts, starts again, and refuses to start."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.container import checked
from tests.support.server import DOMAIN, HOST, ROOT, Server
from tests.support.wait import wait_until
from tests.world.world import World

# Restarted for ever by the real file's policy; a test wants to see it end.
ONCE = {"restart": "no"}


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    server = module_servers.make({"DKIM_KEYS": "rsa2048,ed25519"})
    server.up()
    return server


def test_the_records_are_printed_at_boot_as_by_the_verb(server: Server) -> None:
    printed = server.records_printed()
    assert printed == server.ok("dns").strip()
    dkim = ("v=DKIM1; k=rsa", "v=DKIM1; k=ed25519")
    for words in (server.ipv4, server.ipv6, "v=spf1", "v=DMARC1", *dkim):
        assert words in printed


@pytest.mark.alone
def test_a_second_container_on_the_volume_ends_at_once_and_delivers_nothing(
    server: Server, servers: Servers, world: World
) -> None:
    secret = server.add_user(f"once@{DOMAIN}")
    # Something in the queue, which two servers would both deliver: its receiver refuses for now.
    world.load_zone("later.example", "@ MX 10 ns.example.net.")
    server.log.tolerate("deferred id=")
    waiting = smtp.submit(server.endpoint(), f"once@{DOMAIN}", secret, "you@later.example")
    wait_until(server.queued, "a message waits")
    world.load_zone("later.example", "@ MX 10 mx.example.net.")
    second = servers.make(data=server.data, overlay=ONCE)
    second.log.expect("error: another tambo is running on this data folder")
    since = time.monotonic()
    second.up(wait=False)
    assert second.container.wait_exit(5) == 75
    assert time.monotonic() - since < 5
    assert "fix: stop it first" in second.container.log()
    # It delivered nothing: the message still waits for the first one's next try.
    assert len(server.queued()) == 1
    assert not world.deliveries(subject=waiting)
    # And the first one is none the worse.
    subject = smtp.submit(server.endpoint(), f"once@{DOMAIN}", secret, "you@example.net")
    assert len(world.wait_for(subject=subject, timeout=20)) == 1


def test_the_zone_format_loads_in_a_name_server(server: Server, world: World) -> None:
    zone = server.ok("dns", "--format", "zone")
    assert re.findall(r"^\$ORIGIN (.*)", zone, re.MULTILINE) == [f"{DOMAIN}."]
    head = (
        f"$ORIGIN {DOMAIN}.\n$TTL 60\n@ NS ns.example.net.\n"
        "@ SOA ns.example.net. hostmaster.example.net. 1 3600 600 86400 60\n"
    )
    command = (
        "named-checkzone", "-i", "local", "-k", "fail", "-m", "fail", "-M", "fail", "-n", "fail",
        "-r", "fail", "-S", "fail", "-W", "fail", DOMAIN, "/dev/stdin",
    )  # fmt: skip
    said = world.exec("resolver", *command, input=head + zone)
    assert said.splitlines()[-1] == "OK"
    assert "ignoring" not in said


def test_bad_settings_are_all_listed_and_end_the_container_with_64(servers: Servers) -> None:
    settings = {
        "MAIL_HOSTNAME": "not a name",
        "PUBLIC_IPV4": "10.0.0.1",
        "MAIL_HOSTNAMES": HOST,
        "MAX_QUEUE": "-5",
        "FORWARD_TO_FILE": "/run/secrets/absent",
    }
    server = servers.make(settings, overlay=ONCE)
    server.log.expect("error: The settings have 5 problems:")
    server.up(wait=False)
    assert server.container.wait_exit(10) == 64
    log = server.container.log()
    for words in (
        "MAIL_HOSTNAME: 'not a name'",
        "PUBLIC_IPV4: '10.0.0.1' cannot be reached",
        "MAIL_HOSTNAMES is not a setting; did you mean MAIL_HOSTNAME?",
        "MAX_QUEUE: ",
        "FORWARD_TO_FILE: cannot read",
        "fix: correct .env",
    ):
        assert words in log
    assert "Traceback" not in log
    assert not server.machine.names(server.data), "nothing was begun"


def test_a_hostname_is_all_that_must_be_set(servers: Servers) -> None:
    server = servers.make({"MAIL_HOSTNAME": ""}, overlay=ONCE)
    server.log.expect("error: The settings have 1 problem:")
    server.up(wait=False)
    assert server.container.wait_exit(10) == 64
    assert "MAIL_HOSTNAME is missing" in server.container.log()


def test_a_taken_port_is_named_and_a_fatal_program_ends_the_container(
    servers: Servers, server: Server
) -> None:
    """In the network of another tambo, which has the ports."""
    network = {"network_mode": f"container:{server.name}", "networks": None, "sysctls": None}
    late = servers.make(overlay={**ONCE, **network})
    late.log.expect(
        "error: cannot listen on port 25 of 0.0.0.0: Address already in use",
        "error: smtp cannot be kept running",
    )
    # What supervisord itself has to say of it.
    late.log.tolerate("CRIT|WARN")
    late.up(wait=False)
    wait_until(lambda: "cannot listen on port 25" in late.container.log(), "it says why at once")
    assert "ss -ltnp 'sport = :25'" in late.container.log(), "and what to do"
    assert late.container.wait_exit(30) == 70, "monitoring can tell it from a stop"
    assert server.greets()


def test_no_container_here_touches_what_production_has(server: Server) -> None:
    """Another mail server may run on this machine, from this very folder."""
    attrs = server.container.model.attrs
    assert attrs["Name"] != "/mail"
    assert attrs["HostConfig"]["NetworkMode"] != "host"
    for mount in attrs["Mounts"]:
        source = Path(mount["Source"])
        assert not source.is_relative_to(ROOT)
        assert not ROOT.is_relative_to(source)
    labels = attrs["Config"]["Labels"]
    assert labels["com.docker.compose.project"] != "tambo"
    assert checked(server.container.exec("printenv", "MAIL_HOSTNAME")).stdout.strip() == HOST
