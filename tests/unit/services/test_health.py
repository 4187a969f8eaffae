"""What health says of the pace at which mail leaves."""

from __future__ import annotations

from typing import Any

import pytest

from entrypoint.services import health


@pytest.mark.parametrize(
    ("outgoing", "connections", "said"),
    [
        ({}, {}, None),
        ({"paced": True, "gate": True, "seconds": 500.0}, {"watched": True, "why": ""}, None),
        ({"paced": True, "gate": False, "seconds": 2.0}, {"watched": True, "why": ""}, None),
        (
            {"paced": True, "gate": False, "seconds": 42.4},
            {"watched": True, "why": ""},
            "the gate has not answered for 42 s",
        ),
        (
            {"paced": False, "gate": False, "seconds": 500.0},
            {"watched": False, "why": "Operation not permitted"},
            "connections cannot be watched here (Operation not permitted)",
        ),
    ],
    ids=["no holder", "paced", "gate just gone", "gate away", "not allowed"],
)
def test_mail_that_leaves_unpaced_is_said_with_the_reason(
    outgoing: dict[str, Any], connections: dict[str, Any], said: str | None
) -> None:
    found = health._pace(outgoing, connections)
    if said is None:
        assert found == []
    else:
        [text] = found
        assert text.startswith("mail leaves unpaced")
        assert said in text
        assert "docker" in text
