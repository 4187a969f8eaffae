"""A backup that somebody else has written: the new machine takes nothing of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from entrypoint.backup import manifest
from entrypoint.backup.manifest import Manifest
from entrypoint.chasquid import userdb
from entrypoint.chasquid.userdb import Scrypt
from entrypoint.common import age, signing
from entrypoint.common.names import Domain
from tests.image.backup.test_restore import bring_up, owned_by, tree_of
from tests.image.conftest import Servers
from tests.support import smtp
from tests.support.backups import Kit
from tests.support.container import Result, checked
from tests.support.forge import EXECUTABLE, FOLDER, LINK, MODULE, PLAIN, Forge, in_order
from tests.support.server import DOMAIN, HOST
from tests.world.world import World

USER, MALLORY = f"i@{DOMAIN}", f"mallory@{DOMAIN}"
SMALL = ("--memory", "512m", "--memory-swap", "512m")


@dataclass(frozen=True)
class Honest:
    """A server's backup; the server is gone."""

    kit: Kit
    repository: str
    secret: str
    owned: dict[str, str]

    def forge(self) -> Forge:
        """A copy of the repository, which somebody else may write to."""
        name = self.kit.repository()
        script = f"cd /srv/git && rm -rf {name}.git && git clone -q --bare {self.repository}.git {name}.git"  # noqa: E501
        checked(self.kit.git.exec("sh", "-c", script, user="git"))
        return Forge(self.kit.git, name)


@pytest.fixture(scope="module")
def honest(kit: Kit, world: World) -> Honest:
    assert world.network
    repository = kit.repository()
    server = kit.server(repository)
    server.up()
    secret = server.add_user(USER)
    server.ok("add-alias", f"sales@{DOMAIN}", USER)
    kit.first(repository)
    server.ok("backup")
    found = Honest(kit, repository, secret, owned_by(kit, server.data))
    server.down()
    server.remove()
    return found


# --- who knows the recipient, and may write to the repository

Files = dict[str, tuple[str, str]]


def planted(honest: Honest, forge: Forge) -> Files:
    """The honest files and his: a login, a pipe, settings, programs sealed and in clear."""

    def seal(content: bytes) -> str:
        return forge.blob(age.encrypt(content, [honest.kit.identity.public]))

    users = userdb.render({"mallory": Scrypt.of("mallory-secret", 1)}).encode()
    folder = f"data/domains/{DOMAIN}"
    files = {
        **forge.files(),
        f"{folder}/users.age": (PLAIN, seal(users)),
        f"{folder}/aliases": (PLAIN, forge.blob(b"sales: |touch /data/pwned\n")),
        f"{folder}/senders": (PLAIN, forge.blob(b"mallory may-send=*@example.org\n")),
        f"{folder}/acme.env": (PLAIN, forge.blob(b"CF_Token=x\n")),
        f"overview/{DOMAIN}/users": (PLAIN, forge.blob(f"{MALLORY}\n".encode())),
        "settings.env": (PLAIN, forge.blob(b"# x\nFORWARD_TO=mallory@outside.example\n")),
        "settings.secrets.age": (PLAIN, seal(b"PDNS_Token=x\n")),
        "data/reload/evil.age": (EXECUTABLE, seal(b"#!/bin/sh\ntouch /data/pwned\n")),
        "data/reload/clear": (EXECUTABLE, forge.blob(b"#!/bin/sh\ntouch /data/pwned\n")),
        f"data/acme/{DOMAIN}/account.conf.age": (PLAIN, seal(b"touch /data/pwned\n")),
    }
    files.pop("settings.secrets", None)
    return files


