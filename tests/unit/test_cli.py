"""The verbs: one table, one catcher of errors, one place of exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from entrypoint import cli
from entrypoint.commands.context import Context
from entrypoint.common.errors import Exit, UserError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Gives a verb called `dns` another body."""

    def replace(body: Callable[[], object]) -> None:
        monkeypatch.setattr("entrypoint.commands.dns.dns", click.command("dns")(body))

    return replace


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_explains_itself_without_reading_anything(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Context, "enter", lambda *_: pytest.fail("it reads the settings"))
    for option in ("--help", "-h"):
        assert cli.run([name, option]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert f"Usage: tambo {name} " in out
        calls = [f"docker exec {option}mail {name}" for option in ("", "-i ", "-it ")]
        assert any(call in out for call in (*calls, f"-v ./data:/data tambo {name}"))
        assert "Example: " in out
        options = out.partition("Options:")[2].splitlines()
        assert all(len(line.split()) > 1 for line in options if line.startswith("  -"))


def test_the_help_lists_the_verbs_and_nothing_internal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    out = capsys.readouterr().out
    listed = [line.split()[0] for line in out.partition("Commands:\n")[2].splitlines() if line]
    assert listed == list(cli.VERBS)


def test_the_images_links(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["verbs"]) == 0
    assert capsys.readouterr().out.split() == list(cli.VERBS)


def test_internal_verbs_exist() -> None:
    for name in cli.INTERNAL:
        assert cli.run([name, "--help"]) == 0


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UserError("it is broken"), 1, "error: it is broken\n"),
        (UserError("busy", "wait", exit_code=Exit.TRY_AGAIN), 75, "error: busy\n  fix: wait\n"),
        (UserError("x", exit_code=Exit.SETTINGS), 64, "error: x\n"),
        (UserError("x", exit_code=Exit.USAGE), 2, "error: x\n"),
        (OSError(28, "No space left on device", "/data/x"), 1,
         "error: /data/x: No space left on device\n"),
        (OSError(5, "Input/output error"), 1, "error: Input/output error\n"),
        (OSError("odd"), 1, "error: odd\n"),
        (FileNotFoundError(2, "No such file or directory", "/a"), 1,
         "error: /a: No such file or directory\n"),
        (click.UsageError("not so"), 2, "error: not so\n"),
        (click.Abort(), 130, "aborted\n"),
        (KeyboardInterrupt(), 130, "aborted\n"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)  # fmt: skip
def test_each_error_has_its_status_and_words(
    verb: Callable[[Callable[[], object]], None], capsys: pytest.CaptureFixture[str],
    error: BaseException, status: int, text: str,
) -> None:  # fmt: skip
    def fail() -> None:
        raise error

    verb(fail)
    assert cli.run(["dns"]) == status
    out, err = capsys.readouterr()
    assert out == ""
    # click ends the line on which ^C stands; to a usage error the usage is added.
    assert err.lstrip("\n").startswith(text)
    assert err.lstrip("\n") == text or isinstance(error, click.UsageError)


def test_a_bug_is_not_hidden(verb: Callable[[Callable[[], object]], None]) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    verb(fail)
    with pytest.raises(ZeroDivisionError):
        cli.run(["dns"])


@pytest.mark.parametrize(
    ("returned", "status"), [(None, 0), (0, 0), (1, 1), (Exit.TRY_AGAIN, 75), ("text", 0)]
)
def test_what_a_verb_returns(
    verb: Callable[[Callable[[], object]], None], returned: object, status: int
) -> None:
    verb(lambda: returned)
    assert cli.run(["dns"]) == status


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["no-such-verb"], "error: No such command 'no-such-verb'."),
        (["--no-such-option"], "error: No such option"),
        (["list-users", "extra"], "error: Got unexpected extra argument"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(text)
    assert "\n  usage: tambo " in err


def test_a_verb_of_almost_that_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["adduser"]) == 2
    assert "adduser" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "arguments"),
    [
        (["/usr/local/bin/tambo", "dns", "--json"], ["dns", "--json"]),
        (["/usr/local/bin/dns", "--json"], ["dns", "--json"]),
        (["add-user", "i@example.com"], ["add-user", "i@example.com"]),
        (["/usr/local/bin/tambo"], []),
    ],
)
def test_a_link_may_be_named_like_the_verb(
    argv: list[str], arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def run(given: list[str]) -> int:
        ran.append(given)
        return 75

    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(cli, "run", run)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert ran == [arguments]
    assert caught.value.code == 75


def test_as_a_real_process(tmp_path: Path) -> None:
    """Results on standard output, words on standard error, the status from the table."""
    link = tmp_path / "list-users"
    link.write_text(f"#!{sys.executable}\nfrom entrypoint.cli import main\nmain()\n")
    link.chmod(0o755)
    environ = {"PYTHONPATH": str(REPOSITORY), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    done = subprocess.run(  # noqa: S603
        [link], env={**environ, "MAIL_HOSTNAME": "smtp"}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith(
        "error: The settings have 1 problem:\n  MAIL_HOSTNAME: 'smtp' has"
    )
