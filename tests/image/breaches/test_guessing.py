"""A login at which somebody guesses from anywhere: the owner goes on from where he was, and a right
guess from elsewhere is worth nothing. The owner has IPv4 here, and who guesses IPv6.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.image.breaches.test_old_sessions import send
from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.server import DOMAIN, Server
from tests.support.smtp import Endpoint
from tests.support.wait import wait_until

CHOSEN = "a choice of mine"
LOGIN = f"i@{DOMAIN}"


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    # Without a limit by address: who guesses has as many addresses as it takes.
    server = module_servers.make({"RATE_STRANGERS": "none"})
    server.up()
    server.log.tolerate("auth failed", "rejected", "refused", "somebody guesses")
    return server


def can_log_in(endpoint: Endpoint) -> bool:
    return smtp.can_log_in(endpoint, LOGIN, CHOSEN)


def test_guesses_from_many_addresses_end_and_the_owner_goes_on(server: Server) -> None:
    server.ok("add-user", LOGIN, "--password-stdin", input=f"{CHOSEN}\n")
    named = server.verb("add-user", LOGIN, "--name", "phone", "--json").json()["secret"]
    owner, guesser = server.endpoint(), server.endpoint(server.ipv6)
    assert can_log_in(owner)
    with ThreadPoolExecutor(10) as pool:
        tries = [pool.submit(smtp.can_log_in, guesser, LOGIN, f"wrong-{n}") for n in range(25)]
        assert not any(item.result() for item in tries)
    server.log.expect(f"note: somebody guesses at the password of {LOGIN}")
    wait_until(lambda: "somebody guesses" in server.container.log(), "it is seen")

    assert not can_log_in(guesser), "a right guess is not even checked"
    assert can_log_in(owner), "the owner goes on from where he was"
    with smtp.mail_program(owner) as mine:
        mine.login(LOGIN, CHOSEN)
        assert send(mine, LOGIN).startswith("250 ")
        with smtp.mail_program(guesser) as theirs:
            theirs.login(LOGIN, CHOSEN)  # checked, as the owner is there
            assert "4.7.1 somebody guesses" in send(theirs, LOGIN)
    with smtp.mail_program(guesser) as elsewhere:
        elsewhere.login(f"i+phone@{DOMAIN}", named)
        assert send(elsewhere, LOGIN).startswith("250 "), "nobody guesses a generated secret"

    server.down()
    server.up()
    wait_until(lambda: "somebody guesses" in server.last_boot(), "it is not forgotten")
    assert not can_log_in(guesser)
    assert can_log_in(owner)
