"""The socket holder, as a real process with a real child: tests/unit/services/holder.py."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from ipaddress import IPv6Address
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from entrypoint.common import identity, interface, rpc
from entrypoint.common.errors import UserError
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.paths import Paths
from entrypoint.common.rates import Rates
from entrypoint.common.rpc import UnreachableError
from entrypoint.services import holder
from tests.unit.kit import ends, put, until

REPOSITORY = Path(__file__).parents[3]
# Times of the holder, made short.
QUICK: Mapping[str, Any] = {
    "_BACK_OFF": [0.0, 0.01, 0.02],
    "_STOP_WAIT": 2.0,
    "_READY_WAIT": 5.0,
    "_RELOAD_WAIT": 5.0,
}


class Holder:
    def __init__(self, place: Path, constants: Mapping[str, Any], behaviour: Mapping[str, Any]):
        self.place = place
        self.behave(**behaviour)
        environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TAMBO_SECRET": "s3cret"}
        with (place / "log").open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "tests.unit.services.holder", place,
                 json.dumps({**QUICK, **constants})],
                cwd=REPOSITORY, env=environ, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def behave(self, **how: Any) -> None:
        """How the next chasquid behaves."""
        put(self.place / ".new", json.dumps(how)).replace(self.place / "behaviour")

    def ask(self, command: str, timeout: float = 10) -> dict[str, Any]:
        return rpc.request(self.place / "door", command, timeout)

    @property
    def log(self) -> str:
        return (self.place / "log").read_text()

    def events(self, source: str) -> list[str]:
        """What one source said."""
        return re.findall(rf"^\S+Z {source} +(.*)$", self.log, re.MULTILINE)

    @property
    def starts(self) -> list[tuple[int, float]]:
        """Each chasquid's PID and time."""
        with suppress(FileNotFoundError):
            lines = (self.place / "starts").read_text().splitlines()
            return [(int(line.split()[0]), float(line.split()[1])) for line in lines]
        return []

    def is_ready(self) -> bool:
        with suppress(UnreachableError):
            return bool(self.ask("status")["ready"])
        return False

    @property
    def pid(self) -> int:
        return int(self.ask("status")["pid"])

    def visit(self, name: str = "smtp4") -> int:
        """One connection; the PID of the chasquid that answered."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(self.place / name))
            return int(client.recv(100))

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


Make = Callable[..., Holder]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Make]:
    """Starts one, ready unless told otherwise: start(constants=…, behaviour…)."""
    made: list[Holder] = []

    def make(
        constants: Mapping[str, Any] | None = None, *, ready: bool = True, **behaviour: Any
    ) -> Holder:
        holder = Holder(tmp_path, constants or {}, behaviour)
        made.append(holder)
        if ready:
            until(holder.is_ready)
        return holder

    yield make
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait(10)
        assert "Traceback" not in one.log
        for pid, _ in one.starts:
            until(lambda pid=pid: not is_alive(pid))  # type: ignore[misc]


def is_alive(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_starting(start: Make) -> None:
    holder = start()
    status = holder.ask("status")
    assert status["ready"] is True
    assert status["starts"] == 1
    assert (status["pid"], len(holder.starts)) == (holder.starts[0][0], 1)
    assert "Server listening" in status["last_words"]
    assert {holder.visit(name) for name in ("smtp4", "smtp6", "submission")} == {status["pid"]}
    assert holder.log == "", "what goes well is not worth a line"


def test_chasquids_environment_is_ours_alone(start: Make) -> None:
    holder = start()
    environ = json.loads((holder.place / "environ").read_text())
    pid = environ.pop("LISTEN_PID")
    assert int(pid) == holder.pid
    for name in ("LC_CTYPE",):  # Python's own doing
        environ.pop(name, None)
    assert environ == {
        "PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8", "TZ": "UTC",
        "RES_OPTIONS": "no-aaaa", "GOMEMLIMIT": "750",
        "LISTEN_FDS": "3", "LISTEN_FDNAMES": "smtp:smtp:submission",
    }  # fmt: skip


def test_the_door_is_private(start: Make) -> None:
    holder = start()
    assert stat.S_IMODE((holder.place / "door").stat().st_mode) == 0o600


def test_a_restart_refuses_nobody(start: Make) -> None:
    holder = start()
    answered: list[int] = []
    failed: list[Exception] = []
    stop = threading.Event()

    def visit() -> None:
        while not stop.is_set():
            try:
                answered.append(holder.visit())
            except (OSError, ValueError) as error:
                failed.append(error)
            time.sleep(0.001)

    visitors = [threading.Thread(target=visit) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    pids = [holder.pid]
    for _ in range(3):
        answer = holder.ask("restart")
        assert answer["done"] is True
        assert answer["ready"] is True
        pids.append(answer["pid"])
        until(lambda: pids[-1] in answered)
    stop.set()
    for visitor in visitors:
        visitor.join(10)
    assert failed == []
    assert len(set(pids)) == 4
    assert set(answered) <= set(pids)
    assert answered == sorted(answered, key=pids.index), "never two at once"
    assert holder.events("smtp") == ["chasquid restarted"] * 3
    assert not is_alive(pids[0])


def test_a_reload_is_over_when_it_is_answered(start: Make) -> None:
    holder = start()
    pid = holder.pid
    for version in ("one", "two"):
        put(holder.place / "users", version)
        answer = holder.ask("reload")
        assert (answer["done"], answer["pid"]) == (True, pid)
        assert (holder.place / "read").read_text() == version
    assert holder.log == ""


def test_many_reloads_at_once_are_all_served(start: Make) -> None:
    holder = start()
    answers: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(holder.ask("reload"))) for _ in range(4)
    ]
    threads.append(threading.Thread(target=lambda: answers.append(holder.ask("restart"))))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [answer["done"] for answer in answers] == [True] * 5
    assert len(holder.starts) == 2


def test_a_reload_that_ends_chasquid(start: Make) -> None:
    """A bad file does. What is started then has read everything."""
    holder = start(dies_of_reload=True)
    first = holder.pid
    holder.behave()
    put(holder.place / "users", "new")
    answer = holder.ask("reload")
    assert answer["done"] is True
    assert answer["pid"] not in (0, first)
    assert (holder.place / "read").read_text() == "new"
    said = holder.events("smtp")
    assert re.fullmatch(
        r"error: chasquid ended with status 1 after \d+\.\d s; it said last: ☠ server\.go:295 +"
        r"Error reloading aliases: line 3: odd\. Starting it again\.",
        said[0],
    )


def test_a_chasquid_that_is_killed_is_started_again(start: Make) -> None:
    holder = start()
    first = holder.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: holder.is_ready() and holder.pid != first, 3)
    assert holder.visit() == holder.pid
    [said] = holder.events("smtp")
    assert re.match(
        r"error: chasquid was killed by signal 9 after \d+\.\d s; it said last: _", said
    )


def test_a_chasquid_that_cannot_start_is_tried_with_longer_and_longer_pauses(start: Make) -> None:
    holder = start(
        {"_BACK_OFF": [0.0, 0.03, 0.1, 0.2]}, ready=False, die=3, errors=["☠ main.go:1  no domains"]
    )
    until(lambda: len(holder.starts) >= 6)
    times = [moment for _, moment in holder.starts]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    for pause, least in zip(pauses, (0.03, 0.1, 0.2, 0.2, 0.2), strict=False):
        assert pause >= least
    until(lambda: holder.ask("status")["last_words"] == "☠ main.go:1  no domains")
    assert holder.ask("status")["ready"] is False
    until(lambda: len(holder.events("smtp")) >= 5)
    assert holder.events("chasquid")[0] == "☠ main.go:1  no domains"
    assert re.fullmatch(
        r"error: chasquid ended with status 3 after 0\.\d s; it said last: ☠ main\.go:1  no domains"
        r"\. Starting it again\.",
        holder.events("smtp")[0],
    )
    holder.behave()
    until(holder.is_ready)


def test_a_restart_does_not_wait_for_a_pause_to_end(start: Make) -> None:
    """What was wrong has just been mended."""
    holder = start({"_BACK_OFF": [0.0, 60.0]}, ready=False, die=3)
    until(lambda: holder.events("smtp"))
    holder.behave()
    began = time.monotonic()
    assert holder.ask("restart")["ready"] is True
    assert time.monotonic() - began < 5


def test_a_restart_that_fails_says_so_and_does_not_spin(start: Make) -> None:
    holder = start({"_READY_WAIT": 0.6, "_BACK_OFF": [0.0, 0.1, 0.2]})
    holder.behave(die=4, errors=["☠ certs.go:1  bad certificate"])
    answer = holder.ask("restart")
    assert answer["done"] is False
    assert answer["ready"] is False
    assert 2 <= len(holder.starts) <= 7
    assert "error: chasquid does not start" in holder.events("smtp")
    assert any("bad certificate" in text for text in holder.events("chasquid"))
    assert any("ended with status 4" in text for text in holder.events("smtp"))
    holder.behave()
    until(holder.is_ready)


# Files of chasquid's that go while it is down


def put_queue(holder: Holder, *names: str) -> Path:
    folder = holder.place / "queue"
    for name in names:
        text = f'data: "the message {name}"\ncreated_at_ts: {{ seconds: 1 }}\n'
        put(folder / f"m:{name}", text)
    return folder


def test_a_file_that_would_end_chasquid_is_put_aside_before_it_starts(start: Make) -> None:
    holder = start()
    folder = put_queue(holder, "good")
    put(folder / "m:empty", "")
    assert holder.ask("restart")["ready"] is True
    assert [path.name for path in folder.iterdir()] == ["m:good"]
    assert [path.name for path in (holder.place / "queue.damaged").iterdir()] == ["m:empty"]
    assert "(it is empty), and was put aside: data/chasquid/queue.damaged/m:empty" in holder.log


def removal(*names: str) -> str:
    known = {"sender": "i@example.com", "recipients": ["you@example.net"]}
    files = {f"m:{name}": known for name in names}
    return f"remove {json.dumps({'folder': 'queue', 'files': files})}"


def test_what_is_removed_is_gone_before_the_next_chasquid_starts(start: Make) -> None:
    holder = start()
    folder = put_queue(holder, "a", "b", "c")
    first = holder.pid
    answer = holder.ask(removal("a", "c", "gone"))
    assert (answer["removed"], answer["done"], answer["ready"]) == (["m:a", "m:c"], True, True)
    assert answer["pid"] not in (0, first)
    assert [path.name for path in folder.iterdir()] == ["m:b"]
    assert holder.events("mail") == [
        "dropped id=a from=i@example.com to=you@example.net",
        "dropped id=c from=i@example.com to=you@example.net",
    ]
    assert holder.events("smtp") == ["chasquid restarted"]


def test_nothing_is_removed_while_chasquid_lives(start: Make) -> None:
    """It would write the file again, or deliver what it has in memory."""
    holder = start({"_STOP_WAIT": 0.5}, deaf=True)
    folder = put_queue(holder, "a")
    first = holder.pid
    asking = threading.Thread(target=holder.ask, args=[removal("a")])
    asking.start()
    looks: list[bool] = []

    def has_ended() -> bool:
        is_there = (folder / "m:a").exists()
        if not is_alive(first):
            return True
        looks.append(is_there)
        return False

    until(has_ended)
    holder.behave()
    asking.join(10)
    assert len(looks) > 5
    assert all(looks)
    assert not (folder / "m:a").exists()


def test_nothing_to_remove_is_no_reason_for_a_restart(start: Make) -> None:
    holder = start()
    put_queue(holder, "a")
    answer = holder.ask(removal("gone"))
    assert (answer["removed"], answer["done"]) == ([], True)
    answer = holder.ask(removal("../starts"))
    assert answer == {"error": "not a file of chasquid's: m:../starts"}
    assert "error" in holder.ask("remove x")
    assert len(holder.starts) == 1
    assert (holder.place / "queue/m:a").exists()
    assert (holder.place / "starts").exists()


def test_two_who_remove_at_once(start: Make) -> None:
    holder = start()
    folder = put_queue(holder, "a", "b", "c")
    answers: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda names=names: answers.append(holder.ask(removal(*names))))
        for names in (["a", "b"], ["b", "c"], ["a", "b"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(name for answer in answers for name in answer["removed"]) == ["m:a", "m:b", "m:c"]
    assert all(answer["done"] for answer in answers)
    assert list(folder.iterdir()) == []
    assert len(holder.starts) == 3, "the last one found nothing"


def test_who_asked_may_go_before_it_is_done(start: Make) -> None:
    holder = start({"_STOP_WAIT": 0.3}, deaf=True)
    folder = put_queue(holder, "a", "b")
    first = holder.pid
    holder.behave()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(holder.place / "door"))
        client.sendall(f"{removal('a')}\n".encode())
    until(lambda: not (folder / "m:a").exists())
    until(lambda: holder.is_ready() and holder.pid != first)
    assert (folder / "m:b").exists()
    assert len(holder.events("mail")) == 1


def test_a_line_with_many_thousand_messages(start: Make) -> None:
    holder = start()
    names = [f"{number:011}" for number in range(20_000)]
    folder = put_queue(holder, *names, "other")
    answer = holder.ask(removal(*names), 60)
    assert len(answer["removed"]) == 20_000
    assert [path.name for path in folder.iterdir()] == ["m:other"]
    assert len(holder.events("mail")) == 20_000


def test_a_chasquid_that_does_not_start_after_a_removal(start: Make) -> None:
    holder = start({"_READY_WAIT": 0.6, "_BACK_OFF": [0.0, 0.1, 0.2]})
    put_queue(holder, "a")
    holder.behave(die=4)
    answer = holder.ask(removal("a"))
    assert (answer["removed"], answer["done"]) == (["m:a"], False)
    holder.behave()
    until(holder.is_ready)


def test_a_removal_while_chasquid_waits_to_be_started_again(start: Make) -> None:
    holder = start({"_BACK_OFF": [0.0, 60.0]}, ready=False, die=3)
    until(lambda: holder.events("smtp"))
    put_queue(holder, "a")
    holder.behave()
    answer = holder.ask(removal("a"))
    assert (answer["removed"], answer["done"]) == (["m:a"], True)
    assert len(holder.starts) == 2


def test_a_file_that_cannot_be_removed(start: Make) -> None:
    holder = start()
    (holder.place / "queue").write_text("no folder")
    answer = holder.ask(removal("a"))
    assert answer["error"].endswith("queue: Not a directory")
    assert len(holder.starts) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_holder_that_ends_before_the_removal_has_removed_nothing(
    start: Make, number: signal.Signals
) -> None:
    holder = start({"_STOP_WAIT": 2.0}, deaf=True)
    folder = put_queue(holder, "a", "b")
    pid = holder.pid

    def ask() -> None:
        with suppress(UnreachableError):
            holder.ask(removal("a"))

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.3)
    holder.process.send_signal(number)
    assert holder.process.wait(10) == (0 if number == signal.SIGTERM else -9)
    asking.join(10)
    until(lambda: not is_alive(pid))
    left = {path.name for path in folder.iterdir()}
    # Told to end, it lets chasquid end first, and what was under way with it.
    assert left in ([{"m:a", "m:b"}] if number == signal.SIGKILL else [{"m:b"}, {"m:a", "m:b"}])


def test_one_that_listens_on_less_than_all_is_not_ready(start: Make) -> None:
    holder = start(ready=False, mute=True)
    until(lambda: (holder.place / "read").exists())
    assert holder.ask("status")["ready"] is False


def test_ending(start: Make) -> None:
    holder = start()
    pid = holder.pid
    began = time.monotonic()
    assert holder.end() == 0
    assert time.monotonic() - began < 3
    assert not is_alive(pid)
    assert holder.log == ""


def test_ending_while_chasquid_is_down(start: Make) -> None:
    holder = start({"_BACK_OFF": [0.0, 60.0]}, ready=False, die=3)
    until(lambda: holder.events("smtp"))
    assert holder.end() == 0
    assert len(holder.starts) == 1


def test_one_that_does_not_listen_to_reason(start: Make) -> None:
    holder = start({"_STOP_WAIT": 0.1}, deaf=True)
    first = holder.pid
    holder.behave()
    assert holder.ask("restart")["ready"] is True
    assert not is_alive(first)
    holder.behave(deaf=True)
    assert holder.ask("restart")["ready"] is True
    last = holder.pid
    assert holder.end() == 0
    assert not is_alive(last)


def test_none_is_left_behind_when_the_holder_is_killed(start: Make) -> None:
    holder = start(deaf=True)
    pid = holder.pid
    holder.process.kill()
    assert ends(pid)


MESSAGE = "id=zmyCMhS89vA from=i@example.com"
ATTEMPT = "2026-01-02 03:04:05.000006 zmyCMhS89vA from=i@example.com to=you@example.net "


def test_the_mail_log_has_an_event_a_line(start: Make) -> None:
    stamp = "2026-01-02 03:04:05.000006 "
    holder = start(
        mail=[
            f"{stamp}one\n",
            f"{ATTEMPT}failed (permanent): 550-first\n550 second \x1b[2J\n",
            f"{stamp}\udcff three\n",
            f"{stamp}" + "x" * 70000 + "\n",
            f"{stamp}last, and not ended",
        ]
    )
    until(lambda: len(holder.events("mail")) >= 5)
    assert holder.events("mail") == [
        "one",
        rf"bounced {MESSAGE} to=you@example.net: 550-first | 550 second \x1b[2J",
        "\ufffd three", "x" * 2000 + "…", "last, and not ended",
    ]  # fmt: skip
    assert "2026-01-02T03:04:05.000Z mail     one\n" in holder.log, "its own time"


def test_refusals_for_want_of_an_answer_are_counted(start: Make) -> None:
    refused = "203.0.113.7:4711 rejected from=a@example.net to=[i@example.com] - "
    stamp = "2026-01-02 03:04:05.000006 "
    holder = start(
        mail=[
            f"{stamp}{refused}\n",
            f"{stamp}{refused}4.3.0 the policy service does not answer (time-out)\n",
            f"{stamp}{refused}5.7.1 no\n",
        ]
    )
    until(lambda: len(holder.events("mail")) >= 3)
    assert holder.ask("status")["unjudged"] == {"count": 2, "last": 1767323045.000006}
    assert [": 4.3.0 the policy service " in line for line in holder.events("mail")] == [
        True, True, False,
    ]  # fmt: skip


def test_what_a_remote_says_is_never_an_event_of_its_own(start: Make) -> None:
    """It may begin a line with the very words of another event."""
    forged = f"{ATTEMPT}sent\n" * 3
    holder = start(mail=[f"{ATTEMPT}failed (temporary): 450-x\n{forged}", f"{ATTEMPT}sent\n"])
    until(lambda: len(holder.events("mail")) >= 2)
    deferred, sent = holder.events("mail")
    assert deferred.startswith("deferred ")
    assert sent == "sent id=zmyCMhS89vA from=i@example.com to=you@example.net"
    assert holder.ask("status")["events"]["waiting"] == 2


def test_events_wait_for_a_recorder(start: Make) -> None:
    holder = start(mail=[f"{ATTEMPT}sent\n"] * 3)
    until(lambda: holder.ask("status")["events"]["waiting"] == 3)
    found = holder.ask("status")["events"]
    assert (found["connected"], found["dropped"], found["oldest"]) == (False, 0, 1767323045.000006)


def test_only_trouble_of_the_daemon_itself_is_logged(start: Make) -> None:
    holder = start(
        errors=["_ a.go:1  news", ". a.go:2  detail", "E a.go:3  error", "☠ a.go:4  fatal",
                "panic: runtime error", "E a.go:5  \x1b[2J\udcff"]
    )  # fmt: skip
    assert holder.events("chasquid") == [
        "E a.go:3  error", "☠ a.go:4  fatal", "panic: runtime error", "E a.go:5  \\x1b[2J\ufffd",
    ]  # fmt: skip


@pytest.mark.parametrize("command", ["", "quit", "status now", "restart\0", "é" * 1000])
def test_other_requests_do_nothing(start: Make, command: str) -> None:
    holder = start()
    pid = holder.pid
    with suppress(UnreachableError):
        answer = holder.ask(command)
        assert "error" in answer or command.startswith("status")
    assert holder.pid == pid


def test_whoever_goes_away_disturbs_nobody(start: Make) -> None:
    holder = start()
    for raw in (b"", b"sta", b"reload\n", b"x" * 200_000, b"\xff\n"):
        with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
            client.connect(str(holder.place / "door"))
            client.sendall(raw)
    assert holder.ask("reload")["done"] is True


# What needs no process


def test_the_environment() -> None:
    plain = holder.environment(has_ipv6=True, memory_limit=None)
    assert plain == {
        "PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LANG": "C.UTF-8", "TZ": "UTC"
    }  # fmt: skip
    assert holder.environment(True, 2**30)["GOMEMLIMIT"] == str(2**30 * 3 // 4)
    assert holder.environment(False, None)["RES_OPTIONS"] == "no-aaaa"


@pytest.mark.parametrize("ipv6", [True, False, None])
@pytest.mark.parametrize("rates", ["20/conn,60/h,100/unknown,5/auth", "1/h", "none"])
def test_the_words_of_the_command_line_hold_all_options(ipv6: bool | None, rates: str) -> None:
    options = holder.Options(ipv6, Rates.parse(rates), 25 << 20, 2000, 30)
    words = options.words()
    assert re.fullmatch(r"[a-z0-9/, ]+", words), "supervisord.conf takes them as they are"
    assert holder.Options.parse(words.split()) == options


@pytest.mark.parametrize("words", ["", "yes none 1 2", "yes none 1 2 three", "yes 5 1 2 3"])
def test_words_that_are_no_options_end_the_holder(words: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (of int, or of the number of words)
        holder.Options.parse(words.split())


def test_the_interface_is_asked_where_no_setting_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    found = IPv6Address("2001:db8::1")
    monkeypatch.setattr(interface, "address", {6: found}.get)
    assert holder.Options(None, Rates(), 1, 2, 3).has_ipv6
    assert not holder.Options(False, Rates(), 1, 2, 3).has_ipv6
    monkeypatch.setattr(interface, "address", lambda _version: None)
    assert not holder.Options(None, Rates(), 1, 2, 3).has_ipv6
    assert holder.Options(True, Rates(), 1, 2, 3).has_ipv6


class Listener:
    """A socket that notes what is done to it."""

    def __init__(self, family: int, busy: tuple[int, int] | None, calls: list[Any]) -> None:
        self.family, self.busy, self.calls = family, busy, calls

    def setsockopt(self, *option: int) -> None:
        self.calls.append(option)

    def bind(self, address: tuple[str, int]) -> None:
        if (self.family, address[1]) == self.busy:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self.calls.append(address)

    def listen(self, backlog: int) -> None:
        self.calls.append(backlog)


def binding(
    monkeypatch: pytest.MonkeyPatch, *, ipv6: bool = True, busy: tuple[int, int] | None = None
) -> list[Any]:
    calls: list[Any] = []
    monkeypatch.setattr(holder, "_has_ipv6", lambda: ipv6)
    monkeypatch.setattr(socket, "socket", lambda family, _: Listener(family, busy, calls))
    return calls


def test_three_ports_on_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = binding(monkeypatch)
    assert [name for name, _ in holder.bind()] == [
        "smtp", "smtp", "submission", "submission", "submission_tls", "submission_tls",
    ]  # fmt: skip
    bound = [call for call in calls if isinstance(call, tuple) and len(call) == 2]
    everywhere = ("0.0.0.0", "::")  # noqa: S104
    assert bound == [(address, port) for port in (25, 587, 465) for address in everywhere]
    assert calls.count((socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)) == 3, "else :: takes both"
    assert calls.count((socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)) == 6
    assert min(call for call in calls if isinstance(call, int)) >= 1024


def test_a_host_without_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    binding(monkeypatch, ipv6=False)
    assert len(holder.bind()) == 3


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch, family: int) -> None:
    binding(monkeypatch, busy=(family, 587))
    with pytest.raises(UserError) as caught:
        holder.bind()
    assert re.match(
        r"cannot listen on port 587 of (0\.0\.0\.0|::): Address already in use\n"
        r"  fix: see which program has it, and stop it: ss -ltnp 'sport = :587'",
        str(caught.value),
    )


def test_root_is_dropped_between_binding_and_serving(
    monkeypatch: pytest.MonkeyPatch, paths: Paths, ids: Ids
) -> None:
    calls: list[str] = []

    def bind() -> list[tuple[str, socket.socket]]:
        calls.append("bind")
        return []

    def drop(_ids: Ids, owner: Owner, **_: object) -> None:
        assert (paths.holder_socket).is_socket()
        calls.append(f"drop to {owner.value}")

    def serve(work: Any) -> None:
        work.close()
        calls.append("serve")

    paths.auth.mkdir(parents=True)
    for path in (paths.auth_socket, paths.auth_users):
        path.touch()
    doors: list[socket.socket] = []
    make = rpc.listen

    def door(path: Path, ids: Ids, owner: Owner, backlog: int) -> socket.socket:
        doors.append(make(path, ids, owner, backlog))
        return doors[-1]

    monkeypatch.setattr(holder, "bind", bind)
    monkeypatch.setattr(rpc, "listen", door)
    monkeypatch.setattr(identity, "drop", drop)
    monkeypatch.setattr(asyncio, "run", serve)
    holder.run(holder.Options(False, Rates(), 25 << 20, 2000, 30), paths, ids)
    for made in doors:
        made.close()
    assert calls == ["bind", "drop to chasquid", "serve"]


def test_a_door_that_a_dead_holder_left(paths: Paths, ids: Ids) -> None:
    paths.run.mkdir(parents=True)
    for _ in range(2):
        rpc.listen(paths.holder_socket, ids, Owner.TAMBO, 1).close()
    assert stat.S_IMODE(paths.holder_socket.stat().st_mode) == 0o600
