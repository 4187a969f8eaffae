"""Renewals: nobody is refused, the new certificate is served at once, the executables run."""

from __future__ import annotations

import base64
import json
import smtplib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.image.certs.conftest import (
    EAB_KEY,
    EAB_KID,
    ONE,
    TWO,
    CertServers,
    TwoDomains,
    put_certificate,
)
from tests.support import smtp
from tests.support.ca import DAY, Authority
from tests.support.certserver import ACME, CertServer, openssl_says
from tests.support.container import checked
from tests.support.load import Load, Sample
from tests.support.peers import Pebble
from tests.support.smtp import Endpoint
from tests.support.wait import wait_until
from tests.world.world import World

pytestmark = [pytest.mark.alone, pytest.mark.long]

RATE = 50  # connections a second
SEEN_WITHIN = 2.0  # seconds after its installation, for every new session
AGED = "aged.example"


@pytest.fixture(scope="module")
def load(two: TwoDomains, roots: str) -> tuple[list[Sample], float, str, str]:
    """A renewal that is asked for under load, with a session open across it.

    The samples, the moment of the installation, and both certificates.
    """
    server = two.server
    user = f"i@{ONE}"
    secret = server.add_user(user)
    endpoint = Endpoint(server.ipv4, f"smtp.{ONE}", roots)
    old = server.installed(ONE)
    mail = smtp.message(user, user)
    with Load(server.ipv4, ONE, RATE) as load, smtp.mail_program(endpoint) as session:
        session.login(user, secret)
        session.mail(user)
        session.rcpt(user)
        checked(server.verb("renew-cert", ONE, "--force"))
        new = server.installed(ONE)
        # What becomes of the open session: a clean error at worst, and a second try succeeds.
        try:
            code, _ = session.data(mail.as_bytes())
            sent = code == 250
        except smtplib.SMTPServerDisconnected:
            sent = False
        time.sleep(SEEN_WITHIN + 0.5)  # so that there are samples after that time
    if not sent:
        with smtp.mail_program(endpoint) as session:
            session.login(user, secret)
            session.send_message(mail, from_addr=user, to_addrs=[user])
    wait_until(lambda: server.kept(user), "the message is kept")
    assert len(server.kept(user)) == 1
    path = server.data / "certs" / ONE / "fullchain.pem"
    installed = float(checked(server.machine.run("stat", "-c", "%.9Z", str(path))).stdout)
    return load.samples, installed, old, new


Renewal = tuple[list[Sample], float, str, str]


def test_nobody_is_refused_during_a_renewal(load: Renewal) -> None:
    samples, _, old, new = load
    assert old != new
    seconds = samples[-1].begun - samples[0].begun
    assert len(samples) / seconds > 0.9 * RATE, "that was the load"
    assert {sample.port for sample in samples} == {25, 465, 587}
    assert not [sample for sample in samples if sample.refused]


def test_every_new_session_sees_the_new_certificate_within_two_seconds(load: Renewal) -> None:
    samples, installed, old, new = load
    assert {sample.fingerprint for sample in samples} == {old, new}
    after = [sample for sample in samples if sample.begun > installed + SEEN_WITHIN]
    assert len(after) > 0.25 * RATE
    assert {sample.fingerprint for sample in after} == {new}


def test_a_handshake_that_is_cut_short_succeeds_at_the_second_try(load: Renewal) -> None:
    samples, installed, _, _ = load
    cut = [sample for sample in samples if sample.error]
    # Only around the one restart. Their second try has succeeded: else there would be no sample.
    assert all(installed - 1 < sample.begun < installed + SEEN_WITHIN for sample in cut), cut
    assert len(cut) < RATE


@pytest.mark.usefixtures("load")
def test_the_executables_run_after_a_renewal_too(two: TwoDomains) -> None:
    wait_until(
        lambda: (ONE, two.server.installed(ONE), "Key is valid", "tambo") in two.notes()[2:],
        "the executable has run again",
    )


@pytest.mark.usefixtures("load")
def test_one_that_failed_is_tried_again(two: TwoDomains) -> None:
    server = two.server
    path = server.data / "state/reload.json"
    server.machine.write(server.data / "allowed", "")
    pending = json.loads(server.machine.read(path))
    assert pending["10-stubborn"]["domains"]
    wait = pending["10-stubborn"]["next_try"] - time.time()
    assert 0 < wait <= 120
    # As if that time were over.
    pending["10-stubborn"]["next_try"] = time.time()
    server.machine.write(path, json.dumps(pending))
    wait_until(lambda: json.loads(server.machine.read(path)) == {}, "it has succeeded", timeout=20)
    assert f"{TWO}: reload/10-stubborn done" in server.container.log()