def signed_with(forge: Forge, files: Files, key: str) -> Files:
    """With a manifest and his own signature."""
    lines = {
        path: manifest.line(oid.encode(), executable=mode == EXECUTABLE)
        for path, (mode, oid) in files.items()
        if path not in manifest.NAMES
    }
    domains = (Domain.parse(DOMAIN),)
    said = Manifest(Domain.parse(HOST), "1a2b3c4d", 9, 1_900_000_000, domains, (), lines)
    made = manifest.sign(said, key)
    return {**files, **{name: (PLAIN, forge.blob(raw)) for name, raw in made.items()}}


def left_alone(_honest: Honest, _forge: Forge, files: Files) -> Files:
    return files


def signature_removed(_honest: Honest, _forge: Forge, files: Files) -> Files:
    return {path: item for path, item in files.items() if path not in manifest.NAMES}


def signed_by_himself(_honest: Honest, forge: Forge, files: Files) -> Files:
    return signed_with(forge, files, signing.new_key())


def signed_by_himself_in_the_servers_name(honest: Honest, forge: Forge, files: Files) -> Files:
    """His signature behind the server's verification key."""
    key = signing.new_key()
    found = signed_with(forge, files, key)
    raw = manifest.sign(Manifest(Domain.parse(HOST), "1a", 9, 0, (), (), {}), key)[
        manifest.SIGNATURE
    ]
    mine = honest.kit.identity.verification_key.encode() + raw[raw.index(b" ") :]
    return {**found, manifest.SIGNATURE: (PLAIN, forge.blob(mine))}


def said_to_be_in_clear(_honest: Honest, forge: Forge, files: Files) -> Files:
    about = {"format": 1, "host": HOST, "secrets": "clear", "recipients": []}
    users = userdb.render({"mallory": Scrypt.of("mallory-secret", 1)}).encode()
    # What goes with a secret file goes too, or it would not be whole.
    clear = {
        path: item
        for path, item in files.items()
        if not path.endswith((".age", "fullchain.pem", "/dkim"))
    }
    return {
        **clear,
        "backup.json": (PLAIN, forge.blob(json.dumps(about).encode())),
        f"data/domains/{DOMAIN}/users": (PLAIN, forge.blob(users)),
    }


DISGUISES = (
    left_alone, signature_removed, signed_by_himself, signed_by_himself_in_the_servers_name,
    said_to_be_in_clear,
)  # fmt: skip
Disguise = Callable[[Honest, Forge, Files], Files]


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("history", ["on top", "of his own"])
def test_a_backup_by_who_knows_the_recipient_alone_restores_nothing_of_his(
    kit: Kit, honest: Honest, disguise: Disguise, history: str
) -> None:
    forge = honest.forge()
    parent = kit.git.head(forge.repository) if history == "on top" else ""
    files = disguise(honest, forge, planted(honest, forge))
    forge.publish(forge.folders(files), parent=parent)
    remote = f"git@git.example.net:{forge.repository}.git"
    data = kit.new_machine()
    before = tree_of(kit, data)
    # With what is on the paper, and whatever is said besides.
    named: tuple[str, ...] = ("--accept", "reload/evil", "--accept", f"sales@{DOMAIN}")
    for more in ((), named):
        refused = kit.restore(data, remote, *more)
        assert refused.status == 1, refused
        assert "nothing was restored" in refused.stderr
        assert "does not vouch for commit" in refused.stderr
        assert tree_of(kit, data) == before
    # From before there was a signature: nothing either, unless it is said by name.
    for more in ((), ("--unverified",), ("--unverified", *named)):
        refused = kit.restore(data, remote, *more, identity=kit.identity.private)
        assert refused.status == 1, refused
        assert "nobody vouches for this backup" in refused.stderr
        assert f"    + {MALLORY}\n" in refused.stdout
        assert f"    + sales@{DOMAIN}: | touch /data/pwned\n" in refused.stdout
        assert "    + reload/clear\n" in refused.stdout
        assert "    + FORWARD_TO=mallory@outside.example\n" in refused.stdout
        assert tree_of(kit, data) == before
    assert "data/reload/clear: it is in clear" in refused.stderr


