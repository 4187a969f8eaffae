"""A less privileged user inside the container: what it plants leads root nowhere.

tambo's user owns /run/tambo and data/state, where root writes too; a keeper that was taken over
could put links there.
"""

from __future__ import annotations

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.container import checked
from tests.support.server import DOMAIN, Server
from tests.support.wait import wait_until

VICTIM = "/run/victim"  # root's own, beside /run/tambo
AS_IT_WAS = "as it was"


@pytest.fixture
def server(servers: Servers) -> Server:
    server = servers.make()
    server.up()
    server.wait_until_healthy()
    checked(
        server.container.exec("sh", "-c", f"printf '{AS_IT_WAS}' >{VICTIM}; chmod 600 {VICTIM}")
    )
    return server


def plant(server: Server, *paths: str, target: str = VICTIM) -> None:
    """Links in these places, by tambo's user."""
    for path in paths:
        checked(
            server.container.exec("sh", "-c", f"rm -rf {path}; ln -s {target} {path}", user="tambo")
        )


def kill(server: Server, name: str) -> None:
    """Kill a program, and wait for PID 1 to have another one."""
    before = server.process(name).pid
    server.machine.kill(before)
    wait_until(
        lambda: server.processes(name) and server.process(name).pid != before,
        f"there is another {name}", timeout=20,
    )  # fmt: skip


def victim(server: Server) -> tuple[str, str]:
    """What it holds, and whose it is with which rights."""
    content = checked(server.container.exec("cat", VICTIM)).stdout
    return content, checked(server.container.exec("stat", "-c", "%U:%G %a", VICTIM)).stdout.strip()


def test_nobody_becomes_somebody_else_by_a_program_of_the_image(server: Server) -> None:
    found = checked(server.container.exec("find", "/", "-xdev", "-type", "f", "-perm", "/6000"))
    assert found.stdout == ""


def test_what_the_first_process_writes_goes_where_it_belongs(server: Server) -> None:
    server.log.tolerate("the policy service had died")
    plant(server, "/run/tambo/.programs.json.new", "/run/tambo/programs.json")
    kill(server, "policy")
    wait_until(
        lambda: server.container.exec("test", "-f", "/run/tambo/programs.json", "-a", "!", "-L",
                                      "/run/tambo/programs.json").status == 0,
        "the file is there again",
    )  # fmt: skip
    assert victim(server) == (AS_IT_WAS, "root:root 600")


@pytest.mark.parametrize("program", ["policy", "recorder"])
def test_a_socket_s_owner_is_given_to_the_socket(server: Server, program: str) -> None:
    server.log.tolerate("the policy service had died", "policy service does not answer")
    sockets = {"policy": ["policy.sock", "policy-control.sock"], "recorder": ["recorder.sock"]}[
        program
    ]
    names = checked(server.container.exec("ls", "/run/tambo")).stdout.split()
    assert set(sockets) <= set(names), names
    plant(server, *(f"/run/tambo/{name}" for name in sockets))
    kill(server, program)
    for name in sockets:
        wait_until(
            lambda name=name: server.container.exec("test", "-S", f"/run/tambo/{name}").status == 0,  # type: ignore[misc]
            f"{name} is a socket again",
        )
    assert victim(server) == (AS_IT_WAS, "root:root 600")
    server.add_user(f"i@{DOMAIN}")
    smtp.deliver(server.ipv4, f"i@{DOMAIN}")


def test_a_folder_that_is_a_link_ends_the_boot_in_words(server: Server) -> None:
    """It is not followed, and says which."""
    server.log.expect(r"state/good: it is somebody's symbolic link")
    server.log.tolerate(".*")
    plant(server, "/data/state/good", target="/data/mail")
    server.container.docker("restart", "--time", "5")
    wait_until(lambda: "symbolic link" in server.container.log(), "the boot says so", timeout=30)
    assert "Traceback" not in server.container.log()
    assert server.machine.names(server.data / "mail") == []