def test_without_force_nothing_is_issued_that_is_not_due(two: TwoDomains) -> None:
    before = two.server.installed(ONE)
    said = two.server.ok("renew-cert", ONE)
    assert "not due; --force has one issued all the same" in said
    assert two.server.installed(ONE) == before


def test_only_names_that_are_there_can_be_renewed(two: TwoDomains) -> None:
    result = two.server.verb("renew-cert", "three.example")
    assert result.status == 2
    assert f"there are: {ONE}, {TWO}" in result.stderr


def test_two_do_not_issue_at_once(two: TwoDomains) -> None:
    """A lock that is held; and one whose holder is dead does not count."""
    server = two.server
    lock = server.data / "state/acme.lock"
    hold = ("flock", "--exclusive", "--no-fork", str(lock), "sleep", "60")
    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(server.machine.run, *hold)
        found = wait_until(lambda: _pid(server, "sleep 60"), "the lock is held")
        result = server.verb("renew-cert", ONE)
        server.machine.kill(found)
        assert holder.result().status != 0
    assert result.status == 75
    assert "another issuing is going on" in result.stderr
    assert server.verb("renew-cert", ONE).status == 0


def _pid(server: CertServer, command: str) -> int:
    """The number of a process of the machine's own."""
    found = server.machine.container.processes()
    return next((item.pid for item in found if item.command == command), 0)


# --- the keeper, and an authority that wants external account binding ---------------------------


@pytest.fixture(scope="module")
def aged(module_cert_servers: CertServers, picky: Pebble, authority: Authority) -> CertServer:
    servers = module_cert_servers
    domain = AGED
    settings = servers.dns(
        domain, ACME_SERVER=picky.url, ACME_EAB_KID=EAB_KID, ACME_EAB_HMAC_KEY=EAB_KEY
    )
    server = servers.make(settings)
    server.is_in_trouble("less than a sixth of its life is left")
    folder = server.data / "certs" / domain
    folder.mkdir(parents=True)
    pair = authority.issue(domain, f"*.{domain}", left=60 * DAY)
    (folder / "fullchain.pem").write_text(pair.chain)
    (folder / "privkey.pem").write_text(pair.key)
    server.up()
    return server


def test_with_a_ninth_of_its_life_left_the_keeper_renews_it(
    module_cert_servers: CertServers,
    aged: CertServer,
    picky: Pebble,
    authority: Authority,
    world: World,
) -> None:
    server = aged
    wait_until(lambda: server.processes("keeper"), "the keeper runs")
    wait_until(lambda: server.listed(AGED)["served"], "what was put there is served")
    keeper, started = server.process("keeper").pid, server.container.state["StartedAt"]
    assert server.attempts() == 0, "it has two thirds of its life left"
    old = authority.issue(AGED, f"*.{AGED}", lifetime=90 * DAY, left=10 * DAY)
    with module_cert_servers.zone(AGED), server.command_lines() as seen:
        put_certificate(server, AGED, old)
        wait_until(lambda: server.serves(old.fingerprint, AGED), "the old one is served", timeout=8)
        server.wait_until_issued(AGED, other_than=old.fingerprint)
    log = server.container.log()
    assert f"{AGED}: having a certificate issued: it is due for renewal" in log
    assert server.process("keeper").pid == keeper
    assert server.container.state["StartedAt"] == started
    said = openssl_says(world, server.ipv4, 465, AGED, picky.roots())
    assert "Verification: OK" in said, said
    # The account was bound by a key that nobody saw.
    assert any(ACME in line for line in seen)
    as_hex = base64.urlsafe_b64decode(EAB_KEY).hex()
    assert not [line for line in seen if EAB_KEY in line or as_hex in line]
    assert EAB_KEY not in log


def test_one_of_six_days_is_renewed_in_time_too(aged: CertServer) -> None:
    row = aged.listed(AGED)
    assert row["days_left"] == 5
    wait_until(lambda: aged.memory(AGED)["window"], "the authority was asked", timeout=20)
    begin, end = aged.memory(AGED)["window"]
    assert time.time() + DAY.total_seconds() < begin < end < time.time() + 6 * DAY.total_seconds()
