"""A new machine comes up from the backup: same keys, same log-ins, same certificates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.backups import Identity, Kit, memory, owned
from tests.support.certserver import leaf
from tests.support.container import Result, at_a_terminal, checked, docker
from tests.support.server import DOMAIN, HOST, IMAGE, Server
from tests.support.wait import wait_until
from tests.world.world import ACME_DIRECTORY, World

USERS = (f"i@{DOMAIN}", f"other@{DOMAIN}")
ALIASES = "# mine\nsales: i\nteam: i, other\nfar: you@example.net\n"
API_KEY = "tambo-world"
_ISSUED = 60.0


@dataclass
class Old:
    """A server with all that a backup can hold, as it was when it went away."""

    repository: str
    secrets: dict[str, str]
    owned: dict[str, str]
    records: Any
    leaf: str
    data: Path

    @property
    def remote(self) -> str:
        return f"git@git.example.net:{self.repository}.git"


def records(server: Server) -> Any:
    """What DNS must hold, without what belongs to the machine's addresses."""
    rows = server.verb("dns", "--json").json()
    return [row for row in rows if row["type"] not in ("A", "AAAA", "PTR")]


@pytest.fixture(scope="module")
def old(kit: Kit, world: World, all_servers: Servers) -> Iterator[Old]:
    repository = kit.repository()
    server = kit.server(
        repository,
        MAIL_HOSTNAME=HOST,
        DKIM_KEYS="rsa2048,ed25519",
        DKIM_SELECTOR="k",
        DMARC_POLICY="reject",
        ACME_DNS="dns_pdns",
        ACME_SERVER=ACME_DIRECTORY,
        ACME_CA_BUNDLE="/data/ca.pem",
        ACME_DNS_SLEEP="1",
        PDNS_Url=f"http://{world.net.v4(2)}:8081",
        PDNS_ServerId="localhost",
        PDNS_Token=API_KEY,
        PDNS_Ttl="1",
    )
    all_servers.machine.write(server.data / "ca.pem", world.acme_ca_bundle())
    world.load_zone(DOMAIN, "")
    server.up()
    secrets = {address: server.add_user(address) for address in USERS}
    folder = server.data / "domains" / DOMAIN
    server.machine.write(folder / "aliases", ALIASES)
    server.ok("rotate-dkim", DOMAIN)
    retired = "dkim/retired/20260101T000000Z.dkim:old.pem"
    server.machine.run("mkdir", "-p", str(folder / "dkim/retired"))
    server.machine.write(folder / retired, server.keys()["dkim:kr.pem"])
    server.machine.write(server.data / "reload/tell", "#!/bin/sh\nexit 0\n")
    server.machine.run("chmod", "755", str(server.data / "reload/tell"))
    server.ok("list-users")
    server.compose("restart")
    chain = server.data / "certs" / DOMAIN / "fullchain.pem"
    wait_until(
        lambda: server.machine.run("test", "-e", str(chain)).status == 0,
        "a certificate is issued",
        timeout=_ISSUED,
        pause=0.5,
    )
    server.wait_until_it_serves()
    server.ok("backup")  # what the keeper has not pushed yet
    wait_until(lambda: server.verb("backup", "--check").status == 0, "it is all there", timeout=30)
    found = Old(
        repository, secrets, owned(server), records(server), leaf(server.ipv4, 465, HOST),
        server.data,
    )  # fmt: skip
    server.down()
    server.remove()
    yield found
    world.load_zone(DOMAIN, "")


def bring_up(kit: Kit, data: Path, *, with_env: bool = True) -> Server:
    """The new machine, with the settings that the restore found."""
    server = kit.servers.make(data=data)
    if with_env:
        folder = server.data.parent / f"{server.data.name}-env"
        folder.mkdir(exist_ok=True)
        env = folder / "restored.env"
        env.write_text(kit.servers.machine.read(data / "restored.env"))
        path = folder / "env.json"
        path.write_text(json.dumps({"services": {"mail": {"env_file": [str(env)]}}}))
        server._files = (*server._files, path)
    server.up()
    return server


