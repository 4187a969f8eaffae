"""git's own program, on repositories of the tests' own, and what its words mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from entrypoint.backup import git
from entrypoint.backup.git import Access, Blob, Commit, GitError, Node, RejectedError, Repository
from entrypoint.common.errors import Exit
from entrypoint.common.identity import Ids

AUTHOR = "tambo <tambo@smtp.example.com>"
SSH = Access("git@git.example.com:me/backup.git", "key", ("ssh-ed25519 AAAA",))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    found = Repository(tmp_path / "backup")
    found.prepare()
    return found


@pytest.fixture
def remote(tmp_path: Path) -> Repository:
    found = Repository(tmp_path / "remote.git")
    found.prepare()
    return found


def commit(repository: Repository, subject: str, **files: bytes | None) -> str:
    changes = {
        name.replace("__", "/"): None if content is None else Blob(content)
        for name, content in files.items()
    }
    return repository.commit([Commit(subject, "Server: h 1", changes)], AUTHOR, 1_767_225_600)


def test_commits_are_made_and_read_back(repository: Repository) -> None:
    blobs = {"a/b": Blob(b"one\n\0\xff"), 'odd "name"\\x': Blob(b"", executable=True)}
    repository.commit([Commit("first: x", "Server: smtp.example.com 1a", blobs)], AUTHOR, 1)
    head = commit(repository, "second", a__b=b"two")
    tree = repository.tree(head)
    assert tree == {"a/b": Node(Blob(b"two").oid), 'odd "name"\\x': Node(Blob(b"").oid, True)}
    assert repository.read(node.oid for node in tree.values()) == {
        Blob(b"two").oid: b"two", Blob(b"").oid: b"",
    }  # fmt: skip
    newest, oldest = repository.log(head)
    assert (oldest.subject, oldest.when, oldest.server) == ("first: x", 1, "smtp.example.com 1a")
    assert repository.read([Blob(b"one\n\0\xff").oid]) == {Blob(b"one\n\0\xff").oid: b"one\n\0\xff"}
    commit(repository, "third", a__b=None)
    assert list(repository.tree(repository.head)) == ['odd "name"\\x']
    assert newest.oid == head


def test_several_commits_are_made_together(repository: Repository) -> None:
    repository.commit(
        [Commit(name, "b", {name: Blob(name.encode())}) for name in ("one", "two")], AUTHOR, 5
    )
    assert [entry.subject for entry in repository.log(repository.head)] == ["two", "one"]
    assert sorted(repository.tree(repository.head)) == ["one", "two"]


def test_an_empty_repository_has_nothing(repository: Repository) -> None:
    assert repository.head == ""
    assert repository.log("") == []
    assert repository.tree("") == {}
    assert not repository.ever_held("x", "y")


def test_prepare_mends_what_a_kill_left(tmp_path: Path) -> None:
    path = tmp_path / "backup"
    path.mkdir()
    (path / "half").write_text("x")
    repository = Repository(path)
    repository.prepare()
    head = commit(repository, "first", a=b"1")
    (path / "refs/heads/main.lock").touch()
    (path / "HEAD.lock").touch()
    (path / "objects/pack/tmp_pack_x").touch()
    repository.prepare()
    assert commit(repository, "second", a=b"2") != head
    assert not list(path.rglob("tmp_*"))


def test_push_and_fetch(
    repository: Repository, remote: Repository, tmp_path: Path, ids: Ids
) -> None:
    access, folder = Access(str(remote.path)), tmp_path / "session"
    assert repository.fetch(access, folder, ids) == ""
    head = commit(repository, "first", a=b"1")
    repository.push(access, folder, ids)
    repository.push(access, folder, ids)
    assert remote.head == head
    theirs = commit(remote, "theirs", b=b"2")
    commit(repository, "ours", a=b"3")
    with pytest.raises(RejectedError):
        repository.push(access, folder, ids)
    assert remote.head == theirs, "nothing is forced"
    assert repository.fetch(access, folder, ids) == theirs
    assert repository.is_ancestor(head, theirs)
    assert not repository.is_ancestor(repository.head, theirs)
    assert repository.related(repository.head, theirs)
    assert not folder.exists(), "keys do not stay"


def test_history_is_searched(repository: Repository) -> None:
    commit(repository, "first", f=b'{"secrets": "clear"}\n')
    commit(repository, "second", f=b'{"secrets": "age"}\n')
    assert repository.ever_held("f", '"secrets": "clear"')
    assert not repository.ever_held("f", '"secrets": "other"')


def test_the_trees_of_a_history_are_those_of_its_commits(repository: Repository) -> None:
    commit(repository, "first", a__b=b"1", c=b"2")
    changes = {"a/b": Blob(b"3", executable=True), "c": None, "d": Blob(b"4")}
    repository.commit([Commit("second", "x", changes)], AUTHOR, 2)
    commit(repository, "empty")
    found = [(oid, dict(tree or {})) for oid, tree in repository.trees(repository.head)]
    assert found == [
        (entry.oid, repository.tree(entry.oid)) for entry in repository.log(repository.head)[::-1]
    ]
    assert repository.count(repository.head) == len(found) == 3
    assert list(repository.trees("")) == []
    assert repository.count("") == 0


def test_a_commit_with_a_link_has_no_tree_and_the_next_may(repository: Repository) -> None:
    commit(repository, "first", a=b"1")
    link = repository._git("hash-object", "-w", "--stdin", input=b"/etc/passwd").decode().strip()
    stream = (
        f"commit refs/heads/main\ncommitter {AUTHOR} 5 +0000\ndata 1\nx\n"
        f"from refs/heads/main^0\nM 120000 {link} a\n\ndone\n"
    )
    repository._git("fast-import", "--quiet", "--done", input=b"feature done\n" + stream.encode())
    with pytest.raises(GitError, match="is no plain file"):
        repository.tree(repository.head)
    commit(repository, "third", a=b"2")
    assert [tree is None for _, tree in repository.trees(repository.head)] == [False, True, False]


def test_what_is_larger_than_any_backup_is_not_read(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repository, "first", a=b"x" * 5000, b=b"y" * 5000)
    oids = [node.oid for node in repository.tree(repository.head).values()]
    monkeypatch.setattr(git, "_MAX_TOTAL", 9999)
    assert repository.read(oids[:1])
    with pytest.raises(GitError, match="larger than") as caught:
        repository.read(oids)
    assert caught.value.id == "strange"
    monkeypatch.setattr(git, "_MAX_FILE", 4999)
    with pytest.raises(GitError, match="larger than"):
        repository.read(oids[:1])
    monkeypatch.setattr(git, "_MAX_FILES", 1)
    with pytest.raises(GitError, match="there are 2 files in the backup"):
        repository.tree(repository.head)
    monkeypatch.setattr(git, "_MAX_OUTPUT", 50)
    with pytest.raises(GitError, match="larger than any backup"):
        repository.tree(repository.head)


def test_commits_on_top_of_another_branchs(repository: Repository) -> None:
    ours = commit(repository, "ours", a=b"1")
    repository._git("update-ref", "-d", "refs/heads/main")
    theirs = commit(repository, "theirs", b=b"2")
    repository.set("refs/heads/main", ours)
    item = Commit("on top", "x", {"b": None, "a": Blob(b"1")})
    head = repository.commit([item], AUTHOR, 9, theirs)
    assert [entry.subject for entry in repository.log(head)] == ["on top", "theirs"]
    assert list(repository.tree(repository.head)) == ["a"]
    assert not repository.resolve("refs/aside/main")


def test_a_missing_object_is_told(repository: Repository) -> None:
    with pytest.raises(GitError, match="damaged") as caught:
        repository.read(["0" * 40])
    assert caught.value.id == "damaged"


def test_the_session_of_ssh_believes_one_host_key_and_no_other_file(
    tmp_path: Path, ids: Ids
) -> None:
    folder = tmp_path / "session"
    with git.session(SSH, folder, ids) as environ:
        assert (folder / "key").read_text() == "key\n"
        assert (folder / "key").stat().st_mode & 0o777 == 0o600
        assert (folder / "known_hosts").read_text() == "backup ssh-ed25519 AAAA\n"
        config = (folder / "ssh_config").read_text()
        assert "StrictHostKeyChecking yes" in config
        assert environ["GIT_SSH_COMMAND"] == f"/usr/bin/ssh -F {folder / 'ssh_config'}"
        assert "key" not in environ.values()
    assert not folder.exists()


def test_the_session_of_https_sends_the_token_to_that_server_alone(
    tmp_path: Path, ids: Ids
) -> None:
    access = Access("https://me@git.example.com:8443/me/x.git", token="tok3n")
    with git.session(access, tmp_path / "session", ids) as environ:
        names = {key: value for key, value in environ.items() if value.startswith("http.https")}
        assert list(names.values()) == ["http.https://git.example.com:8443/.extraHeader"]
        assert "tok3n" not in " ".join(environ.values())
        assert "Basic bWU6dG9rM24=" in " ".join(environ.values())


# As git 2.47 and ssh 10.0 print them.
WORDS = {
    "ssh: connect to host git.example.com port 22: Connection refused\n"
    "fatal: Could not read from remote repository.": "down",
    "ssh: Could not resolve hostname git.example.com: Name or service not known": "down",
    "kex_exchange_identification: Connection closed by remote host": "down",
    "@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n"
    "SHA256:" + "a" * 43 + ".\nHost key verification failed.": "host-key",
    "No ED25519 host key is known for backup and you have requested strict checking.\n"
    "Host key verification failed.": "host-key",
    "git@git.example.com: Permission denied (publickey).\n"
    "fatal: Could not read from remote repository.": "refused",
    'Load key "/run/tambo/backup/key": error in libcrypto\n'
    "git@git.example.com: Permission denied (publickey).": "bad-key",
    "ERROR: The key you are authenticating with has been marked as read only.": "read-only",
    "!\trefs/heads/main:refs/heads/main\t[remote rejected] (pre-receive hook declined)":
        "read-only",
    "remote: error: file write error: No space left on device\n"
    "error: remote unpack failed: unpack-objects abnormal exit\n"
    "!\trefs/heads/main:refs/heads/main\t[remote rejected] (unpacker error)": "remote-full",
    "fatal: unable to write loose object file: No space left on device": "full",
    "fatal: sha1 file '/data/backup/objects/pack/tmp_pack_59WHrT' write error. Out of diskspace":
        "full",
    "ERROR: Repository not found.\nfatal: Could not read from remote repository.": "no-repository",
    "fatal: 'x.git' does not appear to be a git repository": "no-repository",
    "fatal: Authentication failed for 'https://git.example.com/me/x.git/'": "refused",
    "fatal: could not read Username for 'https://git.example.com': terminal prompts disabled":
        "refused",
    "fatal: unable to access 'https://g/': The requested URL returned error: 503": "down",
    "fatal: unable to access 'https://g/': SSL certificate problem: self-signed certificate":
        "certificate",
    "fatal: unable to access 'https://g/': The requested URL returned error: 301": "moved",
    "fatal: loose object 1234 (stored in /data/backup/objects/12/34) is corrupt": "damaged",
    "error: object file objects/12/34 is empty\nfatal: bad object HEAD": "damaged",
    "fatal: something new": "git",
}  # fmt: skip


@pytest.mark.parametrize(("said", "kind"), WORDS.items(), ids=list(WORDS.values()))
def test_what_gits_words_mean(said: str, kind: str) -> None:
    error = git.explain(128, said, SSH)
    assert error.id == kind
    assert error.fix
    assert "Please make sure" not in error.message
    if kind == "host-key" and "SHA256" in said:
        assert f"(it has SHA256:{'a' * 43})" in error.message
    assert (error.exit_code is Exit.TRY_AGAIN) == (kind == "down")


def test_a_token_in_gits_words_is_not_passed_on() -> None:
    access = Access("https://git.example.com/x.git", token="tok3n")
    error = git.explain(128, "fatal: strange tok3n\x1b[2J", access)
    assert "tok3n" not in error.message
    assert "\x1b" not in error.message


def test_a_time_out() -> None:
    assert git.explain(124, "", SSH).id == "timeout"
