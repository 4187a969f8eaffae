"""publish-dns against real name servers: PowerDNS by its API, and RFC 2136."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from entrypoint.zone import providers
from tests.image.conftest import TAMBO, Servers
from tests.support import smtp
from tests.support.container import Result, checked, docker
from tests.support.machine import Machine
from tests.support.server import DOMAIN, HOST, Server
from tests.support.wait import wait_until
from tests.world.world import World

API_KEY = "tambo-world"  # of the world's name server
UPDATE_PORT = 5300
TSIG = "c2VjcmV0LW9mLXRzaWctMDEyMzQ1Njc4OTAxMg=="
KEY = f'key "tambo" {{\n\talgorithm hmac-sha256;\n\tsecret "{TSIG}";\n}};\n'

LONG = "a" * 255
OWN = f"""
@ 300 MX 10 mx.example.net.
@ 300 TXT "v=spf1 include:example.net -all"
@ 300 TXT "verification=1; say \\"this\\""
@ 300 TXT "{LONG}" "and more"
* 300 CNAME www
www 300 A 192.0.2.7
_dmarc 300 TXT "v=DMARC1; p=none; rua=mailto:reports@example.net"
google._domainkey 300 TXT "v=DKIM1; k=rsa; p=AAAA"
_submission._tcp 300 SRV 0 1 587 mail.example.net.
"""
TEXTS = "\n".join(
    line for line in OWN.splitlines() if line.startswith("@ 300 TXT") and "spf" not in line
)


def by_api(net4: str, key: str = API_KEY) -> dict[str, str]:
    """As for certificates; these are not issued here."""
    return {
        "TLS": "self-signed",
        "ACME_DNS": "dns_pdns",
        "PDNS_Url": f"http://{net4}.2:8081",
        "PDNS_ServerId": "localhost",
        "PDNS_Token": key,
    }


@pytest.fixture(scope="module")
def server(module_servers: Servers, world: World) -> Server:
    keys = {"DKIM_KEYS": "rsa2048,ed25519"}
    server = module_servers.make({**keys, **by_api(world.net.net4)}, host=TAMBO)
    server.up()
    return server


@pytest.fixture
def zone(world: World) -> Iterator[World]:
    """The domain has a zone with nothing in it, as when it has just been bought."""
    world.load_zone(DOMAIN, "")
    yield world
    world.load_zone(DOMAIN, "")


def lines(world: World) -> set[str]:
    """The zone but for its SOA, whose serial number changes with it."""
    found = world.zone(DOMAIN).splitlines()
    return {line for line in found if line and "\tSOA\t" not in line and line[0] != "$"}


def checks(server: Server) -> dict[tuple[str, str], str]:
    """What `dns --check` says of each record."""
    rows = server.verb("dns", "--check", "--json").json()
    return {(row["name"], row["type"]): row["status"] for row in rows}


def steps(result: Result) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(item["name"], item["type"]): item for item in result.json()["steps"]}


def test_from_an_empty_zone_to_mail_that_passes(server: Server, zone: World) -> None:
    addresses = (zone.net.v4(TAMBO), zone.net.v6(TAMBO))
    for address in addresses:
        zone.remove_ptr(address)
    try:
        assert set(checks(server).values()) == {"missing"}
        assert server.verb("dns", "--check").status == 1
        empty = lines(zone)

        plan = server.verb("publish-dns")
        assert plan.status == 1
        assert "  + @ MX 10 smtp.example.com.\n" in plan.stdout
        assert f"PTR Reverse DNS of {addresses[0]}" in plan.stdout
        assert lines(zone) == empty, "it is only shown"
    finally:
        for address in addresses:
            zone.set_ptr(address, HOST)  # as the server's provider does
    done = server.verb("publish-dns", "--apply")
    assert done.status == 0, done.stdout + done.stderr
    assert set(checks(server).values()) == {"ok"}
    assert server.verb("dns", "--check").status == 0

    published = lines(zone)
    again = server.verb("publish-dns")
    assert (again.status, again.stderr) == (0, "")
    assert again.stdout.startswith("nothing to publish")
    assert server.verb("publish-dns", "--apply").status == 0
    assert lines(zone) == published

    secret = server.add_user(f"i@{DOMAIN}")
    subject = smtp.submit(server.endpoint(), f"i@{DOMAIN}", secret, "you@example.net")
    [delivery] = zone.wait_for(subject=subject, timeout=20)
    assert (delivery.spf, delivery.dmarc) == ("pass", "pass")
    assert len(delivery.dkim) == 2
    assert set(delivery.dkim.values()) == {"pass"}


def test_the_owner_s_records_stay_as_they_are(server: Server, zone: World) -> None:
    zone.load_zone(DOMAIN, OWN)
    before = lines(zone)
    done = server.verb("publish-dns", "--apply", "--json")
    assert done.status == 1, "something is left to do"
    after = lines(zone)
    assert after >= before
    names = {line.split("\t")[0] for line in after - before}
    assert names == {
        HOST, "_spf.example.com", "_smtp._tls.example.com", "_submissions._tcp.example.com",
        *(f"{item['name']}" for item in done.json()["steps"] if "_domainkey" in item["name"]),
    }  # fmt: skip

    found = steps(done)
    assert {key for key, item in found.items() if item["action"] == "by hand"} == {
        (DOMAIN, "MX"), (DOMAIN, "TXT"), (f"_dmarc.{DOMAIN}", "TXT"),
    }  # fmt: skip
    assert f"v=spf1 include:_spf.{DOMAIN} include:example.net -all" in found[DOMAIN, "TXT"]["fix"]
    assert found[f"_submission._tcp.{DOMAIN}", "SRV"]["action"] == "leave"
    assert all(item["result"]["served"] for item in found.values() if item["action"] == "add")

    plan = server.verb("publish-dns")
    assert plan.status == 1
    assert "0 to add, 0 to change, 3 to be done by hand" in plan.stdout
    assert server.verb("publish-dns", "--apply").status == 1
    assert lines(zone) == after


def test_our_spf_joins_the_owner_s_texts(server: Server, zone: World) -> None:
    """One set of records for the server to keep; the driver writes it as a whole."""
    zone.load_zone(DOMAIN, TEXTS)
    before = lines(zone)
    assert server.verb("publish-dns", "--apply").status == 0
    assert lines(zone) > before
    assert f'{DOMAIN}\t300\tIN\tTXT\t"v=spf1 include:_spf.{DOMAIN} ~all"' in lines(zone)


def test_what_we_wrote_once_follows_the_settings(server: Server, zone: World) -> None:
    assert server.verb("publish-dns", "--apply").status == 0
    right = lines(zone)
    rsa = next(line for line in right if "k=rsa" in line)
    name = rsa.split("\t")[0]
    changes = {
        f"_dmarc.{DOMAIN}": '"v=DMARC1; p=none; fo=1; rua=mailto:rua@example.com"',
        f"_spf.{DOMAIN}": '"v=spf1 a:gone.example.com ~all"',
        name: '"v=DKIM1; k=rsa; p=MIIBIjANBgkqhki/cut+off"',
    }
    for owner, value in changes.items():
        label = owner.removesuffix(f".{DOMAIN}")
        zone.exec("authoritative", "pdnsutil", "replace-rrset", DOMAIN, label, "TXT", "3600", value)
    plan = server.verb("publish-dns", "--json")
    assert plan.status == 1
    assert {key for key, item in steps(plan).items() if item["action"] == "change"} == {
        (owner, "TXT") for owner in changes
    }
    text = server.verb("publish-dns").stdout
    assert "  - _spf TXT v=spf1 a:gone.example.com ~all\n" in text
    assert "  + _spf TXT v=spf1 a:smtp.example.com ~all\n" in text
    assert server.verb("publish-dns", "--apply").status == 0
    assert lines(zone) == right


@pytest.mark.parametrize("as_json", [False, True])
def test_a_wrong_key_changes_nothing(servers: Servers, zone: World, as_json: bool) -> None:
    wrong = "wrong-key-0123456789"
    server = servers.make(by_api(zone.net.net4, wrong))
    server.up()
    before = lines(zone)
    options = ["--json"] if as_json else []
    for arguments in (options, ["--apply", *options]):
        done = server.verb("publish-dns", *arguments)
        assert done.status == 1
        said = done.stdout + done.stderr
        assert "the credentials are not accepted (ACME_DNS=dns_pdns)" in said
        assert "401" in said
        assert wrong not in said
        if as_json:
            json.loads(done.stdout)
    assert lines(zone) == before
    assert wrong not in server.container.log()


def test_an_api_that_cannot_be_reached(servers: Servers, zone: World) -> None:
    settings = by_api(zone.net.net4) | {"PDNS_Url": f"http://{zone.net.v4(14)}:8081"}
    server = servers.make(settings)
    server.up()
    done = server.verb("publish-dns", "--apply")
    assert done.status == 1
    assert "cannot be reached" in done.stderr


def test_without_a_provider_all_is_to_be_done_by_hand(servers: Servers, zone: World) -> None:
    server = servers.make()
    server.up()
    done = server.verb("publish-dns", "--apply")
    assert done.status == 1
    assert f"To be entered by hand in {DOMAIN}: no DNS provider is set for it" in done.stdout
    assert "data/domains/example.com/acme.env" in done.stdout
    assert not any("TXT" in line for line in lines(zone))


def test_a_domain_that_dns_does_not_know(servers: Servers, world: World) -> None:
    server = servers.make({**by_api(world.net.net4), "MAIL_HOSTNAME": "smtp.unknown.example"})
    server.up()
    done = server.verb("publish-dns", "--apply")
    assert done.status == 1
    assert "DNS has no zone unknown.example" in done.stdout


def test_in_dns_lexicon_s_own_terms(servers: Servers, zone: World) -> None:
    server = servers.make(
        {
            "LEXICON_PROVIDER": "powerdns",
            "LEXICON_POWERDNS_AUTH_TOKEN": API_KEY,
            "LEXICON_POWERDNS_PDNS_SERVER": f"http://{zone.net.v4(2)}:8081",
        }
    )
    server.up()
    server.verb("publish-dns", "--apply")
    assert {key for key, status in checks(server).items() if status != "ok"} == {
        (name, "PTR") for name, kind in checks(server) if kind == "PTR"
    }


# RFC 2136


@pytest.fixture
def updates(zone: World) -> Iterator[World]:
    """A second server on the same zone, which takes updates. The owner's texts are in it."""
    zone.load_zone(DOMAIN, TEXTS)
    machine = zone.container("authoritative")
    command = (
        "echo $$ >/tmp/updates.pid; exec pdns_server --config-name= --daemon=no --guardian=no "
        f"--disable-syslog --write-pid=no --local-port={UPDATE_PORT} --api=no --webserver=no "
        "--dnsupdate=yes --allow-dnsupdate-from=0.0.0.0/0,::/0 --socket-dir=/tmp"
    )
    checked(docker("exec", "--detach", machine, "sh", "-c", command))
    for words in (
        ("import-tsig-key", "tambo", "hmac-sha256", TSIG),
        ("set-meta", DOMAIN, "TSIG-ALLOW-DNSUPDATE", "tambo"),
    ):
        zone.exec("authoritative", "pdnsutil", *words)
    wait_until(lambda: f":{UPDATE_PORT}" in zone.exec("authoritative", "ss", "-Hltn"), "it listens")
    yield zone
    zone.exec("authoritative", "sh", "-c", "kill -9 $(cat /tmp/updates.pid)")
    zone.exec("authoritative", "pdnsutil", "delete-tsig-key", "tambo")


