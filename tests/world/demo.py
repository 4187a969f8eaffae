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

# A second demo beside one that runs: another name, two other prefixes.
NAME = os.environ.get("DEMO_NAME", "tambo-demo")
NET = Net(*os.environ.get("DEMO_NET", "198.51.100 2001:db8:d").split())
SENDER = f"i@{DOMAIN}"
MAILBOX = "me@example.net"  # FORWARD_TO of tambo.yaml
OWN = ("rsa-sha256/", "ed25519-sha256/")  # who signs: the start of algorithm/selector
THEIRS = ("rsa-sha256/out",)
START = time.monotonic()


@dataclass(frozen=True)
class Message:
    """One mail of the demo as it must arrive: from which address, signed by whom."""

    title: str
    address: str
    signers: tuple[str, ...]
    delivery: Delivery


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
    if mail.has_outlived(world.container("pebble")):
        mail.down()  # its certificate is of an authority that is no more
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
    say("somebody elsewhere writes to us, and is forwarded; meanwhile we send test mails")
    outside = {
        f"{local}@{DOMAIN}": world.send_from_outside(f"{local}@{DOMAIN}", "demo", family=family)
        for local, family in (("i", 4), ("anything", 6))
    }
    failures: list[str] = []
    messages = [
        send_test(world, mail, f"you@v{family}.example.net", address, failures)
        for family, address in ((4, NET.v4(10)), (6, NET.v6(10)))
    ]
    failures += [item for port in (587, 465) for item in trust(world, port)]
    for address, message_id in outside.items():
        [delivery] = world.wait_for(message_id=message_id)
        title = f"from outside to {address}, forwarded to {delivery.to}"
        messages.append(Message(title, NET.v6(10), THEIRS, delivery))
        if delivery.to != MAILBOX or not delivery.envelope_from.endswith(f"@{DOMAIN}"):
            failures.append(f"forward: to {delivery.to}, sender {delivery.envelope_from}")
    say(f"the answer to it, as {SENDER} through port 587, with a real mail client (swaks)")
    subject = submit(world, "v4@writer.example", secret, outside[SENDER])
    [delivery] = world.wait_for(subject=subject)
    messages.append(Message(f"the answer, as {SENDER}", NET.v6(10), OWN, delivery))
    say("the receivers' verdicts")
    for message in messages:
        failures += report(message)
    print()
    if failures:
        say(f"FAILED: {len(failures)}:")
        for failure in failures:
            print(f"    {failure}")
        return 1
    say("every verdict passes")
    print(f"\n  dns --check   {mail.tambo('dns', '--check').splitlines()[-1]}")
    print(f"  doctor        {mail.tambo('doctor').splitlines()[-1]}")
    print(AFTERWARDS)
    return 0


def send_test(
    world: World, mail: Installation, to: str, address: str, failures: list[str]
) -> Message:
    """`send-test`, as a person runs it, and what has arrived."""
    before = len(world.deliveries(to=to))
    done = mail.run("exec", NAME, "send-test", to)
    print(f"\n  $ docker exec {NAME} send-test {to}")
    print("".join(f"  | {line}\n" for line in (done.stdout + done.stderr).splitlines()))
    if done.returncode:
        failures.append(f"send-test {to}: status {done.returncode}")
    delivery = world.wait_for(to=to, count=before + 1)[-1]
    return Message(f"send-test to {to}", address, OWN, delivery)


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


def report(message: Message) -> list[str]:
    """Print the receiver's verdicts on one message; returns what failed."""
    print(f"\n  {message.title}")
    failures = []
    for name, value, good in verdicts(message):
        print(f"    {name:<6} {value:<64} {'ok' if good else 'FAILED'}")
        if not good:
            failures.append(f"{name}: {value}  ({message.title})")
    return failures


def verdicts(message: Message) -> Iterator[tuple[str, str, bool]]:
    delivery = message.delivery
    yield "spf", f"{delivery.spf}, sender {delivery.envelope_from}", delivery.spf == "pass"
    for signer in message.signers:
        found = {key: value for key, value in delivery.dkim.items() if key.startswith(signer)}
        value = ", ".join(f"{value} {key}" for key, value in found.items()) or f"no {signer}"
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
    print(f"    {'cert':<6} {value:<64} {'ok' if good else 'FAILED'}")
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


def submit(world: World, to: str, secret: str, answers: str) -> str:
    """Hand an answer to tambo as a mail program does; returns its subject."""
    subject = f"demo {uuid.uuid4().hex[:12]}"
    # swaks asks for the password on standard input: it is in nobody's list of processes.
    world.exec(
        "resolver", "swaks", "--silent", "2", "--server", HOST, "--port", "587", "--tls",
        "--auth", "PLAIN", "--auth-user", SENDER, "--protect-prompt", "--from", SENDER, "--to", to,
        "--h-From", f"Demo <{SENDER}>", "--h-Subject", subject, "--add-header",
        f"In-Reply-To: {answers}", "--body", "It works.", "--helo", "client.example.com",
        input=f"{secret}\n",
    )  # fmt: skip
    return subject


def say(text: str) -> None:
    print(f"[{time.monotonic() - START:5.1f} s] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
