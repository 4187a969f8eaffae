"""The backup's work, with real git and real age, and a repository beside for the remote."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from entrypoint.backup import backup, index, manifest, schedule
from entrypoint.backup.backup import Backup
from entrypoint.backup.git import Access, Blob, Commit, GitError, Node, Repository
from entrypoint.backup.index import Memory
from entrypoint.backup.schedule import Keeping
from entrypoint.chasquid import userdb
from entrypoint.chasquid.userdb import Scrypt
from entrypoint.common import age, locks, signing
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths
from entrypoint.converge import reconcile
from entrypoint.settings.model import Settings
from tests.unit.kit import EXAMPLE_COM, asked, put, until
from tests.unit.settings.test_model import ssh_backup

PRIVATE, PUBLIC = age.new_identity()
SIGN = signing.new_key()
VERIFY = signing.verification_key(SIGN)
FIRST = "backup: the first of smtp.example.com"


class Box:
    """A server's volume, its backup and the remote."""

    def __init__(self, tmp_path: Path, paths: Paths, ids: Ids, **more: str) -> None:
        self.paths, self.ids = paths, ids
        self.said: list[str] = []
        self.now = 1_767_225_600.0
        self.remote = Repository(tmp_path / "remote.git")
        self.remote.prepare()
        plain = {"DKIM_KEYS": "ed25519", "DKIM_SELECTOR": "t1", "BACKUP_AGE_RECIPIENT": PUBLIC,
                 "BACKUP_SIGNING_KEY": SIGN}  # fmt: skip
        values = {**ssh_backup(tmp_path), **plain, **more}
        self.settings = asked(**{name: value for name, value in values.items() if value})
        paths.state.mkdir(parents=True, exist_ok=True)
        with locks.edit_lock(paths, ids):
            reconcile.reconcile(self.settings, paths, ids)
        self.work = self.worker(self.settings)

    def worker(self, settings: Settings) -> Backup:
        return Backup(settings, self.paths, self.ids, self.said.append, lambda: self.now)

    @property
    def subjects(self) -> list[str]:
        return [entry.subject for entry in self.remote.log(self.remote.head)][::-1]

    def run(self) -> list[str]:
        """The subjects of the new commits."""
        self.now += 60
        return [entry.subject for entry in self.work.run(patient=False)]

    def fails(self) -> GitError:
        self.now += 60
        with pytest.raises(UserError) as caught:
            self.work.run(patient=False)
        assert isinstance(caught.value, GitError)
        return caught.value

    def put(self, name: str, content: str) -> None:
        put(self.paths.domain(EXAMPLE_COM) / name, content)

    def memory(self) -> Memory:
        found = index.load(self.paths)
        assert found
        return found


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The remote is a folder here: what SSH and HTTPS do is for the tests in the world."""
    found = SimpleNamespace(remote=str(tmp_path / "remote.git"))
    monkeypatch.setattr(Backup, "access", lambda _self: Access(found.remote))
    return found


@pytest.fixture
def box(tmp_path: Path, paths: Paths, ids: Ids, address: SimpleNamespace) -> Box:
    assert address.remote
    return Box(tmp_path, paths, ids)


def users(*names: str) -> str:
    """Each time with other hashes."""
    return userdb.render({name: Scrypt.of(f"secret-word {name}", 1) for name in names})


def test_one_commit_a_change_and_none_without_one(box: Box) -> None:
    assert box.run() == [FIRST]
    assert box.run() == []
    box.put("users", users("i"))
    assert box.run() == ["users: add i@example.com"]
    box.put("aliases", "sales: i\n")
    text = users("i", "you")
    box.put("users", text)
    assert box.run() == ["aliases: add sales@example.com",
                         "users: add you@example.com, new password for i@example.com"]  # fmt: skip
    box.put("users", text)
    assert box.run() == []
    (box.paths.domain(EXAMPLE_COM) / "aliases").unlink()
    assert box.run() == ["aliases: remove sales@example.com"]
    assert box.subjects[0] == FIRST
    assert len(box.subjects) == 5
    assert box.said.count(f"pushed {box.remote.head[:10]}") == 1


def test_no_secret_in_any_object(box: Box) -> None:
    box.put("users", users("i"))
    box.put("acme.env", "CF_Token=hunter2-hunter2\n")
    box.run()
    oids = [node.oid for entry in box.remote.log(box.remote.head)
            for node in box.remote.tree(entry.oid).values()]  # fmt: skip
    everything = b"".join(box.remote.read(oids).values())
    assert b"smtp.example.com" in everything
    for secret in (b"hunter2", b"PRIVATE KEY", b"scrypt", b"c2VjcmV0"):
        assert secret not in everything


def test_the_memory_holds_no_secret(box: Box) -> None:
    box.put("users", users("i"))
    box.run()
    text = box.paths.backup_memory.read_text()
    assert "scrypt" not in text
    assert "PRIVATE" not in text
    assert box.paths.backup_memory.stat().st_mode & 0o777 == 0o600


def test_a_memory_that_is_gone_costs_one_commit(box: Box) -> None:
    box.run()
    box.paths.backup_memory.unlink()
    [subject] = box.run()
    assert subject.startswith("secrets: encrypted anew")
    assert box.run() == []
    box.paths.backup_memory.write_text("{")
    assert len(box.run()) == 1


def test_another_recipient(box: Box) -> None:
    box.run()
    private, public = age.new_identity()
    box.settings = box.settings.model_copy(update={"backup_age_recipient": (public,)})
    box.work = box.worker(box.settings)
    assert box.run() == ["secrets: encrypted to another recipient"]
    assert "restores to what is here" in box.work.check([private])
    with pytest.raises(UserError, match="wrong identity"):
        box.work.check([PRIVATE])


def test_killed_between_memory_and_commit_nothing_is_committed_twice(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.run()
    box.put("users", users("i"))

    def killed(*_args: object) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            box.run()
    assert box.run() == ["users: add i@example.com"]
    assert box.run() == []


def test_killed_after_the_commit_it_is_pushed_the_next_time(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.run()
    box.put("users", users("i"))

    def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Repository, "push", killed)
        with pytest.raises(KeyboardInterrupt):
            box.run()
    assert box.run() == []
    assert box.subjects == [FIRST, "users: add i@example.com"]


def test_a_broken_file_leaves_what_the_backup_has(box: Box) -> None:
    box.put("aliases", "sales: i\n")
    box.run()
    box.put("aliases", "a: b: c\n")
    box.put("users", users("i"))
    assert box.run() == ["users: add i@example.com"]
    assert "restores" in box.work.check([PRIVATE])
    box.put("aliases", "sales: you\n")
    assert box.run() == ["aliases: change sales@example.com"]


def test_a_key_that_is_gone_stays_in_the_backup(box: Box) -> None:
    box.run()
    [key] = box.paths.domain(EXAMPLE_COM).glob("dkim:*.pem")
    key.unlink()
    assert box.run() == []
    (box.paths.good / EXAMPLE_COM / key.name).unlink()
    assert box.run() == ["dkim: remove t1e of example.com"]


def test_links_and_strange_names_are_left_out_and_told(box: Box) -> None:
    box.paths.reload.mkdir(exist_ok=True)
    (box.paths.reload / "link").symlink_to("/bin/true")
    put(box.paths.reload / "a b", "x")
    put(box.paths.reload / "large", b"x" * ((1 << 20) + 1))
    put(box.paths.reload / ".hidden.new", "x")
    box.run()
    assert {item.name for item in box.memory().left_out} == {
        "reload/link", "reload/a b", "reload/large",
    }  # fmt: skip


def test_while_a_certificate_is_issued_its_files_wait(box: Box) -> None:
    box.run()
    put(box.paths.acme / "example.com/account.conf", "x")
    box.put("aliases", "a: i\n")
    with locks.acme_lock(box.paths, box.ids) as free:
        assert free
        made = box.work.run()
    assert [entry.subject for entry in made] == ["aliases: add a@example.com"]
    assert box.run() == ["certs: ACME account of example.com"]


def test_without_a_recipient_nothing_reaches_git(
    tmp_path: Path, paths: Paths, ids: Ids, address: SimpleNamespace
) -> None:
    assert address.remote
    box = Box(tmp_path, paths, ids, BACKUP_AGE_RECIPIENT="", BACKUP_SIGNING_KEY="")
    assert box.fails().id == "refused-clear"
    assert not paths.backup.exists()
    clear = {"backup_plaintext": "yes"}
    box.work = box.worker(box.settings.model_copy(update=clear))
    assert box.run() == [FIRST]
    assert "nothing in it is encrypted" in box.work.check()
    again = {"backup_plaintext": "no", "backup_age_recipient": (PUBLIC,)}
    box.work = box.worker(box.settings.model_copy(update=again))
    assert box.fails().id == "clear-history"
    assert len(box.subjects) == 1


def test_a_failure_is_remembered_with_growing_pauses(box: Box, address: SimpleNamespace) -> None:
    box.run()
    right, address.remote = address.remote, f"{address.remote}.away"
    box.put("users", users("i"))
    assert box.fails().id == "no-repository"
    first = box.memory().trouble
    assert first
    assert box.work.due_in() > 0
    box.fails()
    second = box.memory().trouble
    assert second
    assert second.since == first.since
    assert (first.next_try - first.since, second.next_try - box.now) == (15, 30)
    box.now += 31
    assert not box.work.due_in()
    address.remote = right
    assert box.run() == [], "it was committed before"
    assert box.memory().trouble is None
    assert box.subjects[-1] == "users: add i@example.com"


def foreign(box: Box, server: str = "") -> str:
    body = f"Server: {server}" if server else "by hand"
    return box.remote.commit([Commit("foreign", body, {})], "A <a@example.org>", 5)


def test_two_servers(box: Box) -> None:
    box.run()
    theirs = foreign(box, "mail.example.org ffffffff")
    box.put("users", users("i"))
    error = box.fails()
    assert error.id == "two-servers"
    assert "mail.example.org" in error.message
    assert box.remote.head == theirs
    assert [entry.subject for entry in box.work.take_over()] == [
        "take-over: the state of smtp.example.com from here on"
    ]
    assert box.subjects[:2] == [FIRST, "foreign"]
    assert box.run() == []


def test_a_commit_by_hand(box: Box) -> None:
    box.run()
    foreign(box)
    box.put("users", users("i"))
    assert box.fails().id == "foreign-commit"


def test_an_older_copy_of_the_volume(box: Box) -> None:
    box.run()
    foreign(box, f"smtp.example.com {box.memory().server}")
    box.put("users", users("i"))
    assert box.fails().id == "older-data"


def test_a_rewritten_history(box: Box) -> None:
    box.run()
    box.put("users", users("i"))
    box.run()
    ours = box.remote.head
    box.remote._git("update-ref", "-d", "refs/heads/main")
    foreign(box)
    box.put("aliases", "a: i\n")
    assert box.fails().id == "rewritten"
    box.work.take_over()
    kept = box.work.repository._git("for-each-ref", "--format=%(objectname)", "refs/kept").decode()
    [kept_head] = kept.split()
    assert box.work.repository.is_ancestor(ours, kept_head)
    assert box.subjects == ["foreign", "take-over: the state of smtp.example.com from here on"]


def test_a_remote_that_lost_commits_gets_them_again(box: Box) -> None:
    box.run()
    first = box.remote.head
    box.put("users", users("i"))
    box.run()
    box.remote.set("refs/heads/main", first)
    box.run()
    assert box.subjects == [FIRST, "users: add i@example.com"]


def test_the_repository_here_comes_back_from_the_remote(box: Box) -> None:
    box.run()
    box.paths.backup.rename(box.paths.data / "away")
    assert box.run() == []
    assert "data/backup was gone; it is back from the remote" in box.said


def test_the_check_finds_what_differs(box: Box) -> None:
    box.put("aliases", "a: i\n")
    box.run()
    assert "by their digests" in box.work.check()
    assert "were decrypted" in box.work.check([PRIVATE])
    assert box.memory().checked == index.Checked(box.now, box.remote.head)
    # Not pushed yet: no fault of the backup's.
    box.put("users", users("i"))
    with pytest.raises(UserError, match=r"users is missing .*not all is pushed") as caught:
        box.work.check()
    assert caught.value.exit_code == Exit.TRY_AGAIN
    box.run()
    assert "restores" in box.work.check()
    # Somebody has changed it there.
    other = Blob(b"a: you\n")
    changes = {"data/domains/example.com/aliases": other, "README.md": None, "x": other}
    box.remote.commit([Commit("x", "x", changes)], "A <a@example.org>", 5)
    with pytest.raises(UserError, match="is not signed by this server") as caught:
        box.work.check()
    for text in ("'x' was added", "'README.md' is missing", "aliases' was changed"):
        assert text in str(caught.value)
    # One that signs nothing sees it too.
    unsigned = box.worker(box.settings.model_copy(update={"backup_signing_key": None}))
    with pytest.raises(UserError) as caught:
        unsigned._compare(unsigned.access(), (), ())
    for text in ("data/domains/example.com/aliases differs", "README.md is missing there",
                 "x is there and not here"):  # fmt: skip
        assert text in str(caught.value)
    assert caught.value.exit_code == Exit.WRONG
    checked = box.memory().checked
    assert checked
    assert "was changed" in checked.wrong
    assert box.work.check_due_in() > 0
    box.now += 3600
    assert not box.work.check_due_in(), "perhaps it is mended"
    assert not box.paths.backup_scratch.exists()


def test_the_check_says_nothing_while_files_change(box: Box) -> None:
    box.run()
    box.put("users", users("i"))
    with pytest.raises(UserError, match="changed while they were compared"):
        box.work.check(seen=())
    assert box.memory().checked is None


# --- signatures


def signer(box: Box) -> manifest.Manifest:
    """What the remote's last commit says of itself, verified."""
    tree = box.remote.tree(box.remote.head)
    return index.verify(tree, box.remote.read(node.oid for node in tree.values()), [VERIFY])


