"""The test mail: made, signed, judged. What it does on the wire the image tests show."""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest

from entrypoint.accounts import temporary
from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.chasquid.userdb import Denied, Plain, Users
from entrypoint.common import rpc
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Ids
from entrypoint.common.names import Address, Domain
from entrypoint.common.paths import Paths
from entrypoint.common.rpc import UnreachableError
from entrypoint.dns.authoritative import Absent, Answer, Answers, Found, Unknown
from entrypoint.history import client
from entrypoint.keys import certs, dkim
from entrypoint.keys.dkim import Algorithm
from entrypoint.state.load import DomainState, State
from entrypoint.testmail import mxprobe, send
from entrypoint.testmail.mxprobe import Look
from entrypoint.testmail.send import Fate, Port, Report, Signature, TestMail, Trust
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, asked, loaded_key

ME, YOU = Address("i@example.com"), Address("you@example.net")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


# --- the message ----------------------------------------------------------------------------------


def test_the_message_is_like_one_that_a_mail_program_makes() -> None:
    raw = send.compose(ME, YOU, "smtp.example.com", "abc123", NOW).as_bytes()
    assert raw.count(b"\n") == raw.count(b"\r\n")
    assert max(map(len, raw.split(b"\r\n"))) <= 78
    message = message_from_bytes(raw, policy=default)
    assert not message.defects
    assert (message["From"], message["To"]) == (str(ME), str(YOU))
    assert message["Message-ID"] == "<abc123@example.com>", "of the sender's domain"
    assert message["Date"].datetime == NOW
    assert message["MIME-Version"] == "1.0"
    assert "Test mail" in message["Subject"]
    text, rich = [message.get_body((kind,)) for kind in ("plain", "html")]
    assert text is not None
    assert rich is not None
    words = re.sub(r"<title>.*?</title>|<[^>]+>", " ", rich.get_content()).replace("&quot;", '"')
    assert words.split() == text.get_content().split(), "both say the same"
    assert not re.search(rb"https?:|<img|<a ", raw), "nothing to load, nothing that tracks"
    assert "2026-01-02 at 03:04:05 UTC" in " ".join(text.get_content().split())


# --- signatures -----------------------------------------------------------------------------------

KEY = loaded_key(Algorithm.RSA, "t1r")


def asking(answer: Answer) -> Any:
    def ask(name: str, kind: str) -> Answers:
        assert (name, kind) == ("t1r._domainkey.example.com", "TXT")
        return {"ns": answer}

    return ask


def verdict(answer: Answer, message: bytes = b"") -> Signature:
    [found] = send.signatures(message or dkim.signed(EXAMPLE_COM, KEY), asking(answer))
    return found


def test_a_signature_that_verifies() -> None:
    found = verdict(Found((str(KEY.record),)))
    assert found == Signature("rsa-sha256", "t1r", "example.com", True)


def test_line_ends_as_in_the_queue() -> None:
    message = dkim.signed(EXAMPLE_COM, KEY).replace(b"\r\n", b"\n")
    assert verdict(Found((str(KEY.record),)), message).ok


def test_a_changed_message_does_not_verify() -> None:
    message = dkim.signed(EXAMPLE_COM, KEY).replace(b"proof\r\n", b"poof\r\n")
    assert verdict(Found((str(KEY.record),)), message).ok is False


@pytest.mark.parametrize(
    ("answer", "ok", "why"),
    [
        (Absent(), False, "DNS has no such record"),
        (Unknown("no answer in time"), None, "no answer in time"),
        (Found((str(loaded_key(Algorithm.ED25519, "t1r").record),)), False, ""),
        (Found(("v=DKIM1; k=rsa; p=",)), False, ""),
        (Found(("v=DKIM1; k=rsa; p=MIIB",)), False, ""),
        (Found(("nonsense",)), False, ""),
    ],
)
def test_what_dns_may_say(answer: Answer, ok: bool | None, why: str) -> None:
    found = verdict(answer)
    assert found.ok is ok
    assert found.why == why if why else found.why


