"""Waiting for changes: what wakes, what does not, and what it costs. The kernel's own inotify."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from entrypoint.common.watch import APART, SETTLE, Watch, _call
from tests.unit.kit import forked, put

LONG = 30.0  # seconds: what is told is told long before
NEVER = 0.3  # seconds in which nothing is told


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path / "domains/example.com/users", "one\n")
    return tmp_path / "domains"


@pytest.fixture
def watch(root: Path) -> Iterator[Watch]:
    with closing(Watch((root,))) as watch:
        assert not watch.wait(0)
        yield watch


def overwrite(folder: Path) -> None:
    (folder / "users").write_text("two\n")


def rename_over(folder: Path) -> None:
    put(folder / ".users.new", "two\n").replace(folder / "users")


def rename_away(folder: Path) -> None:
    (folder / "users").rename(folder / "users~")


def new_file(folder: Path) -> None:
    put(folder / "aliases", "a: b\n")


def new_link(folder: Path) -> None:
    (folder / "aliases").symlink_to("users")


def hard_link(folder: Path) -> None:
    (folder / "aliases").hardlink_to(folder / "users")


def remove(folder: Path) -> None:
    (folder / "users").unlink()


def change_mode(folder: Path) -> None:
    (folder / "users").chmod(0o640)


def new_folder(folder: Path) -> None:
    folder.with_name("example.org").mkdir()


def rename_folder(folder: Path) -> None:
    folder.rename(folder.with_name("example.org"))


def strange_name(folder: Path) -> None:
    put(Path(os.fsdecode(os.fsencode(folder) + b"/a\n\xffb"), "users"), "")


@pytest.mark.parametrize(
    "change",
    [
        overwrite, rename_over, rename_away, new_file, new_link, hard_link, remove, change_mode,
        new_folder, rename_folder, strange_name,
    ],
)  # fmt: skip
def test_every_change_is_told_once(
    watch: Watch, root: Path, change: Callable[[Path], None]
) -> None:
    change(root / "example.com")
    assert watch.wait(LONG)
    assert not watch.wait(NEVER)
    assert watch.refused == ""


def test_a_change_by_another_process_ends_a_wait_that_has_begun(watch: Watch, root: Path) -> None:
    def edit() -> None:
        time.sleep(0.2)
        forked(lambda: overwrite(root / "example.com"))

    editor = threading.Thread(target=edit)
    editor.start()
    assert watch.wait(LONG)
    editor.join()


def test_reading_is_no_change(watch: Watch, root: Path) -> None:
    (root / "example.com/users").read_text()
    list(root.rglob("*"))
    assert not watch.wait(NEVER)


def test_a_file_that_is_being_written_is_told_when_it_is_closed(watch: Watch, root: Path) -> None:
    with (root / "example.com/users").open("w") as stream:
        stream.write("half")
        stream.flush()
        assert not watch.wait(NEVER)
    assert watch.wait(LONG)


@pytest.mark.parametrize("name", ["example.org", "strange\nname", "-", "ü"])
def test_a_folder_that_came_is_watched_too(watch: Watch, root: Path, name: str) -> None:
    (root / name).mkdir()
    assert watch.wait(LONG)
    put(root / name / "users", "")
    assert watch.wait(LONG)


def test_a_file_in_a_new_folder_is_there_at_the_look_or_told_after_it(
    watch: Watch, root: Path
) -> None:
    """Between the folder's coming and its watch, a file may come: nobody tells of that one."""
    for number in range(5):
        folder = root / f"{number}.example"
        writer = threading.Thread(target=put, args=(folder / "users", "x"))
        writer.start()
        assert watch.wait(LONG)
        while not (folder / "users").exists():
            assert watch.wait(LONG)
        writer.join()
        while watch.wait(NEVER):
            pass


def test_folders_that_were_replaced_are_watched_as_they_are_now(watch: Watch, root: Path) -> None:
    """As restore --replace does it: the whole of data/domains at once."""
    aside = root.with_name("replaced")
    root.rename(aside)
    put(root / "example.com/users", "new\n")
    while watch.wait(NEVER):  # the root's own end is told
        pass
    overwrite(root / "example.com")
    assert watch.wait(LONG)
    overwrite(aside / "example.com")
    assert not watch.wait(NEVER), "what was put aside is no more watched"


def test_roots_that_are_not_there_yet_are_watched_from_the_next_wait_on(tmp_path: Path) -> None:
    with closing(Watch((tmp_path / "domains",))) as watch:
        assert not watch.wait(0)
        (tmp_path / "domains/example.com").mkdir(parents=True)
        assert not watch.wait(0)
        overwrite(tmp_path / "domains/example.com")
        assert watch.wait(LONG)


def test_links_are_not_followed(tmp_path: Path, root: Path, watch: Watch) -> None:
    """One may lead to where the caller itself writes at each look."""
    elsewhere = tmp_path / "elsewhere/inner"
    elsewhere.mkdir(parents=True)
    (root / "link").symlink_to(elsewhere)
    assert watch.wait(LONG)
    put(elsewhere / "users", "")
    assert not watch.wait(NEVER)
    (tmp_path / "other").symlink_to(elsewhere.parent)
    with closing(Watch((tmp_path / "other",))) as other:
        put(elsewhere / "users", "")
        assert not other.wait(NEVER)


def test_changes_in_quick_succession_are_one(watch: Watch, root: Path) -> None:
    for change in (overwrite, rename_over, change_mode):
        change(root / "example.com")
    assert watch.wait(LONG)
    assert not watch.wait(NEVER)


