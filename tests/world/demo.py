"""`make demo`: tambo in the small internet, real mail through it, a real receiver's verdicts.

    python3 -m tests.world.demo [--break dkim|spf|ptr] [--down]

Exit status 0 only if every verdict passes. It has its own containers (tambo-demo…), network and
volume: nothing of a mail server that runs on this machine is touched. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from tests.world.installation import DOMAIN, HOST, Installation, InstallationError
from tests.world.world import Delivery, Net, World, WorldError

NAME = "tambo-demo"
NET = Net("198.51.100", "2001:db8:d")
SENDER = f"i@{DOMAIN}"
START = time.monotonic()


@dataclass(frozen=True)
class Message:
    """One mail of the demo: how it is submitted, and by which family it must leave."""

    title: str
    port: int
    to: str
    address: str  # from which the receiver must see it come


MESSAGES = (
    Message("587 with STARTTLS, leaves by IPv4", 587, "you@v4.example.net", NET.v4(10)),
    Message("465 with TLS, leaves by IPv4", 465, "you@v4.example.net", NET.v4(10)),
    Message("465 with TLS, leaves by IPv6", 465, "you@v6.example.net", NET.v6(10)),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.partition("\n")[0])
    parser.add_argument("--down", action="store_true", help="remove all that the demo made")
    parser.add_argument("--break", dest="broken", choices=["dkim", "spf", "ptr"], default="",
                        help="spoil this in DNS, to see that it is noticed")  # fmt: skip
    options = parser.parse_args()
    world = World(NAME, NET)
    mail = Installation(NAME, world)
    try:
        if options.down:
            mail.down()
            world.down()
            say("removed the demo's containers, network and volume")
            return 0
        return demo(world, mail, options.broken)
    except (WorldError, InstallationError) as error:
        say(f"error: {error}")
        return 1


def demo(world: World, mail: Installation, broken: str) -> int:
    base = os.environ.get("TAMBO_BASE", "debian:trixie-slim")
    say("building the small internet's image")
    world.build(base)
    say("starting it: name servers, a resolver, a receiving mail server, a certificate authority")
    world.up()
    say("starting tambo")
    mail.up()
    say("waiting for the certificate that acme.sh has issued by DNS-01")
    mail.await_certificate()

    for address in (NET.v4(10), NET.v6(10)):
        world.set_ptr(address, HOST)  # what the provider of a server does
    world.load_zone(DOMAIN, "")
    say(f"publishing the DNS records of {DOMAIN} at its provider: publish-dns --apply")
    mail.tambo("publish-dns", "--apply")
    if broken == "ptr":
        for address in (NET.v4(10), NET.v6(10)):
            world.remove_ptr(address)
    elif broken:
        world.load_zone(DOMAIN, spoil(mail.tambo("dns", "--format", "zone"), broken))

    say(f"adding the user {SENDER}")
    secret = credentials(mail)
    say("sending three messages with a real mail client (swaks)")
    subjects = [submit(world, message, secret) for message in MESSAGES]
    failures = [item for port in (587, 465) for item in trust(world, port)]
    say("waiting for the receiver's verdicts")
    for message, subject in zip(MESSAGES, subjects, strict=True):
        [delivery] = world.wait_for(subject=subject, timeout=60)
        failures += report(message, delivery)
    print()
    if failures:
        say(f"FAILED: {len(failures)} of the verdicts:")
        for failure in failures:
            print(f"    {failure}")
        return 1
    say("every verdict passes")
    print(f"\n  dns --check   {mail.tambo('dns', '--check').splitlines()[-1]}")
    print(f"  doctor        {mail.tambo('doctor').splitlines()[-1]}")
    print(AFTERWARDS)
    return 0


AFTERWARDS = f"""
Look around:   docker exec {NAME} tambo --help      docker logs {NAME}
Break it:      make demo BREAK=dkim                  (or spf, ptr)
Remove it:     make demo-down

For a real domain, on a server with a public address and port 25 open:
    cp .env.example .env        and set MAIL_HOSTNAME, such as smtp.your-domain
    docker compose up -d
    docker logs mail            prints the DNS records to enter
    docker exec mail add-user i@your-domain
