"""What is due, and what is done about it."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from entrypoint.common import locks, tlsprobe
from entrypoint.common.errors import UserError
from entrypoint.common.findings import Finding, Level
from entrypoint.common.identity import Capability, Ids
from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.converge import apply, reconcile
from entrypoint.converge.plan import Effect, Wanted, wanted
from entrypoint.keys import certs
from entrypoint.renewal import acmesh, renewer
from entrypoint.renewal.renewer import Renewer, Result
from entrypoint.settings import acmehooks
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.state.load import DomainState, Issue, State
from tests.unit import kit
from tests.unit.acmekit import (
    DAY,
    HOOKS,
    NOW,
    SECRET,
    Pretender,
    asked,
    certificate,
    install,
    put_hooks,
    remembered,
)
from tests.unit.converge.test_crash import deaths
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, put, put_domain

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
WANT = Wanted(EXAMPLE_COM, ("example.com", "*.example.com"), EXAMPLE_COM)
IDENTITY = "letsencrypt dns_pdns  example.com *.example.com"
LIFETIMES = [90 * DAY, 45 * DAY, 6 * DAY]
NONE = Issue()


@pytest.fixture(autouse=True)
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return put_hooks(tmp_path / "dnsapi", monkeypatch)


def held(
    *names: str, lifetime: timedelta = 90 * DAY, left: timedelta = 45 * DAY
) -> certs.Certificate:
    """A certificate that has so much of its life left at NOW."""
    made = certificate(*(names or WANT.names))
    return replace(made, not_before=NOW + left - lifetime, not_after=NOW + left)


def reason(certificate: certs.Certificate | None, issue: Issue = NONE, now: datetime = NOW) -> str:
    return renewer.reason(WANT, IDENTITY, certificate, issue, now)


# --- when ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lifetime", LIFETIMES, ids=str)
def test_without_the_authority_s_word_it_is_a_third_before_the_end_or_a_little_earlier(
    lifetime: timedelta,
) -> None:
    moments = set()
    for _ in range(20):
        one = held(lifetime=lifetime)
        moment = renewer.renew_at(one, NONE)
        left = one.not_after - moment
        assert lifetime / 3 <= left <= lifetime / 3 + lifetime / 30
        assert renewer.renew_at(one, NONE) == moment, "it does not wander"
        moments.add(left)
    assert len(moments) > 15, "not all at the same time"


@pytest.mark.parametrize("lifetime", LIFETIMES, ids=str)
def test_with_the_authority_s_word_it_is_within_its_window(lifetime: timedelta) -> None:
    one = held(lifetime=lifetime)
    begin, end = NOW.timestamp() + 1000, NOW.timestamp() + 5000
    issue = Issue(window=(begin, end), fingerprint=one.fingerprint)
    assert begin <= renewer.renew_at(one, issue).timestamp() <= end
    assert renewer.renew_at(one, replace(issue, fingerprint="of another")) != renewer.renew_at(
        one, issue
    ), "what was said of another certificate does not count"


def test_a_window_that_has_passed_means_now() -> None:
    """How an authority asks for a certificate that it is about to revoke."""
    one = held(left=89 * DAY)
    window = ((NOW - 2 * HOUR).timestamp(), (NOW - HOUR).timestamp())
    assert reason(one, Issue(window=window, fingerprint=one.fingerprint)) == "it is due for renewal"


@pytest.mark.parametrize("lifetime", LIFETIMES, ids=str)
@pytest.mark.parametrize(
    ("left", "why"),
    [
        (0.5, ""), (0.4, ""), (0.33, "it is due for renewal"), (1 / 9, "it is due for renewal"),
        (-0.1, "it is due for renewal"),
    ],
)  # fmt: skip
def test_it_is_due_by_what_is_left(lifetime: timedelta, left: float, why: str) -> None:
    assert reason(held(lifetime=lifetime, left=lifetime * left)) == why


def test_none_at_all_is_due() -> None:
    assert reason(None) == "there is none yet"


def test_one_that_does_not_cover_all_names_is_due() -> None:
    assert reason(held("example.com")) == "it does not cover all names"
    assert reason(held("example.com", "*.example.com", "more.example.com")) == ""


def test_changed_settings_are_a_reason_but_not_for_what_was_put_there_by_hand() -> None:
    assert reason(held(), Issue(identity="another")) == "the settings have changed"
    assert reason(held(), Issue(identity=IDENTITY)) == ""
    assert reason(held(), NONE) == ""


@pytest.mark.parametrize(
    ("ahead", "why"),
    [
        (MINUTE, ""), (HOUR, ""), (24 * HOUR, ""),
        (timedelta(0), "there is none yet"), (-HOUR, "there is none yet"),
        # Set by a clock that was wrong.
        (25 * HOUR, "there is none yet"), (400 * DAY, "there is none yet"),
    ],
    ids=str,
)  # fmt: skip
def test_after_a_failure_it_waits_but_never_longer_than_a_day(ahead: timedelta, why: str) -> None:
    issue = Issue(failures=3, next_try=(NOW + ahead).timestamp())
    assert reason(None, issue) == why
    assert renewer.waits(issue, NOW) == (not why)


@pytest.mark.parametrize(
    ("age", "why"),
    [
        (timedelta(0), ""), (59 * MINUTE, ""), (61 * MINUTE, "it does not cover all names"),
        # The clock was set back meanwhile.
        (-HOUR, "it does not cover all names"), (-400 * DAY, "it does not cover all names"),
    ],
    ids=str,
)  # fmt: skip
def test_there_is_an_hour_between_two_whatever_the_reason(age: timedelta, why: str) -> None:
    assert reason(held("example.com"), Issue(issued=(NOW - age).timestamp())) == why


def test_one_that_is_gone_is_not_waited_for() -> None:
    assert reason(None, Issue(issued=NOW.timestamp())) == "there is none yet"


def test_waiting_times_double_from_a_quarter_of_an_hour_to_a_day() -> None:
    waits = [renewer.back_off(number, None) / 60 for number in range(1, 12)]
    assert waits == [15, 30, 60, 120, 240, 480, 960, 1440, 1440, 1440, 1440]
    assert renewer.back_off(10**6, None) == 86400


@pytest.mark.parametrize(
    ("left", "longest"),
    [(90 * DAY, DAY), (5 * DAY, 12 * HOUR), (DAY, 2.4 * HOUR), (HOUR, 15 * MINUTE)],
    ids=str,
)
def test_with_little_life_left_it_is_tried_more_often(left: timedelta, longest: timedelta) -> None:
    assert renewer.back_off(20, left) == longest.total_seconds()
    assert renewer.back_off(20, -left) == 900


# --- what is asked for ---------------------------------------------------------------------------


def request(
    paths: Paths, settings: Settings, acme_env: str = "", want: Wanted = WANT
) -> acmesh.Request:
    if acme_env:
        put_domain(paths, want.zone, **{"acme.env": acme_env})
    return renewer.request(settings, load.load(paths), want, paths)


def test_the_common_provider_and_its_credentials(paths: Paths, hooks: Path) -> None:
    found = request(paths, asked(hooks))
    assert found.names == ("example.com", "*.example.com")
    assert found.home == paths.acme / "example.com"
    assert found.server == "letsencrypt"
    assert found.hook == "dns_pdns"
    assert found.credentials == {
        "PDNS_Url": "http://ns.example.net", "PDNS_ServerId": "localhost", "PDNS_Token": SECRET,
    }  # fmt: skip
    assert (found.webroot, found.email, found.eab, found.challenge_alias) == ("", "", None, "")
    assert (found.dns_sleep, found.ca_bundle) == (None, None)


def test_everything_that_can_be_set(paths: Paths, hooks: Path) -> None:
    settings = asked(
        hooks, ACME_EMAIL="me@example.net", ACME_SERVER="https://acme.example.net/dir",
        ACME_EAB_KID="kid", ACME_EAB_HMAC_KEY="key", ACME_DNS_SLEEP="60",
        ACME_CHALLENGE_ALIAS="challenges.example.net", ACME_CA_BUNDLE="/x.pem",
    )  # fmt: skip
    found = request(paths, settings)
    assert found.email == "me@example.net"
    assert found.server == "https://acme.example.net/dir"
    assert found.eab == ("kid", "key")
    assert found.dns_sleep == 60
    assert found.challenge_alias == "challenges.example.net"
    assert found.ca_bundle == paths.ca_bundle


def test_a_domain_s_own_account_at_the_same_provider(paths: Paths, hooks: Path) -> None:
    found = request(paths, asked(hooks), "PDNS_Token=its-own\nPDNS_Ttl=1\n")
    assert found.hook == "dns_pdns"
    assert found.credentials == {
        "PDNS_Url": "http://ns.example.net", "PDNS_ServerId": "localhost",
        "PDNS_Token": "its-own", "PDNS_Ttl": "1",
    }  # fmt: skip


def test_a_domain_s_own_provider_never_sees_the_common_credentials(
    paths: Paths, hooks: Path
) -> None:
    found = request(paths, asked(hooks), "ACME_DNS=dns_cf\nCF_Token=its-own\n")
    assert found.hook == "dns_cf"
    assert found.credentials == {"CF_Token": "its-own"}


def test_a_domain_s_own_alias_and_waiting_time(paths: Paths, hooks: Path) -> None:
    settings = asked(hooks, ACME_DNS_SLEEP="60", ACME_CHALLENGE_ALIAS="challenges.example.net")
    text = "ACME_CHALLENGE_ALIAS=other.example.net\nACME_DNS_SLEEP=5\n"
    found = request(paths, settings, text)
    assert (found.challenge_alias, found.dns_sleep) == ("other.example.net", 5)
    assert not {"ACME_CHALLENGE_ALIAS", "ACME_DNS_SLEEP", "ACME_DNS"} & set(found.credentials)


def test_one_domain_s_file_is_not_another_s(paths: Paths, hooks: Path) -> None:
    put_domain(paths, EXAMPLE_ORG, **{"acme.env": "PDNS_Token=its-own\n"})
    found = request(paths, asked(hooks, MAIL_DOMAINS="example.com example.org"))
    assert found.credentials["PDNS_Token"] == SECRET


def test_the_host_s_own_certificate_is_for_the_zone_above_it(paths: Paths, hooks: Path) -> None:
    settings = asked(hooks, MAIL_HOSTNAME="smtp.hosting.example", MAIL_DOMAINS="example.com")
    [_, want] = wanted(settings)
    found = request(paths, settings, "PDNS_Token=its-own\n", want)
    assert found.names == ("smtp.hosting.example",)
    assert found.credentials["PDNS_Token"] == "its-own"


def test_by_http_no_credentials_are_handed_over(paths: Paths) -> None:
    settings = kit.asked(TLS="http")
    [want] = wanted(settings)
    found = request(paths, settings, "ACME_DNS=dns_cf\nCF_Token=its-own\n", want)
    assert found.webroot == str(paths.challenges)
    assert (found.hook, found.credentials) == ("", {})
    settings = kit.asked(TLS="http", ACME_WEBROOT="/webroot")
    assert request(paths, settings, want=want).webroot == "/webroot"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ACME_DNS_SLEEP=soon\n", "ACME_DNS_SLEEP in acme.env of example.com is not a number"),
        ("ACME_CHALLENGE_ALIAS=-\n", "-"),
        ("PDNS_Token=$(x)\n", "acme.env: line 1: PDNS_Token: the value holds a character"),
        ("nonsense\n", "acme.env: line 1: no = in it"),
    ],
)
def test_what_is_wrong_in_a_domain_s_file_is_named(
    paths: Paths, hooks: Path, text: str, words: str
) -> None:
    """And nothing else is tried in its place, such as the common credentials."""
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message is looked at)
        request(paths, asked(hooks), text)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("environ", "kept"),
    [
        ({}, ()),
        ({"TLS": "http"}, (Capability.NET_BIND_SERVICE,)),
        ({"TLS": "http", "ACME_WEBROOT": "/webroot"}, ()),
        ({"TLS": "files", "TLS_FILES": "/x"}, (Capability.DAC_OVERRIDE,)),
        ({"ACME_CA_BUNDLE": "/x"}, (Capability.DAC_OVERRIDE,)),
        (
            {"TLS": "http", "ACME_CA_BUNDLE": "/x"},
            (Capability.NET_BIND_SERVICE, Capability.DAC_OVERRIDE),
        ),
    ],
)
def test_only_the_rights_that_are_needed_are_kept(
    environ: dict[str, str], kept: tuple[Capability, ...]
) -> None:
    assert renewer.capabilities(kit.asked(**environ)) == kept


# --- what is told --------------------------------------------------------------------------------


def findings(
    settings: Settings, found: certs.Certificate | None = None, issue: Issue = NONE
) -> list[Finding]:
    current = State(
        domains={EXAMPLE_COM: DomainState()},
        certificates={EXAMPLE_COM: found} if found else {},
        issues={EXAMPLE_COM: issue} if issue != NONE else {},
    )
    return list(renewer.findings(settings, current, NOW))


def ids_of(found: list[Finding]) -> list[str]:
    return [item.id for item in found]


@pytest.mark.parametrize(
    ("lifetime", "left", "ids"),
    [
        (90 * DAY, 45 * DAY, []),
        (90 * DAY, 29 * DAY, []),  # due, but not late
        (90 * DAY, 20 * DAY, ["certificate-overdue"]),
        (90 * DAY, 14 * DAY, ["certificate-late"]),
        (90 * DAY, 25 * HOUR, ["certificate-late"]),
        (90 * DAY, 23 * HOUR, ["certificate-last-day"]),
        (90 * DAY, -HOUR, ["certificate-last-day", "certificate-expired"]),
        (45 * DAY, 14 * DAY, []),
        (45 * DAY, 10 * DAY, ["certificate-overdue"]),
        (45 * DAY, 7 * DAY, ["certificate-late"]),
        (45 * DAY, 23 * HOUR, ["certificate-last-day"]),
        (6 * DAY, 3 * DAY, []),
        (6 * DAY, 45 * HOUR, []),
        (6 * DAY, 30 * HOUR, ["certificate-overdue"]),
        (6 * DAY, 23 * HOUR, ["certificate-late"]),
        (6 * DAY, 11 * HOUR, ["certificate-last-day"]),
        (6 * DAY, -HOUR, ["certificate-last-day", "certificate-expired"]),
    ],
    ids=str,
)
def test_age_is_told_by_what_is_left_of_its_life(
    hooks: Path, lifetime: timedelta, left: timedelta, ids: list[str]
) -> None:
    found = findings(asked(hooks), held(lifetime=lifetime, left=left))
    assert ids_of(found) == ids
    for item in found:
        expired = item.id == "certificate-expired"
        assert item.level is (Level.FAIL if expired else Level.WARN), "ill only if it has expired"
        assert item.fix.startswith("docker exec mail renew-cert")


def test_a_failure_is_told_with_its_fix_and_the_next_try(hooks: Path) -> None:
    issue = Issue(failures=3, next_try=(NOW + HOUR).timestamp(), error="the cause", fix="the fix")
    [item] = findings(asked(hooks), issue=issue)
    assert (item.id, item.level, item.subject) == ("certificate-error", Level.WARN, EXAMPLE_COM)
    assert "example.com could not be issued: the cause" in item.message
    assert "3; next: 2026-01-01 13:00 UTC" in item.message
    assert item.fix == "the fix"


def test_mounted_ones_are_to_be_replaced_by_their_owner() -> None:
    settings = kit.asked(TLS="files", TLS_FILES="/x")
    found = findings(settings, held(left=-HOUR))
    assert ids_of(found) == ["certificate-last-day", "certificate-expired"]
    assert {item.fix for item in found} == {"put a new one into the folder of TLS_FILES"}
    assert findings(settings, held()) == []


def test_self_signed_is_nothing_to_tell() -> None:
    assert findings(kit.asked()) == []


# --- doing it ------------------------------------------------------------------------------------


class Machine:
    """A renewer with everything around it: the clock, acme.sh, the log, chasquid."""

    def __init__(
        self, paths: Paths, ids: Ids, settings: Settings, patch: pytest.MonkeyPatch
    ) -> None:
        self.paths, self.ids, self.settings = paths, ids, settings
        self.log: list[str] = []
        # The certificates that are issued are by the real clock.
        self.clock = datetime.now(UTC).timestamp()
        self.acme = Pretender()
        self.effects: list[Effect] = []
        self.window: acmesh.Window | None = None
        self.asked_for_window = 0
        patch.setattr(acmesh, "run", self.acme)
        patch.setattr(acmesh, "renewal_window", self._renewal_window)
        patch.setattr(reconcile, "serve", self._serve)
        patch.setattr(tlsprobe, "fingerprint", self._fingerprint)
        patch.setattr(renewer, "_SYSTEM_ROOTS", put(paths.root / "roots.pem", b"roots\n"))
        patch.setattr(renewer, "_LOOK", 0.0)
        paths.state.mkdir(parents=True)
        with locks.edit_lock(paths, ids):
            reconcile.reconcile(settings, paths, ids)

    def _renewal_window(self, *_: object) -> acmesh.Window | None:
        self.asked_for_window += 1
        return self.window

    def _serve(self, _paths: Paths, _ids: Ids, effect: Effect) -> str:
        self.effects.append(effect)
        return ""

    def _fingerprint(self, _port: int, name: str) -> str:
        """chasquid serves what is in its configuration."""
        for folder in sorted((self.paths.chasquid / "certs").iterdir()):
            pair = certs.load(
                (folder / certs.CHAIN).read_bytes(), (folder / certs.KEY).read_bytes()
            )
            if pair.covers(Domain(name)):
                return pair.fingerprint
        raise OSError(errno.ECONNREFUSED, "Connection refused")

    def renewer(self, *, progress: bool = False) -> Renewer:
        """A new one, as after a restart."""
        return Renewer(
            self.settings, self.paths, self.ids, self.log.append, lambda: self.clock, progress
        )

    @property
    def want(self) -> Wanted:
        return wanted(self.settings)[0]

    @property
    def held(self) -> certs.Certificate | None:
        return load.load(self.paths).certificates.get(EXAMPLE_COM)

    @property
    def issue(self) -> Issue:
        return remembered(self.paths, EXAMPLE_COM)

    def fails(self, *lines: str) -> None:
        """acme.sh's next try."""
        self.acme.answers.append((1, list(lines) or ["invalid domain"]))


