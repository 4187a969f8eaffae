"""The senders file."""

from __future__ import annotations

import pytest

from entrypoint.common.limit import Limit
from entrypoint.common.names import Domain
from entrypoint.policy import grants
from entrypoint.policy.grants import Grant, Sender

TEXT = """\
# who may do more

i   may-send=*@example.com,X@example.org limit=1000/h
j limit=none
k+news may-send=a@example.com may-send=b@example.com
"""


def test_it_is_read_and_written() -> None:
    found = grants.parse(TEXT)
    assert found == {
        "i": Sender(
            (Grant(None, Domain("example.com")), Grant("x", Domain("example.org"))), Limit(1000)
        ),
        "j": Sender(limit=Limit()),
        "k+news": Sender((Grant("a", Domain("example.com")), Grant("b", Domain("example.com")))),
    }
    assert grants.parse(grants.render(found)) == found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("i@example.com limit=1/h", "without its @domain"),
        ("i\ni", "line 2: 'i' stands twice"),
        ("i limit=1/x", "not a limit"),
        ("i limit=1/h limit=2/h", "neither"),
        ("i may-send=a*@example.com", "a whole name"),
        ("i may-send=example.com", "not an e-mail address"),
        ("i anything", "neither"),
        ("<i> limit=1/h", "not a login's name"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        grants.parse(text)


def test_a_login_with_nothing_special_has_no_line() -> None:
    assert grants.render({"i": Sender()}) == ""


@pytest.mark.parametrize("word", ["may-send", "limit", "x=1/h", "may-send:a@example.com"])
def test_a_word_is_a_permission_or_a_limit(word: str) -> None:
    with pytest.raises(ValueError, match="is neither may-send=… nor limit=…"):
        grants.parse(f"i {word}")


def test_a_star_alone_is_no_address() -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Grant.parse("*")
    assert str(grants.SenderError(3)) == "line 3: "
