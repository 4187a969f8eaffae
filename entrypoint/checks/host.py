"""The machine below: server running on its ports, IPv6, clock, disk, memory, file limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime

from entrypoint.checks import ipv6
from entrypoint.checks.context import CheckContext
from entrypoint.checks.machine import Disk
from entrypoint.common.findings import Finding, Level
from entrypoint.common.parallel import every
from entrypoint.common.rpc import UnreachableError
from entrypoint.common.tlsprobe import PORTS

_MB = 1 << 20
_DATE_SECONDS = 6.0
_WORST_SKEW, _BAD_SKEW = 300.0, 30.0  # seconds
_LEAST_FREE = 0.05  # of a disk, of its files, of the machine's memory
_BASE_MEMORY = 128 * _MB
_MEMORY_PER_ITEM = 100 * 1024  # bytes of a queued message, on an average of what people send
_LEAST_FILES = 4096
# The clocks of the authorities that acme.sh knows by name.
_ACME = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt_test": "https://acme-staging-v02.api.letsencrypt.org/directory",
    "zerossl": "https://acme.zerossl.com/v2/DV90",
    "sslcom": "https://acme.ssl.com/sslcom-dv-ecc",
    "google": "https://dv.acme-v02.api.pki.goog/directory",
}
_WHY_DOWN = "No mail comes in and none goes out."
_WHY_CLOCK = "Signatures, certificates and log-ins are judged by their time."
_WHY_DISK = "On a full disk no mail is taken, and no certificate renewed."
_WHY_MEMORY = "Queued messages are held in memory: without enough of it the server is killed."
_WHY_CONNECTIONS = (
    "Without it one address can take all connections, guess passwords, and fill the memory."
)
_WHY_FILES = "Each connection is a file, and the server takes connections up to half of the limit."


def check(context: CheckContext) -> list[Finding]:
    """Asks this machine and the socket holder; for the clock also the certificates' authority."""
    status = _status(context)
    return [
        *_running(context, status),
        *ipv6.check(context, serves=isinstance(status, dict) and bool(status.get("ready"))),
        *_clock(context),
        *_disk(context),
        *_memory(context),
        *_files(context, status),
        *_connections(status),
    ]


# --- the server on its ports ---------------------------------------------------------------------


def _status(context: CheckContext) -> dict[str, object] | str:
    """What the socket holder says, or why nobody says anything."""
    try:
        return context.machine.holder("status")
    except UnreachableError as error:
        return str(error)


def _running(context: CheckContext, status: dict[str, object] | str) -> Iterator[Finding]:
    if isinstance(status, dict):
        if not status.get("ready"):
            yield Finding(
                id="server-not-ready",
                level=Level.FAIL,
                message="chasquid is not running.",
                fix="read why:\ndocker logs --tail 50 mail",
                seen=str(status.get("last_words") or "it said nothing")[:200],
                why=_WHY_DOWN,
            )
        return
    if "timed out" in status:  # it is there, and holds the ports
        yield Finding(
            id="server-hangs",
            level=Level.FAIL,
            message="The mail server does not answer.",
            fix="start it afresh:\ndocker compose restart",
            seen=status[:200],
            why=_WHY_DOWN,
        )
        return
    taken = [port for port in PORTS if port in context.listening("tcp", "tcp6")]
    for port in taken:
        yield Finding(
            id="port-taken",
            level=Level.FAIL,
            message=f"Another program listens on port {port}.",
            fix="see which, and stop it (often exim4 or postfix); then docker compose up -d:\n"
            f"sudo ss -ltnp 'sport = :{port}'\n"
            "sudo systemctl disable --now exim4",
            subject=str(port),
            seen="the port is taken, and not by tambo",
            why=_WHY_DOWN,
        )
    if not taken:
        yield Finding(
            id="server-down",
            level=Level.FAIL,
            message="The mail server does not run.",
            fix="read why, and start it:\ndocker logs --tail 50 mail\ndocker compose up -d",
            seen=status[:200],
            why=_WHY_DOWN,
        )


# --- clock ---------------------------------------------------------------------------------------