def test_each_of_two_signatures_is_judged() -> None:
    other = loaded_key(Algorithm.ED25519, "t1e")
    message = dkim.signed(EXAMPLE_COM, KEY)
    head = dkim.signed(EXAMPLE_COM, other).partition(b"From:")[0]
    records: Mapping[str, Answer] = {
        "t1r._domainkey.example.com": Absent(),
        "t1e._domainkey.example.com": Found((str(other.record),)),
    }
    found = send.signatures(head + message, lambda name, _: {"ns": records[name]})
    assert {item.algorithm: item.ok for item in found} == {
        "ed25519-sha256": True, "rsa-sha256": False,
    }  # fmt: skip


def test_a_message_without_signature() -> None:
    assert send.signatures(b"From: i@example.com\n\nHello\n", asking(Absent())) == []


def test_a_signature_that_cannot_be_read() -> None:
    [found] = send.signatures(b"DKIM-Signature: nonsense\n\nHello\n", asking(Absent()))
    assert (found.ok, found.why) == (False, "the signature cannot be read")


# --- what became of it ----------------------------------------------------------------------------


def event(kind: Kind, at: float, to: str = "you@example.net", text: str = "") -> Event:
    return Event(kind, at, id="abc", recipients=(to,), text=text)


def test_fates_by_events() -> None:
    told = [
        Event(Kind.RECEIVED, 1.0, id="abc", recipients=("all@example.com",)),
        event(Kind.DEFERRED, 2.0, text="450 later"),
        event(Kind.SENT, 2.5, "b@example.org"),
        Event(Kind.WAITING, 3.0, id="abc", next=75.0),
    ]
    known = {name: Fate(name) for name in ("you@example.net", "b@example.org", "c@example.org")}
    assert send.fates(told, known) == {
        "you@example.net": Fate("you@example.net", "deferred", "450 later", 2.0, 1, 75.0),
        "b@example.org": Fate("b@example.org", "sent", "", 2.5, 1),
        "c@example.org": Fate("c@example.org"),
    }
    told += [
        event(Kind.DEFERRED, 75.0, text="450 once more"),
        event(Kind.BOUNCED, 99.0, text="550"),
    ]
    found = send.fates(told, known)["you@example.net"]
    assert (found.state, found.answer, found.tries, found.next) == ("refused", "550", 3, 0.0)


def report(*fates: Fate, **more: Any) -> Report:
    found = Report(ME, YOU, "<abc@example.com>", 0.0, over=465, id="abc", **more)
    found.fates = {fate.address: fate for fate in fates}
    if "signatures" not in more:
        found.signatures = [Signature("rsa-sha256", "t1r", "example.com", True)]
    return found


GOOD = Port(465, "TLSv1.3", Trust.PUBLIC, logged_in=True)


@pytest.mark.parametrize(
    ("found", "state", "status"),
    [
        (report(Fate("a", "sent")), "delivered", Exit.OK),
        (report(Fate("a", "sent"), Fate("b", "refused")), "refused", Exit.WRONG),
        (report(Fate("a", "sent"), Fate("b", "deferred")), "deferred", Exit.TRY_AGAIN),
        (report(Fate("a", "sent"), Fate("b")), "pending", Exit.TRY_AGAIN),
        (report(Fate("a", "deferred"), Fate("b", "refused")), "refused", Exit.WRONG),
        (report(), "pending", Exit.TRY_AGAIN),
        (report(refusal="550 no"), "unsent", Exit.WRONG),
        (report(refusal="451 4.3.0 queue full"), "unsent", Exit.TRY_AGAIN),
        (report(Fate("a", "sent"), ports=[GOOD]), "delivered", Exit.OK),
        (
            report(Fate("a", "sent"), ports=[GOOD, Port(587, error="Connection refused")]),
            "delivered", Exit.WRONG,
        ),
        (
            report(
                Fate("a", "sent"),
                ports=[Port(465, "TLSv1.3", Trust.NONE, "certificate has expired", True)],
            ),
            "delivered", Exit.WRONG,
        ),
        (
            report(Fate("a", "sent"), ports=[Port(465, "x", Trust.SELF_SIGNED, logged_in=True)]),
            "delivered", Exit.OK,
        ),
        (
            report(Fate("a", "sent"), signatures=[Signature("a", "s", "d", False, "absent")]),
            "delivered", Exit.WRONG,
        ),
        (
            report(Fate("a", "sent"), signatures=[Signature("a", "s", "d", None, "unknown")]),
            "delivered", Exit.OK,
        ),
        (report(Fate("a", "sent"), signatures=[]), "delivered", Exit.WRONG),
        (report(Fate("a", "sent"), signatures=[], unsigned="not seen"), "delivered", Exit.OK),
    ],
)  # fmt: skip
def test_state_and_status(found: Report, state: str, status: Exit) -> None:
    assert (found.state, found.status) == (state, status)
    if status is Exit.WRONG and state == "delivered":
        assert found.wrong