def test_beside_his_commits_the_servers_own_is_found_and_restored(
    kit: Kit, honest: Honest, world: World
) -> None:
    forge = honest.forge()
    ours = kit.git.head(forge.repository)
    forge.publish(forge.folders(planted(honest, forge)), parent=ours)
    remote = f"git@git.example.net:{forge.repository}.git"
    data = kit.new_machine()
    listed = checked(
        kit.run(
            data, "list-backups", remote, "--host-key", kit.git.host_key, "--json",
            "--identity", "-", input=kit.identity.kept,
        )
    ).json()  # fmt: skip
    assert [row["verified"] for row in listed] == [False, *([True] * (len(listed) - 1))]
    done = checked(kit.restore(data, remote, "--at", listed[1]["commit"]))
    assert "Verified: signed by this server" in done.stdout
    assert owned_by(kit, data) == honest.owned
    server = bring_up(kit, data)
    endpoint = smtp.Endpoint(
        server.ipv4, HOST, server.machine.read(data / "certs/self-signed/fullchain.pem")
    )
    assert smtp.can_log_in(endpoint, USER, honest.secret)
    assert not smtp.can_log_in(endpoint, MALLORY, "mallory-secret")
    assert "pwned" not in server.machine.names(data)
    assert world.network


def test_an_unsigned_backup_that_holds_nothing_that_runs_is_restored_when_it_is_wanted(
    kit: Kit, honest: Honest
) -> None:
    """The other side: an owner whose backup is from before."""
    forge = honest.forge()
    files = {path: item for path, item in forge.files().items() if path not in manifest.NAMES}
    forge.publish(forge.folders(files), parent=kit.git.head(forge.repository))
    remote = f"git@git.example.net:{forge.repository}.git"
    data = kit.new_machine()
    private = kit.identity.private
    assert kit.restore(data, remote, identity=private).status == 1
    done = checked(kit.restore(data, remote, "--unverified", identity=private))
    assert "Nobody vouches for this backup: it is not signed" in done.stdout
    assert owned_by(kit, data) == honest.owned


# --- what a remote may hold that is no backup


def link(_honest: Honest, forge: Forge) -> str:
    return forge.folders({**forge.files(), "data/reload/x": (LINK, forge.blob(b"/etc/passwd"))})


def module(_honest: Honest, forge: Forge) -> str:
    files = {**forge.files(), ".gitmodules": (PLAIN, forge.blob(b'[submodule "x"]\n'))}
    return forge.folders({**files, "data/reload/x": (MODULE, "1" * 40)})


def inside(forge: Forge, name: bytes, mode: str) -> str:
    """The honest files, and one below data/reload by a name or mode that git would not write."""
    files = forge.files()
    oid = forge.folders({}) if mode == FOLDER else forge.blob(b"#!/bin/sh\n")
    folders = {path.split("/")[1] for path in files if path.startswith("data/")}
    below = [(FOLDER, folder.encode(), forge.folders(_below(files, f"data/{folder}/")))
             for folder in folders]  # fmt: skip
    below.append((FOLDER, b"reload", forge.tree([(mode, name, oid)])))
    top = [(item[0], path.encode(), item[1]) for path, item in files.items() if "/" not in path]
    for folder in {path.split("/")[0] for path in files if "/" in path} - {"data"}:
        top.append((FOLDER, folder.encode(), forge.folders(_below(files, f"{folder}/"))))
    top.append((FOLDER, b"data", forge.tree(in_order(below))))
    return forge.tree(in_order(top))


def _below(files: Files, folder: str) -> Files:
    return {p.removeprefix(folder): item for p, item in files.items() if p.startswith(folder)}


def named(name: bytes, mode: str = PLAIN) -> Callable[[Honest, Forge], str]:
    return lambda _honest, forge: inside(forge, name, mode)