def _clock(context: CheckContext) -> Iterator[Finding]:
    """By the authority's clock, where it is asked for certificates anyway, and by the kernel's
    own account; nobody else is asked."""
    fix = "have it kept right:\nsudo timedatectl set-ntp true"
    skew = _skew(context)
    if skew is not None and abs(skew) >= _BAD_SKEW:
        way = "ahead" if skew > 0 else "behind"
        level = Level.FAIL if abs(skew) >= _WORST_SKEW else Level.WARN
        yield Finding(
            id="clock-wrong",
            level=level,
            message=f"The clock is {abs(skew):.0f} seconds {way}.",
            fix=fix,
            seen=f"against {context.settings.acme_server}",
            why=_WHY_CLOCK,
        )
        return
    kept = context.machine.clock_is_kept()
    if kept is False:
        level, said = Level.WARN, "not synchronised, says the kernel"
        if skew is not None:
            level, said = Level.INFO, f"{said}; right now it is fine"
        yield Finding(
            id="clock-not-kept",
            level=level,
            message="Nothing keeps the clock right.",
            fix=fix,
            seen=said,
            why=_WHY_CLOCK,
        )
    elif kept is None and skew is None:
        yield Finding(
            id="clock-unknown",
            level=Level.UNKNOWN,
            message="Whether the clock is right is not known.",
            fix="see for yourself:\ntimedatectl",
            seen="the kernel does not say",
            why=_WHY_CLOCK,
        )


def _skew(context: CheckContext) -> float | None:
    """Seconds by which this clock is ahead of the certificate authority's, if it says."""
    settings = context.settings
    server = settings.acme_server
    url = server if server.startswith("https://") else _ACME.get(server, "")
    if settings.tls_mode not in ("dns", "http") or not url:
        return None

    def ask(url: str) -> datetime | None:
        try:
            date = context.machine.date_of(url)
        except OSError:
            return None
        return date if date.tzinfo else date.replace(tzinfo=UTC)

    [date] = every([url], ask, _DATE_SECONDS)
    # The header has whole seconds, and took a while to come.
    return (context.now - date).total_seconds() if date else None


# --- disk ----------------------------------------------------------------------------------------


def _disk(context: CheckContext) -> Iterator[Finding]:
    paths = context.paths
    seen: set[int] = set()
    for path in (paths.data, paths.queue, paths.mail):
        shown = str(path.relative_to(paths.root))
        try:
            disk = context.machine.disk(path)
        except OSError as error:
            yield Finding(
                id="disk-unknown",
                level=Level.UNKNOWN,
                message=f"How much room {shown} has is not known.",
                fix="",
                subject=shown,
                seen=error.strerror or str(error),
                why=_WHY_DISK,
            )
            continue
        if disk.device not in seen:
            seen.add(disk.device)
            yield from _room(context, shown, disk)


def _room(context: CheckContext, shown: str, disk: Disk) -> Iterator[Finding]:
    fix = f"make room, or enlarge it; what takes it:\nsudo du -xh -d2 ./{shown} | sort -h | tail"
    # A message is written to the queue and to a mailbox, its lines as escaped text.
    needed = 4 * context.settings.max_message_mb * _MB
    said = f"{disk.free // _MB} of {disk.size // _MB} MB free"
    if disk.free < needed:
        text = f"The disk of {shown} is full: less than four messages of MAX_MESSAGE_MB fit."
        yield Finding(
            id="disk-full",
            level=Level.FAIL,
            message=text,
            fix=fix,
            subject=shown,
            seen=said,
            why=_WHY_DISK,
        )
    elif disk.free < disk.size * _LEAST_FREE:
        text = f"The disk of {shown} is nearly full."
        yield Finding(
            id="disk-low",
            level=Level.WARN,
            message=text,
            fix=fix,
            subject=shown,
            seen=said,
            why=_WHY_DISK,
        )
    if disk.files and disk.files_free < disk.files * _LEAST_FREE:
        level = Level.FAIL if disk.files_free < context.settings.max_queue else Level.WARN
        yield Finding(
            id="disk-files",
            level=level,
            message=f"The disk of {shown} has hardly any room for more files.",
            fix="remove what has many small files; see how they are used:\ndf -i",
            subject=shown,
            seen=f"{disk.files_free} of {disk.files} inodes free",
            why=_WHY_DISK,
        )


# --- memory and files ----------------------------------------------------------------------------