def by_update(port: int = UPDATE_PORT) -> dict[str, str]:
    return {
        "TLS": "self-signed",
        "ACME_DNS": "dns_nsupdate",
        "NSUPDATE_SERVER": "ns.example.net",
        "NSUPDATE_SERVER_PORT": str(port),
        "NSUPDATE_KEY": "/data/tsig.key",
    }


def put_key(server: Server, machine: Machine, text: str, owner: str = "10465:10465") -> None:
    path = server.data / "tsig.key"
    machine.write(path, text)
    checked(machine.run("chown", owner, str(path)))
    checked(machine.run("chmod", "0600", str(path)))


def test_by_rfc_2136(servers: Servers, machine: Machine, updates: World) -> None:
    before = lines(updates)
    server = servers.make(by_update())
    server.up()
    for address in (server.ipv4, server.ipv6):
        updates.set_ptr(address, HOST)

    put_key(server, machine, KEY, owner="0:0")
    done = server.verb("publish-dns", "--apply")
    assert done.status == 1
    assert "Permission denied" in done.stderr, "it is not root any more"

    put_key(server, machine, KEY.replace(TSIG, "d3Jvbmd3cm9uZ3dyb25nd3Jvbmd3cm9uZw=="))
    done = server.verb("publish-dns", "--apply")
    assert done.status == 1
    assert "the name server does not take the key" in done.stderr
    assert lines(updates) == before

    put_key(server, machine, KEY)
    done = server.verb("publish-dns", "--apply")
    assert done.status == 0, done.stdout + done.stderr
    assert set(checks(server).values()) == {"ok"}
    after = lines(updates)
    assert after > before
    assert server.verb("publish-dns").stdout.startswith("nothing to publish")

    value = '"v=DMARC1; p=none; fo=1; rua=mailto:rua@example.com"'
    change = ("replace-rrset", DOMAIN, "_dmarc", "TXT", "3600", value)
    updates.exec("authoritative", "pdnsutil", *change)
    assert server.verb("publish-dns", "--apply").status == 0
    assert lines(updates) == after
    for address in (server.ipv4, server.ipv6):
        updates.remove_ptr(address)


