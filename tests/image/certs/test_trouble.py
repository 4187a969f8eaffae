"""Whatever stands in the way of a certificate: mail flows, the cause and the fix are named, nobody
is asked again and again, and when the cause is gone the next try succeeds."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.image.certs.conftest import SECOND_KEY, Troubled
from tests.support import smtp
from tests.support.ca import Authority
from tests.support.certserver import CertServer
from tests.support.container import checked
from tests.support.peers import Front, NameServer
from tests.support.smtp import Endpoint
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

WRONG_CLOCKS = ("behind", "ahead")
GIVEN_UP = 150.0  # seconds after which acme.sh has given up


@dataclass(frozen=True)
class Case:
    """What is said of a trouble, and at which port of the front it is, if at one."""

    cause: str
    fix: str
    port: int = 0


CASES = {
    "broken": Case(
        r"the certificate authority is in trouble itself \(acme.sh: Error creating new order\)",
        "wait, the next try comes by itself",
        14002,
    ),
    "limited": Case(
        r"the certificate authority limits how often it is asked \(acme.sh: too many certificates",
        "wait, the next try comes by itself; to try settings, use ACME_SERVER=letsencrypt_test",
        14003,
    ),
    "wrong-key": Case(
        "the DNS provider did not take the challenge",
        "see that the credentials are right and may edit this zone",
    ),
    "lost": Case(
        r"the certificate authority did not see the challenge \(acme.sh: .*TXT",
        "see that the domain's name servers are the provider's",
    ),
    "down": Case(
        r"the certificate authority could not be reached \(acme.sh: curl: \(7\) Failed to connect",
        "see that this server reaches the internet by HTTPS",
        14001,
    ),
    "behind": Case(
        r"a certificate is out of date by this machine's clock \(acme.sh: .*is not yet valid\)",
        "see that the clock is right: timedatectl",
    ),
}


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def case(name: str) -> Case:
    return CASES[name]


@pytest.fixture
def server(troubled: Troubled, name: str) -> CertServer:
    """After its first failure."""
    server = troubled.by_name[name]
    domain = troubled.domain(name)
    wait_until(
        lambda: server.memory(domain).get("failures"), f"{name} fails", timeout=GIVEN_UP, pause=0.5
    )
    return server


def test_the_cause_and_the_fix_are_named(
    server: CertServer, troubled: Troubled, name: str, case: Case
) -> None:
    domain = troubled.domain(name)
    serves = "the self-signed one serves" if name == "down" else "the one in place stays in service"
    line = f"warn: {domain}: no new certificate: {case.cause}.*; {serves}. Fix: .*{case.fix}"
    log = server.container.log()
    assert re.search(line, log), log
    row = server.listed(domain)
    assert re.search(case.cause, row["error"])
    assert case.fix in row["fix"]
    assert row["next_try"]
    said = server.verb("list-certs")
    assert said.status == 1
    assert case.fix in said.stdout
    finding = f"keeper +warn: The certificate of {domain} could not be issued: {case.cause}"
    wait_until(lambda: re.search(finding, server.container.log()), "the keeper tells it")


def test_mail_flows_with_what_there_is(
    server: CertServer, authority: Authority, troubled: Troubled, name: str
) -> None:
    domain = troubled.domain(name)
    roots = authority.pem
    if name == "down":
        roots = server.machine.read(server.data / "certs/self-signed/fullchain.pem")
    user = f"i@{domain}"
    secret = server.add_user(user)
    endpoint = Endpoint(server.ipv4, f"smtp.{domain}", roots)
    for port in (465, 587):
        smtp.submit(endpoint, user, secret, user, port)
    wait_until(lambda: len(server.kept(user)) == 2, "both are kept")
    assert server.verb("tambo", "health").status == 0, "nobody is turned away"


def test_no_credential_is_told(server: CertServer) -> None:
    log = server.container.log()
    for secret in ("this-is-not-the-key", SECOND_KEY, "tambo-world"):
        assert secret not in log


def test_it_was_tried_once(server: CertServer, troubled: Troubled, name: str) -> None:
    memory = server.memory(troubled.domain(name))
    assert memory["failures"] == 1
    assert server.attempts() == 1
    if name not in WRONG_CLOCKS:
        assert 300 < memory["next_try"] - time.time() <= 900


@pytest.mark.parametrize("name", ["limited"], indirect=True)
def test_the_waiting_time_outlives_a_restart(
    server: CertServer, troubled: Troubled, front: Front, name: str, case: Case
) -> None:
    domain = troubled.domain(name)
    before, orders = server.memory(domain), front.orders(case.port)
    assert orders == 1
    checked(server.container.docker("restart", "--time", "3"))
    server.wait_until_it_serves()
    # It has looked once it has told what it found.
    last = server.container.log().rindex("These DNS records")
    words = "could not be issued"
    wait_until(lambda: words in server.container.log()[last:], "the keeper has looked")
    assert server.memory(domain) == before
    assert front.orders(case.port) == orders
    assert server.attempts() == 1


# --- and when the cause is gone ------------------------------------------------------------------


@dataclass(frozen=True)
class Recovery:
    """What was installed before and after the cause of a trouble was taken away."""

    before: str
    after: str


@pytest.fixture(scope="module")
def recovered(
    troubled: Troubled, front: Front, second: NameServer, base: Path
) -> dict[str, Recovery]:
    """Of all at once: acme.sh sleeps most of its time."""

    def recover(name: str) -> Recovery:
        server, domain = troubled.by_name[name], troubled.domain(name)
        before = server.installed(domain)
        if name in WRONG_CLOCKS:
            (base / name / "rc").write_text("+0\n")
            checked(server.container.docker("restart", "--time", "3"))
        if name == "behind":
            # That time is long over by the right clock: the keeper tries by itself.
            return Recovery(before, server.wait_until_issued(domain, other_than=before))
        if name == "ahead":
            server.wait_until_it_serves()
            server.ok("renew-cert")
            assert server.installed(domain) == before, "it is not due"
            server.ok("renew-cert", "--force")
        else:
            # The keeper may be at it at this very moment: then it is told to try again.
            wait_until(lambda: server.verb("renew-cert").status == 0, "it is renewed", timeout=120)
        return Recovery(before, server.installed(domain))

    for case in CASES.values():
        if case.port:
            front.open(case.port)
    second.delegate(troubled.domain("lost"))
    server = troubled.by_name["wrong-key"]
    folder = server.data / "domains" / troubled.domain("wrong-key")
    server.machine.write(folder / "acme.env", "PDNS_Token=tambo-world\n")
    with ThreadPoolExecutor(len(troubled.by_name)) as pool:
        return dict(zip(troubled.by_name, pool.map(recover, troubled.by_name), strict=True))


def test_a_clock_that_is_ahead_hinders_nothing(troubled: Troubled) -> None:
    domain = troubled.domain("ahead")
    server = troubled.by_name["ahead"]
    server.wait_until_issued(domain)
    ahead = server.memory(domain)["issued"] - time.time()
    assert 80000 < ahead < 90000, "it is a day ahead"
    assert server.listed(domain)["error"] == ""


@pytest.mark.parametrize("name", [*CASES, "ahead"])
def test_when_the_cause_is_gone_the_next_try_succeeds(
    recovered: dict[str, Recovery], troubled: Troubled, name: str
) -> None:
    server, domain = troubled.by_name[name], troubled.domain(name)
    recovery = recovered[name]
    assert recovery.before != recovery.after
    assert server.serves(recovery.after, domain)
    row = server.listed(domain)
    assert (row["error"], row["served"]) == ("", True)
    assert server.verb("list-certs").status == 0
    memory = server.memory(domain)
    assert memory["failures"] == 0
    assert time.time() - 60 < memory["issued"] < time.time() + 5