def _memory(context: CheckContext) -> Iterator[Finding]:
    total, available = _machine_memory(context)
    limit = _number(context, "/sys/fs/cgroup/memory.max")
    usable = min((size for size in (limit, total) if size), default=0)
    queue = context.settings.max_queue
    needed = _BASE_MEMORY + queue * _MEMORY_PER_ITEM
    if not usable:
        yield Finding(
            id="memory-unknown",
            level=Level.UNKNOWN,
            message="How much memory there is could not be read.",
            seen="neither a limit nor /proc/meminfo",
            why=_WHY_MEMORY,
        )
    elif usable < needed:
        whose = "The container's memory limit" if usable == limit else "This machine's memory"
        fits = max(10, (usable - _BASE_MEMORY) // _MEMORY_PER_ITEM)
        yield Finding(
            id="memory-small",
            level=Level.WARN,
            message=f"{whose} is small for MAX_QUEUE={queue}.",
            fix=f"raise mem_limit in compose.yaml, or in .env:\nMAX_QUEUE={fits}",
            seen=f"{usable // _MB} MB; a full queue may need {needed // _MB} MB",
            why=_WHY_MEMORY,
        )
    if total and available is not None and available < total * _LEAST_FREE:
        yield Finding(
            id="memory-low",
            level=Level.WARN,
            message="This machine's memory is nearly used up.",
            fix="see what uses it:\nps -eo rss,comm --sort -rss | head",
            seen=f"{available // _MB} of {total // _MB} MB available",
            why=_WHY_MEMORY,
        )
    killed = _killed(context)
    if killed:
        yield Finding(
            id="memory-killed",
            level=Level.WARN,
            message="Processes were killed here for want of memory.",
            fix="raise mem_limit in compose.yaml, then: docker compose up -d",
            seen=f"{killed} since the container started",
            why=_WHY_MEMORY,
        )


def _number(context: CheckContext, path: str) -> int | None:
    """None without a limit (`max`), or if it cannot be read (cgroup v1)."""
    try:
        return int(context.machine.read(path))
    except (OSError, ValueError):
        return None


def _machine_memory(context: CheckContext) -> tuple[int | None, int | None]:
    """Total and available, in bytes."""
    try:
        text = context.machine.read("/proc/meminfo")
    except OSError:
        return None, None
    found = {name: int(size) * 1024 for name, size in re.findall(r"(?m)^(\w+): +(\d+) kB$", text)}
    return found.get("MemTotal"), found.get("MemAvailable")


def _killed(context: CheckContext) -> int:
    try:
        text = context.machine.read("/sys/fs/cgroup/memory.events")
    except OSError:
        return 0
    match = re.search(r"(?m)^oom_kill (\d+)$", text)
    return int(match[1]) if match else 0


def _files(context: CheckContext, status: dict[str, object] | str) -> Iterator[Finding]:
    pid = status.get("pid") if isinstance(status, dict) else None
    if not pid:
        return  # it does not run, which has its own finding
    try:
        text = context.machine.read(f"/proc/{pid}/limits")
        match = re.search(r"(?m)^Max open files +(\d+|unlimited)", text)
    except OSError:
        match = None
    if match is None:
        yield Finding(
            id="files-unknown",
            level=Level.UNKNOWN,
            message="chasquid's limit of open files could not be read.",
            seen=f"/proc/{pid}/limits",
            why=_WHY_FILES,
        )
    elif match[1] != "unlimited" and int(match[1]) < _LEAST_FILES:
        yield Finding(
            id="files-few",
            level=Level.WARN,
            message="chasquid may open few files at once.",
            fix="in compose.yaml, then docker compose up -d:\nulimits: {nofile: 16384}",
            seen=f"{match[1]}; {_LEAST_FILES} or more are needed",
            why=_WHY_FILES,
        )


def _connections(status: dict[str, object] | str) -> Iterator[Finding]:
    found = status.get("connections") if isinstance(status, dict) else None
    if isinstance(found, dict) and found.get("why"):
        yield Finding(
            id="connections-unwatched",
            level=Level.FAIL,
            message="Nothing is bounded by address, and mail leaves unpaced: this machine does "
            "not let connections be watched.",
            fix="have Linux 5.14 or newer, Docker's own seccomp profile (or one that allows "
            "seccomp, process_vm_readv and process_vm_writev), no gVisor, and then:\n"
            "sysctl -w kernel.yama.ptrace_scope=1\ndocker compose restart",
            seen=str(found["why"])[:200],
            why=_WHY_CONNECTIONS,
        )