def test_hints_come_from_the_answers() -> None:
    found = report(
        Fate("a@example.net", "deferred", "450 4.2.0 Greylisted"),
        Fate("b@example.net", "deferred", "450 4.2.0 Greylisted"),
        Fate("c@example.net", "sent", "250 no PTR record"),
    )
    assert [hint.id for hint in found.hints] == ["greylisting"]


def test_a_look_that_did_not_connect_is_a_hint_while_nothing_else_is_known() -> None:
    look = Look(failed=(("mx.example.net [203.0.113.25]", "no answer in time"),))
    assert [hint.id for hint in report(Fate("a"), look=look).hints] == ["port-25"]
    assert report(Fate("a", "sent"), look=look).hints == []


# --- who sends ------------------------------------------------------------------------------------


def test_the_default_sender() -> None:
    wanted = asked(MAIL_DOMAINS="example.com example.org")
    assert send.default_sender(wanted, State()) == "postmaster@example.com"
    users: Users = {"zoe": Plain(b"x"), "i+news": Plain(b"x"), "adam": Denied()}
    state = State(domains={EXAMPLE_ORG: DomainState(users=users)})
    assert send.default_sender(wanted, state) == "zoe@example.org"


def test_a_sender_of_somebody_else_s_domain() -> None:
    send.check_sender(asked(), ME)
    with pytest.raises(UserError, match=r"example\.net is not one of") as error:
        send.check_sender(asked(), YOU)
    assert error.value.exit_code is Exit.USAGE


# --- the ports ------------------------------------------------------------------------------------


class Session:
    def __init__(self, login: Exception | None = None) -> None:
        self.sock = ssl.SSLSocket.__new__(ssl.SSLSocket)
        self._login = login

    def login(self, _name: str, _password: str) -> None:
        if self._login:
            raise self._login

    def close(self) -> None:
        pass


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Exception | Session]]:
    """What each connection to 465 gives, one after the other."""
    results: list[Exception | Session] = []

    def connect(_name: str, _context: ssl.SSLContext) -> Session:
        result = results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(send, "_Submissions", connect)
    monkeypatch.setattr(ssl.SSLSocket, "version", lambda _: "TLSv1.3")
    yield results
    assert results == []


def distrusted(words: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, words)
    error.verify_message = words
    return error


def opened() -> tuple[Port, bool]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusts = iter((trust, context) for trust in list(Trust)[:4])
    login = temporary.Login("i+test-x@example.com", "secret")
    port, session = send.open_port(465, "smtp.example.com", trusts, login)
    return port, session is not None


def test_a_port_that_everybody_trusts(dialled: list[Exception | Session]) -> None:
    dialled.append(Session())
    assert opened() == (Port(465, "TLSv1.3", Trust.PUBLIC, logged_in=True), True)


def test_a_port_that_only_we_trust(dialled: list[Exception | Session]) -> None:
    dialled += [distrusted("self-signed certificate"), distrusted("unknown"), Session()]
    port, usable = opened()
    assert (port.trust, port.distrust, usable) == (
        Trust.SELF_SIGNED, "self-signed certificate", True,
    )  # fmt: skip
    assert port.works


