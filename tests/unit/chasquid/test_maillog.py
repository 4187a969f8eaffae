"""chasquid's mail log, read as events: what is real, what is hostile, what is private."""

from __future__ import annotations

import json
import string
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.chasquid.maillog import Event, Kind, Reader, clean, parse
from tests.support.cases import CASES

STAMP = "2026-01-02 03:04:05.000006 "
AT = datetime(2026, 1, 2, 3, 4, 5, 6, UTC).timestamp()
ID = "zmyCMhS89vA"
PEER = "203.0.113.7:50456"
# What a line looks like; none of these may be found inside another.
LINES = (
    f"{ID} from=i@example.com to=bob@example.net sent",
    f"{ID} from=i@example.com all done",
    f"{ID} from=i@example.com queued ip={PEER} to=[bob@example.net]",
    f"{ID} from=i@example.com completed loop, next in 1m23.4s",
    f"{PEER} auth succeeded for i@example.com",
    f"{PEER} rejected from=i@example.com to=[bob@example.net] - relay not allowed",
)
# chasquid takes no space in an address; its IDNA gives back any character that is not ASCII.
ADDRESS = st.text(st.characters(exclude_characters=" \n", codec="utf-8"), min_size=1, max_size=40)
HOSTILE = st.one_of(
    st.text(max_size=200),
    st.sampled_from(LINES),
    st.sampled_from([f"\n{STAMP}{line}\n" for line in LINES]),
    st.builds("".join, st.lists(st.sampled_from((*LINES, "\n", STAMP, " - ", "] - ", "sent")))),
)


def read(said: str) -> Event:
    event, _ = parse(f"{STAMP}{said}\n", now=1.0)
    return event


def golden() -> list[tuple[str, dict[str, object]]]:
    """Lines of a real chasquid, each followed by its event."""
    lines = (CASES / "maillog/real").read_text().split("\n\n")
    found = [item.strip("\n").rsplit("\n", 1) for item in lines if item.strip()]
    return [(raw, json.loads(event)) for raw, event in found]


@pytest.mark.parametrize(("raw", "event"), golden())
def test_lines_of_a_real_chasquid(raw: str, event: dict[str, object]) -> None:
    found, _ = parse(f"{raw}\n", now=1.0)
    assert json.loads(json.dumps(found.to_json())) == event


def test_there_is_a_real_line_of_each_kind() -> None:
    # What the owner drops is told by the holder, not by chasquid.
    expected = {kind.value for kind in Kind} - {Kind.DROPPED.value}
    assert {event["kind"] for _, event in golden()} == expected


@pytest.mark.parametrize("line", LINES)
def test_a_line_has_its_own_time(line: str) -> None:
    assert read(line).at == AT
    assert parse(line, now=7.0)[0].at == 7.0
    assert parse(f"2026-13-41 03:04:05.000006 {line}", now=7.0)[0].at == 7.0


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("1m0s", 60), ("1m23.5s", 83.5), ("20m59.999s", 1259.999), ("1h0m5s", 3605)],
)  # fmt: skip
def test_when_the_next_try_is(delay: str, seconds: float) -> None:
    event = read(f"{ID} from=<> completed loop, next in {delay}")
    assert (event.kind, event.sender) == (Kind.WAITING, "<>")
    assert event.next == pytest.approx(AT + seconds)


@pytest.mark.parametrize(
    ("peer", "address"),
    [("203.0.113.7:1", "203.0.113.7"), ("[2001:db8::7]:65535", "2001:db8::7"),
     ("[fe80::1%eth0]:25", None),
     ("203.0.113.700:1", None), ("203.0.113.7", None)],
)  # fmt: skip
def test_peers(peer: str, address: str | None) -> None:
    event = read(f"{peer} auth failed for x@example.com")
    assert event == (
        Event(Kind.AUTH, AT, peer=address, login="x@example.com", ok=False)
        if address
        else Event(Kind.OTHER, AT, text=f"{peer} auth failed for x@example.com")
    )


@pytest.mark.parametrize(
    ("said", "sender", "recipients", "why"),
    [
        ("rejected from=<> to=[a@example.com u@[192.0.2.1]] - no", "<>",
         ("a@example.com", "u@[192.0.2.1]"), "no"),
        ("rejected from=a@example.net - failed SPF: to=[b] - c", "a@example.net", (),
         "failed SPF: to=[b] - c"),
        ("rejected to=[a@example.com] - x", "", ("a@example.com",), "x"),
        ("rejected from=a=b]@x to=[to=[@x] - y] - z", "a=b]@x", ("to=[@x",), "y] - z"),
    ],
)  # fmt: skip
def test_refusals(said: str, sender: str, recipients: tuple[str, ...], why: str) -> None:
    event = read(f"{PEER} {said}")
    assert event.kind is Kind.REFUSED
    assert (event.sender, event.recipients, event.text) == (sender, recipients, why)