def twice(_honest: Honest, forge: Forge) -> str:
    blob = forge.blob(b"x")
    return forge.tree([(PLAIN, b"backup.json", blob), (PLAIN, b"backup.json", blob)])


def with_file(path: str, content: bytes, mode: str = PLAIN) -> Callable[[Honest, Forge], str]:
    return lambda _honest, forge: forge.folders(
        {**forge.files(), path: (mode, forge.blob(content))}
    )


def large(_honest: Honest, forge: Forge) -> str:
    return forge.folders(
        {**forge.files(), "data/reload/x": (PLAIN, forge.blob(b"", zeros=1 << 30))}
    )


def many(_honest: Honest, forge: Forge) -> str:
    blob = forge.blob(b"x")
    files = {f"data/reload/{number}": (PLAIN, blob) for number in range(30_000)}
    return forge.folders({**forge.files(), **files})


def deep(_honest: Honest, forge: Forge) -> str:
    """Ten thousand million files in a dozen objects."""
    below = forge.tree([(PLAIN, b"%d" % n, forge.blob(b"x")) for n in range(10)])
    for _ in range(9):
        below = forge.tree([(FOLDER, b"%d" % n, below) for n in range(10)])
    return forge.tree([(FOLDER, b"data", below)])


def about(**values: Any) -> Callable[[Honest, Forge], str]:
    def make(honest: Honest, forge: Forge) -> str:
        found = {
            "format": 1, "host": HOST, "secrets": "age",
            "recipients": [honest.kit.identity.public], **values,
        }  # fmt: skip
        raw = forge.blob(json.dumps(found).encode())
        return forge.folders({**forge.files(), "backup.json": (PLAIN, raw)})

    return make


def to_somebody_else(_honest: Honest, forge: Forge) -> str:
    _, public = age.new_identity()
    sealed = forge.blob(age.encrypt(b"", [public]))
    return forge.folders({**forge.files(), f"data/domains/{DOMAIN}/users.age": (PLAIN, sealed)})


def nothing(_honest: Honest, forge: Forge) -> str:
    return forge.tree([])


ESC = "\x1b[2J\u202e"
REMOTES: dict[str, tuple[Callable[[Honest, Forge], str], str]] = {
    "a symbolic link": (link, "is no plain file"),
    "a submodule": (module, "is no plain file"),
    "a folder that is called ..": (named(b"..", FOLDER), "git ended"),
    "a file that is called ..": (named(b".."), "git ended"),
    "a file that is called .git": (named(b".git"), "git ended"),
    "a slash in a name": (named(b"a/b"), "git ended"),
    "a name that begins with a dot": (named(b".x"), "is in no folder that a backup has"),
    "a name that moves the cursor": (named(ESC.encode()), "is in no folder that a backup has"),
    "a name of 4,000 letters": (named(b"x" * 4000), "is in no folder that a backup has"),
    "a mode that is a FIFO's": (named(b"x", "10644"), "is no plain file"),
    "a set-user-ID program": (named(b"y", "104755"), "reload/y: it is a program"),
    "one name twice": (twice, "git ended"),
    "a file for tambo's own memory": (
        with_file("data/state/instance.lock", b"x"), "is in no folder that a backup has",
    ),
    "a file for the deploy key": (
        with_file("data/backup.key/x", b"x"), "is in no folder that a backup has",
    ),
    "a file encrypted and in clear": (
        with_file(f"data/domains/{DOMAIN}/users", b""), "stands there twice",
    ),
    "a file that is a folder too": (
        with_file(f"data/domains/{DOMAIN}/users/x", b"x"), "is a file and a folder",
    ),
    "a file of a gigabyte": (large, "larger than"),
    "30,000 files": (many, "more than 20,000"),
    "10,000,000,000 files": (deep, "larger than any backup|could not be finished|git ended"),
    "a host that is two lines": (about(host="a\nb"), "backup.json in the backup is damaged"),
    "a host that is a path": (about(host="../../etc"), "backup.json in the backup is damaged"),
    "a format of another time": (about(format=ESC), "this backup is of format"),
    "recipients that are none": (about(recipients=[ESC]), "backup.json in the backup is damaged"),
    "a file encrypted to somebody else": (to_somebody_else, "cannot be decrypted"),
    "users that cannot be read": (
        with_file(f"data/domains/{DOMAIN}/aliases", b"a: b: c\n"), "aliases: line 1",
    ),
    "an overview that says something else": (
        with_file(f"overview/{DOMAIN}/users", b"x\n"), "does not agree",
    ),
    "nothing at all": (nothing, "this is no backup of tambo's"),
}  # fmt: skip


