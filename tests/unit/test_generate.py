"""The files that are made from what is defined elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from entrypoint.settings import environment, values
from entrypoint.settings.model import Settings
from tools import generate

NAMES = [
    f"{field.upper()}_FILE" if values.BY_FILE in info.metadata else field.upper()
    for field, info in Settings.model_fields.items()
    if info.examples
]


def test_the_files_in_the_repository_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["generate", "--check"])
    generate.main()


def test_a_stale_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs").mkdir()
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate"])
    generate.main()
    monkeypatch.setattr(sys, "argv", ["generate", "--check"])
    generate.main()
    (tmp_path / ".env.example").write_text("# old\n")
    with pytest.raises(
        SystemExit, match=r"^\.env\.example differ from what is defined; run: make gen"
    ):
        generate.main()


def test_every_module_is_on_the_map_once() -> None:
    text = generate.code_map()
    package = generate.SOURCE / "entrypoint"
    modules = [path for path in package.glob("*/*.py") if path.stem != "__init__"]
    assert modules
    assert text.count("\n| `") == len(modules)
    for room in {path.parent.name for path in modules} | {"cli", "boot"}:
        assert text.count(f"\n## {room}\n") == 1


def test_every_setting_is_in_both() -> None:
    example, page = generate.env_example(), generate.settings_page()
    for name in NAMES:
        assert f"\n{name}=" in example or f"\n#{name}=" in example
        assert f"\n## {name}\n" in page
        assert f"Example: `{name}=" in page


def test_the_example_is_a_working_env_file() -> None:
    """As it is; and its only line that is no comment is the only setting that is needed."""
    lines = [line for line in generate.env_example().splitlines() if line and line[0] != "#"]
    environ = dict(line.split("=", 1) for line in lines)
    assert environ == {"MAIL_HOSTNAME": "smtp.example.com"}
    environment.load(environ)


def test_every_setting_has_a_default_or_is_needed() -> None:
    for part in generate.settings_page().split("\n## ")[1:]:
        assert ("Required." in part) + ("Default:" in part) == 1, part
        assert max(map(len, part.splitlines())) <= 100


def test_durations_read_as_they_are_written() -> None:
    assert "Default: `5d`." in generate.settings_page()
    assert "432000" not in generate.settings_page()
