"""How often a network may do something from which nobody logged in: the form of RATE_STRANGERS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from entrypoint.common.errors import shown

if TYPE_CHECKING:
    from pydantic_core import CoreSchema

_MOST = 1_000_000


@dataclass(frozen=True)
class Rates:
    """What one stranger's network may: connections at once, messages, unknown recipients and failed
    log-ins in an hour. None: as many as it likes."""

    connections: int | None = None
    messages: int | None = None
    unknown: int | None = None
    failures: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`20/conn,60/h,100/unknown,5/auth`, some of them, or `none`. Raises ValueError."""
        word = text.strip().lower()
        if word == "none":
            return cls()
        found: dict[str, int] = {}
        for part in re.split(r"[,\s]+", word):
            match = re.fullmatch(r"([0-9]{1,7})/(conn|h|unknown|auth)", part)
            if not match or match[2] in found or not 1 <= int(match[1]) <= _MOST:
                msg = (
                    f"{shown(text)} is no rate; write it as 20/conn,60/h,100/unknown,5/auth, "
                    "or none"
                )
                raise ValueError(msg)
            found[match[2]] = int(match[1])
        return cls(found.get("conn"), found.get("h"), found.get("unknown"), found.get("auth"))

    def __str__(self) -> str:
        pairs = (
            (self.connections, "conn"), (self.messages, "h"), (self.unknown, "unknown"),
            (self.failures, "auth"),
        )  # fmt: skip
        return ",".join(f"{number}/{name}" for number, name in pairs if number) or "none"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> CoreSchema:
        from pydantic_core import core_schema  # not for services/holder.py, which is small

        parsed = core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema())
        return core_schema.union_schema([core_schema.is_instance_schema(cls), parsed])