@pytest.mark.parametrize(
    ("said", "text", "unjudged"),
    [
        ("4.3.0 the policy service does not answer (time-out)",) * 2 + (True,),
        # A hook that could not be started has nothing to say.
        ("", "4.3.0 the policy service cannot be asked: its hook could not be run", True),
        ("5.7.1 not as j@example.com",) * 2 + (False,),
        ("4.3.1 the disk is nearly full",) * 2 + (False,),
        ("no: 4.3.0 the policy service ",) * 2 + (False,),
    ],
)  # fmt: skip
def test_a_refusal_for_want_of_an_answer_is_known(said: str, text: str, unjudged: bool) -> None:
    event = read(f"{PEER} rejected from=a@example.net to=[b@example.com] - {said}")
    assert (event.kind, event.recipients) == (Kind.REFUSED, ("b@example.com",))
    assert (event.text, event.is_unjudged) == (text, unjudged)


def test_a_program_as_a_target() -> None:
    event = read(f"{ID} from=a@example.net to=/bin/sort -r sent")
    assert (event.kind, event.recipients) == (Kind.SENT, ("/bin/sort -r",))
    event = read(f"{ID} from=a@example.net to=/bin/sort -r failed (permanent): exit status 1 sent")
    assert (event.kind, event.text) == (Kind.BOUNCED, "exit status 1 sent")


# Hostile


@given(HOSTILE, st.sampled_from(["temporary", "permanent"]))
def test_what_a_remote_server_answers_is_text(answer: str, how: str) -> None:
    event = read(f"{ID} from=a@example.com to=b@example.net failed ({how}): {answer}")
    assert event.kind is (Kind.DEFERRED if how == "temporary" else Kind.BOUNCED)
    assert (event.id, event.sender, event.recipients) == (ID, "a@example.com", ("b@example.net",))
    assert event.text.isprintable()


@given(HOSTILE)
def test_whatever_name_somebody_logs_in_by(name: str) -> None:
    """Nothing of it is checked before the log: it may be any octets."""
    event = read(f"{PEER} auth failed for {name}")
    assert (event.kind, event.peer, event.ok) == (Kind.AUTH, "203.0.113.7", False)
    assert event.login == clean(name, 400)


@given(HOSTILE)
def test_whatever_a_refusal_says(why: str) -> None:
    event = read(f"{PEER} rejected from=a@example.net to=[b@example.com] - {why}")
    assert (event.kind, event.recipients) == (Kind.REFUSED, ("b@example.com",))


@given(ADDRESS, st.lists(ADDRESS, min_size=1, max_size=4))
def test_whatever_addresses_are_given(sender: str, recipients: list[str]) -> None:
    event = read(f"{ID} from={sender} queued ip={PEER} to=[{' '.join(recipients)}]")
    assert (event.kind, event.id, event.peer) == (Kind.RECEIVED, ID, "203.0.113.7")
    assert event.sender == clean(sender, 400)
    assert event.recipients == tuple(clean(name, 400) for name in recipients)


@given(ADDRESS, ADDRESS)
def test_whatever_address_is_tried(sender: str, recipient: str) -> None:
    event = read(f"{ID} from={sender} to={recipient} sent")
    assert (event.kind, event.recipients) == (Kind.SENT, (clean(recipient, 400),))
    event = read(f"{ID} from={sender} to={recipient} failed (temporary): 450 later")
    assert (event.kind, event.text) == (Kind.DEFERRED, "450 later")


@given(HOSTILE)
def test_anything_is_one_event_of_bounded_length(said: str) -> None:
    [event] = Reader().feed(said.encode(errors="surrogatepass"), 1.0)
    line = str(event)
    assert line.isprintable() or event.kind is not Kind.OTHER
    assert Event.from_json(json.loads(json.dumps(event.to_json()))) == event


def test_a_megabyte() -> None:
    event = read(f"{ID} from=a@example.com to=b@example.net failed (permanent): " + "x" * (1 << 20))
    assert (event.kind, len(event.text)) == (Kind.BOUNCED, 2001)
    assert read("x" * (1 << 20)).kind is Kind.OTHER


def test_an_answer_of_several_lines_is_one_line() -> None:
    said = "550-5.7.1 Your mail\r\n550-5.7.1 was refused.\n550 5.7.1 See example.net"
    event = read(f"{ID} from=i@example.com to=you@example.net failed (permanent): {said}")
    assert event.text == "550-5.7.1 Your mail | 550-5.7.1 was refused. | 550 5.7.1 See example.net"


