"""What the tests of certificates share: authorities, a second name server, servers of all kinds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import pytest
from docker import DockerClient

from tests.image.conftest import PROJECT, Servers
from tests.support.ca import DAY, Authority, Pair
from tests.support.certserver import CertServer
from tests.support.container import checked
from tests.support.peers import Front, NameServer, Neighbourhood, Pebble
from tests.support.server import Place
from tests.support.wait import wait_until
from tests.world.world import ACME_DIRECTORY, World

FIRST_KEY = "tambo-world"  # the world's, of its name server's API
# Every printable ASCII character that a credential may hold.
SECOND_KEY = "second-Key-!#%&()*+,./:;<=>?@[]^_{|}~- 9"
EAB_KID, EAB_KEY = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
BUNDLE = "/etc/test-ca.pem"
KEY_FILE = "/run/secrets/pdns-token"
ONE, TWO = "one.example", "two.example"
# Host numbers: of machines, and those that servers get.
_SECOND, _PICKY, _FRONT = 3, 70, 71
_SERVERS = chain(range(80, 100), range(54, 70))


# --- other machines ------------------------------------------------------------------------------


@pytest.fixture(scope="package")
def where(client: DockerClient, world: World, resolv_conf: Path) -> Neighbourhood:
    return Neighbourhood(client, world, resolv_conf)


@pytest.fixture(scope="package")
def authority() -> Authority:
    """Vouches for the tests' own ACME servers, and issues certificates of any age."""
    return Authority()


@pytest.fixture(scope="package")
def second(where: Neighbourhood) -> Iterator[NameServer]:
    """A name server whose API has another key; nothing is delegated to it."""
    server = NameServer(where, _SECOND, SECOND_KEY)
    yield server
    server.remove()


@pytest.fixture(scope="package")
def front(where: Neighbourhood, base: Path, authority: Authority) -> Iterator[Front]:
    server = Front(where, _FRONT, base / "front", authority)
    yield server
    server.remove()


@pytest.fixture(scope="package")
def picky(where: Neighbourhood, base: Path, authority: Authority) -> Iterator[Pebble]:
    """An authority that wants external account binding, and whose certificates last six days."""
    options = {
        "externalAccountBindingRequired": True,
        "externalAccountMACKeys": {EAB_KID: EAB_KEY},
        "certificateValidityPeriod": 6 * 86400,
    }
    server = Pebble(where, "picky", _PICKY, base / "picky", authority, options)
    yield server
    server.remove()


@pytest.fixture(scope="package")
def roots(world: World) -> str:
    """What vouches for the certificates that the world's Pebble issues."""
    return world.exec("pebble", "curl", "-sk", "https://localhost:15000/roots/0")


# --- servers -------------------------------------------------------------------------------------


@dataclass
class CertServers:
    """Makes servers to which the authorities are known, and removes them."""

    servers: Servers
    bundle: Path
    made: list[CertServer] = field(default_factory=list)

    def make(
        self,
        settings: Mapping[str, str],
        *,
        host: int = 0,
        mounts: Iterable[str] = (),
        volume: str = "",
    ) -> CertServer:
        """A server that is not started yet. `volume`: a Docker volume for /data."""
        number = next(_SERVERS)
        net, folder = self.servers.world.net, self.servers.base / f"mail-{number}"
        v4, v6 = net.v4(host or number), net.v6(host or number)
        server = CertServer.in_world(
            self.servers.client,
            self.servers.machine,
            f"{PROJECT}-mail-{number}",
            folder,
            Place(self.servers.world.network, v4, v6, self.servers.resolv_conf),
            {"PUBLIC_IPV4": v4, "PUBLIC_IPV6": v6, "ACME_CA_BUNDLE": BUNDLE, **settings},
        )
        assert isinstance(server, CertServer)
        mounts = (f"{self.bundle}:{BUNDLE}:ro", *mounts)
        server.mount(folder / "mounts.json", *mounts, volume=volume)
        self.servers.living.append(server)
        self.made.append(server)
        return server

    def dns(self, domain: str, **more: str) -> dict[str, str]:
        """Settings for TLS=dns at the world's name server; an empty value takes one away."""
        settings = {
            "MAIL_HOSTNAME": f"smtp.{domain}",
            "ACME_DNS": "dns_pdns",
            "PDNS_Url": f"http://{self.servers.world.net.v4(2)}:8081",
            "PDNS_ServerId": "localhost",
            "PDNS_Token": FIRST_KEY,
            "PDNS_Ttl": "1",
            "ACME_DNS_SLEEP": "1",
            "ACME_SERVER": ACME_DIRECTORY,
            **more,
        }
        return {name: value for name, value in settings.items() if value}

    @contextmanager
    def zone(self, domain: str, records: str = "") -> Iterator[None]:
        """A zone of the world's name server, for as long as it is needed."""
        world = self.servers.world
        world.load_zone(domain, records)
        try:
            yield
        finally:
            world.exec("authoritative", "pdnsutil", "delete-zone", domain)


