"""A new source address begins with few messages a day for each operator. Pure.

Receivers know nothing of a new address, and put off or block what sends much at once. `now` is
seconds since 1970; a day is a day of UTC.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DOUBLING = 3  # days after which the ceiling is twice as high
WARM = 31  # the day from which there is none: it would be a thousand times the first day's
HOLDING = 0.005  # share of a day's messages; where more are put off, the ceiling stays
_DAY = 86400


@dataclass(frozen=True)
class Plan:
    """Messages on the first day, and where the figure comes from."""

    first: int
    source: str


# No operator publishes a figure. These stay at or below what those who send for others advise, and
# rise more slowly: twice in three days, where they say half as much again or twice from day to day.
COMMON = Plan(
    50,
    "https://www.connected.app/library/email-protocols/deliverability/articles/"
    "warming-up-ip-addresses-ui0acap: 50 to 100 on the first day; "
    "https://www.suped.com/knowledge/email-deliverability/sender-reputation/"
    "what-is-the-best-ip-and-domain-warm-up-strategy-for-gmail-and-microsoft: low hundreds to each",
)
# They say that they count by address, and keep the figure secret or low.
STRICT = Plan(
    20,
    "no figure; https://smtp.codes/qq: the limits are not disclosed; "
    "https://postmaster.t-online.de/: servers that are not known are refused",
)
PLANS: dict[str, Plan] = {
    "t-online": STRICT,
    "orange": STRICT,
    "qq": STRICT,
    "163": STRICT,
}  # by operator; all others, known or not: COMMON


class Warmup:
    """How far one source address has come with one operator.

    Its day is that of the plan, not of the calendar: one on which nothing was sent does not count,
    for the operator has learnt nothing, and neither does one on which more than 0.5 % was put off.
    """

    def __init__(self, address: str, operator: str) -> None:
        """`operator` is an operator's id, or the key that stands for an unknown one."""
        self.address = address
        self.operator = operator
        self.day = 1
        self.sent_today = 0
        self.deferred_today = 0
        self._today: int | None = None  # days since 1970

    def ceiling(self, now: float) -> int | None:
        """Messages that may be sent today; None: any number, it is warm."""
        self._turn(now)
        if self.day >= WARM:
            return None
        plan = PLANS.get(self.operator, COMMON)
        return plan.first << ((self.day - 1) // DOUBLING)

    def may_send(self, now: float) -> bool:
        """Whether one more may go today."""
        ceiling = self.ceiling(now)
        return ceiling is None or self.sent_today < ceiling

    def sent(self, now: float) -> None:
        """One goes now. To be told as it begins: else several at once pass the ceiling."""
        self._turn(now)
        self.sent_today += 1

    def unsent(self, now: float) -> None:
        """One that was told as sent never reached the operator: no connection came about."""
        self._turn(now)
        self.sent_today = max(0, self.sent_today - 1)

    def deferred(self, now: float) -> None:
        """One was put off. It counts for the day on which that is told."""
        self._turn(now)
        self.deferred_today += 1

    def deferred_share(self, now: float) -> float:
        """What part of today's messages was put off: 0.01 is one of a hundred."""
        self._turn(now)
        return self._share()

    def words(self, now: float) -> str:
        """How it stands, for people: "day 9, 120 of 200 today, none put off"."""
        ceiling = self.ceiling(now)
        if ceiling is None:
            return f"warm, {self.sent_today} today, {self.deferred_today or 'none'} put off"
        held = "; the ceiling stays" if self.deferred_share(now) > HOLDING else ""
        return (
            f"day {self.day}, {self.sent_today} of {ceiling} today, "
            f"{self.deferred_today or 'none'} put off{held}"
        )

    def to_json(self) -> dict[str, Any]:
        """All of it: the ceiling holds over a restart, to the message."""
        return {
            "address": self.address,
            "operator": self.operator,
            "day": self.day,
            "today": self._today,
            "sent": self.sent_today,
            "deferred": self.deferred_today,
        }

    @classmethod
    def from_json(cls, kept: object) -> Warmup:
        """As it was kept. ValueError: it is none that was; better no warm-up known than a wrong
        one."""
        if not isinstance(kept, dict):
            raise ValueError(f"a warm-up is an object, not {type(kept).__name__}")
        address, operator = kept.get("address"), kept.get("operator")
        if not isinstance(address, str) or not isinstance(operator, str):
            raise ValueError("a warm-up has an address and an operator")
        warmup = cls(address, operator)
        warmup.day = _whole(kept, "day", 1)
        warmup.sent_today = _whole(kept, "sent", 0)
        warmup.deferred_today = _whole(kept, "deferred", 0)
        if kept.get("today") is not None:
            warmup._today = _whole(kept, "today", 0)
        return warmup

    def _share(self) -> float:
        return self.deferred_today / max(1, self.sent_today, self.deferred_today)

    def _turn(self, now: float) -> None:
        """Begins a new day. A clock that went back begins none: it would give a day's twice."""
        today = int(now // _DAY)
        if self._today is None:
            self._today = today
        if today <= self._today:
            return
        if self.sent_today and self._share() <= HOLDING:
            self.day = min(self.day + 1, WARM)
        self._today = today
        self.sent_today = self.deferred_today = 0


def _whole(kept: dict[str, Any], name: str, least: int) -> int:
    value = kept.get(name)
    if type(value) is not int or value < least:
        raise ValueError(f"a warm-up's {name} is a whole number from {least}, not {value!r}")
    return value
