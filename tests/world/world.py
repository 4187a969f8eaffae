"""The small internet: real name servers, a real receiver and a real ACME CA in containers.

    world = World("tambo-demo", Net("198.51.100", "2001:db8:7"))
    world.build("debian:trixie-slim")
    world.up()
    world.load_zone("example.com", fragment)           # what tambo printed
    world.set_ptr(world.net.v4(10), "smtp.example.com")
    ...                                                # run the sender on world.network
    [delivery] = world.wait_for(to="bob@example.net")
    assert delivery.spf == "pass"
    world.down()

Needs the docker command with its compose plugin, and of Python only the standard library.
Two worlds may run at once if their projects and prefixes differ. One World object is for one
thread. Every failure is a WorldError that carries the words of the tool that failed.
"""

from __future__ import annotations

import io
import ipaddress
import os
import re
import shutil
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import formatdate
from pathlib import Path

from tests.support.wait import PATIENCE

HERE = Path(__file__).resolve().parent
IMAGE = os.environ.get("WORLD_IMAGE", "tambo-world")
"""WORLD_IMAGE builds and uses another name, beside somebody else's world."""
SERVICES = ("authoritative", "resolver", "receiver", "outside", "pebble")
AUTHSERV_ID = "mx.example.net"
"""The name under which the receiver writes its Authentication-Results."""
ACME_DIRECTORY = "https://acme.example.net:14000/dir"
MAILDIR = "/var/mail/world/new"
NONE = "none"
"""What a Delivery says where there is nothing to say."""


class WorldError(Exception):
    """The world could not do what was asked; the message says why."""


# --- Addresses ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Net:
    """The two prefixes of a world: an IPv4 /24 and an IPv6 /64.

    Host numbers: 2 authoritative, 10 tambo's, 14 ACME CA, 25 to 28 receiver, 40 outside,
    53 resolver.
    """

    net4: str
    """Three bytes, e.g. `198.51.100`."""
    net6: str
    """At most four groups, without the `::`, e.g. `2001:db8:7`."""

    def v4(self, host: int) -> str:
        """The IPv4 address of a host: `v4(25)` is `198.51.100.25`."""
        return f"{self.net4}.{host}"

    def v6(self, host: int) -> str:
        """The IPv6 address that shows the same digits: `v6(25)` is `2001:db8:7::25`."""
        return f"{self.net6}::{host}"

    def reverse_zone(self, address: str) -> str:
        """The reverse zone that an address of this world belongs to."""
        ip = ipaddress.ip_address(address)
        for cidr in (f"{self.net4}.0/24", f"{self.net6}::/64"):
            network = ipaddress.ip_network(cidr)
            if ip in network:
                labels = 3 if ip.version == 4 else 16
                return ".".join(ip.reverse_pointer.split(".")[-labels - 2 :])
        message = f"{address} is not an address of this world ({self.net4}.0/24, {self.net6}::/64)"
        raise WorldError(message)


# --- What the receiver says about a message ----------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """One result of an Authentication-Results header (RFC 8601), e.g. `spf=pass`."""

    method: str
    result: str
    properties: Mapping[str, str]


@dataclass(frozen=True)
class Delivery:
    """One message in one mailbox of the receiver. What is missing is the string `none`."""

    raw: bytes
    envelope_from: str
    """`<>` for a bounce."""
    to: str
    subject: str
    message_id: str
    """With its angle brackets."""
    spf: str
    """For MAIL FROM, or for the HELO name when that is empty."""
    dkim: Mapping[str, str]
    """The result of each signature, by `algorithm/selector`, e.g. `rsa-sha256/t1r`."""
    dmarc: str
    tls_version: str
    tls_cipher: str
    client_name: str
    """The PTR name if it leads back to the address, else `unknown`."""
    client_address: str
    helo: str