def unsigned(box: Box) -> Box:
    box.settings = box.settings.model_copy(update={"backup_signing_key": None})
    box.work = box.worker(box.settings)
    return box


def test_each_commit_is_signed_with_its_number_and_time(box: Box) -> None:
    box.run()
    first = signer(box)
    assert (first.host, first.number, first.when) == ("smtp.example.com", 1, int(box.now))
    assert (first.domains, first.recipients) == (("example.com",), (PUBLIC,))
    assert first.server == box.memory().server
    box.put("users", users("i"))
    box.put("aliases", "sales: i\n")
    assert len(box.run()) == 2
    assert signer(box).number == 3
    every = {entry.oid for entry in box.remote.log(box.remote.head)}
    assert index.verified(box.remote, box.remote.head, [VERIFY]) == every
    other = signing.verification_key(signing.new_key())
    assert not index.verified(box.remote, box.remote.head, [other])


def test_the_signing_key_is_in_no_object(box: Box) -> None:
    box.run()
    assert SIGN in [item.value for item in box.settings.given]
    assert "settings.secrets.age" in box.remote.tree(box.remote.head)
    oids = [node.oid for entry in box.remote.log(box.remote.head)
            for node in box.remote.tree(entry.oid).values()]  # fmt: skip
    everything = b"".join(box.remote.read(oids).values())
    assert VERIFY.encode() in everything
    assert SIGN.encode() not in everything
    assert SIGN not in box.paths.backup_memory.read_text()
    assert SIGN not in "".join(box.said)
    assert SIGN not in repr(box.settings)