def test_a_certificate_that_has_expired_is_wrong_but_the_test_goes_on(
    dialled: list[Exception | Session],
) -> None:
    dialled += [distrusted("certificate has expired")] * 3
    dialled.append(Session())
    port, usable = opened()
    assert (port.trust, usable, port.works) == (Trust.NONE, True, False)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (TimeoutError(), "no answer in time"),
        (smtplib.SMTPServerDisconnected("Connection unexpectedly closed: timed out"),
         "no answer in time"),
        (smtplib.SMTPConnectError(421, b"busy"), "421 busy"),
    ],
)  # fmt: skip
def test_a_port_that_does_not_serve(
    dialled: list[Exception | Session], error: Exception, words: str
) -> None:
    dialled.append(error)
    assert opened() == (Port(465, error=words), False)


def test_a_log_in_that_fails(dialled: list[Exception | Session]) -> None:
    dialled.append(Session(smtplib.SMTPAuthenticationError(535, b"5.7.8 Incorrect user")))
    port, usable = opened()
    assert (usable, port.logged_in) == (False, False)
    assert port.error == "log-in failed: 535 5.7.8 Incorrect user"


def test_what_is_trusted_in_turn(paths: Paths) -> None:
    kinds = [trust for trust, _ in send.contexts(asked(), paths, State())]
    assert kinds == [Trust.PUBLIC, Trust.NONE]


@pytest.mark.parametrize("real", [True, False])
def test_our_own_certificate_is_trusted_as_it_is(paths: Paths, real: bool) -> None:
    own = certs.self_signed([Domain("smtp.example.com")])
    state = State(self_signed=own)
    wanted = asked()
    if real:
        wanted = asked(TLS="http")
        state = State(certificates={Domain("smtp.example.com"): own}, self_signed=own)
    kinds = [trust for trust, _ in send.contexts(wanted, paths, state)]
    assert kinds == [Trust.PUBLIC, Trust.PRIVATE if real else Trust.SELF_SIGNED, Trust.NONE]


# --- following ------------------------------------------------------------------------------------


class Followed:
    """A test mail that is in the queue, and what the store says at each look."""

    def __init__(self, paths: Paths, ids: Ids, patch: pytest.MonkeyPatch) -> None:
        self.looks: list[list[Event] | Exception] = []
        self.said: list[str] = []
        self.now = 0.0
        self.test = TestMail(
            asked(), State(), paths, ids, say=lambda _, what: self.said.append(what)
        )
        patch.setattr(client, "history", self._history)
        patch.setattr(send.time, "sleep", self._sleep)  # type: ignore[attr-defined]
        patch.setattr(send.time, "monotonic", lambda: self.now)  # type: ignore[attr-defined]

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def _history(self, _paths: Paths, **wanted: Any) -> list[Event]:
        if wanted.get("address"):
            assert wanted["address"] == "i+test-x@example.com"
            return [Event(Kind.RECEIVED, 1.0, id="abc", login="i+test-x@example.com")]
        assert wanted["id"] == "abc"
        found = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(found, Exception):
            raise found
        return found

    def follow(self, found: Report, *, wait: float = 120.0, patient: bool = False) -> Report:
        self.test._follow(found, "i+test-x@example.com", wait, patient)
        return found


@pytest.fixture
def followed(paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch) -> Followed:
    return Followed(paths, ids, monkeypatch)


SENT, DONE = event(Kind.SENT, 2.0), Event(Kind.DONE, 2.1, id="abc")
DEFERRED, WAITING = event(Kind.DEFERRED, 2.0), Event(Kind.WAITING, 2.1, id="abc", next=80.0)


def test_it_is_followed_until_all_is_done(followed: Followed) -> None:
    followed.looks = [[], [SENT], [SENT, DONE]]
    found = followed.follow(report(Fate("you@example.net")))
    assert found.state == "delivered"
    assert [what for what in followed.said if what != "waiting"] == ["fate you@example.net"]


def test_a_deferral_ends_it_with_the_time_of_the_next_try(followed: Followed) -> None:
    followed.looks = [[DEFERRED], [DEFERRED, WAITING]]
    found = followed.follow(report(Fate("you@example.net")))
    assert (found.state, found.fates["you@example.net"].next) == ("deferred", 80.0)


