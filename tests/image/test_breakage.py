"""Users and aliases, broken by hand in every way that came to mind, while mail flows."""

from __future__ import annotations

import base64
import re
import smtplib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise, zip_longest
from pathlib import Path

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.container import checked
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until
from tests.unit.chasquid_reference import write_users

pytestmark = pytest.mark.long

USER = f"i@{DOMAIN}"
ALIAS = f"info@{DOMAIN}"
ALIASES = "# Mine.\ninfo: i\n"
# The keeper looks every two seconds.
SOON = 15.0
PLAIN_SECRET = "correct-horse"


@dataclass(frozen=True)
class Kind:
    """A way to break a file: what is then in it, or the shell's words that do it to `$1`, and what
    is said of it."""

    name: str
    said: str
    content: bytes | None = None
    by: str = ""


def text(name: str, said: str, content: str) -> Kind:
    return Kind(name, said, content.encode())


def no_files(name: str) -> list[Kind]:
    """What may stand in a file's place."""
    return [
        Kind("folder", "cannot be read: Is a directory", by='mkdir "$1"'),
        Kind("link to nothing", "is a link to nothing", by='ln -s /no/such/file "$1"'),
        Kind("link to itself", "cannot be read: Too many levels", by=f'ln -s {name} "$1"'),
        Kind("link to a device", "is not a plain file", by='ln -s /dev/zero "$1"'),
        Kind("FIFO", "is not a plain file", by='mkfifo -m 666 "$1"'),
        Kind("no right to read", "cannot be read: Perm", by='cp -a "$2" "$1"; chmod 000 "$1"'),
        Kind("root's alone", "cannot be read: Perm",
             by='cp "$2" "$1"; chown 0:0 "$1"; chmod 600 "$1"'),
        Kind("deleted", "is gone", by=":"),
        Kind("ten gigabytes", "is larger than 16 MB", by='truncate -s 10G "$1"'),
    ]  # fmt: skip


