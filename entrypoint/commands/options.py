"""Types of parameters that several verbs share."""

from __future__ import annotations

from typing import Any

import click

from entrypoint.policy.grants import Grant


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