@pytest.fixture
def machine(paths: Paths, ids: Ids, hooks: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(paths, ids, asked(hooks, DKIM_KEYS="ed25519"), monkeypatch)


def test_the_first_one_is_issued_installed_and_proven(machine: Machine) -> None:
    machine.renewer().tick()
    assert machine.acme.renewals == [False]
    assert machine.held is not None
    assert machine.held.names == WANT.names
    assert machine.issue == Issue(
        identity=IDENTITY, issued=machine.clock, fingerprint=machine.held.fingerprint
    )
    assert machine.effects == [Effect.RESTART]
    assert machine.log[0] == "example.com: having a certificate issued: there is none yet"
    assert machine.log[1].startswith("example.com: certificate for example.com, *.example.com in")
    assert machine.log[2] == "example.com: the new certificate is served on ports 25, 465, 587"


def test_then_there_is_nothing_to_do(machine: Machine) -> None:
    renewer = machine.renewer()
    for _ in range(5):
        renewer.tick()
    assert len(machine.acme.requests) == 1
    assert renewer.attempt(machine.want) is Result.NOT_DUE


def test_the_authority_is_asked_once_a_day_when_it_would_like_a_renewal(machine: Machine) -> None:
    renewer = machine.renewer()
    renewer.tick()
    machine.window = acmesh.Window(
        datetime.fromtimestamp(machine.clock + 3 * 86400, UTC),
        datetime.fromtimestamp(machine.clock + 4 * 86400, UTC),
    )
    for hours in (1, 2, 23, 2):  # looks at 0, 1, 3 and 26
        renewer.tick()
        renewer.tick()
        machine.clock += hours * 3600
    assert machine.asked_for_window == 2
    assert len(machine.acme.requests) == 1
    # And it is renewed within that window.
    machine.clock = machine.window.end.timestamp() + 1
    renewer.tick()
    assert machine.acme.renewals == [False, True]
    assert machine.issue.window is None, "that was said of the old one"


def test_a_renewal_is_one_to_acme_sh_too(machine: Machine) -> None:
    renewer = machine.renewer()
    renewer.tick()
    assert renewer.attempt(machine.want, force=True, patient=False) is Result.DONE
    assert machine.acme.renewals == [False, True]


def test_after_a_failure_acme_sh_is_told_everything_again(machine: Machine) -> None:
    """What it noted may be what is wrong, such as the time to wait for DNS."""
    renewer = machine.renewer()
    renewer.tick()
    machine.fails()
    renewer.attempt(machine.want, force=True, patient=False)
    renewer.attempt(machine.want, force=True, patient=False)
    assert machine.acme.renewals == [False, True, False]


def test_other_settings_are_another_request(machine: Machine, hooks: Path) -> None:
    machine.renewer().tick()
    machine.settings = asked(hooks, ACME_SERVER="letsencrypt_test", DKIM_KEYS="ed25519")
    machine.renewer().tick()
    assert len(machine.acme.requests) == 1, "one an hour is enough"
    machine.clock += 3601
    machine.renewer().tick()
    assert machine.acme.renewals == [False, False]
    assert "having a certificate issued: the settings have changed" in "\n".join(machine.log)


# Failures


def test_a_failure_is_told_remembered_and_waited_for(machine: Machine) -> None:
    machine.fails("Adding TXT value", f"invalid domain {SECRET}"[:14])
    renewer = machine.renewer()
    renewer.tick()
    issue = machine.issue
    assert (issue.failures, issue.begun, issue.identity) == (1, 0.0, "")
    assert issue.next_try == machine.clock + 900
    assert issue.error == "the DNS provider did not take the challenge (acme.sh: invalid domain)"
    assert "see that the credentials are right" in issue.fix
    assert machine.log[1:3] == ["acme.sh: Adding TXT value", "acme.sh: invalid domain"]
    assert machine.log[3] == (
        f"warn: example.com: no new certificate: {issue.error}; the self-signed one serves. "
        f"Fix: {issue.fix}"
    )
    for _ in range(3):
        renewer.tick()
        machine.renewer().tick()  # a restart is no reason to forget
    assert len(machine.acme.requests) == 1


def test_failures_are_tried_again_ever_more_rarely(machine: Machine) -> None:
    waits = []
    for _ in range(9):
        machine.fails()
        machine.renewer().tick()
        waits.append((machine.issue.next_try - machine.clock) / 60)
        machine.clock = machine.issue.next_try - 1
        machine.renewer().tick()
        machine.clock += 1
    assert waits == [15, 30, 60, 120, 240, 480, 960, 1440, 1440]
    assert len(machine.acme.requests) == 9
    machine.renewer().tick()
    assert machine.issue.failures == 0
    assert machine.held


def test_who_is_not_patient_does_not_wait(machine: Machine) -> None:
    machine.fails()
    machine.renewer().tick()
    assert machine.renewer().attempt(machine.want, patient=False) is Result.DONE


def test_what_is_missing_is_part_of_the_fix(machine: Machine, hooks: Path) -> None:
    machine.settings = asked(hooks, PDNS_Url="", DKIM_KEYS="ed25519")
    machine.fails("Please set PDNS_Url and try again.", "Error adding TXT record")
    machine.renewer().tick()
    assert machine.issue.fix.startswith("set PDNS_Url; else see that the credentials are right")


def test_the_old_one_stays_in_service(machine: Machine) -> None:
    renewer = machine.renewer()
    renewer.tick()
    old = machine.held
    machine.fails()
    assert renewer.attempt(machine.want, force=True, patient=False) is Result.FAILED
    assert machine.held == old
    assert machine.effects == [Effect.RESTART], "not restarted again"
    assert "the one in place stays in service" in machine.log[-1]
    assert machine.issue.identity == IDENTITY


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("acme.env", "PATH=/data\n", "PATH: not a variable of dns_pdns, which reads PDNS_"),
        ("acme.env", "LD_PRELOAD=/x\nUSER=x\n", "LD_PRELOAD, USER: not a variable of dns_pdns"),
        ("acme.env", "ACME_DNS=dns_cff\n", "'dns_cff' is not one of acme.sh's"),
        ("acme.env", "ACME_DNS=../x\n", "'../x' is not one of acme.sh's"),
        ("acme.env", "ACME_DNS_SLEEP=x\n", "is not a number of seconds"),
        ("acme.env", "PDNS_Token=`x`\n", "line 1: PDNS_Token: the value holds"),
    ],
)
def test_a_wrong_file_is_a_failure_like_any_other(
    machine: Machine, name: str, text: str, words: str
) -> None:
    put_domain(machine.paths, EXAMPLE_COM, **{name: text})
    renewer = machine.renewer()
    for _ in range(3):
        renewer.tick()
    assert words in machine.issue.error
    assert "acme.env" in machine.issue.fix
    assert (machine.issue.failures, machine.acme.requests) == (1, []), "and not told all the time"
    assert len([line for line in machine.log if line.startswith("warn: ")]) == 1


