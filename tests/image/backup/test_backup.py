"""The backup of a running server: one commit a change, at the remote within seconds."""

from __future__ import annotations

import base64
import json
import re
import time

import pytest

from tests.image.conftest import Servers
from tests.support.backups import PUSHED, Identity, Kit, memory, owned
from tests.support.container import checked
from tests.support.server import DOMAIN, HOST, Server
from tests.support.wait import wait_until

# Its first test asserts how long something takes, and the others go on from what it did.
pytestmark = [pytest.mark.alone, pytest.mark.long]

USER = f"i@{DOMAIN}"
QUIET = 8.0  # seconds in which a commit for a change would have come


@pytest.fixture(scope="module")
def repository(kit: Kit) -> str:
    return kit.repository()


@pytest.fixture(scope="module")
def server(kit: Kit, repository: str, module_servers: Servers) -> Server:
    assert module_servers.living is kit.servers.living
    server = kit.server(repository, DKIM_SELECTOR="k", ACME_EAB_HMAC_KEY="Zm9vYmFyYmF6", ACME_EAB_KID="kid-1")  # fmt: skip  # noqa: E501
    server.up()
    kit.first(repository)
    return server


def test_three_changes_make_three_commits_with_their_subjects_within_half_a_minute(
    kit: Kit, server: Server, repository: str
) -> None:
    before = kit.git.subjects(repository)
    since = time.monotonic()
    server.add_user(USER)
    server.machine.write(server.data / "domains" / DOMAIN / "aliases", "sales: i\n")
    server.ok("rotate-dkim", DOMAIN)
    wanted = {
        f"users: add {USER}",
        f"aliases: add sales@{DOMAIN}",
        f"dkim: new key k2r of {DOMAIN} waits for DNS",
    }
    after = kit.wait_for(repository, *wanted)
    assert time.monotonic() - since < PUSHED
    assert len(after) == len(before) + 3
    assert set(after[len(before) :]) == wanted


def test_each_kind_of_change_says_what_it_was(kit: Kit, server: Server, repository: str) -> None:
    aliases = server.data / "domains" / DOMAIN / "aliases"
    server.machine.write(aliases, "sales: i\nteam: i, sales\n")
    kit.wait_for(repository, f"aliases: add team@{DOMAIN}")
    server.machine.write(aliases, "sales: i@example.org\nteam: i, sales\n")
    kit.wait_for(repository, f"aliases: change sales@{DOMAIN}")
    server.ok("set-password", USER)
    kit.wait_for(repository, f"users: new password for {USER}")
    server.add_user(f"gone@{DOMAIN}")
    kit.wait_for(repository, f"users: add gone@{DOMAIN}")
    server.ok("remove-user", f"gone@{DOMAIN}")
    kit.wait_for(repository, f"users: remove gone@{DOMAIN}")
    server.machine.write(server.data / "reload/tell", "#!/bin/sh\n")
    server.machine.run("chmod", "755", str(server.data / "reload/tell"))
    server.ok("list-users")
    assert any(
        item.startswith("reload: add reload/tell")
        for item in kit.wait_for(repository, "reload: add reload/tell")
    )


def test_nothing_changed_makes_no_commit(kit: Kit, server: Server, repository: str) -> None:
    checked(server.verb("backup"))
    before = kit.git.head(repository)
    aliases = server.data / "domains" / DOMAIN / "aliases"
    server.machine.write(aliases, server.machine.read(aliases))
    server.machine.run("touch", str(server.data / "domains" / DOMAIN / "users"))
    server.ok("list-users")
    time.sleep(QUIET)
    server.compose("restart")
    server.wait_until_it_serves()
    time.sleep(QUIET)
    said = server.ok("backup")
    assert "Nothing has changed" in said
    assert kit.git.head(repository) == before


def test_the_list_of_backups_is_the_remotes_history(
    kit: Kit, server: Server, repository: str
) -> None:
    server.ok("backup")
    rows = server.verb("list-backups", "--json").json()
    assert [row["subject"] for row in rows] == kit.git.subjects(repository)[::-1]
    address = f"git@git.example.net:{repository}.git"
    there = checked(
        kit.run(
            kit.new_machine(),
            "list-backups",
            address,
            "--host-key",
            kit.git.host_key,
            "--json",
            "--identity",
            "-",
            input=kit.identity.kept,
        )
    )
    assert there.json() == rows
    assert all(row["verified"] for row in rows)
    assert rows[-1]["subject"] in server.ok("list-backups")


