"""What can go wrong with a backup: each has its own message and fix, and nothing is lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tests.image.conftest import Servers
from tests.support.backups import Kit, memory
from tests.support.container import Result, checked
from tests.support.server import DOMAIN, HOST, Server
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

FAILED = "warn: The backup has failed since"


@pytest.fixture(scope="module")
def repository(kit: Kit) -> str:
    return kit.repository()


@pytest.fixture(scope="module")
def server(kit: Kit, repository: str, module_servers: Servers) -> Server:
    assert module_servers.living is kit.servers.living
    server = kit.server(repository)
    server.up()
    kit.first(repository)
    return server


@pytest.fixture
def change(server: Server, kit: Kit, repository: str) -> Iterator[str]:
    """A change that is made while something is wrong; at the end it must have come through."""
    number = time.monotonic_ns() % 10**9
    wait_until(lambda: server.verb("backup").status == 0, "all is well before")
    yield f"user{number}@{DOMAIN}"
    if not kit.git.running:  # the test failed
        kit.git.start()
    subject = f"users: add user{number}@{DOMAIN}"
    wait_until(lambda: server.verb("backup").status == 0, "all is well again", timeout=60)
    assert kit.git.subjects(repository).count(subject) == 1


def refused(server: Server, *words: str) -> Result:
    """What the verb says, and that the keeper says it too."""
    result = wait_until(
        lambda: found if (found := server.verb("backup")).status else None, "it fails"
    )
    for word in words:
        assert word in result.stderr, result.stderr
    assert "fix: " in result.stderr
    wait_until(
        lambda: words[0] in server.container.log(), "the keeper says it", timeout=60, pause=0.3
    )
    return result


def test_the_remote_is_down(kit: Kit, server: Server, change: str) -> None:
    server.log.expect(f"{FAILED}.*cannot be reached")
    kit.git.stop()
    server.add_user(change)
    result = refused(server, "git.example.net cannot be reached")
    assert result.status == 75
    listed = server.verb("list-backups", "--json").json()
    assert listed[0]["subject"] == f"users: add {change}", "it is kept here meanwhile"
    kit.git.start()


def test_it_is_tried_again_by_itself_with_growing_pauses(
    kit: Kit, server: Server, change: str, repository: str
) -> None:
    server.log.expect(f"{FAILED}.*cannot be reached")
    kit.git.stop()
    server.add_user(change)
    wait_until(lambda: memory(server)["trouble"], "it is noted", timeout=60)
    first = memory(server)["trouble"]
    second = wait_until(
        lambda: found if (found := memory(server)["trouble"])["count"] > first["count"] else None,
        "it is tried again",
        timeout=60,
        pause=0.5,
    )
    assert second["since"] == first["since"]
    assert second["next_try"] - first["next_try"] > 15
    kit.git.start()
    kit.wait_for(repository, f"users: add {change}", timeout=90)
    wait_until(lambda: not memory(server)["trouble"], "it is over")


def test_after_a_day_the_health_check_fails(kit: Kit, server: Server, change: str) -> None:
    server.log.expect("fail: The backup has failed since")
    server.log.tolerate(FAILED)
    kit.git.stop()
    server.add_user(change)
    refused(server, "cannot be reached")
    assert server.verb("tambo", "health").status == 0, "not at once"
    found = memory(server)
    found["trouble"]["since"] -= 86400
    path = server.data / "state/backup.json"
    server.machine.write(path, json.dumps(found))
    wait_until(
        lambda: "The backup has failed since" in server.verb("tambo", "health").stderr,
        "the health check says so",
        timeout=30,
    )
    kit.git.start()
    wait_until(lambda: server.verb("backup").status == 0, "it is pushed", timeout=30)
    wait_until(lambda: server.verb("tambo", "health").status == 0, "all is well", timeout=30)


def test_the_key_is_refused(kit: Kit, server: Server, change: str) -> None:
    server.log.expect(f"{FAILED}.*refuses the key")
    kit.git.authorize()
    server.add_user(change)
    refused(server, "git.example.net refuses the key or token", "ssh-keygen -y -f data/backup.key")
    kit.git.authorize(kit.key.public)


def test_the_host_key_has_changed(kit: Kit, server: Server, change: str, repository: str) -> None:
    server.log.expect(f"{FAILED}.*does not have the host key")
    private, public = kit.git.private_host_key(), kit.git.host_key
    before = kit.git.subjects(repository)
    kit.git.change_host_key()
    server.add_user(change)
    result = refused(server, "git.example.net does not have the host key of BACKUP_GIT_HOST_KEY")
    assert "it has SHA256:" in result.stderr
    assert "Nothing was sent" in result.stderr
    assert kit.git.subjects(repository) == before
    kit.git.set_host_key(private, public)


def test_the_repository_takes_no_push(
    kit: Kit, server: Server, change: str, repository: str
) -> None:
    server.log.expect(f"{FAILED}.*lets nobody write")
    hook = f"/srv/git/{repository}.git/hooks/pre-receive"
    script = f"printf '#!/bin/sh\\necho archived; exit 1\\n' >{hook}; chmod +x {hook}"
    checked(kit.git.exec("sh", "-c", script, user="git"))
    server.add_user(change)
    refused(server, "lets nobody write with this key or token")
    checked(kit.git.exec("rm", hook))


def test_the_repository_is_not_there(
    kit: Kit, server: Server, change: str, repository: str
) -> None:
    server.log.expect(f"{FAILED}.*has no such repository")
    path = f"/srv/git/{repository}.git"
    checked(kit.git.exec("mv", path, f"{path}.away"))
    server.add_user(change)
    refused(server, "git.example.net has no such repository")
    checked(kit.git.exec("mv", f"{path}.away", path))


def test_the_history_at_the_remote_was_rewritten(
    kit: Kit, server: Server, change: str, repository: str
) -> None:
    server.log.expect(f"{FAILED}.*was rewritten")
    ours = kit.git.head(repository)
    kit.git.script(
        repository, "git commit -q --amend -m other --reset-author; git push -q --force origin main"
    )
    theirs = kit.git.head(repository)
    server.add_user(change)
    result = refused(server, "the history at the remote was rewritten")
    assert "backup --take-over" in result.stderr
    assert kit.git.head(repository) == theirs, "nothing is forced"
    checked(server.verb("backup", "--take-over"))
    subjects = kit.git.subjects(repository)
    assert "other" in subjects
    assert subjects[-1] == f"take-over: the state of {HOST} from here on"
    kept = server.container.exec(
        "git", "--git-dir=/data/backup", "-c", "safe.directory=*", "log", "--glob=refs/kept/*",
        "--format=%H", user="tambo",
    )  # fmt: skip
    assert ours in kept.stdout, "what was here is kept"
    assert server.verb("backup", "--check").status == 0
    # The change itself is in the commit of the take-over.
    again = f"again-{change}"
    server.add_user(again)
    kit.wait_for(repository, f"users: add {again}")
    server.ok("remove-user", change)
    server.ok("backup")
    server.add_user(change)


def test_somebody_else_commits(kit: Kit, server: Server, change: str, repository: str) -> None:
    server.log.expect(f"{FAILED}.*somebody else has put commits")
    kit.git.script(repository, "echo x >x; git add x; git commit -qm mine; git push -q origin main")
    server.add_user(change)
    refused(server, "somebody else has put commits into the remote", "mine")
    checked(server.verb("backup", "--take-over"))
    assert "x" not in kit.git.files(repository)
    server.ok("remove-user", change)
    server.ok("backup")
    server.add_user(change)


def test_the_disk_is_full(kit: Kit, servers: Servers) -> None:
    repository = kit.repository()
    server = kit.server(
        repository, overlay={"tmpfs": ["/data/backup:size=2m,uid=10465,gid=10465,mode=700"]}
    )
    assert server in servers.living
    server.up()
    kit.first(repository)
    server.log.expect(f"{FAILED}.*the disk is full")
    server.container.exec(
        "sh", "-c", "head -c 4000000 /dev/zero >/data/backup/filler", user="tambo"
    )
    server.add_user(f"i@{DOMAIN}")
    refused(server, "the disk is full", "make room on the volume's disk")
    checked(server.container.exec("rm", "/data/backup/filler", user="tambo"))
    kit.wait_for(repository, f"users: add i@{DOMAIN}", timeout=60)
    assert kit.git.subjects(repository).count(f"users: add i@{DOMAIN}") == 1


def test_two_servers_push_to_one_remote(kit: Kit, servers: Servers) -> None:
    repository = kit.repository()
    one = kit.server(repository, DKIM_SELECTOR="one")
    assert one in servers.living
    one.up()
    kit.first(repository)
    history = kit.git.subjects(repository)
    two = kit.server(repository, DKIM_SELECTOR="two")
    two.log.expect(f"{FAILED}.*another server pushes to this remote")
    two.up()
    two.add_user(f"two@{DOMAIN}")
    refused(two, "another server pushes to this remote", HOST, "stop the other one")
    assert kit.git.subjects(repository) == history
    one.add_user(f"one@{DOMAIN}")
    kit.wait_for(repository, f"users: add one@{DOMAIN}")
    # The second is to have it: then it is the first that is told.
    one.log.expect(f"{FAILED}.*another server pushes to this remote")
    checked(two.verb("backup", "--take-over"))
    assert f"two@{DOMAIN}" in kit.git.show(repository, f"overview/{DOMAIN}/users")
    one.add_user(f"late@{DOMAIN}")
    refused(one, "another server pushes to this remote")
    assert f"users: add one@{DOMAIN}" in kit.git.subjects(repository), "history is kept"
    assert two.verb("backup", "--check").status == 0


def test_an_older_copy_of_the_data_folder(kit: Kit, servers: Servers) -> None:
    repository = kit.repository()
    server = kit.server(repository)
    assert server in servers.living
    server.up()
    kit.first(repository)
    server.down()
    copy = server.data.with_name("copy")
    checked(server.machine.run("cp", "-a", str(server.data), str(copy)))
    server.up()
    server.add_user(f"newer@{DOMAIN}")
    kit.wait_for(repository, f"users: add newer@{DOMAIN}")
    server.down()
    server.machine.delete(server.data)
    checked(server.machine.run("mv", str(copy), str(server.data)))
    server.log.expect(f"{FAILED}.*data/ is an older copy of itself")
    server.up()
    server.add_user(f"other@{DOMAIN}")
    refused(server, "the remote has commits of this server that data/backup lacks")


def test_the_repository_here_is_gone_or_damaged(kit: Kit, servers: Servers) -> None:
    repository = kit.repository()
    server = kit.server(repository)
    assert server in servers.living
    server.up()
    kit.first(repository)
    server.add_user(f"i@{DOMAIN}")
    before = kit.wait_for(repository, f"users: add i@{DOMAIN}")
    server.machine.delete(server.data / "backup")
    assert "Nothing has changed" in server.ok("backup")
    assert kit.git.subjects(repository) == before
    # As a power cut on a bad disk leaves it.
    server.log.tolerate(f"{FAILED}.*is damaged")
    script = 'find "$1/objects" -type f -size -40k -exec cp /dev/null {} ";"'
    checked(server.machine.run("sh", "-c", script, "sh", str(server.data / "backup")))
    damaged = server.verb("backup")
    assert damaged.status == 1
    assert "data/backup is damaged" in damaged.stderr
    assert "mv data/backup data/backup.damaged" in damaged.stderr
    backup = server.data / "backup"
    checked(server.machine.run("mv", str(backup), str(backup.with_name("backup.damaged"))))
    server.ok("backup")
    assert kit.git.subjects(repository) == before


def test_killed_at_any_moment_each_change_is_committed_once(kit: Kit, servers: Servers) -> None:
    repository = kit.repository()
    server = kit.server(repository)
    assert server in servers.living
    server.up()
    kit.first(repository)
    before = kit.git.subjects(repository)
    added = []
    for number in range(10):
        address = f"u{number}@{DOMAIN}"
        server.add_user(address)
        added.append(address)
        time.sleep(1.0 + number * 0.2)
        checked(server.container.docker("kill", "--signal", "KILL"))
        checked(server.container.docker("start"))
        server.wait_until_it_serves()
    server.ok("backup")
    after = kit.git.subjects(repository)[len(before) :]
    named = [word for subject in after for word in subject.replace(",", "").split() if "@" in word]
    assert sorted(named) == sorted(added), after
    assert all(subject.startswith("users: add ") for subject in after), after
    assert server.verb("backup", "--check").status == 0
    fsck = ("git", "--git-dir=/data/backup", "-c", "safe.directory=*", "fsck", "--strict")
    checked(server.container.exec(*fsck, user="tambo"))


def test_a_lock_that_a_killed_git_left(kit: Kit, servers: Servers) -> None:
    repository = kit.repository()
    server = kit.server(repository)
    assert server in servers.living
    server.up()
    kit.first(repository)
    for name in ("refs/heads/main.lock", "packed-refs.lock", "HEAD.lock"):
        server.machine.write(server.data / "backup" / name, "")
    server.add_user(f"i@{DOMAIN}")
    kit.wait_for(repository, f"users: add i@{DOMAIN}")
