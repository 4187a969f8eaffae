"""Whether a message is refused because the mailboxes that it would end in are full. Pure.

The hook answers once, for all recipients: 554 5.2.2 (RFC 3463) only if each of them ends in
Maildirs here alone, all of them over MAILBOX_MB. A Maildir whose size is unknown is not full. Mail
to postmaster and abuse is never refused for it (RFC 5321 4.5.1, RFC 2142).
"""

from __future__ import annotations

from collections.abc import Callable

from entrypoint.policy import decide
from entrypoint.policy.decide import Answer, Envelope, Rules
from entrypoint.policy.routes import mailboxes

ROLES = ("postmaster", "abuse")
_NAMED = 3  # mailboxes that a reply names


def concerned(rules: Rules, envelope: Envelope) -> frozenset[str]:
    """The mailboxes, name@domain, whose size decides on a message; none if it does not depend on
    any."""
    if not rules.mailbox_mb or not envelope.recipients:
        return frozenset()
    found: set[str] = set()
    for recipient in envelope.recipients:
        ends = mailboxes(rules.routes, recipient)
        if not ends or _is_role(recipient):
            return frozenset()
        found.update(ends)
    return frozenset(found)


def refusal(rules: Rules, envelope: Envelope, size: Callable[[str], int | None]) -> Answer | None:
    """Why a message is not taken; None if one recipient has room. `size` says how many bytes a
    mailbox has; None: unknown."""
    found = concerned(rules, envelope)
    if not found or not all(is_full(rules, size(name)) for name in found):
        return None
    names = sorted(found)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    said = ", ".join(names[:_NAMED]) + more
    subject = f"the mailboxes {said} are" if len(names) > 1 else f"the mailbox {said} is"
    return decide.refuse("5.2.2", f"{subject} full (over {rules.mailbox_mb} MB)", counts=True)


def is_full(rules: Rules, size: int | None) -> bool:
    """`size` is in bytes; one that is not known (None) is not full. MAILBOX_MB=0 is no limit."""
    return bool(rules.mailbox_mb) and size is not None and size >= rules.mailbox_mb << 20


def _is_role(address: str) -> bool:
    return decide.base(address.lower()).partition("@")[0] in ROLES
