"""Which files of chasquid's may go, and that no others do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from entrypoint.chasquid.maillog import Event, Kind
from entrypoint.services.removal import Removal
from tests.unit.kit import put


def removal(data: Path, *names: str, folder: str = "queue") -> Removal:
    files = {name: {"sender": "i@example.com", "recipients": ["you@a.example"]} for name in names}
    return Removal.parse(json.dumps({"folder": folder, "files": files}), data)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in (
        "queue/m:a",
        "queue/m:b",
        "queue/m:-c_9",
        "queue/.m:a1",
        "domaininfo/s:m%C3.example",
    ):
        put(tmp_path / name, "x")
    return tmp_path


def left(data: Path) -> set[str]:
    return {path.name for path in data.glob("*/*")}


def test_what_was_asked_for_goes_and_nothing_else(data: Path) -> None:
    before = left(data)
    asked = removal(data, "m:a", "m:gone", "m:-c_9")
    assert asked.told("m:a", 5) == Event(
        Kind.DROPPED, 5, "a", "i@example.com", ("you@a.example",)
    )  # fmt: skip
    assert not asked.is_void()
    assert list(asked.carry_out()) == ["m:a", "m:-c_9"]
    assert left(data) == before - {"m:a", "m:-c_9"}
    assert asked.is_void()
    assert list(asked.carry_out()) == []


def test_what_is_known_of_a_domain(data: Path) -> None:
    asked = removal(data, "s:m%C3.example", folder="domaininfo")
    assert asked.told("s:m%C3.example", 5).text == (
        "what chasquid knew of the TLS of m\ufffd.example is forgotten"
    )
    assert list(asked.carry_out()) == ["s:m%C3.example"]
    assert list(data.glob("domaininfo/*")) == []


def test_it_is_gone_for_good_when_that_is_said(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
    )
    assert list(removal(data, "m:a").carry_out()) == ["m:a"]
    assert synced == [str(data / "queue")]


def test_one_that_cannot_go_leaves_the_rest(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = os.unlink

    def fail(name: str, **how: Any) -> None:
        if name == "m:b":
            raise PermissionError(1, "Operation not permitted", name)
        unlink(name, **how)

    monkeypatch.setattr(os, "unlink", fail)
    gone: list[str] = []
    with pytest.raises(PermissionError):
        gone.extend(removal(data, "m:a", "m:b", "m:-c_9").carry_out())
    assert {"m:b", "m:-c_9"} <= left(data)
    assert "m:a" not in left(data)


@pytest.mark.parametrize(
    "name",
    ["", "m:", "a", ".", "..", "m:../../users", "m:a/../b", "m:a/b", "/etc/passwd", "m:a\0",
     "m:a\n", "s:a.example", ".m:a1", f"m:{'x' * 65}", "m:a b", "m:ü", "m:."],
)  # fmt: skip
def test_names_that_are_none_of_chasquids(data: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a file of chasquid's"):
        removal(data, "m:a", name)


@pytest.mark.parametrize("name", ["s:", "m:a", "s:../x", "s:a/b", f"s:{'x' * 254}"])
def test_names_that_are_of_no_domain(data: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a file of chasquid's"):
        removal(data, name, folder="domaininfo")


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "3", "null", "{}", '{"folder": "queue"}',
     '{"folder": "..", "files": {"m:a": ""}}', '{"folder": ["queue"], "files": {}}',
     '{"folder": "queue", "files": ["m:a"]}', '{"folder": "queue", "files": {"m:a": "dropped"}}',
     '{"folder": "queue", "files": {"m:a": 3}}'],
)  # fmt: skip
def test_requests_that_make_no_sense(data: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Removal.parse(text, data)


def test_the_log_is_no_place_for_control_characters(data: Path) -> None:
    hostile = "a\nb\x1b[31m"
    files = {"m:a": {"sender": hostile, "recipients": [hostile, 3]}, "m:b": {}}
    asked = Removal.parse(json.dumps({"folder": "queue", "files": files}), data)
    event = asked.told("m:a", 5)
    assert (event.sender, event.recipients) == ("a\\nb\\x1b[31m", ("a\\nb\\x1b[31m", "3"))
    assert asked.told("m:b", 5) == Event(Kind.DROPPED, 5, "b")
    files = {"s:a%0A%1B%5B31m": {}}
    asked = Removal.parse(json.dumps({"folder": "domaininfo", "files": files}), data)
    assert str(asked.told("s:a%0A%1B%5B31m", 5)).isprintable()


def test_links_folders_and_pipes_stay(data: Path) -> None:
    (data / "queue/m:link").symlink_to(data / "queue/m:a")
    (data / "queue/m:folder").mkdir()
    os.mkfifo(data / "queue/m:pipe")
    asked = removal(data, "m:link", "m:folder", "m:pipe")
    assert asked.is_void()
    assert list(asked.carry_out()) == []
    assert {"m:link", "m:folder", "m:pipe", "m:a"} <= left(data)


def test_a_folder_that_is_a_link_is_not_followed(data: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "queue").symlink_to(data / "queue")
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        removal(elsewhere, "m:a").is_void()
    assert "m:a" in left(data)


def test_no_folder_yet(tmp_path: Path) -> None:
    asked = removal(tmp_path / "absent", "m:a")
    assert asked.is_void()
    assert list(asked.carry_out()) == []