@pytest.mark.parametrize("what", list(REMOTES))
def test_a_remote_that_holds(kit: Kit, honest: Honest, what: str) -> None:
    """Without the signature, which would refuse all of these: what is behind it holds by itself."""
    make, text = REMOTES[what]
    forge = honest.forge()
    forge.publish(make(honest, forge))
    remote = f"git@git.example.net:{forge.repository}.git"
    data = kit.new_machine()
    before = tree_of(kit, data)
    anyway = ("--unverified", "--accept", "reload/x")
    refused = kit.restore(data, remote, *anyway, identity=kit.identity.private, options=SMALL)
    assert refused.status == 1, refused
    assert any(word in refused.stderr for word in text.split("|")), refused
    assert_harmless(refused)
    assert tree_of(kit, data) == before
    signed = kit.restore(data, remote, options=SMALL)
    assert signed.status == 1
    assert_harmless(signed)
    assert tree_of(kit, data) == before


def assert_harmless(said: Result) -> None:
    assert "Traceback" not in said.stderr
    for line in (said.stdout + said.stderr).splitlines():
        assert line.isprintable(), ascii(line)
        assert len(line) < 1000


def test_hooks_filters_and_attributes_in_a_remote_run_nothing(kit: Kit, honest: Honest) -> None:
    """Also in one that is a folder here, where git would read its configuration."""
    forge = honest.forge()
    files = forge.files()
    files[".gitattributes"] = (PLAIN, forge.blob(b"* filter=x export-subst\n"))
    files[".gitconfig"] = (PLAIN, forge.blob(b"[core]\n\tfsmonitor = touch /data/pwned\n"))
    forge.publish(forge.folders(files), parent=kit.git.head(forge.repository))
    data = kit.new_machine()
    there = f"/srv/git/{forge.repository}.git"
    script = (
        f"cd {there}; for hook in pre-receive post-update reference-transaction post-checkout; do "
        "printf '#!/bin/sh\\ntouch /data/pwned\\n' >hooks/$hook; chmod +x hooks/$hook; done; "
        "for name in core.fsmonitor filter.x.smudge uploadpack.packObjectsHook core.sshCommand "
        "core.pager gpg.program; do git config $name 'touch /data/pwned'; done; "
        "git config alias.fetch '!touch /data/pwned'; "
        "tar -C /srv/git -c . | base64 -w0"
    )
    packed = checked(kit.git.exec("bash", "-c", script, user="git")).stdout
    machine = kit.servers.machine
    machine.write(data / "remote.b64", packed)
    unpack = 'mkdir "$1/remote" && base64 -d "$1/remote.b64" | tar -x -C "$1/remote"'
    checked(machine.run("sh", "-c", unpack, "sh", str(data)))
    checked(machine.run("chown", "-R", "10465:10465", str(data / "remote")))
    paths = (f"git@git.example.net:{forge.repository}.git", f"/data/remote/{forge.repository}.git")
    for remote in paths:
        refused = kit.restore(data, remote)
        assert refused.status == 1
        assert "'.gitattributes' was added" in refused.stderr
        assert_harmless(refused)
        assert "pwned" not in machine.names(data)
        listed = kit.run(data, "list-backups", remote, "--host-key", kit.git.host_key)
        assert listed.status == 0, listed
        assert "pwned" not in machine.names(data)
    taken = kit.restore(data, paths[1], "--unverified", "--replace", identity=kit.identity.private)
    assert taken.status == 0, taken
    assert "pwned" not in machine.names(data)
    assert not [path for path in machine.tree(data / "domains") if "git" in path]