def test_a_new_machine_is_the_old_one(kit: Kit, old: Old, world: World, servers: Servers) -> None:
    data = kit.new_machine()
    done = checked(kit.restore(data, old.remote))
    assert f"Backup of {HOST}" in done.stdout
    assert "Verified: signed by this server on 20" in done.stdout
    for line in (*(f"+ {user}" for user in USERS), f"+ team@{DOMAIN}: other@{DOMAIN}",
                 "+ reload/tell"):  # fmt: skip
        assert f"    {line}\n" in done.stdout
    assert f"{DOMAIN}: 2 users, with aliases, 5 DKIM keys" in done.stdout
    assert "mv data/restored.env .env" in done.stdout
    assert owned_by(kit, data) == old.owned, "byte for byte"
    servers.machine.write(data / "ca.pem", world.acme_ca_bundle())
    server = bring_up(kit, data)
    assert records(server) == old.records
    trust = servers.machine.read(data / "certs" / DOMAIN / "fullchain.pem")
    assert leaf(server.ipv4, 465, HOST) == old.leaf
    assert leaf(server.ipv4, 587, HOST) == old.leaf
    roots = world.exec("pebble", "curl", "-sk", "https://localhost:15000/roots/0")
    endpoint = smtp.Endpoint(server.ipv4, HOST, roots)
    assert trust
    for address, secret in old.secrets.items():
        assert smtp.can_log_in(endpoint, address, secret)
    assert not smtp.can_log_in(endpoint, USERS[0], old.secrets[USERS[1]])
    assert server.machine.read(data / "domains" / DOMAIN / "aliases") == ALIASES
    with smtp.mail_server(server.ipv4) as session:
        session.mail("someone@outside.example")
        assert session.rcpt(f"team@{DOMAIN}")[0] == 250
        assert session.rcpt(f"nobody@{DOMAIN}")[0] == 550