def test_a_certificate_that_is_not_what_was_asked_for_is_not_installed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_name(request: acmesh.Request, **_: object) -> tuple[int, list[str]]:
        made = certificate("example.com")
        put(request.chain, made.chain)
        put(request.key, made.key)
        return 0, []

    monkeypatch.setattr(acmesh, "run", one_name)
    machine.renewer().tick()
    assert machine.issue.error == "the new certificate does not cover *.example.com"
    assert machine.held is None


def test_success_without_a_certificate_is_none(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acmesh, "run", lambda *_args, **_kwargs: (0, []))
    machine.renewer().tick()
    assert machine.issue.error.startswith("acme.sh reported success, but ")


def test_an_account_that_was_forgotten_is_made_anew(machine: Machine) -> None:
    """Test authorities forget them when they restart."""
    old = put(machine.paths.acme / "example.com/ca/acme.example.net/account.key", "old")
    machine.fails('"type": "urn:ietf:params:acme:error:accountDoesNotExist"')
    machine.renewer().tick()
    assert machine.held
    assert len(machine.acme.requests) == 2
    assert not old.exists()


def test_what_a_kill_left_empty_is_taken_away_first(machine: Machine) -> None:
    home = machine.paths.acme / "example.com"
    empty = [put(home / name, "") for name in ("account.conf", "example.com_ecc/example.com.key")]
    full = put(home / "ca/acme.example.net/account.key", "a key")
    seen: list[bool] = []
    machine.acme.before = lambda _: seen.extend(path.exists() for path in (*empty, full))
    machine.renewer().tick()
    assert seen == [False, False, True]


