"""Machines of the world that only some tests need."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from docker import DockerClient

from tests.support import smtp
from tests.support.ca import Authority
from tests.support.container import Container, checked, docker
from tests.support.wait import wait_until
from tests.world.world import IMAGE, World

HERE = Path(__file__).parent
_LIFETIME = 90 * 86400  # seconds, of Pebble's certificates


def empty(folder: Path) -> None:
    """Make a folder of its own for a peer; one of that name may have come and gone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


@dataclass(frozen=True)
class Neighbourhood:
    """Where such a machine is put."""

    client: DockerClient
    world: World
    resolv_conf: Path


class Peer:
    """A container of the world's image at host number `host`."""

    def __init__(
        self,
        where: Neighbourhood,
        name: str,
        host: int,
        command: Iterable[str],
        *,
        folder: Path | None = None,
        environ: Mapping[str, str] | None = None,
        options: Iterable[str] = (),
    ) -> None:
        """`folder` is at /peer in it; `options` are docker's."""
        self.world = where.world
        net = self.world.net
        self.ipv4, self.ipv6 = net.v4(host), net.v6(host)
        self.container = Container(where.client, f"{self.world.project}-{name}")
        options = [
            *options, "--detach", "--name", self.container.name,
            "--network", self.world.network, "--ip", self.ipv4, "--ip6", self.ipv6,
            "--volume", f"{where.resolv_conf}:/etc/resolv.conf:ro",
        ]  # fmt: skip
        if folder:
            options += ["--volume", f"{folder}:/peer"]
        for key, value in (environ or {}).items():
            options += ["--env", f"{key}={value}"]
        checked(docker("run", *options, IMAGE, *command))

    def serves(self, *probe: str) -> bool:
        return self.container.exec(*probe).status == 0

    def remove(self) -> None:
        self.container.remove()


class Pebble(Peer):
    """An ACME server with options of its own; `url` is its directory."""

    def __init__(
        self,
        where: Neighbourhood,
        name: str,
        host: int,
        folder: Path,
        authority: Authority,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        net = where.world.net
        empty(folder)
        pair = authority.issue("localhost", addresses=(net.v4(host), net.v6(host)))
        (folder / "cert.pem").write_text(pair.chain)
        (folder / "key.pem").write_text(pair.key)
        keys = {
            "listenAddress": "[::]:14000",
            "managementListenAddress": "[::]:15000",
            "certificate": "/peer/cert.pem",
            "privateKey": "/peer/key.pem",
            "httpPort": 80,
            "tlsPort": 443,
            "retryAfter": {"authz": 1, "order": 1},
            "certificateValidityPeriod": _LIFETIME,
            **(options or {}),
        }
        (folder / "pebble.json").write_text(json.dumps({"pebble": keys}))
        environ = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}
        dns = f"{net.v4(53)}:53"
        command = ("pebble", "-config", "/peer/pebble.json", "-dnsserver", dns)
        super().__init__(where, name, host, command, folder=folder, environ=environ)
        self.url = f"https://{self.ipv4}:14000/dir"
        probe = ("curl", "-skf", "https://localhost:14000/dir")
        wait_until(lambda: self.serves(*probe), "Pebble serves")

    def roots(self) -> str:
        """What vouches for the certificates that it issues."""
        probe = ("curl", "-skf", "https://localhost:15000/roots/0")
        return checked(self.container.exec(*probe)).stdout

    def log(self) -> str:
        return self.container.log()