def test_a_backup_from_before_is_signed_by_a_commit_of_its_own(box: Box) -> None:
    work, asked = box.work, box.settings
    unsigned(box).run()
    assert manifest.NAME not in box.remote.tree(box.remote.head)
    assert "it is not signed" in box.work.check([PRIVATE])
    box.work, box.settings = work, asked
    with pytest.raises(UserError, match="not signed by this server") as caught:
        box.work.check()
    assert caught.value.exit_code == Exit.TRY_AGAIN, "it will be, at the next commit"
    assert box.run() == ["backup: signed"]
    assert signer(box).number == 2
    assert box.run() == []
    assert "it is signed, number 2; its key is the one" in box.work.check([PRIVATE], [VERIFY])


def test_another_signing_key_signs_at_once(box: Box) -> None:
    box.run()
    other = signing.new_key()
    box.settings = box.settings.model_copy(update={"backup_signing_key": SecretStr(other)})
    box.work = box.worker(box.settings)
    assert box.run() == ["backup: signed with another key"]
    with pytest.raises(UserError, match="the verification key beside the identity is another"):
        box.work.check([PRIVATE], [VERIFY])
    checked = box.memory().checked
    assert checked is None, "the paper is to blame, not the backup"
    assert "it is signed" in box.work.check([PRIVATE], [signing.verification_key(other)])


