"""`send-test` as it is read, and `mail-settings`."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from entrypoint.commands import sendtest
from entrypoint.common.names import Address
from entrypoint.testmail import send
from entrypoint.testmail.mxprobe import Look
from entrypoint.testmail.send import Fate, Port, Report, Signature, TestMail, Trust
from tests.unit.commands.conftest import Result, Server
from tests.unit.kit import EXAMPLE_COM, put_domain

TO = "you@example.net"
PORTS = [
    Port(465, "TLSv1.3", Trust.PUBLIC, logged_in=True),
    Port(587, "TLSv1.3", Trust.PUBLIC, logged_in=True),
]
SIGNED = [Signature("rsa-sha256", "t1r", "example.com", True)]
LOOK = Look("mx.example.net", "2001:db8::25", "220 hello", "TLSv1.3", True, trusted=True)
USERS = 'users { key: "i" value { plain { password: "x" } } }\n'


class Probe:
    """send-test whose test ends in the report that is given."""

    def __init__(self, server: Server, patch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.more: dict[str, Any] = {}
        self.fates: list[Fate] = []
        self.asked: dict[str, Any] = {}
        patch.setattr(TestMail, "run", lambda test, *to, **how: self._run(test, *to, **how))

    def _run(self, test: TestMail, sender: Address, to: Address, **how: Any) -> Report:
        self.asked = {"sender": sender, "to": to, **how}
        given: dict[str, Any] = {
            "over": 465,
            "id": "zmyCMhS89vA",
            "signatures": list(SIGNED),
            "look": LOOK,
        }
        more = given | self.more
        ports = more.pop("ports", PORTS)
        report = Report(sender, to, "<x@example.com>", 100.0, how["loop"], **more)
        for port in ports:
            report.ports.append(port)
            test.say(report, "port")
        if report.over and not report.refusal:
            test.say(report, "queued")
            test.say(report, "dkim")
            test.say(report, "waiting")
        report.fates = {fate.address: fate for fate in self.fates}
        for fate in self.fates:
            if fate.state != "pending":
                test.say(report, f"fate {fate.address}")
        if report.look:
            test.say(report, "look")
        report.seconds = 2.5
        return report

    def __call__(self, *argv: str) -> Result:
        return self.server.run("send-test", *argv)

    def text(self, *argv: str) -> str:
        out = self(*argv).out
        assert max(map(len, out.splitlines())) <= 80
        return " ".join(out.split())


@pytest.fixture
def tested(server: Server, monkeypatch: pytest.MonkeyPatch) -> Probe:
    return Probe(server, monkeypatch)


def test_a_delivered_one(tested: Probe) -> None:
    tested.fates = [Fate(TO, "sent", "", 101.2, 1)]
    done = tested(TO)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(
        "From postmaster@example.com to you@example.net\n"
        "  465       TLSv1.3; its certificate is trusted for this name; log-in accepted\n"
        "  587       TLSv1.3; its certificate is trusted for this name; log-in accepted\n"
        "  queued    as zmyCMhS89vA, over port 465\n"
        "  DKIM      rsa-sha256, t1r._domainkey.example.com verifies with the key in DNS\n"
        "  sent      you@example.net, after 1.2 s\n"
        "  MX host   mx.example.net, IPv6 2001:db8::25; TLSv1.3; certificate trusted for\n"
        "            mx.example.net (by a connection of our own, not the mail's)\n"
        "\n"
        "Delivered: the server of example.net has taken it."
    )
    assert "spam folder" in done.out


def test_a_refused_one(tested: Probe) -> None:
    said = "MAIL+RCPT 550 5.7.25 [203.0.113.10] does not have a PTR record"
    tested.fates = [Fate(TO, "refused", said, 101.2, 1)]
    text = tested.text(TO)
    assert tested(TO).status == 1
    assert f"refused you@example.net, after 1.2 s: {said}" in text
    assert "Refused: you@example.net does not get it. The sender is told by mail." in text
    assert "means The address that the mail left from has no reverse DNS" in text
    assert "fix set the PTR" in text
    assert "docker exec mail show-message zmyCMhS89vA" in text


def test_a_deferred_one(tested: Probe) -> None:
    later = time.time() + 80
    tested.fates = [Fate(TO, "deferred", "450 4.2.0 Greylisted", 101.2, 1, later)]
    text = tested.text(TO)
    assert tested(TO).status == 75
    assert "450 4.2.0 Greylisted (next try in about" in text
    assert "It stays in the queue and is tried again." in text
    assert "means Greylisting" in text


def test_a_pending_one(tested: Probe) -> None:
    tested.fates = [Fate(TO)]
    tested.more = {"look": Look(failed=(("mx.example.net [203.0.113.25]", "no answer in time"),))}
    text = tested.text(TO)
    assert tested(TO).status == 75
    assert "MX host mx.example.net [203.0.113.25]: no answer in time" in text
    assert "Pending: there is no answer after 2 s." in text
    assert "outgoing port 25" in text


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (Look("mx", "203.0.113.25", "220 x"), "mx, IPv4 203.0.113.25; offers no TLS: mail goes"),
        (Look("mx", "203.0.113.25", "220 x", offers_tls=True), "STARTTLS FAILS"),
        (Look("mx", "203.0.113.25", error="does not greet: no answer in time"),
         "mx, IPv4 203.0.113.25; does not greet: no answer in time (by"),
        (Look("mx", "203.0.113.25", "220 x", "TLSv1.2", True, distrust="has expired"),
         "TLSv1.2; certificate not trusted: has expired"),
    ],
)  # fmt: skip
def test_what_is_seen_of_an_exchanger(tested: Probe, look: Look, words: str) -> None:
    tested.fates = [Fate(TO, "sent", "", 101.2, 1)]
    tested.more = {"look": look}
    assert words in tested.text(TO)


def test_a_key_that_is_not_in_dns(tested: Probe) -> None:
    tested.fates = [Fate(TO, "sent", "", 101.2, 1)]
    why = "DNS has no such record"
    tested.more = {"signatures": [Signature("rsa-sha256", "t1r", "example.com", False, why)]}
    text = tested.text(TO)
    assert tested(TO).status == 1
    assert f"t1r._domainkey.example.com FAILS: {why}" in text
    assert f"Wrong here: DKIM: t1r._domainkey.example.com: {why}" in text
    assert "fix docker exec mail dns --check" in text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"signatures": []}, "DKIM NOT SIGNED"),
        ({"signatures": [], "unsigned": "busy"}, "DKIM busy"),
        ({"unsigned": "busy"}, "DKIM busy; so these are of a message of our own"),
        ({"signatures": [Signature("a", "s", "d", None, "no answer")]},
         "a, s._domainkey.d could not be verified: no answer"),
    ],
)  # fmt: skip
def test_signatures_that_nobody_could_judge(
    tested: Probe, more: dict[str, Any], words: str
) -> None:
    tested.fates = [Fate(TO, "sent", "", 101.2, 1)]
    tested.more = more
    assert words in tested.text(TO)


def test_ports_that_do_not_serve(tested: Probe) -> None:
    tested.more = {
        "ports": [Port(465, "TLSv1.3", Trust.NONE, "certificate has expired", True)], "look": None,
    }  # fmt: skip
    tested.fates = [Fate(TO, "sent", "", 101.2, 1)]
    text = tested.text(TO)
    assert "its certificate is NOT VALID (certificate has expired)" in text
    assert "Wrong here: port 465: certificate has expired" in text
    tested.more = {"ports": [Port(465, error="Connection refused")], "over": 0, "look": None}
    tested.fates = []
    done = tested(TO)
    assert done.status == 1
    assert "FAILED: Connection refused" in done.out
    assert "Not sent: neither port takes mail." in done.out


def test_what_this_server_refuses(tested: Probe) -> None:
    tested.more = {"refusal": "451 4.3.0 Failed to queue message", "look": None}
    assert tested(TO).status == 75
    assert "this server refused it: 451 4.3.0 Failed to queue" in tested.text(TO)


def test_a_loop_says_what_it_does_not_show(tested: Probe) -> None:
    tested.fates = [Fate("postmaster@example.com", "sent", "", 101.2, 1)]
    tested.more = {"look": None}
    text = tested.text("--loop")
    assert "It did not leave this machine" in text
    assert tested.asked["to"] == "postmaster@example.com"
    tested.fates = [Fate("me@example.net", "sent", "", 101.2, 1)]
    assert "So forwarding works" in tested.text("--loop")


def test_a_loop_to_an_internationalized_domain_stays_here_too() -> None:
    assert sendtest._domain("i@bücher.example") == "xn--bcher-kva.example"
    assert sendtest._domain("| /bin/true") == "| /bin/true"


def test_an_object_for_programs(tested: Probe) -> None:
    tested.fates = [Fate(TO, "deferred", "450 Greylisted", 101.2, 1, 190.0)]
    done = tested(TO, "--json")
    found = json.loads(done.out)
    assert (done.status, done.err) == (75, "")
    assert found["result"] == "deferred"
    assert found["recipients"] == [
        {
            "address": TO, "state": "deferred", "answer": "450 Greylisted",
            "time": "1970-01-01T00:01:41Z", "tries": 1, "next": "1970-01-01T00:03:10Z",
        }
    ]  # fmt: skip
    assert found["hints"][0]["id"] == "greylisting"
    assert found["exchanger"]["address"] == "2001:db8::25"
    assert [port["certificate"] for port in found["ports"]] == ["trusted", "trusted"]


def test_how_long_it_waits(tested: Probe) -> None:
    tested.fates = [Fate(TO, "sent", "", 101.2, 1)]
    tested(TO)
    assert (tested.asked["wait"], tested.asked["patient"]) == (send.WAIT, False)
    tested(TO, "--wait", "300")
    assert (tested.asked["wait"], tested.asked["patient"]) == (300, True)


def test_who_sends(tested: Probe) -> None:
    put_domain(tested.server.context.paths, EXAMPLE_COM, users=USERS)
    tested(TO)
    assert tested.asked["sender"] == "i@example.com"
    tested(TO, "--from", "You@example.org")
    assert tested.asked["sender"] == "you@example.org"
    assert tested(TO, "--from", "i+x@example.org").status == 2


# --- mail-settings --------------------------------------------------------------------------------


def test_settings_for_a_user_whose_mail_is_kept(server: Server) -> None:
    put_domain(server.context.paths, EXAMPLE_COM, users=USERS)
    done = server.run("mail-settings", "i@example.com")
    text = " ".join(done.out.split())
    assert done.status == 1
    assert "server smtp.example.com" in text
    assert "465 with SSL/TLS, or 587 with STARTTLS" in text
    assert '"LOGIN", CRAM-MD5, NTLM and OAuth are not offered' in text
    assert "Send mail as" in text
    assert "NOTHING FORWARDS IT" in text
    assert "docker exec mail add-alias i@example.com you@gmail.com" in text
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize("name", ["i", "*"])
def test_an_alias_leads_the_code_to_its_reader(server: Server, name: str) -> None:
    aliases = f"{name}: me@example.net\n"
    users = USERS if name == "i" else USERS.replace('"i"', '"you"')
    put_domain(server.context.paths, EXAMPLE_COM, users=users, aliases=aliases)
    done = server.run("mail-settings", "i@example.com")
    text = " ".join(done.out.split())
    assert "by the alias that exists: me@example.net" in text
    assert done.status == (0 if name == "i" else 1), "1: no user yet"
    assert ("is no user yet" in text) is (name == "*")


def test_a_catch_all_does_not_catch_a_user_s_mail(server: Server) -> None:
    put_domain(server.context.paths, EXAMPLE_COM, users=USERS, aliases="*: me@example.net\n")
    assert "NOTHING FORWARDS IT" in server.run("mail-settings", "i@example.com").out


def test_an_address_that_nobody_has(server: Server) -> None:
    done = server.run("mail-settings", "nobody@example.com")
    assert done.status == 1
    assert "IT WOULD BE REFUSED" in done.out
    assert "add-user nobody@example.com" in done.out


def test_an_alias_to_nobody_leads_the_code_nowhere(server: Server) -> None:
    put_domain(server.context.paths, EXAMPLE_COM, users=USERS, aliases="i: ghost\n")
    done = server.run("mail-settings", "i@example.com")
    text = " ".join(done.out.split())
    assert "IT WOULD BE LOST: an alias leads to ghost@example.com, which does not exist" in text
    assert done.status == 1


def test_aliases_in_a_loop_lead_the_code_nowhere(server: Server) -> None:
    put_domain(server.context.paths, EXAMPLE_COM, users=USERS, aliases="i: j\nj: i\n")
    done = server.run("mail-settings", "i@example.com")
    text = " ".join(done.out.split())
    assert "the aliases are a loop, i@example.com → j@example.com → i@example.com" in text
    assert done.status == 1


def test_an_alias_by_another_alias_leads_the_code_to_its_reader(server: Server) -> None:
    put_domain(
        server.context.paths, EXAMPLE_COM, users=USERS, aliases="i: team\nteam: me@example.net\n"
    )
    done = server.run("mail-settings", "i@example.com")
    assert "by the alias that exists: me@example.net" in " ".join(done.out.split())
    assert done.status == 0


def test_a_user_who_has_named_credentials_alone(server: Server) -> None:
    users = USERS.replace('"i"', '"i+phone"')
    put_domain(server.context.paths, EXAMPLE_COM, users=users, aliases="i: me@example.net\n")
    done = server.run("mail-settings", "i@example.com")
    assert "is no user yet" not in done.out
    assert "user name        i+phone@example.com" in done.out
    assert done.status == 0


def test_settings_for_programs(server: Server) -> None:
    put_domain(server.context.paths, EXAMPLE_COM, users=USERS, aliases="i: *@example.net\n")
    found = json.loads(server.run("mail-settings", "i@example.com", "--json").out)
    assert found == {
        "address": "i@example.com", "user": "i@example.com", "is_user": True,
        "logins": ["i@example.com"],
        "host": "smtp.example.com",
        "ports": [{"port": 465, "security": "TLS"}, {"port": 587, "security": "STARTTLS"}],
        "authentication": "PLAIN", "receives": True, "goes_to": ["i@example.net"], "kept": False,
    }  # fmt: skip


def test_settings_of_somebody_else_s_domain(server: Server) -> None:
    done = server.run("mail-settings", "i@example.net")
    assert done.status == 1
    assert "not one of the domains served here" in done.err