class Difficult(Peer):
    """Receivers that make it difficult: see tests/world/roles/difficult.sh.

    Their domains are grey, plain, answers, silent and hole, below difficult.example. At `answers`
    the local part a0 gets the first of the replies, and so on.
    """

    ZONE = "difficult.example"
    HOSTS: ClassVar[Mapping[str, int]] = {
        "grey": 30, "plain": 31, "answers": 32, "silent": 33, "hole": 34,
    }  # fmt: skip

    def __init__(self, where: Neighbourhood, folder: Path, replies: Sequence[str]) -> None:
        empty(folder)
        content = {f"a{index}": reply for index, reply in enumerate(replies)}
        (folder / "answers.json").write_text(json.dumps(content))
        net = where.world.net
        environ = {"WORLD_NET4": net.net4, "WORLD_NET6": net.net6}
        super().__init__(
            where, "difficult", self.HOSTS["grey"], ("difficult.sh",), folder=folder,
            environ=environ, options=("--cap-add", "NET_ADMIN"),
        )  # fmt: skip
        lines = []
        for name, host in self.HOSTS.items():
            lines += [
                f"{name} MX 10 mx-{name}", f"mx-{name} A {net.v4(host)}",
                f"mx-{name} AAAA {net.v6(host)}",
            ]  # fmt: skip
        where.world.load_zone(self.ZONE, "\n".join(lines))
        wait_until(self.is_up, "they serve", timeout=20)

    def is_up(self) -> bool:
        script = "exec 3<>/dev/tcp/$0/25; read -t 2 -u 3 line; [[ $line == 220* ]]"
        greets = self.container.exec("bash", "-c", script, self.ipv4).status == 0
        return (
            greets
            and "answering" in self.container.log()
            and self.serves("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/10023")
        )


class Front(Peer):
    """The world's Pebble, seen through ports that can be in trouble: see front.py."""

    def __init__(self, where: Neighbourhood, host: int, folder: Path, authority: Authority) -> None:
        self._modes = folder / "modes"
        empty(folder)
        self._modes.mkdir()
        pair = authority.issue("localhost", addresses=(where.world.net.v4(host),))
        (folder / "cert.pem").write_text(pair.chain)
        (folder / "key.pem").write_text(pair.key)
        (folder / "front.py").write_text((HERE / "front.py").read_text())
        command = (
            "python3", "/peer/front.py", "/peer/cert.pem", "/peer/key.pem",
            where.world.net.v4(14), "/peer/modes",
        )  # fmt: skip
        super().__init__(where, "front", host, command, folder=folder)

    def open(self, port: int, mode: str = "up") -> str:
        """Have a port behave as `mode` says; returns the directory's URL there."""
        (self._modes / str(port)).write_text(mode)
        url = f"https://{self.ipv4}:{port}/dir"
        code = "000" if mode == "down" else "200"
        argv = ("curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", url)
        wait_until(lambda: self.container.exec(*argv).stdout == code, f"port {port} is {mode}")
        return url

    def orders(self, port: int) -> int:
        """How many certificates were ordered at a port so far."""
        lines = self.container.log().splitlines()
        return sum(line.startswith(f"order {port} ") for line in lines)


class NameServer(Peer):
    """A second PowerDNS with its own API key."""

    def __init__(self, where: Neighbourhood, host: int, api_key: str) -> None:
        environ = {
            "WORLD_NET4": where.world.net.net4,
            "WORLD_NET6": where.world.net.net6,
            "WORLD_API_KEY": api_key,
        }
        super().__init__(where, "second", host, ("authoritative.sh",), environ=environ)
        self.url = f"http://{self.ipv4}:8081"
        wait_until(lambda: self.serves("healthy.sh", "authoritative"), "the second one serves")

    def add_zone(self, zone: str) -> None:
        """A zone with nothing in it, which nobody looks for here before it is delegated."""
        name = f"ns.{zone}."
        text = f"{zone}. 60 SOA {name} {name} 1 60 60 60 60\n{zone}. 60 NS {name}\n"
        text += f"{name} 60 A {self.ipv4}\n"
        checked(self.container.exec("load-zone.sh", f"{zone}.", input=text))

    def delegate(self, zone: str) -> None:
        """The world's root names this server for `zone`."""
        for name, kind, value in ((zone, "NS", f"ns.{zone}."), (f"ns.{zone}", "A", self.ipv4)):
            command = ("pdnsutil", "add-record", ".", name, kind, "60", value)
            self.world.exec("authoritative", *command)

    def take_back(self, zone: str) -> None:
        for name, kind in ((zone, "NS"), (f"ns.{zone}", "A")):
            self.world.exec("authoritative", "pdnsutil", "delete-rrset", ".", name, kind)