def test_the_account_s_binding_is_put_where_acme_sh_looks(machine: Machine, hooks: Path) -> None:
    machine.settings = asked(
        hooks, ACME_SERVER="https://acme.example.net:14000/dir", ACME_EAB_KID="kid",
        ACME_EAB_HMAC_KEY="the-key", DKIM_KEYS="ed25519",
    )  # fmt: skip
    path = machine.paths.acme / "example.com/ca/acme.example.net/dir/ca.conf"
    put(path, "ACCOUNT_URL='x'\nCA_EAB_KEY_ID='old'\nCA_EAB_HMAC_KEY='old'\n")
    path.chmod(0o644)
    machine.renewer().tick()
    assert path.read_text() == ("CA_EAB_KEY_ID='kid'\nCA_EAB_HMAC_KEY='the-key'\nACCOUNT_URL='x'\n")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_private_authority_s_roots_stand_beside_the_public_ones(
    machine: Machine, hooks: Path
) -> None:
    """acme.sh takes one bundle, for the authority and for the provider's API."""
    private = put(machine.paths.root / "private.pem", "private\n")
    machine.settings = asked(hooks, ACME_CA_BUNDLE=str(private), DKIM_KEYS="ed25519")
    machine.renewer().tick()
    assert machine.paths.ca_bundle.read_text() == "roots\n\nprivate\n"
    assert machine.acme.requests[0].ca_bundle == machine.paths.ca_bundle


