"""Who may log in and send."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from entrypoint.chasquid import userdb
from entrypoint.chasquid.userdb import Denied, Plain, Scrypt
from entrypoint.commands import users
from entrypoint.common import locks, rpc
from entrypoint.common.paths import Paths
from entrypoint.common.rpc import AbsentError
from entrypoint.converge import apply
from entrypoint.history import client
from entrypoint.state import load
from tests.unit.commands.conftest import SETTINGS, Server
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, HOST, put_domain, tree

SECRET = r"[a-hjkmnp-z2-9]{7}(?:-[a-hjkmnp-z2-9]{7}){3}"
LONG = "the password has more than 512 bytes"
NOTE = "note: The mail server is not running; it will know this when it starts.\n"


def test_a_new_user_gets_a_secret_shown_once(server: Server) -> None:
    done = server.run("add-user", "I@Example.com")
    match = re.fullmatch(
        rf"Added i@example\.com\. Its secret, which is shown only now:\n\n    ({SECRET})\n\n"
        r"For a mail program or a web service:\n\n"
        r"    server      smtp\.example\.com\n"
        r"    port        465 with SSL/TLS, or 587 with STARTTLS\n"
        r"    user name   i@example\.com\n"
        r"    password    the secret above\n",
        done.out,
    )
    assert match
    assert (done.status, done.err) == (0, NOTE)
    secret = server.users()["i"]
    assert isinstance(secret, Scrypt)
    assert secret.matches(match[1])
    assert secret.log_n == userdb.GENERATED_LOG_N, "cheap: nobody guesses it"
    for name, item in tree(server.context.paths.root).items():
        assert match[1].encode() not in item.content, f"{name} holds it in clear"


def test_it_may_log_in_at_once(server: Server) -> None:
    """What chasquid reads holds it before the verb ends, beside those that never log in."""
    server.run("add-user", "i@example.com")
    text = (server.context.paths.chasquid / "domains/example.com/users").read_text()
    found = userdb.parse(text)
    assert set(found) == {"i", "postmaster", "abuse", "rua", "ruf"}
    assert [name for name, secret in found.items() if not isinstance(secret, Denied)] == ["i"]


def test_the_running_server_is_told_to_reload(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def request(_path: Path, command: str, timeout: float = 0.0) -> dict[str, bool]:
        assert timeout < 5
        told.append(command)
        return {"done": True}

    monkeypatch.setattr(rpc, "request", request)
    assert server.run("add-user", "i@example.com").err == ""
    assert server.run("remove-user", "i@example.com").err == ""
    assert told == ["reload", "reload", "served"], "the policy service is told last"


def test_as_json(server: Server) -> None:
    found = json.loads(server.run("add-user", "i@example.com", "--json").out)
    secret = found.pop("secret")
    assert re.fullmatch(SECRET, secret)
    assert found == {
        "address": "i@example.com", "user": "i@example.com", "host": HOST,
        "ports": {"tls": 465, "starttls": 587},
    }  # fmt: skip
    assert server.users()["i"].matches(secret)
    found = json.loads(server.run("set-password", "i@example.com", "--json").out)
    assert found["secret"] != secret


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_password_from_standard_input(server: Server, end: bytes) -> None:
    done = server.run(
        "add-user", "i@example.com", "--password-stdin", stdin=" pässwörd ".encode() + end
    )
    assert done.status == 0
    assert "pässwörd" not in done.out + done.err
    assert "the one you chose" in done.out
    secret = server.users()["i"]
    assert isinstance(secret, Scrypt)
    assert secret.matches(" pässwörd ")
    assert secret.log_n == userdb.CHOSEN_LOG_N, "people's passwords are guessed"


@pytest.mark.parametrize(
    ("stdin", "reason"),
    [
        (b"", "the password is empty"),
        (b"\n", "the password is empty"),
        (b"short\n", "the password has 5 characters; at least 8 are needed"),
        (b"two\nlines\n", "the password holds a control character"),
        (b"x" * 10_000, LONG),
        *((b"x" * n + "é".encode() * 5000, LONG) for n in range(2)),
        *((b"x" * n + "\U0001f4e7".encode() * 5000, LONG) for n in range(4)),
        (b"\xff" * 10, "the password is not UTF-8 text"),
    ],
)
def test_passwords_that_cannot_be(server: Server, stdin: bytes, reason: str) -> None:
    before = tree(server.context.paths.root)
    for verb in ("add-user", "set-password"):
        if verb == "set-password":
            server.run("add-user", "i@example.com")
            before = tree(server.context.paths.root)
        done = server.run(verb, "i@example.com", "--password-stdin", stdin=stdin)
        assert (done.status, done.out) == (2, "")
        assert done.err.startswith(f"error: {reason}")
        assert tree(server.context.paths.root) == before


def test_a_password_that_is_asked_for(server: Server) -> None:
    asked_for = []

    def prompt(label: str, **options: object) -> str:
        asked_for.append((label, options["hide_input"], options["confirmation_prompt"]))
        return "correct horse"

    server.patch.setattr(click, "prompt", prompt)
    assert server.run("add-user", "i@example.com", "--prompt", terminal=True).status == 0
    assert server.run("check-password", "i@example.com", terminal=True).status == 0
    assert asked_for == [("Password", True, True), ("Password", True, False)]
    assert server.users()["i"].matches("correct horse")


@pytest.mark.parametrize(
    "arguments", [("add-user", "you@example.com", "--prompt"), ("check-password", "i@example.com")]
)
def test_nobody_to_ask(server: Server, arguments: tuple[str, ...]) -> None:
    """`docker exec` without -it: it says what to do instead of waiting for ever."""
    server.run("add-user", "i@example.com")
    done = server.run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "error: there is no terminal to ask at\n"
        "  fix: run: docker exec -it mail …, or give the password with --password-stdin\n"
    )


def test_only_one_way_to_give_a_password(server: Server) -> None:
    done = server.run("add-user", "i@example.com", "--prompt", "--password-stdin", terminal=True)
    assert done.status == 2
    assert "--prompt and --password-stdin exclude each other" in done.err


def test_a_new_password_ends_the_old_one(server: Server) -> None:
    server.run("add-user", "i@example.com", "--password-stdin", stdin=b"correct horse")
    done = server.run("set-password", "i@example.com")
    assert done.out.startswith("Changed i@example.com. Its secret, which is shown only now:")
    match = re.search(SECRET, done.out)
    assert match
    assert server.users()["i"].matches(match[0])
    assert not server.users()["i"].matches("correct horse")


def test_checking_a_password(server: Server) -> None:
    server.run("add-user", "i@example.com", "--password-stdin", stdin=b"correct horse")
    right = server.run(
        "check-password", "i@example.com", "--password-stdin", stdin=b"correct horse\n"
    )
    assert (right.status, right.out) == (0, "This is the password of i@example.com.\n")
    for stdin in (b"wrong horse", b"", b"correct horse\n\n"):
        wrong = server.run("check-password", "i@example.com", "--password-stdin", stdin=stdin)
        assert (wrong.status, wrong.out) == (1, "")
        assert wrong.err == "error: this is not the password of i@example.com\n"


def test_removing_a_user(server: Server) -> None:
    server.run("add-user", "i@example.com")
    server.run("add-user", "you@example.com")
    path = server.context.paths.domain(EXAMPLE_COM) / "users"
    assert server.run("remove-user", "i@example.com").out == "Removed i@example.com.\n"
    assert set(server.users()) == {"you"}
    server.run("remove-user", "you@example.com")
    assert not path.exists(), "an empty file would be taken for damage"
    served = (server.context.paths.chasquid / "domains/example.com/users").read_text()
    assert all(isinstance(secret, Denied) for secret in userdb.parse(served).values())
    assert load.load(server.context.paths).findings == ()


def test_listing(server: Server) -> None:
    empty = server.run("list-users")
    assert (empty.status, empty.out) == (0, "")
    assert empty.err == "No users yet. Add one: docker exec mail add-user i@example.com\n"
    assert json.loads(server.run("list-users", "--json").out) == []
    for address in ("you@example.com", "i@example.org", "i@example.com"):
        server.run("add-user", address)
    put_domain(server.context.paths, EXAMPLE_ORG, users='users { key: "shut" value { denied {} } }')
    listed = json.loads(server.run("list-users", "--json").out)
    assert [item["address"] for item in listed] == ["i@example.com", "you@example.com"]


def test_credentials_are_grouped_under_their_user(server: Server) -> None:
    put_domain(
        server.context.paths, EXAMPLE_ORG, users='users { key: "by+hand" value { plain {} } }'
    )
    for name in ((), ("--name", "web"), ("--name", "Newsletter")):
        assert server.run("add-user", "i@example.com", *name).status == 0
    created = load.load(server.context.paths).created
    assert set(created) == {"i@example.com", "i+web@example.com", "i+newsletter@example.com"}
    apply.write(
        server.context.paths.created,
        json.dumps({"i@example.com": 0.0, "i+web@example.com": 86400.0}).encode(),
        server.context.ids,
    )
    used = {"i+web@example.com": 90061.0, "stranger@@": 1.0, "you@elsewhere.example": 2.0}
    server.patch.setattr(client, "last_logins", lambda _paths: used)
    done = server.run("list-users")
    assert (done.status, done.err) == (0, "")
    assert done.out == (
        "i@example.com\n"
        "    (no name)   created 1970-01-01 00:00  not used yet\n"
        "    newsletter  created unknown           not used yet\n"
        "    web         created 1970-01-02 00:00  used 1970-01-02 01:01\n"
        "by@example.org\n"
        "    hand        created unknown           not used yet\n"
        "Times are UTC.\n"
    )
    [mine, other] = json.loads(server.run("list-users", "--json").out)
    assert mine["credentials"] == [
        {"name": "", "login": "i@example.com", "created": "1970-01-01T00:00:00Z",
         "last_used": None},
        {"name": "newsletter", "login": "i+newsletter@example.com", "created": None,
         "last_used": None},
        {"name": "web", "login": "i+web@example.com", "created": "1970-01-02T00:00:00Z",
         "last_used": "1970-01-02T01:01:01Z"},
    ]  # fmt: skip
    assert other["address"] == "by@example.org"


def test_when_the_store_does_not_answer_that_is_said(server: Server) -> None:
    server.run("add-user", "i@example.com")
    done = server.run("list-users")
    assert "used" not in done.out
    assert done.err.startswith("note: When they were last used is not known")
    [mine] = json.loads(server.run("list-users", "--json").out)
    assert "last_used" not in mine["credentials"][0]


def test_logins_of_an_internationalized_domain_are_found() -> None:
    assert users._ascii_names({"i@bücher.example": 1.0}) == {"i@xn--bcher-kva.example": 1.0}


def test_a_credential_with_a_name(server: Server) -> None:
    done = server.run("add-user", "i@example.com", "--name", "phone")
    assert done.out.startswith(
        "Added i+phone@example.com, which sends as i@example.com. Its secret, which is shown"
    )
    assert "    user name   i+phone@example.com\n" in done.out
    match = re.search(SECRET, done.out)
    assert match
    assert server.users()["i+phone"].matches(match[0])
    check = ("check-password", "i@example.com", "--password-stdin", "--name", "phone")
    assert server.run(*check, stdin=match[0].encode()).status == 0
    found = json.loads(server.run("add-user", "i@example.com", "--name", "tv", "--json").out)
    assert (found["address"], found["user"]) == ("i@example.com", "i+tv@example.com")
    assert server.run("add-user", "i@example.com").status == 0
    assert set(server.users()) == {"i", "i+phone", "i+tv"}
    before = load.load(server.context.paths).created
    assert server.run("set-password", "i@example.com", "--name", "phone").status == 0
    assert not server.users()["i+phone"].matches(match[0])
    assert server.run(*check, stdin=match[0].encode()).err == (
        "error: this is not the password of i+phone@example.com\n"
    )
    assert load.load(server.context.paths).created == before


def test_removing_one_credential_or_all(server: Server) -> None:
    for name in ((), ("--name", "a"), ("--name", "b")):
        server.run("add-user", "i@example.com", *name)
    server.run("add-user", "you@example.com", "--name", "a")
    done = server.run("remove-user", "i@example.com", "--name", "a")
    assert done.out == "Removed i+a@example.com.\n"
    assert set(server.users()) == {"i", "i+b", "you+a"}
    done = server.run("remove-user", "i@example.com")
    assert done.out == "Removed i@example.com, and its credentials: b.\n"
    assert set(server.users()) == {"you+a"}
    done = server.run("remove-user", "you@example.com", "--name", "a")
    assert done.out == (
        "Removed you+a@example.com.\n"
        "It was the last of you@example.com, which is no user any more.\n"
    )
    assert server.users() == {}
    assert load.load(server.context.paths).created == {}


def test_a_removal_that_leaves_an_alias_without_an_end_says_so(server: Server) -> None:
    server.run("add-user", "i@example.com")
    put_domain(server.context.paths, EXAMPLE_ORG, aliases="a: i@example.com\nb: who\n")
    done = server.run("remove-user", "i@example.com")
    assert done.status == 0
    assert [line for line in done.err.splitlines() if line.startswith("warning")] == [
        "warning: a@example.org leads to i@example.com, which is nobody now"
    ]


@pytest.mark.parametrize("name", ["", "two words", "a+b", "a@b", "x" * 25, "é", "*", ".a"])
def test_names_that_no_credential_has(server: Server, name: str) -> None:
    done = server.run("add-user", "i@example.com", "--name", name)
    assert (done.status, done.out) == (2, "")
    assert "does not name a credential: 1 to 24 letters, digits and . _ -" in done.err
    assert server.users() == {}


def test_a_login_that_is_too_long(server: Server) -> None:
    done = server.run("add-user", f"{'i' * 50}@example.com", "--name", "x" * 20)
    assert done.status == 2
    assert "is too long: a login has at most 64 characters before the @" in done.err


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ("add-user i@example.com", 1, "i@example.com exists already"),
        (
            "add-user you@example.net",
            1,
            "example.net is not one of the domains served here (example.",
        ),
        ("add-user you@smtp.example.com", 1, "smtp.example.com is not one of the domains served"),
        ("add-user you", 2, "Invalid value for 'ADDRESS': 'you' is not an e-mail address"),
        (
            "add-user a@b@example.com",
            2,
            "Invalid value for 'ADDRESS': 'a@b@example.com' has more th",
        ),
        (
            "add-user a+b@example.com",
            2,
            "Invalid value for 'ADDRESS': 'a+b@example.com' has a + bef",
        ),
        (
            "add-user \x1b[2J@example.com",
            2,
            "Invalid value for 'ADDRESS': '\\x1b[2J@example.com' has",
        ),
        ("add-user", 2, "Missing argument 'ADDRESS'.\n  usage: tambo add-user [OPTIONS] ADDRESS"),
        ("add-user you@example.com secret", 2, "Got unexpected extra argument"),
        ("add-user you@example.com --password", 2, "No such option"),
        (
            "set-password you@example.com",
            1,
            "you@example.com is no user\n  fix: see who is: docker",
        ),
        ("set-password you@example.net", 1, "example.net is not one of the domains"),
        ("remove-user you@example.com", 1, "you@example.com is no user"),
        ("remove-user i@example.com --name tv", 1, "i+tv@example.com is no credential of a user"),
        ("set-password i@example.com --name tv", 1, "i+tv@example.com is no credential of a user"),
        ("set-password two@example.com", 1, "two@example.com is a user, but has only credentials"),
        ("check-password i@example.com --name tv --password-stdin", 1, "i+tv@example.com is no cr"),
        (
            "add-user two@example.com --name tv",
            1,
            "two+tv@example.com exists already\n  fix: to gi",
        ),
        ("remove-user you@example.net", 1, "example.net is not one of the domains"),
        ("check-password you@example.com --password-stdin", 1, "you@example.com is no user"),
    ],
)
def test_each_mistake_has_its_message_and_status(
    server: Server, arguments: str, status: int, message: str
) -> None:
    server.run("add-user", "i@example.com")
    server.run("add-user", "two@example.com", "--name", "tv")
    before = tree(server.context.paths.root)
    done = server.run(*arguments.split(" "))
    assert (done.status, done.out) == (status, "")
    assert done.err.startswith(f"error: {message}")
    assert "Traceback" not in done.err
    assert tree(server.context.paths.root) == before


def test_a_file_that_a_person_broke_is_not_written_over(server: Server) -> None:
    server.run("add-user", "i@example.com")
    path = server.context.paths.domain(EXAMPLE_COM) / "users"
    path.write_text(path.read_text() + "oops\n")
    before = tree(server.context.paths.data)
    for arguments in (("add-user", "you@example.com"), ("remove-user", "i@example.com"),
                      ("set-password", "i@example.com")):  # fmt: skip
        done = server.run(*arguments)
        assert done.status == 1
        assert "users: line 1" in done.err or "users: line" in done.err
        assert "the last good copy serves" in done.err
        assert "cp " in done.err
    assert tree(server.context.paths.data) == before


def test_other_users_and_schemes_survive_an_edit(server: Server) -> None:
    put_domain(
        server.context.paths, EXAMPLE_COM,
        users='users { key: "a" value { plain { password: "x" } } }\n'
        'users { key: "b" value { denied {} } }\n',
    )  # fmt: skip
    server.run("add-user", "i@example.com")
    found = server.users()
    assert (found["a"], found["b"]) == (Plain(b"x"), Denied())
    assert set(found) == {"a", "b", "i"}


def test_a_user_who_appears_meanwhile_is_not_written_over(server: Server) -> None:
    """While a person thinks of a password, another adds the same user."""
    real = userdb.generate

    def slowly() -> str:
        put_domain(
            server.context.paths, EXAMPLE_COM,
            users='users { key: "i" value { plain { password: "first" } } }',
        )  # fmt: skip
        return real()

    server.patch.setattr(userdb, "generate", slowly)
    done = server.run("add-user", "i@example.com")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: i@example.com exists already")
    assert server.users() == {"i": Plain(b"first")}


def test_a_failed_edit_leaves_everything(server: Server) -> None:
    """Between the lock and the end of the change something goes wrong."""
    before = tree(server.context.paths.root)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "/data/x")

    server.patch.setattr("entrypoint.converge.apply.write", fail)
    done = server.run("add-user", "i@example.com")
    assert (done.status, done.out) == (1, ""), "above all it shows no secret that does not work"
    assert done.err == "error: /data/x: No space left on device\n"
    assert tree(server.context.paths.root) == before


def test_a_busy_volume_is_said_so(server: Server) -> None:
    real = locks.edit_lock
    server.patch.setattr(locks, "edit_lock", lambda paths, ids: real(paths, ids, 0.02))
    with real(server.context.paths, server.context.ids):
        done = server.run("add-user", "i@example.com")
    assert (done.status, done.out) == (75, "")
    assert "another change has been going on" in done.err


# Twenty processes, each with the verb's whole way: lock, read, write, reconcile.
TWENTY = """
import os, sys
from entrypoint import cli
from entrypoint.commands.context import Context
from entrypoint.common.paths import Paths
from entrypoint.common.identity import Ids
from pathlib import Path
from tests.unit.kit import asked