def of_users(good: str) -> list[Kind]:
    lines = len(good.splitlines())
    end = f"line {lines + 1}: "
    key = f"line {lines + 2}: "
    other = 'users: {\n  key: "%s"\n  value: { denied: {} }\n}\n'
    absurd = write_users({"x": {"logN": 60, "r": 8, "p": 1, "keyLen": 32, "salt": b"s" * 16,
                                "encrypted": b"k" * 32}})  # fmt: skip
    return [
        text("no bytes", "the file is empty", ""),
        text("only blanks", "the file is empty", "\n \n"),
        Kind("Latin-1", f"{end}not UTF-8 text", good.encode() + b"# M\xfcller\n"),
        Kind("UTF-16", "line 1: not UTF-8 text", good.encode("utf-16")),
        text("byte order mark", "line 1: it begins with a byte order mark", f"\ufeff{good}"),
        text("NUL", f"{end}not in chasquid's text format", f"{good}\0"),
        text("half a file", r"line \d+: not in chasquid's text format", good[: len(good) // 2]),
        text("a brace less", r"line \d+: .*\(a closing brace is missing\)", good.rstrip()[:-1]),
        text("a brace more", f"{end}not in chasquid's text format", f"{good}}}\n"),
        text("a quote less", r"line 2: .*\(a closing quote is missing\)",
             good.replace('"i"', '"i')),
        text("unknown field", rf"{end}.*\(there is no such field\)", f"{good}quota: 3\n"),
        text("twice", f"{key}user 'i' stands twice", good + other % "i"),
        text("upper case", f"{key}user 'You': a name here is lower case", good + other % "You"),
        text("a space", f"{key}user 'two words': a name here is", good + other % "two words"),
        text("an @", f"{key}user 'you@example.com': a name here", good + other % "you@example.com"),
        text("a colon", f"{key}user 'a:b': a name has no", good + other % "a:b"),
        text("no name", f"{key}user '': a name here is", good + other % ""),
        text("absurd scrypt", r"line \d+: user 'x': scrypt parameters out of range", good + absurd),
        text("no password", f"{end}user 'x' has no password entry",
             good + 'users: { key: "x" value: {} }\n'),
        text("a password in clear, wrongly", f"{end}not in chasquid's text format",
             f'{good}users: {{ key: "x" value: {{ plain: "{PLAIN_SECRET}" }} }}\n'),
        text("the aliases", "line 2: not in chasquid's text format", ALIASES),
        *no_files("users"),
    ]  # fmt: skip


def of_aliases(users: str) -> list[Kind]:
    def line(name: str, said: str, wrong: str) -> Kind:
        """A wrong line, the third."""
        return text(name, f"line 3: {said}", f"{ALIASES}{wrong}\nnever: i\n")

    chain = "".join(f"a{number}: a{number + 1}\n" for number in range(12))
    return [
        text("no bytes", "the file is empty", ""),
        Kind("Latin-1", "line 3: not UTF-8 text", ALIASES.encode() + b"# M\xfcller\n"),
        Kind("UTF-16", "line 1: not UTF-8 text", ALIASES.encode("utf-16")),
        text("byte order mark", "line 1: it begins with a byte order mark", f"\ufeff{ALIASES}"),
        line("NUL", r"'a\\x00b' is not a name", "a\0b: i"),
        text("half a line", "line 2: 'inf' has no colon", ALIASES[:11]),
        line("no colon", "'sales i' has no colon", "sales i"),
        line("no target", "sales: no address after the colon", "sales:"),
        line("only commas", "sales: no address after the colon", "sales: ,,"),
        line("twice", "'info' stands twice", "INFO: i"),
        line("an @ on the left", "'sales@example.com': left of", "sales@example.com: i"),
        line("a space in a name", "'two words' is not a name", "two words: i"),
        line("a long name", ".*is not a name", f"{'a' * 65}: i"),
        line("no command", r"sales: the command after \| is missing", "sales: |"),
        line("seventy kilobytes", "'all' has too many targets",
             "all: " + ", ".join(f"u{number}@example.net" for number in range(3800))),
        line("half a domain", "'example' has no dot", "sales: i@example"),
        line("two @", ".*has more than one @", "sales: i@i@example.net"),
        line("a space in a target", ".*has a part before the @", "sales: i i"),
        line("via nothing", ".*is not a domain name", "sales: i@example.net via"),
        line("via an address", ".*is an IP address", "sales: i@example.net via 192.0.2.1"),
        line("a conflict of versions", "'<<<<<<< HEAD' has no colon", "<<<<<<< HEAD"),
        line("an alias loop", "mail to x@example.com goes round in a loop: x@example.com → "
             "y@example.com → x@example.com", "x: y\ny: x"),
        line("its own target", "mail to x@example.com goes round in a loop: x@example.com → "
             "x@example.com", "x: x"),
        line("twelve steps", "mail to a0@example.com takes over 10 steps: a0@", chain.rstrip()),
        text("the users", "line 1: 'users {' has no colon", users),
        *no_files("aliases"),
    ]  # fmt: skip


@dataclass
class Flow:
    """Mail to an alias from outside and from a user inside, all the time."""

    server: Server
    secret: str
    subjects: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._endpoint = self.server.endpoint()
        self._threads = [
            threading.Thread(target=self._run, args=(how,)) for how in ("deliver", "submit")
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self) -> None:
        """Until a message was accepted that was not when this was called."""
        before = len(self.subjects)
        wait_until(lambda: len(self.subjects) > before, "mail flows on", timeout=SOON)

    def _run(self, how: str) -> None:
        while not self._stop.wait(0.3):
            try:
                if how == "deliver":
                    subject = smtp.deliver(self.server.ipv4, ALIAS)
                else:
                    subject = smtp.submit(self._endpoint, USER, self.secret, ALIAS)
                self.subjects.append(subject)
            except Exception as error:  # noqa: BLE001 (each is a failure of the test)
                self.failures.append(f"{how}: {error!r}")


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    server = module_servers.make()
    server.up()
    return server


@pytest.fixture(scope="module")
def secret(server: Server) -> str:
    return server.add_user(USER)


@pytest.fixture
def folder(server: Server, secret: str) -> Iterator[Path]:
    """The domain's folder, with an alias; afterwards as before, and well."""
    assert secret
    folder = server.data / "domains" / DOMAIN
    if "aliases" not in server.machine.names(folder):
        server.ok("add-alias", ALIAS, "i")
    server.machine.write(folder / "aliases", ALIASES)
    checked(server.machine.run("cp", "-a", str(folder), str(saved(server))))
    yield folder
    for name in ("users", "aliases"):
        replace(server, folder / name, 'cp -a "$2" "$1"')
    server.machine.delete(saved(server))
    wait_until(lambda: is_well(server), "all is well again", timeout=SOON)


def saved(server: Server) -> Path:
    """Where the good files are meanwhile."""
    return server.data.parent / "saved"


def is_well(server: Server) -> bool:
    return server.verb("tambo", "health").status == 0


def replace(server: Server, path: Path, words: str, content: bytes = b"") -> None:
    """Put something else in a file's place. In the words, `$1` is the path, `$2` the good file."""
    good = str(saved(server) / path.name)
    script = f'[ -f "$1" ] && [ ! -L "$1" ] || rm -rf "$1"; rm -f "$1"; {words}'
    given = base64.b64encode(content).decode()
    checked(server.machine.run("sh", "-ec", script, "sh", str(path), good, input=given))


def break_it(server: Server, path: Path, kind: Kind) -> None:
    if kind.content is None:
        replace(server, path, kind.by)
    else:
        # In place, as nano does, so that it stays tambo's to read.
        script = 'cp -a "$2" "$1"; base64 -d > "$1"'
        replace(server, path, script, kind.content)


def test_nothing_stops_nothing_is_lost_and_each_is_reported_by_line(
    server: Server, secret: str, folder: Path
) -> None:
    wait_until(lambda: is_well(server), "all is well before", timeout=SOON)
    users = server.machine.read(folder / "users")
    kinds = {"users": of_users(users), "aliases": of_aliases(users)}
    for name, found in kinds.items():
        assert len(found) >= 25
        # What is said already is not said again: those of which the same is said stand apart.
        kinds[name] = [*found[::2], *found[1::2]]
        assert all(one.said != other.said for one, other in pairwise(kinds[name]))
    chasquid = server.process("chasquid").pid
    server.log.tolerate(rf"fail: data/domains/{DOMAIN}/(users|aliases)\b")
    flow = Flow(server, secret)
    try:
        for round_ in zip_longest(*kinds.values()):
            read = len(server.container.log())
            expected = {}
            for name, kind in zip(kinds, round_, strict=True):
                if kind:
                    break_it(server, folder / name, kind)
                    path = f"data/domains/{DOMAIN}/{name}"
                    expected[f"{name}: {kind.name}"] = rf"fail: {path}: {kind.said}.* Fix: "

            def missing(read: int = read, expected: dict[str, str] = expected) -> list[str]:
                log = server.container.log()[read:]
                return [key for key, words in expected.items() if not re.search(words, log)]

            try:
                wait_until(lambda: not missing(), f"{', '.join(expected)}: told", timeout=SOON)
            except AssertionError as error:
                error.add_note(f"not told: {missing()}")
                raise
            assert not is_well(server), "it is unhealthy until it is mended"
            flow.wait_for_more()
        for name in kinds:
            replace(server, folder / name, 'cp -a "$2" "$1"')
        wait_until(lambda: is_well(server), "it is mended", timeout=SOON)
    finally:
        flow.stop()
    assert flow.failures == [], "none was refused"
    assert len(flow.subjects) > 100

    def kept() -> Counter[str]:
        place = server.data / "mail" / DOMAIN / "i" / "new"
        lines = checked(server.machine.run("grep", "-rh", "^Subject: ", str(place))).stdout
        return Counter(line.removeprefix("Subject: ") for line in lines.splitlines())

    wait_until(lambda: set(flow.subjects) <= set(kept()), "none was lost", timeout=SOON)
    assert {subject: kept()[subject] for subject in flow.subjects} == dict.fromkeys(
        flow.subjects, 1
    )
    assert server.process("chasquid").pid == chasquid, "it went on all the time"
    assert PLAIN_SECRET not in server.container.log()
    assert server.machine.read(folder / "users") == users


def test_what_other_editors_write_is_no_damage(server: Server, secret: str, folder: Path) -> None:
    """Line ends of another system, blanks, no end of the last line, and a password in clear."""
    users = server.machine.read(folder / "users")
    plain = 'users: { key: "clear" value: { plain: { password: "a clear one" } } }'
    break_it(server, folder / "users",
             text("CRLF", "", f"{users}\n{plain}".replace("\n", "\r\n")))  # fmt: skip
    break_it(server, folder / "aliases",
             text("CRLF", "", "\r\n\t# Mine.\r\n INFO :i\r\n\r\nlast: i ,"))  # fmt: skip
    endpoint = server.endpoint()
    wait_until(
        lambda: smtp.can_log_in(endpoint, f"clear@{DOMAIN}", "a clear one"), "it serves",
        timeout=SOON,
    )  # fmt: skip
    assert smtp.can_log_in(endpoint, USER, secret)
    for name in ("info", "last"):
        smtp.deliver(server.ipv4, f"{name}@{DOMAIN}")
    assert is_well(server)


def test_mail_into_an_alias_loop_is_the_sender_s_to_keep(server: Server, folder: Path) -> None:
    server.log.expect(
        *(
            rf"line {n}: mail to {name}@.* goes round in a loop: {name}@"
            for n, name in ((3, "x"), (4, "y"))
        )
    )
    break_it(server, folder / "aliases", text("an alias loop", "", f"{ALIASES}x: y\ny: x\n"))
    wait_until(lambda: not is_well(server), "it is told", timeout=SOON)
    with pytest.raises(smtplib.SMTPDataError) as refused:
        smtp.deliver(server.ipv4, f"x@{DOMAIN}")
    assert refused.value.smtp_code == 451
    smtp.deliver(server.ipv4, ALIAS)
    listed = server.verb("list-aliases")
    assert listed.status == 1
    assert f"x@{DOMAIN} → y@{DOMAIN} → x@{DOMAIN}" in " ".join(listed.stdout.split())