def test_who_is_patient_waits_for_the_next_try(followed: Followed) -> None:
    later = [DEFERRED, WAITING, event(Kind.SENT, 81.0), Event(Kind.DONE, 81.0, id="abc")]
    followed.looks = [*([DEFERRED, WAITING] for _ in range(40)), later]
    found = followed.follow(report(Fate("you@example.net")), wait=300, patient=True)
    assert (found.state, found.fates["you@example.net"].tries) == ("delivered", 2)


def test_the_look_is_told_while_it_waits(followed: Followed) -> None:
    """A receiver that hangs is silent for minutes: what was seen of it is worth reading then."""
    followed.looks = [[], [], [SENT, DONE]]
    followed.follow(report(Fate("you@example.net"), look=Look("mx", "203.0.113.25")))
    assert followed.said.count("look") == 1
    assert followed.said.index("look") < followed.said.index("fate you@example.net")


@pytest.mark.parametrize("patient", [True, False])
def test_it_ends_by_itself(followed: Followed, patient: bool) -> None:
    followed.looks = [[]]
    found = followed.follow(report(Fate("you@example.net")), wait=120, patient=patient)
    assert found.state == "pending"
    assert 120 <= followed.now < 123


def test_a_message_that_was_not_seen_is_found_by_its_log_in(followed: Followed) -> None:
    followed.looks = [[SENT, DONE]]
    found = report(unsigned="not seen")
    found.id = ""
    assert followed.follow(found).id == "abc"
    assert found.state == "delivered"


def test_a_store_that_cannot_be_read_is_tried_again(followed: Followed) -> None:
    followed.looks = [UnreachableError("busy"), [SENT, DONE]]
    found = followed.follow(report(Fate("you@example.net")))
    assert (found.state, found.unfollowed) == ("delivered", "")
    followed.looks = [UnreachableError("busy")]
    assert followed.follow(report(Fate("you@example.net"))).unfollowed == "busy"


def test_no_look_at_an_exchanger_for_mail_that_stays(
    paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mxprobe, "look", lambda *_: pytest.fail("it looks"))
    test = TestMail(asked(), State(), paths, ids)
    found = report()
    found.to = ME
    assert test._look_meanwhile(found) is None


def test_an_exchanger_of_a_domain_that_receives_elsewhere_is_the_one_kept(
    paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[Any] = []

    def look(*words: Any) -> Look:
        asked_for.append(words)
        return Look(server="x")

    monkeypatch.setattr(mxprobe, "look", look)
    exchanger = EXAMPLE_ORG
    wanted = asked(MAIL_RECEIVE="none", PUBLIC_IPV4="203.0.113.10", PUBLIC_IPV6="none")
    test = TestMail(wanted, State(exchangers={EXAMPLE_COM: (exchanger,)}), paths, ids)
    assert test._look(EXAMPLE_COM).server == "x"
    assert asked_for == [((exchanger,), "smtp.example.com", [4])]


def test_nobody_watches_and_the_mail_is_sent_all_the_same(
    paths: Paths, ids: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(*words: Any) -> Iterator[dict[str, Any]]:
        if words:
            raise UnreachableError
        yield {}

    sent: list[Any] = []

    class Submitting:
        def sendmail(self, *words: Any) -> None:
            sent.append(words)

    monkeypatch.setattr(rpc, "follow", follow)
    test, found = TestMail(asked(), State(), paths, ids), report()
    message = send.compose(ME, YOU, "smtp.example.com", "abc", NOW)
    found.signatures = []
    test._hand_over(found, Submitting(), message, "abc")  # type: ignore[arg-type]
    assert len(sent) == 1
    assert "watch" in found.unsigned
    assert found.signatures == []


def test_the_same_keys_are_judged_where_the_message_was_not_seen(paths: Paths, ids: Ids) -> None:
    state = State(
        domains={EXAMPLE_COM: DomainState(keys=(KEY, loaded_key(Algorithm.ED25519, "e")))}
    )
    test = TestMail(asked(), state, paths, ids, ask=asking(Found((str(KEY.record),))))
    assert list(test._own_signatures(EXAMPLE_COM)) == [
        Signature("rsa-sha256", "t1r", "example.com", True)
    ], "of the keys that sign"
