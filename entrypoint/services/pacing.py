"""What the policy service asks the gate: may a login have one more message wait for a receiver?

Connections to the gate are kept and used again: there is a question for each message. Without the
gate mail is taken: it leaves unpaced then, and an alarm says so (services/outgoing.py).
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from entrypoint.policy import decide
from entrypoint.policy.decide import Answer, Envelope, Rules

_WAIT = 7.0  # seconds; the gate holds a submission for six
_MOST_IDLE = 16  # connections that are kept

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Pacing:
    """For one asyncio loop."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: list[_Connection] = []

    async def refusal(self, rules: Rules | None, envelope: Envelope) -> Answer | None:
        """That a login has too much waiting for a receiver; None if it has not, or nobody knows.

        It may take six seconds. What is not taken afterwards: see `withdraw`.
        """
        login, outside = decide.login_of(envelope), _outside(rules, envelope)
        if not login or not outside:
            return None
        answer = await self._ask("admit", {"login": login, "to": outside})
        if answer.get("admitted", True):
            return None
        seconds = decide.duration(math.ceil(float(answer["seconds"])))
        return decide.later(
            "4.7.1",
            f"{answer['waiting']} messages of {login} wait for {answer['receiver']} already; "
            f"try again in {seconds}",
        )

    async def withdraw(self, rules: Rules | None, envelope: Envelope) -> None:
        """The message was refused after all, and waits for nobody."""
        if decide.login_of(envelope) and (outside := _outside(rules, envelope)):
            await self._ask("withdraw", {"to": outside})

    async def close(self) -> None:
        """Give the kept connections up."""
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

    async def _ask(self, command: str, content: dict[str, Any]) -> dict[str, Any]:
        """Empty if the gate does not answer."""
        line = f"{command} {json.dumps(content)}\n".encode()
        fresh = not self._idle
        connection: _Connection | None = None
        with suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(_WAIT):
                connection = (
                    await asyncio.open_unix_connection(str(self.path))
                    if fresh
                    else self._idle.pop()
                )
                reader, writer = connection
                writer.write(line)
                if said := await reader.readline():
                    if len(self._idle) < _MOST_IDLE:
                        self._idle.append(connection)
                    else:
                        writer.close()
                    answer = json.loads(said)
                    return answer if isinstance(answer, dict) else {}
        if connection:
            connection[1].close()
        if not fresh:  # the gate that it was to has gone, perhaps; there may be another
            await self.close()
            return await self._ask(command, content)
        return {}


def _outside(rules: Rules | None, envelope: Envelope) -> Sequence[str]:
    ours = rules.domains if rules else frozenset()
    return [to for to in envelope.recipients if to.rpartition("@")[2].lower() not in ours]