def test_a_file_that_is_written_all_the_time_wakes_twice_a_second_at_most(
    watch: Watch, root: Path
) -> None:
    end = threading.Event()

    def write() -> None:
        while not end.is_set():
            overwrite(root / "example.com")

    writer = threading.Thread(target=write)
    begun = time.monotonic()
    woken: list[float] = []
    writer.start()
    while len(woken) < 4:
        assert watch.wait(LONG)
        woken.append(time.monotonic() - begun)
    end.set()
    writer.join()
    assert woken[0] >= SETTLE
    # A fixed number of looks takes so long at least, however slow the machine is.
    assert woken[-1] >= SETTLE + 3 * APART


def test_lost_events_are_a_change_and_what_comes_after_is_told(watch: Watch, root: Path) -> None:
    """More than the queue takes (IN_Q_OVERFLOW), a folder among what was lost."""
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    paths = [root / "example.com" / name for name in ("a", "b")]
    for number in range(most // 2 + 100):  # two events each, of files that take turns
        paths[number % 2].open("w").close()
    (root / "example.org").mkdir()
    assert watch.wait(LONG)
    while watch.wait(NEVER):
        pass
    overwrite(root / "example.org")
    assert watch.wait(LONG)


def test_folders_are_watched_up_to_a_bound(
    watch: Watch, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("entrypoint.common.watch._MOST", 20)
    for number in range(500):
        (root / f"{number}.example").mkdir()
    assert watch.wait(LONG)
    fdinfo = Path(f"/proc/self/fdinfo/{watch._inotify}").read_text()
    assert fdinfo.count("inotify wd:") == 20
    assert watch.refused == "there are more than 20 folders"
    new_file(root)
    assert watch.wait(LONG), "data/domains itself comes first"


def test_a_deep_watch_covers_folders_at_any_depth_but_hidden_ones(root: Path) -> None:
    put(root / "example.com/dkim.pending/old/key", "")
    put(root / "example.com/.hidden/key", "")
    with closing(Watch((root,), deep=True)) as watch:
        put(root / "example.com/dkim.pending/old/key", "two")
        assert watch.wait(LONG)
        put(root / "example.org/new/also/key", "")
        assert watch.wait(LONG)
        put(root / "example.org/new/also/key", "two")
        assert watch.wait(LONG)
        put(root / "example.com/.hidden/key", "two")
        assert not watch.wait(NEVER)


def test_folders_that_are_gone_take_no_watch(watch: Watch, root: Path, tmp_path: Path) -> None:
    for number in range(10):
        (root / f"{number}.example").mkdir()
    assert watch.wait(LONG)
    for number in range(5):
        (root / f"{number}.example").rmdir()
    for number in range(5, 10):
        (root / f"{number}.example").rename(tmp_path / f"{number}.example")
    while watch.wait(NEVER):
        pass
    fdinfo = Path(f"/proc/self/fdinfo/{watch._inotify}").read_text()
    assert fdinfo.count("inotify wd:") == 2


def test_without_descriptors_it_waits_and_says_why_and_goes_on_when_there_are(root: Path) -> None:
    """EMFILE, which is also what max_user_instances gives."""

    def starve() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        lowest = os.dup(0)
        os.close(lowest)
        # One is left for the eventfd.
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
        watch = Watch((root,))
        assert "inotify_init1: Too many open files" in watch.refused
        assert "max_user_instances" in watch.refused
        change_mode(root / "example.com")  # needs no descriptor either
        begun = time.monotonic()
        assert not watch.wait(0.2)
        assert time.monotonic() - begun >= 0.2
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert not watch.wait(0)
        assert watch.refused == ""
        overwrite(root / "example.com")
        assert watch.wait(LONG)

    assert forked(starve) == 0


def test_without_watches_it_tells_of_what_it_has_and_says_why(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC: the limit is the user's on the whole machine, so it is not used up here."""
    real = _call

    def call(name: str, *arguments: int | bytes) -> int:
        if name == "inotify_add_watch" and str(arguments[1]).endswith("example.com'"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        return real(name, *arguments)

    monkeypatch.setattr("entrypoint.common.watch._call", call)
    with closing(Watch((root,))) as watch:
        assert watch.refused == (
            "inotify_add_watch: No space left on device (the host's fs.inotify.max_user_watches)"
        )
        overwrite(root / "example.com")
        assert not watch.wait(NEVER)
        new_folder(root / "example.com")
        assert watch.wait(LONG)


@pytest.mark.parametrize("changing", [False, True], ids=["quiet", "while it settles"])
def test_a_signal_ends_a_wait_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, changing: bool
) -> None:
    monkeypatch.setattr("entrypoint.common.watch.SETTLE", LONG)

    def work() -> None:
        watch = Watch((root,))
        signal.signal(signal.SIGALRM, lambda *_: watch.wake())
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        if changing:
            overwrite(root / "example.com")
        begun = time.monotonic()
        assert not watch.wait(LONG)
        assert not watch.wait(LONG), "and from then on"
        assert time.monotonic() - begun < LONG

    assert forked(work) == 0


def test_it_leaves_no_descriptor_behind(root: Path) -> None:
    def descriptors() -> list[str]:
        return sorted(path.name for path in Path("/proc/self/fd").iterdir())

    before = descriptors()
    Watch((root,)).close()
    assert descriptors() == before
