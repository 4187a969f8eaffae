"""Values of provider variables that a shell would run, if they ever got to one as code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.certs.conftest import CertServers
from tests.support.certserver import CertServer
from tests.support.container import docker
from tests.support.peers import Front
from tests.support.server import IMAGE
from tests.support.wait import wait_until

DOMAIN = "hostile.example"
PORT = 14006  # of the front
RUN = "touch /run/tambo/pwned"
# The rest of them in tests/unit/test_dnsapi.py.
REFUSED = {
    "substitution": f"PDNS_Token=$({RUN})",
    "backquotes": f"PDNS_Token=`{RUN}`",
    "quote": f"PDNS_Token=x'; {RUN}; '",
    "name": f"X;{RUN};Y=1",
    "hook": f"ACME_DNS=dns_pdns;{RUN}",
    "hook-path": "ACME_DNS=../../../data/x",
    "alias": f"ACME_CHALLENGE_ALIAS=x.example;{RUN}",
    "sleep": f"ACME_DNS_SLEEP=1;{RUN}",
    # Of acme.sh and the shell, not of the provider's hook.
    "path": "PATH=/data",
    "preload": "LD_PRELOAD=/data/x.so",
    "user": f"USER=x;{RUN}",
}
# What passes, as it is no more than text to a shell that has it in quotes.
PASSES = f"x;{RUN};|{RUN}|&{RUN}&#({RUN})<x>/run/tambo/pwned *?~ !!"


@pytest.fixture(scope="module")
def server(module_cert_servers: CertServers, front: Front) -> Iterator[CertServer]:
    settings = module_cert_servers.dns(DOMAIN, ACME_SERVER=front.open(PORT, "limited"))
    server = module_cert_servers.make(settings)
    server.is_in_trouble(r" certs +(acme\.sh:|warn:)", r" keeper +(warn|mended): ")
    with module_cert_servers.zone(DOMAIN):
        server.up()
        # The first boot's own try.
        wait_until(lambda: server.memory(DOMAIN).get("failures"), "it fails", timeout=30)
        yield server


def pwned(server: CertServer) -> bool:
    return server.container.exec("test", "-e", "/run/tambo/pwned").status == 0


def test_the_harm_would_be_seen(server: CertServer) -> None:
    assert server.container.exec(*RUN.split(), user="tambo").status == 0
    assert pwned(server)
    server.container.exec("rm", "/run/tambo/pwned")


@pytest.mark.parametrize("name", REFUSED)
def test_acme_env_is_refused_with_its_line(server: CertServer, front: Front, name: str) -> None:
    line = REFUSED[name]
    before = front.orders(PORT)
    write(server, f"# {name}\n{line}\n")
    result = server.verb("renew-cert")
    assert result.status == 1
    assert "no new certificate: " in result.stdout
    assert "acme.env" in result.stdout or line.partition("=")[0] in result.stdout, result
    if line.startswith("PDNS"):
        assert "line 2" in result.stdout
        assert line.partition("=")[2] not in result.stdout, "a value is not shown"
    assert not pwned(server)
    assert front.orders(PORT) == before, "it has not come to an order"


def test_what_passes_is_never_run(server: CertServer, front: Front) -> None:
    front.open(PORT)
    names = ("PDNS_Token", "PDNS_ServerId", "PDNS_Ttl")
    write(server, "".join(f"{name}={PASSES}\n" for name in names))
    # Twice: the first time acme.sh saves the values, the second time it reads them by a shell.
    for _ in range(2):
        result = server.verb("renew-cert")
        assert result.status == 1
        assert "the DNS provider did not take the challenge" in result.stdout
        assert not pwned(server)
    saved = server.machine.read(server.data / "acme" / DOMAIN / "account.conf")
    for name in names:
        assert f"SAVED_{name}='{PASSES}'\n" in saved


def acme_env(server: CertServer) -> Path:
    return server.data / "domains" / DOMAIN / "acme.env"


def write(server: CertServer, text: str) -> None:
    server.machine.write(acme_env(server), text)
    server.machine.run("chown", "10465:10465", str(acme_env(server)))


@pytest.mark.parametrize("value", [f"$({RUN})", f"x'; {RUN}; '", f"x\n{RUN}"])
def test_settings_are_refused_with_the_variable_s_name(value: str) -> None:
    environ = {"MAIL_HOSTNAME": f"smtp.{DOMAIN}", "ACME_DNS": "dns_pdns", "PDNS_Token": value}
    options = [word for key, text in environ.items() for word in ("--env", f"{key}={text}")]
    result = docker("run", "--rm", "--network", "none", *options, IMAGE, "dns")
    assert result.status == 64
    assert "PDNS_Token: the value holds a character" in result.stderr
    assert RUN not in result.stderr
