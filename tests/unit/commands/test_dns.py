"""Printing the records; what they are is tested in tests/unit/dns, what they look like in cases."""

from __future__ import annotations

import json

import pytest

from entrypoint.state import load
from entrypoint.zone import address, render
from entrypoint.zone.required import required
from tests.unit.commands.conftest import Server


def records_of(server: Server) -> tuple[str, str, str]:
    """Table, zone and JSON as the boot would have them."""
    wanted = server.context.settings
    found = required(wanted, load.load(server.context.paths), address.find(wanted))
    return render.table(found), render.zone(found), render.as_json(found) + "\n"


def test_the_three_formats(server: Server) -> None:
    table, zone, as_json = records_of(server)
    assert server.run("dns").out.startswith(table)
    assert server.run("dns", "--format", "table").out.startswith(table)
    assert server.run("dns", "--format", "zone").out == zone
    assert server.run("dns", "--format", "json").out == as_json
    assert server.run("dns", "--json").out == as_json
    assert json.loads(as_json)[0]["name"] == "smtp.example.com"


def test_what_is_printed_is_nothing_else(server: Server) -> None:
    """So that `dns --format zone > zone` is a zone."""
    done = server.run("dns", "--format", "zone")
    assert (done.status, done.err) == (0, "")
    assert "\033" not in done.out


@pytest.mark.parametrize("is_terminal", [True, False])
def test_colour_is_for_terminals(server: Server, is_terminal: bool) -> None:
    import sys

    server.patch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    assert ("\033[1m" in server.run("dns").out) is is_terminal


def test_an_unknown_format(server: Server) -> None:
    done = server.run("dns", "--format", "bind")
    assert (done.status, done.out) == (2, "")
    assert "'bind' is not one of 'table', 'zone', 'json'" in done.err


def test_it_says_where_the_address_is_known_from(server: Server) -> None:
    lines = server.run("dns").out.splitlines()
    assert lines[-2:] == [
        "This server's IPv4 address: 203.0.113.10, as PUBLIC_IPV4 says.",
        "This server's IPv6 address: 2001:db8::10, as PUBLIC_IPV6 says.",
    ]