def parse_delivery(raw: bytes, authserv_id: str = AUTHSERV_ID) -> Delivery:
    """Reads a message as the receiver stored it.

    Only the headers above its own Received header are the receiver's: what stands below came
    with the message, whatever name it claims.
    """
    message = message_from_bytes(raw)
    headers = [(name.lower(), _unfold(str(value))) for name, value in message.items()]
    names = [name for name, _ in headers]
    own = names.index("received") if "received" in names else 0

    def first(name: str, among: Iterable[tuple[str, str]] = headers) -> str:
        return next((value for key, value in among if key == name), NONE)

    verdicts: list[Verdict] = []
    for name, value in headers[:own]:
        if name == "authentication-results":
            server, results = parse_authentication_results(value)
            if server == authserv_id:
                verdicts += results
    signatures = [parse_tags(value) for name, value in headers if name == "dkim-signature"]
    hop = parse_received(headers[own][1]) if "received" in names else {}
    return Delivery(
        raw=raw,
        envelope_from=_envelope_from(first("return-path", headers[:own])),
        to=first("x-original-to", headers[:own]),
        subject=_decode(first("subject")),
        message_id=first("message-id"),
        spf=_spf(verdicts),
        dkim=_dkim(signatures, verdicts),
        dmarc=next((v.result for v in verdicts if v.method == "dmarc"), NONE),
        tls_version=hop.get("tls_version", NONE),
        tls_cipher=hop.get("tls_cipher", NONE),
        client_name=hop.get("client_name", NONE),
        client_address=hop.get("client_address", NONE),
        helo=hop.get("helo", NONE),
    )


def parse_authentication_results(value: str) -> tuple[str, list[Verdict]]:
    """The authserv-id and the verdicts of an unfolded Authentication-Results header."""
    server, *clauses = _split_clauses(_strip_comments(value))
    verdicts = []
    for clause in clauses:
        pairs = re.findall(r'([^\s=]+)\s*=\s*("(?:[^"\\]|\\.)*"|\S+)', clause)
        if pairs:
            (method, result), *properties = [(key.lower(), text.strip('"')) for key, text in pairs]
            verdicts.append(Verdict(method.split("/")[0], result.lower(), dict(properties)))
    return (server.split() or [""])[0], verdicts


def parse_received(value: str) -> dict[str, str]:
    """Client, HELO name and TLS of an unfolded Received header that Postfix wrote."""
    client = re.match(
        r"from (?P<helo>\S+) \((?P<client_name>\S+) \[(?:IPv6:)?(?P<client_address>[^]]+)\]\)",
        value,
    )
    tls = re.search(r"\(using (?P<tls_version>\S+) with cipher (?P<tls_cipher>\S+) ", value)
    return {**(client.groupdict() if client else {}), **(tls.groupdict() if tls else {})}


def parse_tags(value: str) -> dict[str, str]:
    """The tags of an unfolded DKIM-Signature header; white space means nothing in them."""
    pairs = (tag.split("=", 1) for tag in value.split(";") if "=" in tag)
    return {name.strip(): re.sub(r"\s", "", text) for name, text in pairs}


def _spf(verdicts: Iterable[Verdict]) -> str:
    results = [v for v in verdicts if v.method == "spf"]
    mail_from = [v for v in results if "smtp.mailfrom" in v.properties]
    return next((v.result for v in mail_from or results), NONE)


def _dkim(signatures: Iterable[Mapping[str, str]], verdicts: Iterable[Verdict]) -> dict[str, str]:
    """Each signature with its verdict, tied by the first characters of the signature itself."""
    results = [v for v in verdicts if v.method == "dkim"]
    found: dict[str, str] = {}
    for signature in signatures:
        key = f"{signature.get('a', NONE)}/{signature.get('s', NONE)}"
        result = next((v.result for v in results if _belongs(v, signature)), NONE)
        # Of two signatures with one key the worse one counts.
        if found.get(key, "pass") == "pass":
            found[key] = result
    return found


def _belongs(verdict: Verdict, signature: Mapping[str, str]) -> bool:
    start = verdict.properties.get("header.b", "")
    if start:
        return signature.get("b", "").startswith(start)
    return all(
        verdict.properties.get(f"header.{tag}") == signature.get(tag) for tag in ("a", "d", "s")
    )


