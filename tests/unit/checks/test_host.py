"""The machine below."""

from __future__ import annotations

from datetime import timedelta

import pytest

from entrypoint.checks import host
from entrypoint.checks.machine import Disk
from entrypoint.common.findings import Level
from entrypoint.common.rpc import UnreachableError
from tests.unit.checks.kit import FILES, MB, PROC_TCP, STATUS, Scene
from tests.unit.kit import asked

DOWN = UnreachableError("Connection refused")
DENIED = PermissionError(13, "Permission denied")
ALL_OFF = "/proc/sys/net/ipv6/conf/all/disable_ipv6"


def test_a_healthy_host(scene: Scene) -> None:
    assert scene.found(host.check) == []


# The server on its ports


def test_a_server_that_does_not_run(scene: Scene) -> None:
    scene.box.holder["status"] = DOWN
    scene.box.files |= {"/proc/net/tcp": "head\n", "/proc/net/tcp6": "head\n"}
    found = scene.only(host.check)
    assert (found.id, found.level) == ("server-down", Level.FAIL)
    assert found.seen == "Connection refused"


def test_a_server_that_hangs_is_not_another_program(scene: Scene) -> None:
    scene.box.holder["status"] = UnreachableError("timed out")
    found = scene.only(host.check)
    assert (found.id, found.level) == ("server-hangs", Level.FAIL)


def test_another_program_on_a_port(scene: Scene) -> None:
    scene.box.holder["status"] = DOWN
    found = scene.only(host.check)
    assert (found.id, found.level, found.subject) == ("port-taken", Level.FAIL, "25")
    assert "sudo ss -ltnp 'sport = :25'" in found.fix.splitlines()


def test_chasquid_that_does_not_start(scene: Scene) -> None:
    scene.box.holder["status"] = {**STATUS, "ready": False, "last_words": "bad key"}
    found = scene.only(host.check)
    assert (found.id, found.level, found.seen) == ("server-not-ready", Level.FAIL, "bad key")


def test_connections_that_cannot_be_watched_come_with_what_it_takes(scene: Scene) -> None:
    why = {"watched": False, "why": "Operation not permitted"}
    scene.box.holder["status"] = {**STATUS, "connections": why}
    found = scene.only(host.check)
    assert (found.id, found.level) == ("connections-unwatched", Level.FAIL)
    assert found.seen == "Operation not permitted"
    assert "ptrace_scope" in found.fix


# IPv6


@pytest.mark.parametrize(("public", "level"), [("", Level.WARN), ("2001:db8::10", Level.FAIL)])
def test_ipv6_that_is_switched_off_comes_with_the_lines_to_paste(
    scene: Scene, public: str, level: Level
) -> None:
    scene.settings = asked(PUBLIC_IPV6=public)
    scene.box.files[ALL_OFF] = "1\n"
    found = scene.only(host.check)
    assert (found.id, found.level) == ("ipv6-off", level)
    assert found.seen == "net.ipv6.conf.all.disable_ipv6 = 1"
    assert found.fix.splitlines()[1:4] == [
        "printf 'net.ipv6.conf.%s.disable_ipv6 = 0\\n' all default lo |",
        "  sudo tee /etc/sysctl.d/60-ipv6.conf",
        "sudo sysctl --system",
    ]
    assert "'    ens3:'" in found.fix
    assert f'addresses: ["{public or "ADDRESS"}/64"]' in found.fix
    assert found.fix.splitlines()[-1] == "sudo netplan apply"
    assert max(map(len, found.fix.splitlines()[1:])) <= 76, "it is shown indented by four"


def test_ipv6_that_is_switched_off_on_the_way_out_alone(scene: Scene) -> None:
    scene.box.files["/proc/sys/net/ipv6/conf/ens3/disable_ipv6"] = "1\n"
    assert scene.only(host.check).seen == "net.ipv6.conf.ens3.disable_ipv6 = 1"


def test_a_kernel_without_ipv6(scene: Scene) -> None:
    del scene.box.files[ALL_OFF]
    del scene.box.files["/proc/net/if_inet6"]
    found = scene.only(host.check)
    assert found.id == "ipv6-off"
    assert "command line" in found.seen


def test_a_host_with_a_link_local_address_alone(scene: Scene) -> None:
    lines = FILES["/proc/net/if_inet6"].splitlines(keepends=True)
    scene.box.files["/proc/net/if_inet6"] = "".join(lines[1:])
    found = scene.only(host.check)
    assert (found.id, found.level) == ("ipv6-no-address", Level.WARN)
    assert "sudo netplan apply" in found.fix


def test_ipv6_that_cannot_be_read_is_unknown(scene: Scene) -> None:
    scene.box.files["/proc/net/if_inet6"] = DENIED
    scene.box.files[ALL_OFF] = DENIED
    found = scene.only(host.check)
    assert (found.id, found.level) == ("ipv6-unknown", Level.UNKNOWN)


def test_ipv6_that_came_up_after_the_server(scene: Scene) -> None:
    scene.box.files["/proc/net/tcp6"] = "head\n"
    assert scene.only(host.check).id == "ipv6-not-served"


def test_ipv6_that_the_owner_does_not_want_is_no_trouble(scene: Scene) -> None:
    scene.settings = asked(PUBLIC_IPV6="none")
    scene.box.files[ALL_OFF] = "1\n"
    assert scene.ids(host.check) == []
    assert scene.ids(host.check, Level.INFO) == ["ipv6-unused"]


# Clock