def test_a_bundle_that_is_not_there_is_named(machine: Machine, hooks: Path) -> None:
    machine.settings = asked(hooks, ACME_CA_BUNDLE="/absent.pem", DKIM_KEYS="ed25519")
    machine.renewer().tick()
    assert machine.issue.error == "No such file or directory: /absent.pem"
    assert machine.issue.fix == "see that it is there and readable"


def test_progress_is_acme_sh_s_words_without_the_certificate(machine: Machine) -> None:
    pem = ["-----BEGIN CERTIFICATE-----", "MIIB" * 16, "-----END CERTIFICATE-----"]
    machine.acme.answers.append((0, ["Verifying: example.com", *pem, "Cert success."]))
    machine.renewer(progress=True).attempt(machine.want)
    said = [line for line in machine.log if line.startswith("acme.sh: ")]
    assert said == ["acme.sh: Verifying: example.com", "acme.sh: Cert success."]


def test_two_do_not_issue_at_once(machine: Machine) -> None:
    with locks.acme_lock(machine.paths, machine.ids) as free:
        assert free
        assert machine.renewer().attempt(machine.want) is Result.BUSY
    assert machine.acme.requests == []


# Interruptions


class Killed(BaseException):
    """Ends a try as a kill does: nobody behind it does anything any more."""