def test_without_the_key_no_stale_signature_stays(box: Box) -> None:
    box.run()
    assert unsigned(box).run() == ["backup: not signed any more"]
    assert not manifest.NAMES & box.remote.tree(box.remote.head).keys()
    assert box.run() == []


def test_what_somebody_else_wrote_is_not_signed_by_a_take_over(box: Box) -> None:
    """A file that is broken here stays as the last backup of here has it, not as theirs does."""
    box.put("aliases", "sales: i\n")
    box.run()
    good = box.remote.tree(box.remote.head)["data/domains/example.com/aliases"]
    box.put("aliases", "a: b: c\n")
    (box.paths.good / EXAMPLE_COM / "aliases").unlink(missing_ok=True)
    theirs = {
        "data/domains/example.com/aliases": Blob(b"sales: |sh\n"),
        "data/reload/x": Blob(b"#!/bin/sh\n", executable=True),
    }
    box.remote.commit([Commit("foreign", "by hand", theirs)], "A <a@example.org>", 5)
    box.put("users", users("i"))
    assert box.fails().id == "foreign-commit"
    box.work.take_over()
    tree = box.remote.tree(box.remote.head)
    assert tree["data/domains/example.com/aliases"] == good
    assert "data/reload/x" not in tree
    assert signer(box).number == box.remote.count(box.remote.head) == 3