def owned_by(kit: Kit, data: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("domains", "certs", "acme", "reload"):
        sums = kit.servers.machine.checksums(data / name)
        found |= {f"{name}/{path}": digest for path, digest in sums.items()}
    return found


def tree_of(kit: Kit, data: Path) -> dict[str, Any]:
    """All that is there but locks, which work leaves."""
    found = kit.servers.machine.tree(data)
    return {
        path: item for path, item in found.items() if not path.startswith("state") and path != "."
    }


def test_everything_belongs_to_tambo_and_to_nobody_else(kit: Kit, old: Old) -> None:
    data = kit.new_machine()
    checked(kit.restore(data, old.remote))
    for path, entry in kit.servers.machine.tree(data).items():
        if path.startswith(("domains", "certs", "acme", "reload", "backup/", "restored.env")):
            assert (entry.uid, entry.mode & 0o077) == (10465, 0), path
    assert kit.servers.machine.tree(data)["reload/tell"].mode == 0o700
    assert not [path for path in kit.servers.machine.tree(data) if ".restore" in path]


def test_the_settings_that_were_in_force(kit: Kit, old: Old) -> None:
    data = kit.new_machine()
    checked(kit.restore(data, old.remote))
    lines = kit.servers.machine.read(data / "restored.env").splitlines()
    for line in (
        f"MAIL_HOSTNAME={HOST}", "DMARC_POLICY=reject", f"PDNS_Token={API_KEY}",
        "BACKUP_GIT_KEY_FILE=/data/backup.key", f"BACKUP_GIT_REMOTE={old.remote}",
        f"BACKUP_SIGNING_KEY={kit.identity.signing_key}",
    ):  # fmt: skip
        assert line in lines
    assert [line for line in lines if re.match(r"#PUBLIC_IPV4=", line)], "the old machine's"
    assert not [line for line in lines if line.startswith("PUBLIC_IPV4=")]


def test_a_wrong_identity_is_told_and_touches_nothing(kit: Kit, old: Old) -> None:
    data = kit.new_machine()
    before = tree_of(kit, data)
    other = Identity.make()
    refused = kit.restore(data, old.remote, identity=other.private)
    assert refused.status == 1
    assert f"this is the wrong identity: its public half is {other.public}" in refused.stderr
    assert f"encrypted to {kit.identity.public}" in refused.stderr
    assert tree_of(kit, data) == before
    nonsense = kit.restore(data, old.remote, identity="AGE-SECRET-KEY-1XYZ")
    assert nonsense.status == 2
    assert "holds no private half" in nonsense.stderr
    assert "XYZ" not in nonsense.stderr
    assert tree_of(kit, data) == before


def test_without_yes_it_shows_what_it_would_do_and_asks(kit: Kit, old: Old) -> None:
    data = kit.new_machine()
    before = tree_of(kit, data)
    kit.servers.machine.write(data / "identity", kit.identity.kept)
    before = tree_of(kit, data)
    asked = kit.run(
        data, "restore", old.remote, "--host-key", kit.git.host_key, "--identity", "/data/identity",
    )  # fmt: skip
    assert asked.status == 2
    assert f"Backup of {HOST}" in asked.stdout
    assert "there is no terminal to ask at" in asked.stderr
    assert tree_of(kit, data) == before


def test_at_a_terminal_it_asks_for_the_identity_and_before_it_does_anything(
    kit: Kit, old: Old
) -> None:
    def typed(data: Path, *answers: str) -> tuple[str, int]:
        return at_a_terminal(
            "run", "--rm", "-it", "--network", kit.servers.world.network,
            "--volume", f"{kit.servers.resolv_conf}:/etc/resolv.conf:ro",
            "--volume", f"{data}:/data", IMAGE,
            "restore", old.remote, "--host-key", kit.git.host_key, answers=answers,
        )  # fmt: skip

    data = kit.new_machine()
    before = tree_of(kit, data)
    seen, status = typed(data, kit.identity.private, kit.identity.verification_key, "n")
    assert status == 1
    assert "Put it in place?" in seen
    assert kit.identity.private not in seen
    assert tree_of(kit, data) == before
    seen, status = typed(data, kit.identity.private, kit.identity.verification_key, "y")
    assert status == 0, seen
    assert "What to do next" in seen
    assert owned_by(kit, data) == old.owned


def test_an_earlier_backup_by_commit_and_by_date(kit: Kit, old: Old) -> None:
    subjects = kit.git.subjects(old.repository)
    rows = checked(
        kit.run(
            kit.new_machine(), "list-backups", old.remote, "--host-key", kit.git.host_key, "--json"
        )
    ).json()
    times = [row["time"] for row in rows]
    # A date names the newest of its second.
    chosen = next(row for row in rows[len(rows) // 2 :] if times.count(row["time"]) == 1)
    data = kit.new_machine()
    done = checked(kit.restore(data, old.remote, "--at", chosen["commit"][:10]))
    assert chosen["subject"] in done.stdout
    assert "the newest is of" in done.stdout
    listed = checked(kit.run(data, "list-backups", "--json")).json()
    assert listed[0]["subject"].startswith(f"restore: back to {chosen['commit'][:10]}")
    assert len(listed) == len(subjects) + 1
    same = kit.new_machine()
    checked(kit.restore(same, old.remote, "--at", chosen["time"].replace("Z", "+00:00")))
    assert owned_by(kit, same) == owned_by(kit, data)
    early = kit.restore(kit.new_machine(), old.remote, "--at", "2001-01-01")
    assert early.status == 1
    assert "there is no backup from before 2001-01-01" in early.stderr


def test_a_data_folder_that_is_not_empty_is_replaced_only_on_demand_and_kept(
    kit: Kit, old: Old
) -> None:
    server = kit.servers.make()
    server.up()
    server.add_user(f"mine@{DOMAIN}")
    mail = smtp.message("someone@outside.example", f"postmaster@{DOMAIN}")
    with smtp.mail_server(server.ipv4) as session:
        session.send_message(mail, from_addr="a@outside.example", to_addrs=[f"postmaster@{DOMAIN}"])
    wait_until(lambda: server.kept(f"postmaster@{DOMAIN}"), "it is kept")
    running = kit.restore(server.data, old.remote)
    assert running.status != 0
    server.down()
    kit.put_key(server.data)
    mine = owned(server)
    refused = kit.restore(server.data, old.remote)
    assert refused.status == 1
    assert "the data folder is not empty" in refused.stderr
    assert owned(server) == mine
    done = checked(kit.restore(server.data, old.remote, "--replace"))
    assert owned(server) == old.owned
    [aside] = kit.servers.machine.names(server.data / "replaced")
    assert f"data/replaced/{aside}" in done.stdout
    kept = owned(server, server.data / "replaced" / aside)
    assert kept == mine
    assert server.kept(f"postmaster@{DOMAIN}"), "mail stays"
    assert "good" in kit.servers.machine.names(server.data / "replaced" / aside / "state")


def test_a_server_that_runs_is_not_restored_over(kit: Kit, old: Old) -> None:
    server = kit.servers.make()
    server.up()
    kit.put_key(server.data)
    before = owned(server)
    for refused in (
        kit.restore(server.data, old.remote, "--replace"),
        server.verb("restore", old.remote, "--replace", "--yes", "--host-key", kit.git.host_key),
    ):
        assert refused.status == 75
        assert "another tambo is running on this data folder" in refused.stderr
    assert owned(server) == before


def test_a_damaged_backup_is_not_put_in_place(kit: Kit, old: Old) -> None:
    repository = kit.repository()
    script = f"cd /srv/git && rm -rf {repository}.git && git clone -q --bare {old.repository}.git {repository}.git"  # noqa: E501
    checked(kit.git.exec("sh", "-c", script, user="git"))
    kit.git.script(
        repository,
        f"echo 'a: b: c' >data/domains/{DOMAIN}/aliases; "
        f"echo junk >data/domains/{DOMAIN}/users.age;"
        "git add -A; git commit -qm damage; git push -q origin main",
    )  # fmt: skip
    remote = f"git@git.example.net:{repository}.git"
    data = kit.new_machine()
    before = tree_of(kit, data)
    refused = kit.restore(data, remote)
    assert refused.status == 1
    assert "it was changed after it was signed" in refused.stderr
    assert f"data/domains/{DOMAIN}/aliases' was changed" in refused.stderr
    assert tree_of(kit, data) == before
    # Whoever does not look at the signature is told what is damaged.
    anyway = ("--unverified", "--accept", "reload/tell", "--accept", f"acme/{DOMAIN}")
    refused = kit.restore(data, remote, *anyway)
    assert refused.status == 1
    assert "users.age in the backup cannot be decrypted" in refused.stderr
    assert tree_of(kit, data) == before
    kit.git.script(
        repository,
        f"git checkout -q HEAD~1 -- data/domains/{DOMAIN}/users.age; "
        "git commit -qm mend; git push -q origin main",
    )
    refused = kit.restore(data, remote, *anyway)
    assert refused.status == 1
    assert f"data/domains/{DOMAIN}/aliases: line 1" in refused.stderr
    assert tree_of(kit, data) == before


def test_a_full_disk_restores_nothing(kit: Kit, old: Old) -> None:
    """A volume of its own that is too small."""
    options = ("--tmpfs", "/data:size=100k,mode=755")
    done = docker(
        "run", "--rm", "--interactive", "--network", kit.servers.world.network,
        "--volume", f"{kit.servers.resolv_conf}:/etc/resolv.conf:ro", *options,
        "--volume", f"{kit.new_machine() / 'backup.key'}:/key:ro",
        "--entrypoint", "sh", IMAGE, "-c",
        'restore "$@"; status=$?; find /data -type f -not -name "*.lock"; exit $status', "sh",
        old.remote, "--key", "/key", "--host-key", kit.git.host_key, "--identity", "-", "--yes",
        input=kit.identity.kept,
    )  # fmt: skip
    assert done.status == 1
    assert "disk is full" in done.stderr
    assert not [line for line in done.stdout.splitlines() if line.startswith("/data/")]


# Each single step is killed at in the unit tests; here it is the real thing, at the telling ones.
STEPS = (
    ".restore.new", f".restore.new/new/domains/{DOMAIN}/aliases", ".restore.new/plan.json",
    ".restore.ready", "domains", "backup", "state/backup.json", "restored.env",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_any_step_it_is_all_or_nothing(kit: Kit, old: Old, step: str) -> None:
    data = kit.new_machine()
    name = f"{kit.git.name}-killed"
    begun = docker(
        "create", "--name", name, "--interactive", "--network", kit.servers.world.network,
        "--cpus", "0.5", "--volume", f"{kit.servers.resolv_conf}:/etc/resolv.conf:ro",
        "--volume", f"{data}:/data", "--volume", f"{identity_file(kit)}:/identity:ro", IMAGE,
        "restore", old.remote, "--host-key", kit.git.host_key, "--identity", "/identity", "--yes",
    )  # fmt: skip
    checked(begun)
    try:
        checked(docker("start", name))
        pid = int(checked(docker("inspect", "--format", "{{.State.Pid}}", name)).stdout)
        kit.servers.machine.kill_when([data / step, data / step], pid)
        checked(docker("wait", name))
    finally:
        docker("rm", "--force", name)
    ready = ".restore.ready" in kit.servers.machine.names(data)
    server = kit.servers.make(data=data, settings={"DKIM_SELECTOR": "fresh"})
    server.up()
    listed = [item["address"] for item in json.loads(server.ok("list-users", "--json"))]
    restored = listed == sorted(USERS)
    assert restored or not listed, "never a part of it"
    if ready or step in ("restored.env",):
        assert restored
    if restored:
        assert server.keys().get("dkim:kr.pem")
        sums = owned(server)
        assert {name: sums.get(name) for name in old.owned} == old.owned
    else:
        assert list(server.keys()) == ["dkim:freshr.pem"]
    assert not [item for item in kit.servers.machine.names(data) if item.startswith(".restore")]


def identity_file(kit: Kit) -> Path:
    path = kit.servers.base / "identity"
    kit.servers.machine.write(path, kit.identity.kept)
    return path


def test_the_old_memory_is_not_needed(kit: Kit, old: Old) -> None:
    """The restored volume has a memory of its own, and is another server."""
    data = kit.new_machine()
    checked(kit.restore(data, old.remote))
    found = json.loads(kit.servers.machine.read(data / "state/backup.json"))
    assert found["pushed"] == kit.git.head(old.repository)
    before = json.loads(kit.servers.machine.read(old.data / "state/backup.json"))
    assert found["server"] != before["server"]
    assert found["key"] != before["key"]


def test_usage(kit: Kit, old: Old) -> None:
    data = kit.new_machine()

    def said(result: Result, status: int) -> str:
        assert result.status == status, result
        return result.stderr

    assert "say which repository" in said(kit.run(data, "restore"), 2)
    assert "the server's host key is not known" in said(kit.run(data, "restore", old.remote), 2)
    assert "is not the address of a git repository" in said(
        kit.run(data, "restore", "ext::sh -c id"), 2
    )
    bare = kit.servers.base / "bare"
    bare.mkdir(exist_ok=True)
    assert "needs a private key" in said(kit.run(bare, "restore", old.remote), 2)
    assert memory is not None


def test_back_to_an_earlier_state_on_the_same_machine(kit: Kit, old: Old) -> None:
    """From its own history, by compose's file as it stands: no network, no key."""
    data = kit.new_machine()
    checked(kit.restore(data, old.remote))
    server = kit.servers.make(data=data)
    server.up()
    rows = server.verb("list-backups", "--json").json()
    server.down()
    kit.servers.machine.write(data / "identity", kit.identity.kept)
    first = rows[-1]["commit"]
    done = server.compose(
        "run", "--rm", "-T", "mail", "restore", "/data/backup", "--at", first, "--replace",
        "--yes", "--identity", "/data/identity",
    )  # fmt: skip
    assert "What was there before is in data/replaced/" in done.stdout
    server.up()
    listed = server.verb("list-backups", "--json").json()
    assert listed[1:] == rows
    assert listed[0]["subject"].startswith(f"restore: back to {first[:10]}")


def test_it_goes_on_where_the_old_one_was(kit: Kit, old: Old, world: World) -> None:
    """No commit but for what is really new here. Last, as it adds to the backup."""
    before = kit.git.subjects(old.repository)
    data = kit.new_machine()
    checked(kit.restore(data, old.remote))
    kit.servers.machine.write(data / "ca.pem", world.acme_ca_bundle())
    server = bring_up(kit, data)
    server.ok("backup")
    after = kit.git.subjects(old.repository)
    assert after[: len(before)] == before
    assert after[len(before) :] in ([], ["settings: set PUBLIC_IPV4, set PUBLIC_IPV6"])
    assert server.verb("backup", "--check").status == 0
    server.add_user(f"new@{DOMAIN}")
    kit.wait_for(old.repository, f"users: add new@{DOMAIN}")
