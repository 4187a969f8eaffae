"""Configuration text; tests/cases/env has whole ones, test_hostile.py the attacks."""

from __future__ import annotations

import jinja2
import pytest

from entrypoint.chasquid import config
from tests.unit import chasquid_reference

VALUES = {
    "hostname": "smtp.example.com", "data_dir": "/data/chasquid", "max_message_mb": 25,
    "max_queue": 2000, "give_up_after": "432000s", "delivery_agent": "/usr/lib/tambo/mda",
    "auth_socket": "/run/tambo/auth.sock", "auth_users": "/run/tambo/auth-users.sock",
}  # fmt: skip


def test_it_renders() -> None:
    fields = chasquid_reference.read_config(config.render("chasquid.conf.j2", **VALUES))
    assert fields["hostname"] == "smtp.example.com"


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_is_missing_is_no_empty_one(name: str) -> None:
    values = {key: value for key, value in VALUES.items() if key != name}
    with pytest.raises(jinja2.UndefinedError, match=name):
        config.render("chasquid.conf.j2", **values)


def test_numbers_are_numbers() -> None:
    text = config.render("chasquid.conf.j2", **{**VALUES, "max_queue": "5\nhostname: 'x'"})
    assert chasquid_reference.read_config(text).get("max_queue_items", 0) == 0
    assert chasquid_reference.read_config(text)["hostname"] == "smtp.example.com"
