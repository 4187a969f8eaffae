"""Settings that must be refused: tests/cases/bad_env."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from entrypoint import cli
from entrypoint.common import identity
from entrypoint.common.errors import Exit, UserError
from entrypoint.settings import environment
from tests.support.cases import Case, case_id, cases
from tests.unit.kit import put

BAD = cases("bad_env")
# Their problems depend on each other's values.
TIED = {"MAIL_HOSTNAME", "MAIL_DOMAINS", "MAIL_RECEIVE", "FORWARD_TO"}
PLAIN_HOST = "smtp.example.com"


def error_of(environ: dict[str, str]) -> UserError:
    with pytest.raises(UserError) as caught:
        environment.load(environ)
    return caught.value


def problems_of(error: UserError) -> list[str]:
    head, *lines = error.message.splitlines()
    number = re.fullmatch(r"The settings have (\d+) problems?:", head)
    assert number, "the first line says how many"
    assert int(number[1]) == len(lines), "and is right"
    return lines


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files of a case stand."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(case: Case, place: Path) -> dict[str, str]:
    environ, files = case.environ()
    for name, content in files.items():
        put(place / name, content)
    return environ


def test_there_are_enough() -> None:
    assert len(BAD) >= 80


@pytest.mark.parametrize("case", BAD, ids=case_id)
def test_says_what_is_wrong(case: Case, place: Path, regenerate: bool) -> None:
    error = error_of(opened(case, place))
    if regenerate:
        case.write({"error": f"{error}\n"})
    assert f"{error}\n" == case.sections["error"]
    assert error.exit_code is Exit.SETTINGS
    assert int(error.exit_code) == 64
    assert problems_of(error)


@pytest.mark.parametrize("case", BAD, ids=case_id)
def test_lets_nothing_hostile_out(case: Case, place: Path) -> None:
    """What came in stands escaped and short; what a file held does not stand there at all."""
    environ = opened(case, place)
    text = str(error_of(environ))
    assert re.fullmatch(r"[ -~\n…]+", text), "printable ASCII, and the sign of an omission"
    assert max(map(len, text.splitlines())) < 300
    _, files = case.environ()
    for name, content in files.items():
        for word in content.decode(errors="replace").split():
            assert word not in text.replace(name, ""), f"{name} holds it"


def test_each_fails_for_its_own_reason() -> None:
    texts = [case.sections["error"] for case in BAD]
    assert len(set(texts)) == len(texts)


def test_all_problems_are_listed_at_once(place: Path) -> None:
    """Several bad environments together have the problems of each."""
    batches: list[list[tuple[Case, dict[str, str]]]] = []
    for case in BAD:
        environ = opened(case, place)
        for batch in batches:
            if all(may_share(environ, other) for _, other in batch):
                batch.append((case, environ))
                break
        else:
            batches.append([(case, environ)])
    assert max(map(len, batches)) >= 8, "else this tests little"
    for batch in batches:
        together: dict[str, str] = {}
        for _, environ in batch:
            together |= environ
        apart = [line for case, _ in batch for line in case.sections["error"].splitlines()[1:-1]]
        assert sorted(problems_of(error_of(together))) == sorted(apart)


def may_share(one: dict[str, str], other: dict[str, str]) -> bool:
    def own(environ: dict[str, str]) -> set[str]:
        return {
            name.removesuffix("_FILE")
            for name, value in environ.items()
            if (name, value) != ("MAIL_HOSTNAME", PLAIN_HOST)
        }

    def plain(environ: dict[str, str]) -> bool:
        return environ.get("MAIL_HOSTNAME") == PLAIN_HOST

    if own(one) & own(other) or not (plain(one) and plain(other)):
        return False
    tied = bool(own(one) & TIED) and bool(own(other) & TIED)
    return not tied


def test_the_command_says_it_and_exits_with_64(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for harm in ("drop", "mend"):
        monkeypatch.setattr(identity, harm, lambda *_: pytest.fail("went on"))
    monkeypatch.setattr("os.environ", {"MAIL_HOSTNAME": "smtp", "MAIL_DOMAN": "example.com"})
    assert cli.run(["list-users"]) == 64
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: The settings have 2 problems:\n  MAIL_DOMAN is not")
    assert err.endswith(
        "\n  fix: correct .env, then: docker compose up -d. All settings: docs/settings.md\n"
    )
