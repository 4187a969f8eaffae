"""Where mail to a recipient goes, of which nobody can say."""

from __future__ import annotations

import pytest

from entrypoint.policy import routes
from entrypoint.policy.routes import Route

KNOWN = {"example.com": Route({"i": False, "out": True}, kept={"i": ("i@example.com",)})}
NO_DOMAIN = ["i@", "i@ex ample.com", "i@-", "i"]


@pytest.mark.parametrize("recipient", NO_DOMAIN)
def test_what_has_no_domain_is_taken_to_leave_and_to_end_in_no_mailbox(recipient: str) -> None:
    assert routes.leaves(KNOWN, recipient) is True
    assert routes.mailboxes(KNOWN, recipient) == ()
    assert routes.received_elsewhere(KNOWN, recipient) is None


def test_a_domain_that_is_in_no_route_is_not_ours() -> None:
    assert routes.leaves(KNOWN, "i@example.net") is False
    assert routes.mailboxes(KNOWN, "i@example.net") == ()
    assert routes.received_elsewhere(KNOWN, "i@example.net") is None


def test_without_any_route_all_mail_may_leave() -> None:
    assert routes.leaves({}, "i@example.com") is True
