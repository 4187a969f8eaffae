"""The domains' records: all of `dns --check` but what `names` and `keys` look at themselves."""

from __future__ import annotations

from entrypoint.checks import verdicts
from entrypoint.checks.context import CheckContext
from entrypoint.common.findings import Finding
from entrypoint.dns.records import Role

NAMES = (Role.ADDRESS, Role.POINTER)  # the host's own: checks/names.py
KEYS = (Role.DKIM,)  # checks/keys.py


def check(context: CheckContext) -> list[Finding]:
    """A finding for each record that is not as `zone/required.py` has it."""
    own = [record for record in context.records if record.role not in (*NAMES, *KEYS)]
    found = [verdicts.finding(item) for item in verdicts.ask(context, own)]
    return [item for item in found if item]
