"""Types of parameters that several verbs share."""

from __future__ import annotations

import re
from typing import Any

import click

from entrypoint.policy.grants import Grant

_UNITS = {"m": 60, "h": 3600, "d": 86400}  # in seconds


class GrantType(click.ParamType[Grant]):
    """What a login may send as: an address, or *@DOMAIN. A bad one is an error of usage."""

    name = "ADDRESS"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Grant:
        try:
            return Grant.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class SecondsType(click.ParamType[int]):
    """`90m`, `2h`, `3d` as seconds. A bad one is an error of usage."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"([1-9][0-9]{0,3})([mhd])", str(value).strip().lower())
        if not match:
            self.fail(f"{value!r} is no time; write a number and m, h or d, as 2h", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


SECONDS = SecondsType()