def test_a_refused_update_is_no_success(servers: Servers, machine: Machine, updates: World) -> None:
    """The world's first name server knows the key, and takes no updates."""
    server = servers.make(by_update(port=53))
    server.up()
    put_key(server, machine, KEY)
    before = lines(updates)
    done = server.verb("publish-dns", "--apply")
    assert done.status == 1
    assert "the name server answers REFUSED" in done.stderr
    assert lines(updates) == before


# What the table says of acme.sh


def test_every_variable_is_one_that_acme_sh_s_hook_reads(server: Server) -> None:
    code = (
        "import json, sys; from entrypoint.settings import acmehooks;"
        "print(json.dumps({name: sorted(acmehooks.load(name).variables) for name in sys.argv[1:]}))"
    )
    python = "/opt/tambo/bin/python"
    hooks = checked(server.container.exec(python, "-c", code, *providers.HOOKS)).json()
    for name, mapped in providers.HOOKS.items():
        assert mapped.variables <= set(hooks[name]), name


def test_the_drivers_of_the_table_are_in_the_image(server: Server) -> None:
    """route53's library is there, less what it knows of other services."""
    code = (
        "import sys; from entrypoint.zone import lexicon;"
        "print(all(lexicon.declared(name) for name in sys.argv[1:]));"
        "import boto3; boto3.client('route53', aws_access_key_id='x', aws_secret_access_key='y')"
    )
    names = sorted({mapped.driver for mapped in providers.HOOKS.values()})
    result = server.container.exec("/opt/tambo/bin/python", "-c", code, *names)
    assert checked(result).stdout == "True\n"


def test_the_help_has_an_example(server: Server) -> None:
    assert "Example: docker exec mail publish-dns --apply" in server.ok("publish-dns", "--help")