@contextmanager
def removed_after(all_servers: Servers, bundle: Path) -> Iterator[CertServers]:
    servers = CertServers(all_servers, bundle)
    try:
        yield servers
    finally:
        for server in servers.made:
            server.remove()
    wrong = all_servers.forget_removed()
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="package")
def bundle(all_servers: Servers, base: Path, authority: Authority) -> Path:
    """What vouches for each of the ACME servers. Only root may read it, as a secret's file."""
    path = base / "acme-ca.pem"
    path.unlink(missing_ok=True)  # root's, of the last time
    path.write_text(all_servers.world.acme_ca_bundle() + authority.pem)
    for command in (("chown", "0:0"), ("chmod", "0600")):
        checked(all_servers.machine.run(*command, str(path)))
    return path


@pytest.fixture
def cert_servers(all_servers: Servers, bundle: Path) -> Iterator[CertServers]:
    """For servers of one test alone."""
    with removed_after(all_servers, bundle) as servers:
        yield servers


@pytest.fixture(scope="module")
def module_cert_servers(all_servers: Servers, bundle: Path) -> Iterator[CertServers]:
    """For servers that a module's tests share."""
    with removed_after(all_servers, bundle) as servers:
        yield servers


@pytest.fixture(scope="package")
def session_cert_servers(all_servers: Servers, bundle: Path) -> Iterator[CertServers]:
    """For servers that several modules share."""
    with removed_after(all_servers, bundle) as servers:
        yield servers


def put_certificate(server: CertServer, name: str, pair: Pair) -> None:
    """Put a certificate in another's place by hand, as the machine's root: both files at once."""
    folder = server.data / "certs" / name
    aside = folder.with_name(".by-hand")
    run = server.machine.run
    checked(run("mkdir", str(aside)))
    server.machine.write(aside / "privkey.pem", pair.key)
    server.machine.write(aside / "fullchain.pem", pair.chain)
    checked(run("chown", "-R", "10465:10465", str(aside)))
    checked(run("mv", "--exchange", "--no-target-directory", str(aside), str(folder)))
    checked(run("rm", "-r", str(aside)))


# --- the server of most tests --------------------------------------------------------------------

# Executables for data/reload: the first fails until it is allowed, the second takes notes.
_STUBBORN = """#!/bin/sh
test -e /data/allowed && exit 0
echo "no route to the web server"
exit 3
"""
_NOTES = """#!/bin/sh
fingerprint=$(openssl x509 -in "$CERT_FULLCHAIN" -noout -fingerprint -sha256)
key=$(openssl pkey -in "$CERT_KEY" -noout -check)
echo "$DOMAIN|${fingerprint#*=}|$key|$(id -un)" >>/data/notes
"""


@dataclass(frozen=True)
class TwoDomains:
    """A server after its first boot: two domains at two providers.

    `command_lines` is all that could be seen of processes while it had its certificates issued.
    """

    server: CertServer
    command_lines: tuple[str, ...]

    def notes(self) -> list[tuple[str, str, str, str]]:
        """For each run of the second executable: domain, fingerprint, the key's state, user."""
        if "notes" not in self.server.machine.names(self.server.data):
            return []
        lines = self.server.machine.read(self.server.data / "notes").splitlines()
        notes = []
        for line in lines:
            domain, fingerprint, key, user = line.split("|")
            notes.append((domain, fingerprint.replace(":", "").lower(), key, user))
        return notes