root, settings = sys.argv[1], dict(item.split("=") for item in sys.argv[2:])
context = Context(asked(**settings), Paths(Path(root)), Ids.current())
Context.enter = classmethod(lambda cls: context)
start, go = os.pipe()
children = []
for number in range(20):
    pid = os.fork()
    if pid == 0:
        os.close(go)
        os.read(start, 1)  # all at once
        os._exit(cli.run(["add-user", f"u{number}@example.com"]))
    children.append(pid)
os.close(start)
os.close(go)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))
"""


def test_twenty_at_once_are_twenty_users(server: Server, tmp_path: Path) -> None:
    """chasquid-util's own command, run so, leaves two."""
    root = Path(__file__).parents[3]
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", TWENTY, str(tmp_path), *(f"{k}={v}" for k, v in SETTINGS.items())],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(server.users()) == {f"u{number}" for number in range(20)}
    served = userdb.parse((Paths(tmp_path).chasquid / "domains/example.com/users").read_text())
    assert set(server.users()) < set(served)
    secrets = re.findall(SECRET, done.stdout)
    assert len(set(secrets)) == 20
    found = server.users().values()
    assert all(any(user.matches(secret) for user in found) for secret in secrets)


def test_a_server_that_is_down_is_no_failure(server: Server) -> None:
    def fail(*_: object) -> None:
        raise AbsentError

    server.patch.setattr(rpc, "request", fail)
    done = server.run("add-user", "i@example.com")
    assert (done.status, done.err) == (0, NOTE)