def test_what_is_no_secret_can_be_read_and_what_is_one_cannot(
    kit: Kit, server: Server, repository: str
) -> None:
    server.ok("backup")
    files = kit.git.files(repository)
    assert kit.git.show(repository, f"data/domains/{DOMAIN}/aliases").startswith("sales:")
    assert USER in kit.git.show(repository, f"overview/{DOMAIN}/users")
    assert "active kr v=DKIM1" in kit.git.show(repository, f"overview/{DOMAIN}/dkim")
    settings = kit.git.show(repository, "settings.env")
    assert f"MAIL_HOSTNAME={HOST}\n" in settings
    assert "# ACME_EAB_HMAC_KEY: secret\n" in settings
    assert f"data/domains/{DOMAIN}/users.age" in files
    assert "data/certs/self-signed/privkey.pem.age" in files
    assert "data/certs/self-signed/fullchain.pem" in files
    plain = [path for path in files if path.endswith(("/users", ".pem")) and "overview" not in path]
    assert plain == ["data/certs/self-signed/fullchain.pem"]


def test_no_secret_is_in_any_object_of_the_remotes_history(
    kit: Kit, server: Server, repository: str
) -> None:
    checked(server.verb("backup"))
    everything = kit.git.everything(repository)
    assert b"MAIL_HOSTNAME=" in everything, "objects are seen as they are"
    secrets = [
        kit.key.private.splitlines()[1], "Zm9vYmFyYmF6", kit.identity.private,
        kit.identity.signing_key,
    ]  # fmt: skip
    for path, entry in server.machine.tree(server.data).items():
        if entry.kind == "f" and path.startswith(("domains", "certs", "acme", "state/good")):
            text = server.machine.read(server.data / path)
            if "PRIVATE KEY" in text:
                secrets += text.splitlines()[1:-1]
            if path.endswith("/users"):
                secrets += re.findall(r'(?:salt|encrypted):\s*"([^"]{8,})"', text)
    assert len(secrets) > 30
    for secret in secrets:
        assert secret.encode() not in everything
        with_escapes = secret.encode("unicode_escape")
        assert with_escapes not in everything
    assert b"PRIVATE KEY" not in everything
    assert b"scrypt" not in everything


def test_the_check_compares_and_with_the_identity_decrypts(kit: Kit, server: Server) -> None:
    server.ok("backup")
    assert "by their digests" in server.ok("backup", "--check")
    checked_with = checked(
        server.verb("backup", "--check", "--identity", "-", input=kit.identity.kept)
    )
    assert "were decrypted with the identity given" in checked_with.stdout
    assert "its key is the one beside the identity" in checked_with.stdout
    other = Identity.make()
    paper = f"{kit.identity.private}\n# {other.verification_key}\n"
    mismatch = server.verb("backup", "--check", "--identity", "-", input=paper)
    assert mismatch.status == 1
    assert f"write down {kit.identity.verification_key}" in mismatch.stderr
    assert memory(server)["checked"]["wrong"] == ""
    server.machine.write(server.data / "domains" / DOMAIN / "aliases", "sales: i\nnew: i\n")
    wrong = server.verb("backup", "--check")
    # Unless the keeper was faster, or pushed it meanwhile.
    assert wrong.status in (0, 75) or "aliases differs" in wrong.stderr
    server.ok("backup")
    assert server.verb("backup", "--check").status == 0


def test_ages_own_program_decrypts_a_secret(kit: Kit, server: Server, repository: str) -> None:
    """Whoever has the identity needs no tambo."""
    server.ok("backup")
    [name] = [path for path in kit.git.files(repository) if re.search(r"/dkim:kr\.pem\.age$", path)]
    script = (
        f"git -C /srv/git/{repository}.git cat-file blob 'main:{name}' >/tmp/secret.age;"
        "cat >/tmp/identity; age --decrypt -i /tmp/identity /tmp/secret.age; rm /tmp/identity"
    )
    opened = checked(kit.git.exec("bash", "-c", script, input=kit.identity.private, user="git"))
    assert opened.stdout == server.keys()["dkim:kr.pem"]


def test_a_file_broken_by_hand_does_not_spoil_the_backup(
    kit: Kit, server: Server, repository: str
) -> None:
    server.log.expect("aliases: line")
    aliases = server.data / "domains" / DOMAIN / "aliases"
    good = server.machine.read(aliases)
    server.ok("backup")
    head = kit.git.head(repository)
    server.machine.write(aliases, "what: is: this\n")
    time.sleep(QUIET)
    assert kit.git.head(repository) == head, "the last good copy is what serves"
    server.machine.write(aliases, good)


def test_the_keys_are_in_no_command_line_and_in_no_file_but_for_a_moment(
    kit: Kit, server: Server
) -> None:
    server.ok("backup")
    assert "backup" not in server.container.exec("ls", "/run/tambo").stdout.split()
    environ = "cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'"
    chasquid = server.container.exec("sh", "-c", environ, user="chasquid").stdout
    assert "PRIVATE KEY" not in chasquid
    assert kit.key.private.splitlines()[1] not in server.container.log()