def kill(_request: acmesh.Request) -> None:
    raise Killed


def test_tries_that_are_killed_are_counted_from_the_third_on(machine: Machine) -> None:
    """Else a container that is killed by what it does would order one certificate after another."""
    machine.acme.before = kill
    for number in range(1, 4):
        with pytest.raises(Killed):
            machine.renewer().tick()
        assert machine.issue.begun == machine.clock
        assert machine.issue.failures == number - 1
    machine.renewer().tick()
    assert len(machine.acme.requests) == 3
    assert "interrupted" in machine.issue.error
    assert machine.issue.next_try == machine.clock + 3600
    machine.clock += 3600
    with pytest.raises(Killed):
        machine.renewer().tick()
    machine.renewer().tick()
    assert machine.issue.next_try == machine.clock + 2 * 3600
    assert len(machine.acme.requests) == 4


def test_who_asks_is_not_made_to_wait_for_that(machine: Machine) -> None:
    machine.acme.before = kill
    for _ in range(3):
        with pytest.raises(Killed):
            machine.renewer().tick()
    machine.acme.before = lambda _: None
    assert machine.renewer().attempt(machine.want, patient=False) is Result.DONE
    assert (machine.issue.begun, machine.issue.failures) == (0.0, 0)


# A full disk


def test_what_cannot_be_noted_is_not_tried(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = apply.write

    def full(path: Path, content: bytes, ids: Ids) -> None:
        if path.is_relative_to(machine.paths.data):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content, ids)

    monkeypatch.setattr(apply, "write", full)
    renewer = machine.renewer()
    for _ in range(5):
        renewer.tick()
    assert machine.acme.requests == []
    told = [line for line in machine.log if "no new certificate" in line]
    assert len(told) == 1, "the waiting time is kept in memory"
    assert "No space left on device" in told[0]
    assert "Fix: make room on the volume's disk" in told[0]
    monkeypatch.setattr(apply, "write", write)
    renewer.tick()
    assert machine.acme.requests == []
    machine.clock += 901
    renewer.tick()
    assert machine.held
    assert machine.issue.failures == 0


