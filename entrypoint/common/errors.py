"""The one kind of error a person is meant to read: its exit codes, and how it quotes."""

from __future__ import annotations

from enum import IntEnum

_SHOWN = 60  # characters of a quotation


class Exit(IntEnum):
    """Exit statuses of every verb (64 and 75 as in sysexits.h)."""

    OK = 0
    WRONG = 1  # what was checked, or asked for, is not right
    USAGE = 2  # the command line
    SETTINGS = 64  # the environment
    TRY_AGAIN = 75  # nothing is wrong that waiting would not mend


class UserError(Exception):
    """Something its reader can mend: what happened, and the fix. Never holds a secret."""

    def __init__(self, message: str, fix: str = "", *, exit_code: Exit = Exit.WRONG) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


def shown(text: str) -> str:
    """`text` fit for a message: printable, quoted, short."""
    clean = ascii(text)
    if len(clean) <= _SHOWN:
        return clean
    return f"{clean[:_SHOWN]}…{clean[0]} ({len(text)} characters)"