def test_a_lost_repository_does_not_come_back_from_somebody_else(box: Box) -> None:
    """Its last commit names this server, as anybody may write; it is not signed."""
    box.put("aliases", "sales: i\n")
    box.run()
    body = f"Server: smtp.example.com {box.memory().server}"
    theirs: dict[str, Blob | Node | None] = {
        "data/domains/example.com/aliases": Blob(b"sales: |sh\n")
    }
    head = box.remote.commit([Commit("foreign", body, theirs)], "A <a@example.org>", 5)
    box.paths.backup.rename(box.paths.data / "away")
    box.put("aliases", "a: b: c\n")
    with pytest.raises(UserError):
        box.run()
    assert box.remote.head == head
    assert "data/backup was gone; it is back from the remote" not in box.said
    box.work.take_over()
    assert b"|sh" not in b"".join(
        box.remote.read(n.oid for n in box.remote.tree(box.remote.head).values()).values()
    )
    assert signer(box).number == 3


def test_an_interval_without_a_change_looks_at_the_remote(box: Box) -> None:
    box.run()
    assert box.work.due_in() > 0
    box.now += 86400
    assert not box.work.due_in()
    box.now -= 2 * 86400
    assert not box.work.due_in(), "a clock that was wrong"


def test_the_keeper_waits_for_quiet_and_then_commits(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    keeping = Keeping(box.work, lambda: clock.now)
    keeping.tick()
    assert box.subjects == [FIRST]
    clock.now += 1
    keeping.tick()  # the first check
    assert re.match("checked: The remote restores", box.said[-1])
    box.put("users", users("i"))
    clock.now += 1
    keeping.tick()
    assert len(box.subjects) == 1, "not yet"
    clock.now += 2
    keeping.tick()
    assert box.subjects[-1] == "users: add i@example.com"
    # A file that never rests is committed all the same.
    for number in range(8):
        box.put("aliases", f"a: i{number}\n")
        clock.now += 1
        keeping.tick()
    assert len(box.subjects) == 3
    monkeypatch.setattr(Repository, "push", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    box.put("users", users("i", "you"))
    for _ in range(4):
        clock.now += 1
        keeping.tick()
    trouble = box.memory().trouble
    assert trouble
    assert (trouble.id, trouble.count) == ("full", 1)


def test_the_keeper_rests_until_a_change_has_settled_or_something_is_due(box: Box) -> None:
    clock = SimpleNamespace(now=100.0)
    keeping = Keeping(box.work, lambda: clock.now)
    assert keeping.rest() <= 0, "after a start all is looked at"
    keeping.tick()
    assert keeping.rest() <= 0, "nothing was ever checked"
    keeping.tick()
    assert keeping.rest() == box.settings.backup_interval
    box.put("users", users("i"))
    keeping.tick()
    assert keeping.rest() == pytest.approx(schedule._QUIET)
    clock.now += schedule._QUIET
    keeping.tick()
    assert box.subjects[-1] == "users: add i@example.com"
    assert keeping.rest() == box.settings.backup_interval
    box.now += box.settings.backup_interval
    assert keeping.rest() <= 0


def test_the_keeper_rests_after_a_failure_until_it_is_tried_again(
    box: Box, address: SimpleNamespace
) -> None:
    address.remote += ".not"
    clock = SimpleNamespace(now=100.0)
    keeping = Keeping(box.work, lambda: clock.now)
    keeping.tick()
    assert keeping.rest() == backup._FIRST_BACK_OFF
    box.now += backup._FIRST_BACK_OFF
    assert keeping.rest() == schedule._REST, "lest a failure that cannot be noted is a loop"


def test_a_change_at_any_depth_wakes_the_backup_long_before_its_next_look(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "_LOOK", 600.0)
    stop = threading.Event()
    keeper = threading.Thread(
        target=schedule.keep, args=(box.settings, box.paths, box.ids, box.said.append, stop)
    )
    keeper.start()
    try:
        until(lambda: any(text.startswith("checked: The remote") for text in box.said), 60)
        put(box.paths.acme / "example.com/deep/down/account.conf", "x\n")
        until(lambda: len(box.subjects) == 2, 60)
    finally:
        stop.set()
        box.put("users", users("i"))
        keeper.join()


def test_the_keeper_looks_again_after_a_verb_was_at_work(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    keeping = Keeping(box.work, lambda: clock.now)
    with monkeypatch.context() as patch:
        patch.setattr(backup, "_LOCK_WAIT", 0.0)
        with locks.backup_lock(box.paths, box.ids, 0.0):
            keeping.tick()
    assert box.subjects == []
    clock.now += 6
    keeping.tick()
    assert box.subjects == [FIRST]


def test_a_check_that_cannot_be_done_is_not_tried_in_a_loop(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=100.0)
    keeping = Keeping(box.work, lambda: clock.now)
    keeping.tick()
    tried: list[float] = []

    def refused(_self: Backup, **_more: object) -> str:
        tried.append(clock.now)
        msg = "refused"
        raise GitError(msg, "refused", "fix")

    monkeypatch.setattr(Backup, "check", refused)
    for _ in range(20):
        clock.now += 60
        keeping.tick()
    assert len(tried) == 2
    assert box.said.count("warn: checked: refused") == 2


def test_the_memory_is_read_as_it_was_written(box: Box) -> None:
    box.put("users", users("i"))
    box.run()
    box.work.check()
    memory = replace(box.memory(), trouble=index.Trouble("x", 1.0, "m", "f"))
    put(box.paths.backup_memory, index.dump(memory))
    assert box.memory() == memory
    content = json.loads(box.paths.backup_memory.read_text())
    assert set(content["seals"]) <= {
        node.oid for node in box.remote.tree(box.remote.head).values()
    }  # fmt: skip