def test_json_reports_what_was_done(server: Server) -> None:
    server.ok("set-password", USER)
    report = server.verb("backup", "--json").json()
    assert report["pushed"]
    subjects = [item["subject"] for item in report["commits"]]
    assert subjects in ([], [f"users: new password for {USER}"])


def test_a_new_recipient_has_all_secrets_encrypted_anew_in_one_commit(
    kit: Kit, servers: Servers
) -> None:
    repository = kit.repository()
    server = kit.server(repository)
    assert server in servers.living
    server.up()
    kit.first(repository)
    other = Identity.make()
    server.down()
    text = (server.data.parent / "env").read_text()
    (server.data.parent / "env").write_text(text.replace(kit.identity.public, other.public))
    server.up()
    after = kit.wait_for(repository, "secrets: encrypted to another recipient")
    assert (
        after[1:]
        == ["secrets: encrypted to another recipient", "settings: set BACKUP_AGE_RECIPIENT"]
        or len(after) <= 3
    )
    assert other.public in kit.git.show(repository, "backup.json")


def test_without_the_memory_there_is_exactly_one_commit_that_says_so(
    kit: Kit, servers: Servers
) -> None:
    repository = kit.repository()
    server = kit.server(repository)
    assert server in servers.living
    server.up()
    kit.first(repository)
    before = kit.git.subjects(repository)
    server.down()
    server.machine.delete(server.data / "state/backup.json")
    server.up()
    subject = "secrets: encrypted anew, as it was not remembered what they were"
    assert kit.wait_for(repository, subject) == [*before, subject]


def test_without_a_recipient_nothing_is_sent_until_the_owner_wants_it_in_clear(
    kit: Kit, servers: Servers
) -> None:
    repository = kit.repository()
    server = kit.server(repository, BACKUP_AGE_RECIPIENT="", BACKUP_SIGNING_KEY="")
    assert server in servers.living
    server.log.expect("warn: The backup has failed since .* without BACKUP_AGE_RECIPIENT")
    server.up()
    refused = wait_until(lambda: server.verb("backup"), "it answers")
    assert refused.status == 1
    assert "backup --new-key" in refused.stderr
    assert kit.git.subjects(repository) == []
    wait_until(lambda: "has failed since" in server.container.log(), "the keeper says so")
    server.down()
    with (server.data.parent / "env").open("a") as file:
        file.write("BACKUP_PLAINTEXT=yes\n")
    server.log.tolerate("mended")
    server.up()
    kit.first(repository)
    assert "PRIVATE KEY" in kit.git.show(repository, "data/certs/self-signed/privkey.pem")
    # And back: what was in clear once is not pushed on as if it were not.
    server.down()
    with (server.data.parent / "env").open("a") as file:
        file.write(f"BACKUP_AGE_RECIPIENT={kit.identity.public}\n")
    server.log.expect("warn: The backup has failed since .* holds secrets in clear from when")
    server.up()
    wait_until(lambda: "holds secrets in clear" in server.verb("backup").stderr, "it refuses")
    wait_until(lambda: "in clear from when" in server.container.log(), "the keeper says so")


def test_over_https_with_a_token(kit: Kit, servers: Servers) -> None:
    repository = kit.repository()
    bundle, token = servers.base / "git-ca.pem", servers.base / "git-token"
    bundle.write_text(kit.git.ca)
    token.write_text(kit.git.token)
    server = servers.make(
        {
            "BACKUP_GIT_REMOTE": f"https://git.example.net/{repository}.git",
            "BACKUP_GIT_TOKEN_FILE": "/data/backup.token",
            "BACKUP_AGE_RECIPIENT": kit.identity.public,
            "ACME_CA_BUNDLE": "/data/git-ca.pem",
        }
    )
    servers.machine.write(server.data / "git-ca.pem", kit.git.ca)
    servers.machine.write(server.data / "backup.token", kit.git.token)
    server.up()
    kit.first(repository)
    assert "restores to what is here" in server.ok("backup", "--check")
    everything = kit.git.everything(repository)
    pair = base64.b64encode(f"git:{kit.git.token}".encode())
    assert kit.git.token.encode() not in everything
    assert pair not in everything
    assert kit.git.token not in server.container.log()


def test_a_copy_of_what_is_owned_is_the_backup(kit: Kit, server: Server, repository: str) -> None:
    """Nothing is forgotten: each file of the owner's is in the commit, and nothing else."""
    server.ok("backup")
    files = {path for path in kit.git.files(repository) if path.startswith("data/")}
    wanted = {name.replace("/./", "/") for name in owned(server)}
    assert {path.removeprefix("data/").removesuffix(".age") for path in files} == wanted
    about = json.loads(kit.git.show(repository, "backup.json"))
    assert about["recipients"] == [kit.identity.public]
