"""A server that has its certificates issued, and what one sees of them."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.ca import fingerprint
from tests.support.server import LogWatch, Server
from tests.support.wait import wait_until
from tests.world.world import World

PORTS = (25, 465, 587)
ACME = "/usr/lib/tambo/acme "  # how acme.sh's command line begins, but for its interpreter
_ISSUED = 60.0  # seconds for acme.sh to have a certificate issued, on a busy machine
# What is logged of a certificate that cannot be had, for as long as that is so.
_TROUBLE = (r" certs +(acme\.sh:|warn:)", r" keeper +(warn|mended): The certificate of ")

# Prints all command lines that there were until its input ended.
_SAMPLER = """
import glob, json, select, sys, time
seen = set()
while not select.select([sys.stdin], [], [], 0.001)[0]:
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as file:
                seen.add(file.read().replace(b"\\0", b" ").decode(errors="replace"))
        except OSError:
            pass
print(json.dumps(sorted(seen)))
"""


@dataclass
class TroubledLog(LogWatch):
    """Of a server that complains again and again, whatever test runs meanwhile."""

    always: tuple[str, ...] = ()

    def verdict(self) -> list[str]:
        self.tolerate(*self.always)
        return super().verdict()


class CertServer(Server):
    def mount(self, path: Path, *mounts: str, volume: str = "") -> None:
        """Lay more mounts over it, before it is started; `path` is a file to note them in.

        `volume`: a Docker volume for /data.
        """
        volumes = [*mounts, *([f"{volume}:/data"] if volume else ())]
        known = {volume: {"external": True}} if volume else {}
        content = {"services": {"mail": {"volumes": volumes}}, "volumes": known}
        path.write_text(json.dumps(content))
        self._files = (*self._files, path)

    def is_in_trouble(self, *patterns: str) -> None:
        """It is no surprise if it complains so, by default that it gets no certificate."""
        self.log = TroubledLog(self.container, always=patterns or _TROUBLE)

    # Its certificates

    def memory(self, name: str) -> dict[str, Any]:
        """What is remembered of the issuing of a certificate; nothing before the first try."""
        folder = self.data / "state/certs"
        if f"{name}.json" not in self.machine.names(folder):
            return {}
        content = json.loads(self.machine.read(folder / f"{name}.json"))
        assert isinstance(content, dict)
        return content

    def installed(self, name: str) -> str:
        """The fingerprint of the certificate in data/certs; empty if there is none."""
        folder = self.data / "certs" / name
        if "fullchain.pem" not in self.machine.names(folder):
            return ""
        return fingerprint(self.machine.read(folder / "fullchain.pem"))

    def serves(self, found: str, name: str) -> bool:
        """Whether every port serves this certificate for a server name."""
        return {leaf(self.ipv4, port, name) for port in PORTS} == {found}

    def wait_until_issued(self, name: str, *, host: str = "", other_than: str = "") -> str:
        """The fingerprint of a certificate, once it is in place and served for `host`."""

        def look() -> str:
            found = self.installed(name)
            new = found and found != other_than and self.serves(found, host or name)
            return found if new else ""

        try:
            what = f"a certificate for {name} is issued and served"
            return wait_until(look, what, timeout=_ISSUED, pause=0.2)
        except AssertionError as error:
            error.add_note(self.container.log())
            raise

    def listed(self, name: str) -> dict[str, Any]:
        """What list-certs says of a certificate."""
        [row] = [row for row in self.verb("list-certs", "--json").json() if row["name"] == name]
        assert isinstance(row, dict)
        return row

    def attempts(self) -> int:
        """How often the container has begun to have a certificate issued."""
        return self.container.log().count("having a certificate issued")

    # What it does

    def acme_processes(self) -> list[int]:
        """The host's numbers of acme.sh's own processes, the first one first.

        That is the one whose parent is another program: numbers begin again when they run out.
        """
        own = {item.pid: item.parent for item in self.container.processes() if ACME in item.command}
        return sorted(own, key=lambda pid: own[pid] in own)

    @contextmanager
    def command_lines(self) -> Iterator[list[str]]:
        """All command lines that anybody in the container could see meanwhile, at the end."""
        argv = ["docker", "exec", "-i", self.name, "python3", "-c", _SAMPLER]
        found: list[str] = []
        with subprocess.Popen(  # noqa: S603 (a list, no shell)
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as sampler:
            try:
                yield found
            finally:
                said, _ = sampler.communicate(timeout=20)
        found += json.loads(said)


def leaf(address: str, port: int, name: str) -> str:
    """The fingerprint of the certificate that a port serves for a server name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with closing(socket.create_connection((address, port), timeout=10)) as plain:
        if port != 465:
            with plain.makefile("rb") as stream:
                _reply(stream)
                for line in (b"EHLO client.test\r\n", b"STARTTLS\r\n"):
                    plain.sendall(line)
                    _reply(stream)
        with context.wrap_socket(plain, server_hostname=name) as tls:
            return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


def _reply(stream: Any) -> None:
    """One reply; the server says nothing behind it unasked, so reading ahead takes nothing."""
    while (line := stream.readline())[3:4] == b"-":
        pass
    if line[:1] != b"2":
        msg = f"the server said {line!r}"
        raise OSError(msg)


def openssl_says(world: World, address: str, port: int, name: str, roots: str) -> str:
    """What `openssl s_client` says of a port when it trusts `roots` and nothing else."""
    starttls = () if port == 465 else ("-starttls", "smtp")
    return world.exec(
        "resolver", "bash", "-c",
        'cat >/tmp/roots.pem; exec openssl s_client -connect "$0" -servername "$1" '
        '-verify_hostname "$1" -CAfile /tmp/roots.pem -no-CApath -no-CAstore '
        '-verify_return_error -brief "${@:2}" </dev/null 2>&1',
        f"{address}:{port}", name, *starttls, input=roots, check=False,
    )  # fmt: skip