@pytest.fixture(scope="package")
def two(session_cert_servers: CertServers, second: NameServer, base: Path) -> Iterator[TwoDomains]:
    servers = session_cert_servers
    key_file = base / "pdns-token"
    key_file.write_text(f"{FIRST_KEY}\n")
    servers.servers.machine.run("chmod", "0600", str(key_file))
    second.add_zone(TWO)
    second.delegate(TWO)
    settings = servers.dns(ONE, MAIL_DOMAINS=f"{ONE},{TWO}", PDNS_Token="")
    settings["PDNS_Token_FILE"] = KEY_FILE
    with servers.zone(ONE):
        server = servers.make(settings, mounts=[f"{key_file}:{KEY_FILE}:ro"])
        domain, reload = server.data / "domains" / TWO, server.data / "reload"
        for folder in (domain, reload):
            folder.mkdir(parents=True)
        (domain / "acme.env").write_text(
            f"# The second provider\nPDNS_Url={second.url}\nPDNS_Token='{SECOND_KEY}'\n"
        )
        for name, text in (("10-stubborn", _STUBBORN), ("20-notes", _NOTES)):
            (reload / name).write_text(text)
            (reload / name).chmod(0o755)
        server.is_in_trouble("warn: .*: reload/10-stubborn ended with status 3")
        server.up()
        with server.command_lines() as seen:
            for name in (ONE, TWO):
                server.wait_until_issued(name)
        found = TwoDomains(server, tuple(seen))
        wait_until(lambda: len(found.notes()) == 2, "the executables have run", timeout=20)
        yield found
    second.take_back(TWO)


# --- servers in trouble from the beginning on: acme.sh gives up on some only after two minutes ---


@dataclass(frozen=True)
class Troubled:
    """Servers that cannot have their certificate, each for a reason of its own."""

    by_name: Mapping[str, CertServer]

    def domain(self, name: str) -> str:
        return f"{name}.example"


@pytest.fixture(scope="package")
def troubled(
    session_cert_servers: CertServers,
    front: Front,
    second: NameServer,
    base: Path,
    authority: Authority,
) -> Iterator[Troubled]:
    servers, made = session_cert_servers, {}
    wrong_clocks = {"behind": "-1d", "ahead": "+1d"}
    settings = {
        "down": {"ACME_SERVER": front.open(14001, "down")},
        "broken": {"ACME_SERVER": front.open(14002, "broken")},
        "limited": {"ACME_SERVER": front.open(14003, "limited")},
        "wrong-key": {"PDNS_Token": "this-is-not-the-key"},
        "lost": {"PDNS_Url": second.url, "PDNS_Token": SECOND_KEY},
        **{name: {"ACME_SERVER": front.open(14004)} for name in wrong_clocks},
    }
    second.add_zone("lost.example")
    with ExitStack() as stack:
        for name, more in settings.items():
            domain = f"{name}.example"
            if name != "lost":
                stack.enter_context(servers.zone(domain))
            mounts = clock(servers, base / name, wrong_clocks[name]) if name in wrong_clocks else ()
            server = servers.make(servers.dns(domain, **more), mounts=mounts)
            server.is_in_trouble()
            if name != "down":
                # An old certificate that is long due.
                folder = server.data / "certs" / domain
                folder.mkdir(parents=True)
                pair = authority.issue(domain, f"*.{domain}", left=10 * DAY)
                (folder / "fullchain.pem").write_text(pair.chain)
                (folder / "privkey.pem").write_text(pair.key)
            made[name] = server
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda server: server.up(wait=False), made.values()))
        yield Troubled(made)


def clock(servers: CertServers, folder: Path, offset: str) -> list[str]:
    """Mounts that give every program of a container a wrong clock, but for the static ones.

    The file `rc` of the folder holds the offset, and is read at their start.
    """
    folder.mkdir()
    copy = f"cp /usr/lib/*/faketime/libfaketime.so.1 {folder}/"
    checked(servers.servers.machine.run("sh", "-c", copy))
    (folder / "preload").write_text("/etc/libfaketime.so.1\n")
    (folder / "rc").write_text(f"{offset}\n")
    targets = {
        "libfaketime.so.1": "/etc/libfaketime.so.1",
        "preload": "/etc/ld.so.preload",
        "rc": "/etc/faketimerc",
    }
    return [f"{folder / name}:{target}:ro" for name, target in targets.items()]


@pytest.fixture(scope="package", autouse=True)
def _begin_with_the_slow_ones(request: pytest.FixtureRequest) -> None:
    if hasattr(request.config, "workerinput"):
        return  # whose module is the one that needs them
    if any("troubled" in getattr(item, "fixturenames", ()) for item in request.session.items):
        request.getfixturevalue("troubled")