@pytest.mark.parametrize(
    "remote",
    [
        "--upload-pack=touch /data/pwned", "-oProxyCommand=touch /data/pwned",
        "ext::sh -c touch% /data/pwned", "ssh://-oProxyCommand=x/y", "fd::7", "file:///data/backup",
        "git@git.example.net:--upload-pack=x", "https://user:word@git.example.net/x.git",
        "git://git.example.net/x", "git@git.example.net:x\ny",
    ],
)  # fmt: skip
def test_an_address_is_no_option_and_no_command(kit: Kit, honest: Honest, remote: str) -> None:
    assert honest.repository
    data = kit.new_machine()
    before = tree_of(kit, data)
    refused = kit.run(
        data, "restore", "--host-key", kit.git.host_key, "--identity", "-", "--yes", "--", remote,
        input=kit.identity.kept,
    )  # fmt: skip
    assert refused.status != 0
    assert "Traceback" not in refused.stderr
    assert tree_of(kit, data) == before


def test_somebody_in_between_is_not_believed(kit: Kit, honest: Honest) -> None:
    data = kit.new_machine()
    before = tree_of(kit, data)
    remote = f"git@git.example.net:{honest.repository}.git"
    wrong = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    refused = kit.run(
        data, "restore", remote, "--host-key", wrong, "--identity", "-", "--yes",
        input=kit.identity.kept,
    )  # fmt: skip
    assert refused.status != 0
    assert "does not have the host key" in refused.stderr or "host key" in refused.stderr
    assert tree_of(kit, data) == before


def test_a_link_of_tambos_is_not_followed_when_a_restore_is_completed(
    kit: Kit, honest: Honest, servers: Servers
) -> None:
    """By root at a start: the plan, and the folder for what was there, are tambo's own."""
    assert honest.repository
    for aside in ("../../etc", "/etc", "20260301T000000Z/../../..", ""):
        data = kit.new_machine()
        ready = data / ".restore.ready"
        checked(servers.machine.run("mkdir", "-p", str(ready / "new/reload"), str(data / "reload")))
        servers.machine.write(ready / "plan.json", json.dumps({"aside": aside}))
        checked(servers.machine.run("chown", "-R", "10465:10465", str(data)))
        done = kit.run(data, "boot", options=("--env", f"MAIL_HOSTNAME={HOST}"))
        assert done.status != 0
        assert "cannot be completed" in done.stderr + done.stdout
        assert "reload" in servers.machine.names(data)
    outside = _outside(servers)
    data = kit.new_machine()
    ready = data / ".restore.ready"
    checked(servers.machine.run("mkdir", "-p", str(ready / "new"), str(data / "reload")))
    servers.machine.write(ready / "plan.json", json.dumps({"aside": "20260301T000000Z"}))
    checked(servers.machine.run("ln", "-s", "/outside", str(data / "replaced")))
    checked(servers.machine.run("mkdir", "-p", str(data / "state/good")))
    checked(servers.machine.run("chown", "-hR", "10465:10465", str(data)))
    done = kit.run(
        data, "boot",
        options=("--env", f"MAIL_HOSTNAME={HOST}", "--volume", f"{outside}:/outside"),
    )  # fmt: skip
    assert done.status != 0
    assert servers.machine.names(outside) == []


def _outside(servers: Servers) -> Path:
    """A folder that is root's."""
    folder = servers.base / "outside"
    checked(servers.machine.run("mkdir", "-p", "-m", "755", str(folder)))
    return folder
