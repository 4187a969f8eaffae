"""chasquid.conf: a Jinja template, filled with checked values."""

from __future__ import annotations

from typing import Any

import jinja2

from entrypoint.chasquid import textproto

_environment = jinja2.Environment(
    loader=jinja2.PackageLoader("entrypoint.chasquid", "."),
    undefined=jinja2.StrictUndefined,
    autoescape=False,  # noqa: S701 (no HTML here: every string goes through `proto`)
    keep_trailing_newline=True,
)
_environment.filters["proto"] = lambda value: textproto.quote(str(value))


def render(name: str, **values: Any) -> str:
    """Raises jinja2.UndefinedError if a value that the template uses is not given."""
    return _environment.get_template(name).render(values)
