"""docs/clients.md, as far as it can be judged without sending."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.recipes import Recipe, configurations, recipes, words

RECIPES = recipes()
SECTION = "### A client\n\n**Tested**, run:\n\n```sh\nsend smtp.example.com 465\n```\n"


def test_clients_that_matter_are_there() -> None:
    assert {recipe.name for recipe in RECIPES} >= {
        "Python: smtplib", "Node.js: nodemailer", "PHP: PHPMailer",
        "msmtp", "swaks", "git send-email",
    }  # fmt: skip


def test_configurations_are_those_that_have_a_test() -> None:
    files = {path for recipe in configurations() for path in recipe.files}
    assert files == {
        "/etc/postfix/main.cf", "/etc/postfix/password", "/etc/msmtprc", "/etc/aliases"
    }  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_each_sends_through_both_ports_and_its_failures_are_told(recipe: Recipe) -> None:
    changed = recipe.for_port_587()
    texts = [*changed.files.values(), *changed.commands]
    assert recipe.changes
    assert any("587" in text for text in texts)
    assert not any("465" in text or "smtps:" in text for text in texts)
    assert recipe.name in words()


def test_a_section_is_a_recipe(tmp_path: Path) -> None:
    document = tmp_path / "clients.md"
    change = "\n**Tested**, for port 587:\n\n```diff\n-send smtp.example.com 465\n+send 587\n```\n"
    document.write_text(SECTION + change)
    [recipe] = recipes(document)
    assert recipe.for_host("other.example.com").commands == ("send other.example.com 465\n",)
    assert recipe.for_port_587().commands == ("send 587\n",)


@pytest.mark.parametrize(
    "text",
    [
        SECTION.replace("run:", "run:\n\nBut how?"),
        SECTION.replace("run:", "perhaps:"),
        SECTION.replace("```sh", "    "),
    ],
)
def test_a_mark_that_means_nothing_is_an_error(tmp_path: Path, text: str) -> None:
    document = tmp_path / "clients.md"
    document.write_text(text)
    with pytest.raises(ValueError, match=r"\*\*Tested\*\*"):
        recipes(document)


def test_a_change_that_does_not_fit_is_an_error() -> None:
    recipe = Recipe("A client", {}, ("send 465\n",), (("send 25\n", "send 587\n"),))
    with pytest.raises(ValueError, match="not found exactly once"):
        recipe.for_port_587()