def test_a_disk_that_fills_up_before_the_installation(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(apply, "install_pair", full)
    machine.renewer().tick()
    assert machine.issue.error == "No space left on device"
    assert machine.issue.next_try == machine.clock + 900
    assert machine.held is None


# Death at any step


@pytest.mark.long
def test_killed_at_any_step_the_pair_is_whole_and_the_executables_run(
    machine: Machine, tmp_path: Path
) -> None:
    """Of the installation: chasquid and the executables never see half of it."""
    put(machine.paths.reload / "tell", "#!/bin/sh\n").chmod(0o700)
    old, new = certificate(*WANT.names), certificate(*WANT.names)
    install(machine.paths, EXAMPLE_COM, old)
    with locks.edit_lock(machine.paths, machine.ids):
        reconcile.reconcile(machine.settings, machine.paths, machine.ids)
    before = tmp_path / "before"
    shutil.copytree(machine.paths.data, before)
    renewer = machine.renewer()
    steps = 0
    for _ in deaths(lambda: renewer._put(EXAMPLE_COM, new), before, machine.paths.data):
        found = machine.held
        assert found is not None
        assert (found.chain, found.key) in ((old.chain, old.key), (new.chain, new.key))
        assert not load.load(machine.paths).findings
        if found.chain == new.chain:
            assert renewer.reloads.pending()["tell"].domains == ("example.com",)
        steps += 1
    assert steps > 10
    # The next one completes it.
    renewer._put(EXAMPLE_COM, new)
    assert machine.held == new
    assert not list(machine.paths.certs.glob(".*"))


# --- mounted files -------------------------------------------------------------------------------


@pytest.fixture
def mounted(paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch) -> Machine:
    folder = paths.root / "mounted"
    folder.mkdir()
    settings = kit.asked(TLS="files", TLS_FILES=str(folder), DKIM_KEYS="ed25519")
    return Machine(paths, ids, settings, monkeypatch)


def mount(machine: Machine, name: str, pair: certs.Certificate) -> None:
    folder = machine.paths.root / "mounted" / name
    put(folder / certs.CHAIN, pair.chain)
    put(folder / certs.KEY, pair.key)


def held_names(machine: Machine) -> list[str]:
    return sorted(load.load(machine.paths).certificates)


def test_mounted_certificates_are_taken_by_their_names(mounted: Machine) -> None:
    mount(mounted, ".", certificate("smtp.example.com", "example.com"))
    mount(mounted, "other", certificate("*.example.org"))
    put(mounted.paths.root / "mounted/README", "no certificate")
    (mounted.paths.root / "mounted/empty").mkdir()
    renewer = mounted.renewer()
    renewer.tick()
    assert held_names(mounted) == ["example.org", "smtp.example.com"]
    assert "example.org: the new certificate is served on ports 25, 465, 587" in mounted.log
    assert mounted.acme.requests == []
    said = len(mounted.log)
    renewer.tick()
    assert len(mounted.log) == said, "nothing has changed"


def test_after_a_restart_the_same_ones_are_nothing_new(mounted: Machine) -> None:
    mount(mounted, ".", certificate("smtp.example.com"))
    mounted.renewer().tick()
    mounted.log.clear()
    mounted.effects.clear()
    mounted.renewer().tick()
    assert (mounted.log, mounted.effects) == ([], [])


def test_what_is_of_no_use_is_told_once_and_stops_nothing(mounted: Machine) -> None:
    good, other = certificate("smtp.example.com"), certificate("smtp.example.com")
    mount(mounted, "good", good)
    mount(mounted, "half", replace(good, key=other.key))
    mount(mounted, "nonsense", replace(good, chain=b"nonsense"))
    mount(mounted, "local", certificate("localhost"))
    renewer = mounted.renewer()
    for _ in range(3):
        renewer.tick()
    assert held_names(mounted) == ["smtp.example.com"]
    for name, words in (
        ("half", "the private key does not belong"),
        ("nonsense", "not a PEM certificate chain"),
        ("local", "the certificate is for no domain"),
    ):
        [line] = [line for line in mounted.log if f"/mounted/{name}: " in line]
        assert words in line
        assert line.endswith("; what was there stays in service")


def test_a_folder_that_is_not_there_is_told_once(mounted: Machine) -> None:
    (mounted.paths.root / "mounted").rmdir()
    renewer = mounted.renewer()
    for _ in range(3):
        renewer.tick()
    [line] = mounted.log
    assert line.startswith("warn: TLS_FILES: ")
    assert line.endswith("No such file or directory")


def test_one_that_is_not_served_is_told(mounted: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(port: int, _name: str) -> str:
        if port == 465:
            return "of another"
        raise OSError(errno.ECONNREFUSED, "Connection refused")

    monkeypatch.setattr(tlsprobe, "fingerprint", refuse)
    mount(mounted, ".", certificate("smtp.example.com"))
    mounted.renewer().tick()
    assert mounted.log[-1] == (
        "warn: smtp.example.com: the new certificate is not served: port 25: [Errno 111] "
        "Connection refused; port 465 serves another one; port 587: [Errno 111] Connection refused"
    )


# --- errors that nobody foresaw ------------------------------------------------------------------


def test_an_error_while_an_error_is_noted_is_the_caller_s(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keeper logs it, and goes on."""

    def busy(*_: object) -> None:
        msg = "another change has been going on for 30 seconds"
        raise UserError(msg)

    machine.fails()
    monkeypatch.setattr(apply, "write", busy)
    with pytest.raises(UserError):
        machine.renewer().tick()


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_s_variables_may_be_handed_over(machine: Machine, hook: str) -> None:
    variables = "".join(f"{name}=x\n" for name in acmehooks.load(hook).variables)
    put_domain(machine.paths, EXAMPLE_COM, **{"acme.env": f"ACME_DNS={hook}\n{variables}"})
    machine.renewer().tick()
    assert machine.acme.requests[0].hook == hook
    assert machine.held


def test_credentials_that_were_mended_are_tried_at_once(machine: Machine) -> None:
    machine.fails()
    machine.renewer().tick()
    machine.renewer().tick()
    assert len(machine.acme.requests) == 1, "the waiting time survives a restart"
    assert machine.issue.asked

    variable = "PDNS_Token"
    put_domain(machine.paths, EXAMPLE_COM, **{"acme.env": f"{variable}=another\n"})
    machine.renewer().tick()
    assert len(machine.acme.requests) == 2
    assert machine.acme.requests[1].credentials[variable] == "another"
    machine.renewer().tick()
    assert len(machine.acme.requests) == 2, "and then it is waited again"