# As a line of text


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Event(Kind.SENT, AT, ID, "i@example.com", ("bob@example.net",)),
         f"sent id={ID} from=i@example.com to=bob@example.net"),
        (Event(Kind.DEFERRED, AT, ID, "<>", ("b@example.net",), text="450 x: to=y"),
         f"deferred id={ID} from=<> to=b@example.net: 450 x: to=y"),
        (Event(Kind.RECEIVED, AT, ID, "a@x", ("b@x", 'c,"@x'), "192.0.2.1", "i@x"),
         rf'received id={ID} from=a@x to=b@x,"c,\"@x" login=i@x peer=192.0.2.1'),
        (Event(Kind.AUTH, AT, peer="192.0.2.1", login="a b to=c"),
         'auth ok login="a b to=c" peer=192.0.2.1'),
        (Event(Kind.AUTH, AT, peer="192.0.2.1", login="a@x", ok=False),
         "auth failed login=a@x peer=192.0.2.1"),
        (Event(Kind.WAITING, AT, ID, "a@x", next=AT + 60),
         f"waiting id={ID} from=a@x next=2026-01-02T03:05:05Z"),
        (Event(Kind.OTHER, AT, text="daemon listening on [::]:25"), "daemon listening on [::]:25"),
    ],
)  # fmt: skip
def test_the_line(event: Event, line: str) -> None:
    assert str(event) == line


@given(st.text(st.characters(categories=["L", "N", "P", "S"], include_characters=" "), max_size=60))
def test_an_address_cannot_pass_for_another_part_of_the_line(name: str) -> None:
    line = str(Event(Kind.SENT, AT, ID, sender="a@x", recipients=(name,)))
    value = line.removeprefix(f"sent id={ID} from=a@x")
    if value:
        value = value.removeprefix(" to=")
        assert " " not in value or (value.startswith('"') and value.endswith('"'))


# What one line tells of another


def fed(reader: Reader, *said: str, at: str = STAMP) -> list[Event]:
    return [event for line in said for event in reader.feed(f"{at}{line}\n".encode(), 1.0)]


def test_who_had_logged_in_on_the_connection() -> None:
    reader = Reader()
    queued = f"{ID} from=a@x queued ip={PEER} to=[b@x]"
    assert fed(reader, queued)[0].login == ""
    fed(reader, f"{PEER} auth failed for other@example.com")
    assert fed(reader, queued)[0].login == ""
    fed(reader, f"{PEER} auth succeeded for i@example.com")
    assert fed(reader, queued)[0].login == "i@example.com"
    assert fed(reader, f"{PEER} rejected from=a@x - no")[0].login == "i@example.com"
    assert fed(reader, queued.replace("50456", "50457"))[0].login == "", "another connection"
    late = STAMP.replace("03:04", "03:26")
    assert fed(reader, queued, at=late)[0].login == "", "it was closed long ago"


def test_a_message_given_up_is_bounced_for_those_who_were_left() -> None:
    """chasquid says `all done`, and no more of them."""
    reader = Reader()
    tried = f"{ID} from=a@x to=%s failed (temporary): 450 %s"
    fed(reader, tried % ("b@x", "one"), tried % ("b@x", "two"), tried % ("c@x", "three"))
    fed(reader, f"{ID} from=a@x to=c@x sent", f"{ID} from=a@x to=d@x failed (permanent): 550 no")
    bounced, done = fed(reader, f"{ID} from=a@x all done")
    assert bounced == Event(
        Kind.BOUNCED, AT, ID, "a@x", ("b@x",), text="given up; the last answer was: 450 two"
    )
    assert done == Event(Kind.DONE, AT, ID, "a@x")
    assert fed(reader, f"{ID} from=a@x all done") == [done]


def test_what_is_remembered_is_bounded() -> None:
    reader = Reader()
    for number in range(12_000):
        name = f"{number:011d}"
        fed(reader, f"{name} from=a@x to=b@x failed (temporary): 450 x")
        fed(reader, f"192.0.2.1:{number} auth succeeded for a@x")
    assert len(reader._pending) == 10_000
    assert len(reader._logins) == 4096
    assert len(fed(reader, "00000011999 from=a@x all done")) == 2, "the newest are"


# Printing


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é 例 📧", "é 例 📧"),
        ("\x1b[2J\x1b[31m", r"\x1b[2J\x1b[31m"),
        ("a\nb\r\tc\0", r"a\nb\r\tc\x00"),
        ("\u202e\u2028\x85\x7f", r"\u202e\u2028\x85\x7f"),
        ("\ufffd", "\ufffd"),
        ("x" * 2000, "x" * 2000),
        ("x" * 2001, "x" * 2000 + "…"),
    ],
)
def test_nothing_moves_a_terminals_cursor(text: str, shown: str) -> None:
    assert clean(text) == shown


@given(st.text())
def test_what_is_shown_is_one_printable_line_and_bounded(text: str) -> None:
    shown = clean(text)
    assert shown.isprintable()
    assert len(shown) <= 2001


@given(st.text(string.printable), st.integers(0, 20))
def test_a_bound_of_ones_own(text: str, most: int) -> None:
    assert len(clean(text, most)) <= most + 1