@pytest.mark.parametrize(
    ("kept", "level"), [(True, None), (False, Level.WARN), (None, Level.UNKNOWN)]
)
def test_a_clock_by_the_kernel_s_account(
    scene: Scene, kept: bool | None, level: Level | None
) -> None:
    scene.box.clock_is_kept = kept
    found = scene.found(host.check)
    assert [item.level for item in found] == ([level] if level else [])


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, []), (20, []), (-20, []), (60, [("clock-wrong", Level.WARN)]),
        (-60, [("clock-wrong", Level.WARN)]), (900, [("clock-wrong", Level.FAIL)]),
        (-86400, [("clock-wrong", Level.FAIL)]),
    ],
)  # fmt: skip
def test_a_clock_by_the_authority_s(
    scene: Scene, seconds: int, expected: list[tuple[str, Level]]
) -> None:
    scene.settings = asked(TLS="http")
    scene.box.skew = timedelta(seconds=seconds)
    scene.box.clock_is_kept = None
    found = scene.found(host.check)
    assert [(item.id, item.level) for item in found] == expected
    if expected:
        assert ("ahead" if seconds > 0 else "behind") in found[0].message


def test_an_authority_that_cannot_be_reached_leaves_the_kernel_s_account(scene: Scene) -> None:
    scene.settings = asked(TLS="http")
    scene.box.skew = TimeoutError()
    scene.box.clock_is_kept = False
    assert scene.only(host.check).level is Level.WARN
    scene.box.clock_is_kept = None
    assert scene.only(host.check).level is Level.UNKNOWN


def test_nobody_is_asked_for_the_time_who_is_not_asked_for_certificates(scene: Scene) -> None:
    scene.box.skew = timedelta(days=1)
    assert scene.found(host.check) == []


# Disk


def disk(free: int, size: int = 40_000, files: int = 1000, files_free: int = 900) -> Disk:
    return Disk(1, size * MB, free * MB, files, files_free)


@pytest.mark.parametrize(
    ("free", "expected"),
    [(20_000, []), (2_001, []), (1_999, ["disk-low"]), (100, ["disk-low"]), (99, ["disk-full"])],
)
def test_room_on_the_disk(scene: Scene, free: int, expected: list[str]) -> None:
    """Four messages of MAX_MESSAGE_MB=25 must fit."""
    scene.box.disks = dict.fromkeys(("data", "chasquid", "mail"), disk(free))
    assert scene.ids(host.check) == expected


def test_each_disk_is_looked_at_once(scene: Scene) -> None:
    full = disk(0)
    scene.box.disks = {"data": full, "chasquid": full, "mail": Disk(2, 1, 0, 0, 0)}
    subjects = [item.subject for item in scene.found(host.check)]
    assert subjects == ["data", "data/mail"]


def test_a_disk_without_room_for_more_files(scene: Scene) -> None:
    scene.box.disks["data"] = disk(20_000, files=1_000_000, files_free=40_000)
    assert scene.only(host.check).level is Level.WARN
    scene.box.disks["data"] = disk(20_000, files=1_000_000, files_free=100)
    assert scene.only(host.check).level is Level.FAIL


def test_a_file_system_without_a_limit_of_files(scene: Scene) -> None:
    scene.box.disks["data"] = disk(20_000, files=0, files_free=0)
    assert scene.found(host.check) == []


def test_a_disk_that_cannot_be_looked_at_is_unknown(scene: Scene) -> None:
    scene.box.disks["mail"] = DENIED
    found = scene.only(host.check)
    assert (found.id, found.level, found.subject) == ("disk-unknown", Level.UNKNOWN, "data/mail")


# Memory and files


@pytest.mark.parametrize(
    ("limit", "queue", "expected"),
    [
        (f"{1024 * MB}", "2000", []),
        (f"{256 * MB}", "2000", ["memory-small"]),
        ("max", "2000", []),
        ("max", "1000000", ["memory-small"]),
    ],
)
def test_memory_for_a_full_queue(scene: Scene, limit: str, queue: str, expected: list[str]) -> None:
    scene.settings = asked(MAX_QUEUE=queue)
    scene.box.files["/sys/fs/cgroup/memory.max"] = limit
    assert scene.ids(host.check) == expected


def test_memory_of_which_nothing_is_known(scene: Scene) -> None:
    scene.box.files["/proc/meminfo"] = DENIED
    assert scene.found(host.check) == [], "the container's limit is known"
    scene.box.files["/sys/fs/cgroup/memory.max"] = DENIED
    assert scene.only(host.check).level is Level.UNKNOWN


def test_memory_that_is_used_up(scene: Scene) -> None:
    scene.box.files["/proc/meminfo"] = "MemTotal: 8000000 kB\nMemAvailable: 100000 kB\n"
    assert scene.only(host.check).id == "memory-low"


def test_processes_that_were_killed(scene: Scene) -> None:
    scene.box.files["/sys/fs/cgroup/memory.events"] = "oom 3\noom_kill 2\noom_group_kill 0\n"
    found = scene.only(host.check)
    assert (found.id, found.seen) == ("memory-killed", "2 since the container started")


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ("Max open files            1024                 524288     files", ["files-few"]),
        ("Max open files            16384                16384      files", []),
        ("Max open files            unlimited            unlimited  files", []),
        ("Max processes             unlimited            unlimited  processes", ["files-unknown"]),
        (DENIED, ["files-unknown"]),
    ],
)  # fmt: skip
def test_open_files(scene: Scene, limits: str | OSError, expected: list[str]) -> None:
    scene.box.files["/proc/42/limits"] = limits
    assert scene.ids(host.check) == expected


def test_listening_sockets_are_told_from_connections(scene: Scene) -> None:
    assert "0A71CB00:0019" in PROC_TCP, "a connection on port 25"
    scene.box.files["/proc/net/tcp"] = "\n".join(
        line for line in PROC_TCP.splitlines() if " 0A " not in line
    )
    assert scene.context().listening("tcp") == set()
    assert scene.context().listening("tcp6", "nothing") == {25, 8080}