README.md has the ten steps."""


def report(message: Message, delivery: Delivery) -> list[str]:
    """Print the receiver's verdicts on one message; returns what failed."""
    print(f"\n  {message.title}")
    failures = []
    for name, value, good in verdicts(message, delivery):
        print(f"    {name:<6} {value:<60} {'ok' if good else 'FAILED'}")
        if not good:
            failures.append(f"{name}: {value}  ({message.title})")
    return failures


def verdicts(message: Message, delivery: Delivery) -> Iterator[tuple[str, str, bool]]:
    yield "spf", delivery.spf, delivery.spf == "pass"
    for algorithm in ("rsa-sha256", "ed25519-sha256"):
        found = {key: value for key, value in delivery.dkim.items() if key.startswith(algorithm)}
        value = ", ".join(f"{value} {key}" for key, value in found.items()) or f"no {algorithm}"
        yield "dkim", value, list(found.values()) == ["pass"]
    yield "dmarc", delivery.dmarc, delivery.dmarc == "pass"
    version, cipher = delivery.tls_version, delivery.tls_cipher
    yield "TLS", f"{version} {cipher}", version in ("TLSv1.2", "TLSv1.3")
    name, address = delivery.client_name, delivery.client_address
    yield "PTR", f"{name} [{address}]", name == HOST and address == message.address


def trust(world: World, port: int) -> list[str]:
    """Have OpenSSL verify what a port serves against the certificate authority alone."""
    roots = world.exec("pebble", "curl", "-sk", "https://localhost:15000/roots/0")
    starttls = ("-starttls", "smtp") if port == 587 else ()
    said = world.exec(
        "resolver", "bash", "-c",
        'cat >/tmp/root.pem; exec openssl s_client -connect "$0:$1" -servername "$0" '
        '-verify_hostname "$0" -CAfile /tmp/root.pem -no-CApath -no-CAstore -verify_return_error '
        '-brief "${@:2}" </dev/null 2>&1',
        HOST, str(port), *starttls, input=roots, check=False,
    )  # fmt: skip
    good = "Verification: OK" in said
    value = f"{port} verifies against the certificate authority" if good else said.strip()
    print(f"    {'cert':<6} {value:<60} {'ok' if good else 'FAILED'}")
    return [] if good else [f"certificate of port {port}: {value}"]


def spoil(zone: str, what: str) -> str:
    """The zone with one thing wrong in it, as a slip in a DNS console would make it."""
    if what == "spf":
        return zone.replace(f"a:{HOST}", "a:elsewhere.example.com")
    # Another key, still a valid one: the Ed25519 key of RFC 8463's example.
    lines = []
    for line in zone.splitlines():
        if "k=ed25519" in line:
            head = line.partition("p=")[0]
            line = f'{head}p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="'
        lines.append(line)
    return "\n".join(lines) + "\n"


def credentials(mail: Installation) -> str:
    """The user's secret, a new one if the user is there from an earlier run."""
    known = [user["address"] for user in json.loads(mail.tambo("list-users", "--json"))]
    verb = "set-password" if SENDER in known else "add-user"
    secret: str = json.loads(mail.tambo(verb, SENDER, "--json"))["secret"]
    return secret


def submit(world: World, message: Message, secret: str) -> str:
    """Hand one message to tambo as a mail program does; returns its subject."""
    subject = f"demo {uuid.uuid4().hex[:12]}"
    security = "--tls-on-connect" if message.port == 465 else "--tls"
    # swaks asks for the password on standard input: it is in nobody's list of processes.
    world.exec(
        "resolver", "swaks", "--silent", "2", "--server", HOST, "--port", str(message.port),
        security, "--auth", "PLAIN", "--auth-user", SENDER, "--protect-prompt",
        "--from", SENDER, "--to", message.to, "--h-From", f"Demo <{SENDER}>",
        "--h-Subject", subject, "--body", "It works.", "--helo", "client.example.com",
        input=f"{secret}\n",
    )  # fmt: skip
    return subject


def say(text: str) -> None:
    print(f"[{time.monotonic() - START:5.1f} s] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