class Liar(Peer):
    """A receiver that refuses, in words that look like another server's log: see liar.py."""

    def __init__(self, where: Neighbourhood, domain: str, host: int, folder: Path) -> None:
        empty(folder)
        (folder / "liar.py").write_text((HERE / "liar.py").read_text())
        super().__init__(where, "liar", host, ("python3", "/peer/liar.py"), folder=folder)
        zone = f"@ MX 10 mx.{domain}.\nmx A {self.ipv4}\nmx AAAA {self.ipv6}\n"
        self.world.load_zone(domain, zone)
        wait_until(lambda: smtp.greeting(self.ipv4).startswith("220 "), "it greets")


class Limited(Peer):
    """The MX of `domain`, which takes so many connections at once: see limited.py."""

    def __init__(
        self,
        where: Neighbourhood,
        domain: str,
        host: int,
        folder: Path,
        *,
        most: int,
        seconds: float,
        records: str = "",
    ) -> None:
        """`records` are of its exchanger mx; default: both its addresses."""
        empty(folder)
        (folder / "limited.py").write_text((HERE / "limited.py").read_text())
        command = ("python3", "/peer/limited.py", str(most), str(seconds))
        super().__init__(where, domain.partition(".")[0], host, command, folder=folder)
        self.domain = domain
        records = records or f"@ MX 10 mx.{domain}.\nmx A {self.ipv4}\nmx AAAA {self.ipv6}"
        self.world.load_zone(domain, records + "\n")
        wait_until(lambda: smtp.greeting(self.ipv4).startswith("220 "), "it greets")

    def set(self, **values: Any) -> dict[str, Any]:
        """Change `most`, `seconds` or `reply`; what it counted so far."""
        with socket.create_connection((self.ipv4, 9999), timeout=10) as connection:
            connection.sendall(json.dumps(values).encode() + b"\n")
            with connection.makefile("r") as stream:
                found = json.loads(stream.readline())
        assert isinstance(found, dict)
        return found


class Mailbox(Peer):
    """A receiver that takes any mail, or defers all of it, with TLS or without: mailbox.sh.

    It is the MX of `domain` until it is removed.
    """

    def __init__(self, where: Neighbourhood, domain: str, host: int, folder: Path) -> None:
        empty(folder)
        (folder / "mailbox.sh").write_text((HERE / "mailbox.sh").read_text())
        self.domain = domain
        command = ("bash", "/peer/mailbox.sh", f"mx.{domain}")
        super().__init__(where, domain.partition(".")[0], host, command, folder=folder)
        zone = f"@ MX 10 mx.{domain}.\nmx A {self.ipv4}\nmx AAAA {self.ipv6}\n"
        self.world.load_zone(domain, zone)
        wait_until(lambda: smtp.greeting(self.ipv4).startswith("220 "), "it greets")

    def defer(self, text: str) -> None:
        """Answer every recipient with a 450 and this text."""
        self._set(f"smtpd_recipient_restrictions=check_client_access static:{{450 {text}}}")
        wait_until(lambda: self._answers()[0] == 450, "it defers")

    def accept(self) -> None:
        self._set("smtpd_recipient_restrictions=permit")
        wait_until(lambda: self._answers()[0] == 250, "it accepts")

    def offer_tls(self, yes: bool) -> None:
        self._set(f"smtpd_tls_security_level={'may' if yes else 'none'}")
        wait_until(lambda: self._answers()[1] is yes, "it offers what it should")

    def _set(self, setting: str) -> None:
        for command in (("postconf", "-e", setting), ("postfix", "reload")):
            checked(self.container.exec(*command))

    def _answers(self) -> tuple[int, bool]:
        """To a recipient, and whether it offers STARTTLS."""
        with smtp.mail_server(self.ipv4) as session:
            session.mail("probe@outside.example")
            return session.rcpt(f"probe@{self.domain}")[0], session.has_extn("starttls")

    def subjects(self) -> list[str]:
        """Of all that has arrived."""
        command = ("bash", "-c", "grep -hm1 ^Subject: /var/mail/box/new/* || true")
        lines = checked(self.container.exec(*command)).stdout.splitlines()
        return [line.removeprefix("Subject: ") for line in lines]

    def remove(self) -> None:
        super().remove()
        self.world.load_zone(self.domain, "")
