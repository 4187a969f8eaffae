"""Hostile files in the queue and in the history, as an intruder with chasquid's rights leaves them.

Verbs answer in words, within seconds and without a control character; mail goes on meanwhile, and
after chasquid has been started again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import pytest

from tests.image.breaches.conftest import GENERATED, Shipped
from tests.support import smtp
from tests.support.container import checked
from tests.support.server import Server
from tests.support.wait import wait_until

# Run as the machine's root in the folder data/chasquid/queue; $1 is the data folder.
QUEUE: Mapping[str, str] = {
    "link-to-users": "ln -s ../../domains/example.com/users m:AAAAAAAAAAA",
    "link-out-of-the-volume": "ln -s /etc/shadow m:AAAAAAAAAAA",
    "link-to-nothing": "ln -s m:AAAAAAAAAAA m:AAAAAAAAAAA",
    "folder": "mkdir m:AAAAAAAAAAA",
    "noise": "head -c 300000 /dev/urandom >m:AAAAAAAAAAA",
    "broken-behind-a-time": "printf '\\ncreated_at_ts: { seconds: 1 }\\nrcpt {' >m:AAAAAAAAAAA",
    "pipe": "mkfifo m:AAAAAAAAAAA",
    "empty": ": >m:AAAAAAAAAAA",
    "without-a-time": "printf 'ID: \"AAAAAAAAAAA\"\\n' >m:AAAAAAAAAAA",
    "half": 'printf \'ID: "AAAAAAAAAAA"\\nFrom: "i@exa\' >m:AAAAAAAAAAA',
    "deep": "{ yes 'rcpt {' | head -n 200000; } >m:AAAAAAAAAAA",
    "control-characters": (
        'printf \'ID: "AAAAAAAAAAA"\\nFrom: "a\\\\033[2J\\\\r\\\\n@x.example"\\nrcpt { address: '
        '"b\\\\033]0;x\\\\007@c.example" type: EMAIL status: FAILED last_failure_message: '
        '"\\\\033[31m\\\\u202e" }\\n\' >m:AAAAAAAAAAA'
    ),
    "name-of-control-characters": "printf x >\"$(printf 'm:\\033[31m\\nx')\"",
    "name-that-climbs": "mkdir -p m:.. && printf x >m:../m:AAAAAAAAAAA",
}
# In the folder data/events; the store has been removed.
EVENTS: Mapping[str, str] = {
    "noise": "head -c 300000 /dev/urandom >events.db",
    "link-to-users": "ln -s ../domains/example.com/users events.db",
    "link-to-itself": "ln -s events.db events.db",
    "folder": "mkdir events.db",
    "pipe": "mkfifo events.db",
    "another-version": "sqlite3 events.db 'PRAGMA user_version = 99; CREATE TABLE events (n)'",
    "rows-of-nothing": """sqlite3 events.db <<'END'
PRAGMA user_version = 1;
CREATE TABLE events (
    n INTEGER PRIMARY KEY, at REAL, kind TEXT, id TEXT, sender TEXT, recipients TEXT, peer TEXT,
    login TEXT, text TEXT, ok INTEGER, next REAL, destination TEXT
);
INSERT INTO events (n, at, kind, id) VALUES
    (1, 9e9, 'sent', 'AAAAAAAAAAA'), (2, NULL, NULL, NULL), (3, 1e300, 'bounced', 'AAAAAAAAAAA');
END
""",
    "another-table": "sqlite3 events.db 'PRAGMA user_version = 1; CREATE TABLE events (x)'",
}
# chasquid reads these, says so and goes on; the others are put aside before it starts.
COMPLAINED_OF = ("broken-behind-a-time",)
LISTING = (("list-queue",), ("list-queue", "--json"), ("status",))
ASKING = (("status",), ("show-message", "AAAAAAAAAAA"), ("show-message", GENERATED))
LONGEST = 60.0  # seconds for a verb, on a machine with other work


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"RATE_STRANGERS": "none"}


def ask(server: Server, verbs: Sequence[Sequence[str]]) -> None:
    """Verbs, whose answers must be words."""
    for argv in verbs:
        since = time.monotonic()
        said = server.verb(*argv)
        assert time.monotonic() - since < LONGEST, argv
        assert said.status in (0, 1, 75), (argv, said)
        text = said.stdout + said.stderr
        assert text, argv
        assert "Traceback" not in text, text
        assert all(letter.isprintable() or letter == "\n" for letter in text), ascii(text)


def assert_mail_goes_on(shipped: Shipped) -> None:
    server = shipped.server
    subject = smtp.deliver(server.ipv4, GENERATED)
    shipped.world.wait_for(subject=subject, timeout=20)
    subject = smtp.submit(
        server.endpoint(), GENERATED, shipped.secrets[GENERATED], "you@example.net"
    )
    shipped.world.wait_for(subject=subject, timeout=20)


def put(server: Server, folder: str, script: str) -> None:
    """Run it there, and give what it made to chasquid's user, as if that had made it."""
    words = ("sh", str(server.data / folder))
    script = f'cd "$1" && {script}\nchown -hR 10025:10025 .'
    checked(server.machine.run("sh", "-c", script, *words))


@pytest.mark.parametrize("name", QUEUE)
def test_a_hostile_file_in_the_queue(shipped: Shipped, name: str) -> None:
    server = shipped.server
    server.log.tolerate("error loading queue item", "a file of the queue is damaged")
    put(server, "chasquid/queue", QUEUE[name])
    try:
        ask(server, LISTING)
        assert_mail_goes_on(shipped)
        pid = server.process("chasquid").pid
        server.control("restart")
        assert server.process("chasquid").pid != pid
        assert_mail_goes_on(shipped)
        ask(server, LISTING[:1])
        aside = server.machine.names(server.data / "chasquid/queue.damaged")
        assert bool(aside) is (name not in COMPLAINED_OF), aside
    finally:
        script = 'cd "$1" && find queue -mindepth 1 -delete && rm -rf queue.damaged'
        words = ("sh", str(server.data / "chasquid"))
        checked(server.machine.run("sh", "-c", script, *words))


@pytest.mark.parametrize("name", EVENTS)
def test_a_hostile_history(shipped: Shipped, name: str) -> None:
    server = shipped.server
    server.log.tolerate(
        "recorder (error|warn)|store of events|events cannot be stored|history|recorder"
    )
    folder = server.data / "events"
    pid = server.process("recorder").pid
    checked(server.machine.run("sh", "-c", f"rm -rf {folder}/events.db*"))
    put(server, "events", EVENTS[name])
    try:
        server.machine.kill(pid)
        assert_mail_goes_on(shipped)
        ask(server, ASKING)
    finally:
        checked(server.machine.run("sh", "-c", f"rm -rf {folder}/events.db*"))
    assert_mail_goes_on(shipped)
    wait_until(
        lambda: server.verb("show-message", GENERATED).status == 0,
        "the history is kept again",
        timeout=90,
    )