def _envelope_from(return_path: str) -> str:
    return return_path if return_path == "<>" else return_path.strip("<>")


def _unfold(value: str) -> str:
    return re.sub(r"\r?\n", "", value).strip()


def _decode(value: str) -> str:
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, UnicodeDecodeError):
        return value


_QUOTED_OR_ONE = re.compile(r'"(?:[^"\\]|\\.)*"|\\.|.', re.DOTALL)


def _strip_comments(value: str) -> str:
    """Without the (nested) comments; a parenthesis in a quoted string is none."""
    kept = []
    depth = 0
    for token in _QUOTED_OR_ONE.findall(value):
        if token == "(":
            depth += 1
        elif token == ")" and depth:
            depth -= 1
        elif not depth:
            kept.append(token)
    return "".join(kept)


def _split_clauses(value: str) -> list[str]:
    clauses = [""]
    for token in _QUOTED_OR_ONE.findall(value):
        if token == ";":
            clauses.append("")
        else:
            clauses[-1] += token
    return clauses


# --- The world itself --------------------------------------------------------------------------


class World:
    """The containers of one project, and what a test wants of them."""

    def __init__(
        self,
        project: str,
        net: Net,
        *,
        relay_domains: Iterable[str] = ("elsewhere.example", "writer.example"),
        cache: Path | None = None,
        api_key: str = "tambo-world",
    ) -> None:
        """Names a world; nothing is started yet.

        relay_domains: what the receiver takes mail for besides its own domains.
        cache: a folder for the resolv.conf, by default .cache/world/<project> of the checkout.
        api_key: of PowerDNS's HTTP API, which listens on port 8081 of `authoritative`.
        """
        self.project = project
        self.net = net
        self.api_key = api_key
        self.network = f"{project}_world"
        """The Docker network, for `--network` with `--ip`, `--ip6`. It has no way out."""
        self.resolver4 = net.v4(53)
        cache = cache or HERE.parent.parent / ".cache" / "world" / project
        self.resolv_conf = cache.resolve() / "resolv.conf"
        """To be mounted read-only at /etc/resolv.conf; written by `up`."""
        self._compose_env = {
            "WORLD_NET4": net.net4,
            "WORLD_NET6": net.net6,
            "WORLD_RESOLV_CONF": str(self.resolv_conf),
            "WORLD_API_KEY": api_key,
            "RELAY_DOMAINS": ", ".join(relay_domains),
            "COMPOSE_IGNORE_ORPHANS": "true",
        }
        self._read: dict[str, Delivery] = {}

    # Life

    def build(self, base_image: str) -> None:
        """Builds the one image of all roles on a Debian trixie base; quick when nothing changed."""
        base = f"BASE={base_image}"
        _docker("build", "--quiet", "--build-arg", base, "--tag", IMAGE, str(HERE), timeout=900)

    def up(self, *, wait: bool = True, timeout: float = 60) -> None:
        """Starts what is not running yet; with `wait`, returns when every role really serves."""
        self.resolv_conf.parent.mkdir(parents=True, exist_ok=True)
        content = f"nameserver {self.resolver4}\noptions timeout:2 attempts:3\n"
        # In place: a running container keeps the file that it was given.
        self.resolv_conf.write_text(content, encoding="ascii")
        self._compose("up", "--detach")
        if wait:
            self._wait_until_healthy(timeout)

    def down(self) -> None:
        """Removes this project's containers, network and volumes; fine when there are none."""
        self._compose("down", "--volumes", "--remove-orphans", "--timeout", "2")
        self._read.clear()

    def _wait_until_healthy(self, timeout: float) -> None:
        state = "{{.State.Status}}/{{if .State.Health}}{{.State.Health.Status}}{{end}}"
        names = [self.container(service) for service in SERVICES]
        deadline = time.monotonic() + timeout
        while True:
            states = _docker("inspect", "--format", state, *names).stdout.decode().split()
            waiting = [s for s, now in zip(SERVICES, states, strict=True) if now[-8:] != "/healthy"]
            dead = [s for s, now in zip(SERVICES, states, strict=True) if now[:8] != "running/"]
            if not waiting:
                return
            if dead or time.monotonic() > deadline:
                service = (dead or waiting)[0]
                what = "ended" if dead else f"does not serve after {timeout:.0f} s"
                message = f"{service} {what}; the end of its log:\n{self.log(service)}"
                raise WorldError(message)
            time.sleep(0.1)

    # The machines

    def container(self, service: str) -> str:
        """The name of a service's container."""
        return f"{self.project}-{service}-1"

    def exec(self, service: str, *argv: str, input: str | None = None, check: bool = True) -> str:
        """Runs a command in a service's container; its stdout.

        With `check`, another status than 0 raises with the command's words.
        """
        return self._exec(service, *argv, stdin=(input or "").encode(), check=check).decode()

    def log(self, service: str, lines: int = 40) -> str:
        """The end of a service's log."""
        command = ("logs", "--tail", str(lines), self.container(service))
        return _docker(*command, check=False, stderr=subprocess.STDOUT).stdout.decode(
            errors="replace"
        )

    def acme_ca_bundle(self) -> str:
        """The PEM certificate that vouches for ACME_DIRECTORY."""
        return self.exec("pebble", "cat", "/srv/ca.pem")

    # Names

    def load_zone(self, origin: str, fragment: str) -> None:
        """Replaces a whole zone by a fragment in zone-file form, without SOA and NS.

        It is checked first, and on any complaint nothing changes. The resolver remembers
        nothing: what is loaded is served.
        """
        origin = origin.rstrip(".") + "."
        zone = (
            f"$ORIGIN {origin}\n$TTL 60\n"
            f"@ SOA ns.example.net. hostmaster.example.net. {time.time():.0f} 3600 600 86400 60\n"
            f"@ NS ns.example.net.\n"
            f"{fragment}\n"
        )
        self.exec("authoritative", "load-zone.sh", origin, input=zone)

    def zone(self, origin: str) -> str:
        """A zone as it is served, one record a line."""
        return self.exec("authoritative", "pdnsutil", "list-zone", origin)

    def set_ptr(self, address: str, name: str) -> None:
        """Gives an address of the world its one PTR."""
        zone, label = self._reverse(address)
        target = name.rstrip(".") + "."
        command = ("replace-rrset", zone, label, "PTR", "60", target)
        self.exec("authoritative", "pdnsutil", *command)

    def remove_ptr(self, address: str) -> None:
        """Takes the PTR of an address away; fine when it has none."""
        self.exec("authoritative", "pdnsutil", "delete-rrset", *self._reverse(address), "PTR")

    def _reverse(self, address: str) -> tuple[str, str]:
        zone = self.net.reverse_zone(address)
        name = ipaddress.ip_address(address).reverse_pointer
        return zone, name.removesuffix(f".{zone}")

    # Mail

    def deliveries(
        self, *, to: str | None = None, subject: str | None = None, message_id: str | None = None
    ) -> list[Delivery]:
        """What has arrived so far, oldest first, one for each recipient."""
        listing = self.exec("receiver", "find", MAILDIR, "-type", "f", "-printf", r"%T@ %f\n")
        names = [line.split()[1] for line in sorted(listing.splitlines())]
        new = [name for name in names if name not in self._read]
        if new:
            command = ("tar", "--create", "--directory", MAILDIR, "--files-from", "-")
            archive = self._exec("receiver", *command, stdin="\n".join(new).encode())
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                for member in tar:
                    file = tar.extractfile(member)
                    if file is not None:
                        self._read[member.name] = parse_delivery(file.read())
        return [
            delivery
            for delivery in (self._read[name] for name in names)
            if (to is None or delivery.to.lower() == to.lower())
            and (subject is None or delivery.subject == subject)
            and (message_id is None or delivery.message_id == message_id)
        ]

    def wait_for(
        self,
        *,
        to: str | None = None,
        subject: str | None = None,
        message_id: str | None = None,
        count: int = 1,
        timeout: float = 60,
    ) -> list[Delivery]:
        """The deliveries that fit, as soon as there are `count` of them or more."""
        timeout *= PATIENCE
        deadline = time.monotonic() + timeout
        while True:
            found = self.deliveries(to=to, subject=subject, message_id=message_id)
            if len(found) >= count:
                return found
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        wanted = {"to": to, "subject": subject, "message_id": message_id}
        which = ", ".join(f"{key} {value!r}" for key, value in wanted.items() if value is not None)
        arrived = [
            f"  {d.message_id} from {d.envelope_from} to {d.to}: {d.subject}"
            for d in self.deliveries()
        ]
        message = "\n".join(
            [
                f"{len(found)} of {count} messages ({which or 'any'}) after {timeout:.0f} s",
                "arrived:",
                *(arrived or ["  nothing"]),
                "the end of the receiver's log:",
                self.log("receiver"),
            ]
        )
        raise WorldError(message)

    def send_from_outside(self, to: str, subject: str, *, family: int = 4) -> str:
        """Has somebody else's server sign and send a message, by IPv4 or IPv6; its Message-ID.

        The sender is v4@ or v6@writer.example, of which SPF, DKIM and DMARC (p=reject) hold.
        """
        self._publish_outside()
        sender = f"v{family}@writer.example"
        message_id = f"<{uuid.uuid4().hex}@writer.example>"
        lines = [
            f"From: Somebody <{sender}>", f"To: {to}", f"Subject: {subject}",
            f"Date: {formatdate()}", f"Message-ID: {message_id}", "", "Hello.", "",
            "..", "Somebody", "",
        ]  # fmt: skip
        self.exec("outside", "sendmail", "-i", "-f", sender, to, input="\n".join(lines))
        return message_id

    def _publish_outside(self) -> None:
        """The key that the outside server has made, in its domain's zone."""
        zone = "writer.example"
        if "_domainkey" not in self.zone(zone):
            strings = re.findall(r'"[^"]*"', self.exec("outside", "cat", "/srv/dkim.txt"))
            command = ("replace-rrset", zone, "out._domainkey", "TXT", "60", " ".join(strings))
            self.exec("authoritative", "pdnsutil", *command)

    def discard(self, deliveries: Iterable[Delivery]) -> None:
        """Removes what has arrived from its mailbox, and from memory."""
        unwanted = list(deliveries)
        names = [name for name, delivery in self._read.items() if delivery in unwanted]
        self.exec("receiver", "rm", *(f"{MAILDIR}/{name}" for name in names))
        for name in names:
            del self._read[name]

    # Docker

    def _compose(self, *argv: str) -> None:
        file = str(HERE / "compose.yaml")
        _docker(
            "compose",
            *("--project-name", self.project, "--file", file, "--progress", "plain", *argv),
            env=self._compose_env,
            timeout=180,
        )

    def _exec(self, service: str, *argv: str, stdin: bytes, check: bool = True) -> bytes:
        command = ("exec", "--interactive", self.container(service), *argv)
        return _docker(*command, stdin=stdin, check=check).stdout


def _docker(
    *argv: str,
    stdin: bytes = b"",
    stderr: int = subprocess.PIPE,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float = 60,
) -> subprocess.CompletedProcess[bytes]:
    docker = shutil.which("docker")
    if docker is None:
        message = "the docker command is missing: run tools/engine.sh"
        raise WorldError(message)
    command = " ".join(["docker", *argv])
    try:
        done = subprocess.run(  # noqa: S603 - a list, no shell
            [docker, *argv],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **(env or {})},
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        message = f"{command}: no end after {timeout:.0f} s"
        raise WorldError(message) from error
    if check and done.returncode != 0:
        words = (done.stderr or done.stdout).decode(errors="replace").strip()
        message = f"{command}: status {done.returncode}\n{words}"
        raise WorldError(message)
    return done
