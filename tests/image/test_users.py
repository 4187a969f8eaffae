"""The verbs for users, on a running server."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.server import DOMAIN, HOST, Server

CHOSEN = "a choice of mine"


@pytest.fixture(scope="module")
def server(module_servers: Servers) -> Server:
    server = module_servers.make()
    server.up()
    server.add_user(f"there@{DOMAIN}")
    return server


def test_twenty_users_added_at_once_are_twenty_users(server: Server) -> None:
    addresses = [f"at-once-{number}@{DOMAIN}" for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda name: server.verb("add-user", name, "--json"), addresses))
    assert [result.status for result in results] == [0] * 20, results
    listed = [item["address"] for item in json.loads(server.ok("list-users", "--json"))]
    assert set(addresses) <= set(listed)
    assert len(listed) == len(set(listed))
    endpoint = server.endpoint()
    for address, result in zip(addresses, results, strict=True):
        assert smtp.can_log_in(endpoint, address, result.json()["secret"])


def test_one_user_added_twenty_times_at_once_is_added_once(server: Server) -> None:
    with ThreadPoolExecutor(20) as pool:
        results = list(
            pool.map(lambda _: server.verb("add-user", f"one@{DOMAIN}", "--json"), range(20))
        )
    [winner] = [result for result in results if result.status == 0]
    assert all("exists already" in result.stderr for result in results if result.status)
    assert smtp.can_log_in(server.endpoint(), f"one@{DOMAIN}", winner.json()["secret"])


@pytest.mark.parametrize(
    ("arguments", "given", "status", "words"),
    [
        (["no-at-sign"], "", 2, "not an e-mail address"),
        ([f"two words@{DOMAIN}"], "", 2, "part before the @"),
        (["i@example.org"], "", 1, "not one of the domains served here"),
        ([f"there@{DOMAIN}"], "", 1, "exists already"),
        ([f"new@{DOMAIN}", "--password-stdin"], "\n", 2, "the password is empty"),
        ([f"new@{DOMAIN}", "--password-stdin"], "short\n", 2, "at least 8"),
        ([f"new@{DOMAIN}", "--prompt"], "", 2, "no terminal"),
        ([], "", 2, "ADDRESS"),
    ],
    ids=["wrong", "blank", "unknown-domain", "exists", "empty", "short", "no-terminal", "missing"],
)
def test_each_mistake_has_its_own_message_and_status(
    server: Server, arguments: list[str], given: str, status: int, words: str
) -> None:
    users = server.data / "domains" / DOMAIN / "users"
    before = server.machine.read(users)
    result = server.verb("add-user", *arguments, input=given)
    assert result.status == status, result
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert server.machine.read(users) == before


@pytest.mark.parametrize("port", [smtp.SUBMISSION, smtp.SUBMISSIONS])
def test_a_new_user_can_log_in_at_once(server: Server, port: int) -> None:
    address = f"at-{port}@{DOMAIN}"
    secret = server.add_user(address)
    assert smtp.can_log_in(server.endpoint(), address, secret, port)
    assert not smtp.can_log_in(server.endpoint(), address, f"{secret}x", port)


def test_a_removed_user_is_refused_at_once(server: Server) -> None:
    address = f"leaver@{DOMAIN}"
    secret = server.add_user(address)
    assert smtp.can_log_in(server.endpoint(), address, secret)
    server.ok("remove-user", address)
    assert not smtp.can_log_in(server.endpoint(), address, secret)
    assert address not in server.ok("list-users")


def test_a_new_password_works_at_once_and_the_old_one_no_longer(server: Server) -> None:
    address = f"changer@{DOMAIN}"
    old = server.add_user(address)
    server.ok("set-password", address, "--password-stdin", input=f"{CHOSEN}\n")
    assert smtp.can_log_in(server.endpoint(), address, CHOSEN)
    assert not smtp.can_log_in(server.endpoint(), address, old)


def test_a_password_can_be_checked(server: Server) -> None:
    address = f"checked@{DOMAIN}"
    secret = server.add_user(address)

    def check(password: str) -> int:
        return server.verb("check-password", address, "--password-stdin", input=password).status

    assert check(f"{secret}\n") == 0
    assert check("another one\n") == 1


def test_adding_and_removing_a_user_restarts_nothing(server: Server) -> None:
    before = server.process("chasquid").pid
    server.add_user(f"quiet@{DOMAIN}")
    server.ok("remove-user", f"quiet@{DOMAIN}")
    assert server.process("chasquid").pid == before


def test_a_generated_secret_is_cheap_to_verify_and_a_chosen_one_dear(server: Server) -> None:
    """Under chasquid's default, each log-in of a web service would cost 35 ms of a CPU."""
    server.add_user(f"made@{DOMAIN}")
    server.ok("add-user", f"chosen@{DOMAIN}", "--password-stdin", input=f"{CHOSEN}\n")
    text = server.machine.read(server.data / "domains" / DOMAIN / "users")
    costs = dict(re.findall(r'key:\s*"(\w+)".*?logN:\s*(\d+)', text, re.DOTALL))
    assert (costs["made"], costs["chosen"]) == ("1", "12")


@pytest.mark.parametrize(
    ("answers", "status", "words"),
    [
        ([CHOSEN, CHOSEN], 0, "Added"),
        ([CHOSEN, "another one", CHOSEN, CHOSEN], 0, "Added"),
        (["", ""], 2, "the password is empty"),
    ],
    ids=["twice", "a-slip", "empty"],
)
def test_prompt_asks_twice_and_shows_nothing(
    server: Server, request: pytest.FixtureRequest, answers: list[str], status: int, words: str
) -> None:
    address = f"prompt-{request.node.callspec.id}@{DOMAIN}"
    seen, ended = server.container.type_in("add-user", address, "--prompt", answers=answers)
    assert ended == status
    assert words in seen
    assert CHOSEN not in seen
    if not status:
        assert smtp.can_log_in(server.endpoint(), address, answers[-1])


def test_what_add_user_prints_is_what_a_mail_program_needs(server: Server) -> None:
    address = f"reader@{DOMAIN}"
    printed = server.ok("add-user", address)
    match = re.search(r"^    ([a-z2-9-]{31})$", printed, re.MULTILINE)
    assert match, printed
    assert HOST in printed
    assert "465" in printed
    assert "587" in printed
    assert smtp.can_log_in(server.endpoint(), address, match[1])
    assert match[1] not in server.container.log()


def test_users_are_listed_for_programs_too(server: Server) -> None:
    listed = [item["address"] for item in json.loads(server.ok("list-users", "--json"))]
    shown = server.ok("list-users").splitlines()
    assert listed == [line for line in shown if not line.startswith((" ", "Times"))]
