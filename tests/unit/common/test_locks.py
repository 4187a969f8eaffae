"""The locks of a volume: one at a time, given back by an error and by a death."""

from __future__ import annotations

import os
import select
import stat
import threading
import time
from contextlib import suppress

import pytest

from entrypoint.common import locks
from entrypoint.common.errors import Exit, UserError
from entrypoint.common.identity import Ids
from entrypoint.common.paths import Paths
from tests.unit.kit import forked


@pytest.fixture
def state(paths: Paths) -> Paths:
    paths.state.mkdir(parents=True)
    return paths


def test_one_change_at_a_time(state: Paths, ids: Ids) -> None:
    inside, most = 0, 0
    guard = threading.Lock()

    def change() -> None:
        nonlocal inside, most
        with locks.edit_lock(state, ids):
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.002)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=change) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (inside, most) == (0, 1)


def test_a_lock_that_stays_taken_is_no_wait_for_ever(state: Paths, ids: Ids) -> None:
    began = time.monotonic()
    with (
        locks.edit_lock(state, ids),
        pytest.raises(UserError) as caught,
        locks.edit_lock(state, ids, wait=0.05),
    ):
        pytest.fail("two at once")
    assert 0.05 <= time.monotonic() - began < 5
    assert caught.value.exit_code is Exit.TRY_AGAIN
    assert str(caught.value) == (
        "another change has been going on for 0 seconds\n"
        "  fix: try again; if it stays so: docker compose restart"
    )


def test_a_lock_is_given_back_by_an_error_and_by_a_death(state: Paths, ids: Ids) -> None:
    with pytest.raises(KeyError), locks.edit_lock(state, ids):
        raise KeyError

    def die_with_it() -> None:
        with locks.edit_lock(state, ids, wait=0.0):
            os._exit(7)

    assert forked(die_with_it) == 7
    with locks.edit_lock(state, ids, wait=0.0):
        pass


def test_a_volume_that_is_not_ready(paths: Paths, ids: Ids) -> None:
    with (
        pytest.raises(UserError, match=r"data/state is not ready: No such file") as caught,
        locks.edit_lock(paths, ids),
    ):
        pytest.fail("locked")
    assert caught.value.exit_code is Exit.TRY_AGAIN
    assert "docker logs mail" in caught.value.fix


def test_the_lock_files_are_private(state: Paths, ids: Ids) -> None:
    with locks.edit_lock(state, ids):
        assert stat.S_IMODE(state.edit_lock.stat().st_mode) == 0o600


@pytest.mark.parametrize("is_free", [True, False])
def test_two_servers_never_share_a_volume(paths: Paths, ids: Ids, is_free: bool) -> None:
    """The lock is held by descriptor 3, over an exec, until the process ends."""
    held, hold = os.pipe()
    end, ending = os.pipe()

    def serve() -> None:
        os.close(ending)
        if is_free:  # then the lock's own descriptor is 3 from the start
            with suppress(OSError):
                os.close(3)
        locks.hold_instance(paths, ids)
        assert os.get_inheritable(3)
        os.set_inheritable(end, True)
        os.set_inheritable(hold, True)
        # Another program: what holds the lock now is the descriptor alone.
        script = f"echo held >/proc/self/fd/{hold}; read _ </proc/self/fd/{end}"
        os.execv("/bin/sh", ["sh", "-c", script])  # noqa: S606

    status: list[int] = []
    server = threading.Thread(target=lambda: status.append(forked(serve)))
    server.start()
    assert select.select([held], [], [], 10)[0]
    assert os.read(held, 5) == b"held\n"

    def second() -> None:
        with pytest.raises(UserError) as caught:
            locks.hold_instance(paths, ids)
        assert caught.value.exit_code is Exit.TRY_AGAIN
        assert "another tambo is running on this data folder" in caught.value.message

    assert forked(second) == 0
    os.write(ending, b"\n")
    server.join(10)
    assert status == [0]
    assert forked(lambda: locks.hold_instance(paths, ids)) == 0
    for fd in (held, hold, end, ending):
        os.close(fd)
