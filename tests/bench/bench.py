"""`make bench`: how fast tambo starts, takes mail and restarts, on this machine.

    python3 -m tests.bench.bench

Runs in a small internet of its own and removes it. Standard library only. Every loop is bounded.
"""

from __future__ import annotations

import json
import os
import smtplib
import socket
import ssl
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.world.installation import Installation
from tests.world.world import Net, World

NAME = "tambo-bench"
NET = Net("198.18.20", "2001:db8:20")
CLIENTS = 8
MESSAGES = 400
EVENTS = 50_000
SENDER = "bench@example.com"
DATE = "Tue, 24 Nov 2026 08:00:00 +0000"


def body(sender: str) -> str:
    head = f"From: <{sender}>\r\nTo: <you@example.net>\r\nSubject: bench\r\nDate: {DATE}\r\n"
    return f"{head}Message-ID: <bench@example.com>\r\n\r\n{'x' * 2000}\r\n"


def main() -> int:
    world = World(NAME, NET)
    mail = Installation(NAME, world)
    try:
        world.build(os.environ.get("TAMBO_BASE", "debian:trixie-slim"))
        world.up()
        boots(mail)
        verbs(mail)
        submissions(mail)
        history(mail)
        restarts(mail)
        memory(mail)
    finally:
        mail.down()
        world.down()
    return 0


def row(name: str, value: float, unit: str, note: str = "") -> None:
    print(f"  {name:<52} {value:8.2f} {unit:<6} {note}", flush=True)


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def boots(mail: Installation) -> None:
    print("start, from docker start to the greeting on port 25")

    def start() -> None:
        mail.start()
        greeting()

    mail.create()
    row("first boot, keys made", timed(start), "s")
    later = []
    for _ in range(3):
        mail.stop()
        later.append(timed(start))
    mail.await_certificate()
    row("later boots, median of 3", statistics.median(later), "s")


def greeting() -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with socket.create_connection((NET.v4(10), 25), timeout=1) as connection:
                if connection.recv(3) == b"220":
                    return
        except OSError:
            time.sleep(0.02)
    sys.exit("no greeting within a minute")


def verbs(mail: Installation) -> None:
    print("verbs, with docker exec")
    row("add-user, until it can log in", timed(lambda: secret(mail, SENDER)), "s")
    many = [f"user{number}@example.com" for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        row("20 add-user at once, all", timed(lambda: list(pool.map(mail.add_user, many))), "s")
    row("list-users", timed(lambda: mail.tambo("list-users")), "s")


def secret(mail: Installation, address: str) -> str:
    password = mail.add_user(address)
    with login(address, password):
        return password


def login(address: str, password: str) -> smtplib.SMTP_SSL:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = smtplib.SMTP_SSL(NET.v4(10), 465, timeout=30, context=context)
    client.login(address, password)
    return client


def submissions(mail: Installation) -> None:
    print(f"submission on 465, {CLIENTS} clients, messages of 2 KB, signed")
    generated = mail.add_user("generated@example.com")
    mail.tambo(
        "add-user", "chosen@example.com", "--password-stdin", input="a long chosen password\n"
    )

    def each(address: str, password: str, count: int) -> None:
        for _ in range(count):
            with login(address, password) as client:
                client.sendmail(address, ["you@v4.example.net"], body(address))

    def kept(count: int) -> None:
        address = "generated@example.com"
        with login(address, generated) as client:
            for _ in range(count):
                client.sendmail(address, ["you@v4.example.net"], body(address))

    for address in ("generated@example.com", "chosen@example.com"):
        mail.tambo("set-limit", address, "none")
    share = MESSAGES // CLIENTS
    cheap = rate(lambda: each("generated@example.com", generated, share))
    costly = rate(lambda: each("chosen@example.com", "a long chosen password", share))
    row("a connection a message, generated secret", cheap, "msg/s")
    row("a connection a message, chosen password", costly, "msg/s", f"1 : {cheap / costly:.1f}")
    steady = rate(lambda: kept(share))
    row("one connection for all", steady, "msg/s", f"{steady / cheap:.1f} : 1")
    costs(mail, lambda: rate(lambda: kept(share)))


# Ticks of processor time (proc(5)) by program: each of supervisord's, chasquid, and what chasquid
# started and has waited for (hook, delivery agent).
USED = """
import json
from pathlib import Path
def ticks(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])), sum(map(int, fields[13:15]))
found = {"init": ticks(1)[0]}
for name, item in json.loads(Path("/run/tambo/programs.json").read_text())["programs"].items():
    found[name] = ticks(item["pid"])[0]
for path in Path("/proc").iterdir():
    if path.name.isdigit() and (path / "cmdline").read_bytes().startswith(b"/usr/bin/chasquid"):
        found["chasquid"], found["its hook"] = ticks(path.name)
print(json.dumps(found))
"""


def costs(mail: Installation, work: Callable[[], object]) -> None:
    """Processor time of each program for one message, from its submission to its delivery."""
    before = used(mail)
    work()
    deadline = time.monotonic() + 60
    while queued(mail) and time.monotonic() < deadline:
        time.sleep(0.5)
    after = used(mail)
    tick = 1000 / os.sysconf("SC_CLK_TCK")
    spent = {name: (after[name] - before.get(name, 0)) * tick / MESSAGES for name in after}
    for name, value in sorted(spent.items(), key=lambda item: -item[1]):
        row(f"processor time of {name}, one message", value, "ms")
    row("processor time of all, one message", sum(spent.values()), "ms")


def used(mail: Installation) -> dict[str, int]:
    found: dict[str, int] = json.loads(
        mail.docker("exec", NAME, "/opt/tambo/bin/python", "-c", USED)
    )
    return found


def queued(mail: Installation) -> int:
    return int(json.loads(mail.tambo("list-queue", "--json"))["in_queue"])


# Events through an outbox into a recorder of its own, on the volume. Prints events a second, the
# holder's microseconds of processor time for each, the recorder's memory (KB), how many were
# dropped, the recorder's microseconds for each, and the bytes on disk for each.
RECORDER = """
import asyncio, os, resource, shutil, sys, time
from pathlib import Path
from entrypoint.chasquid.maillog import Reader
from entrypoint.common.identity import Ids, Owner
from entrypoint.common.rpc import listen
from entrypoint.history.buffer import Outbox
from entrypoint.services.recorder import Recorder
place, count = Path("/data/mail/.bench"), int(sys.argv[1])
place.mkdir()
door, (read, write) = listen(place / "door", Ids.current(), Owner.CHASQUID, 4), os.pipe()
child = os.fork()
if not child:
    Recorder(place, door, read).run()
    used = resource.getrusage(resource.RUSAGE_SELF)
    print((used.ru_utime + used.ru_stime) / count * 1e6, flush=True)
    os._exit(0)
door.close()
line = (b"2026-01-02 03:04:05.000006 zmyCMhS89vA from=i@example.com to=bob%d@example.net failed "
        b"(temporary): 192.0.2.25: MAIL/RCPT failed: 450 4.2.0 <bob%d@example.net>: later")
async def work():
    box, reader = Outbox(place / "door", 30), Reader()
    running = asyncio.create_task(box.run())
    since, busy = time.perf_counter(), time.process_time()
    for number in range(count):
        for event in reader.feed(line % (number, number), 0.0):
            box.put(event)
        if number % 100 == 0:
            await asyncio.sleep(0)
        while box.status()["waiting"] > 10000:
            await asyncio.sleep(0.01)
    await box.flush(120)
    print(count / (time.perf_counter() - since), (time.process_time() - busy) / count * 1e6)
    size = Path(f"/proc/{child}/status").read_text().partition("VmRSS:")[2].split()[0]
    print(size, box.status()["dropped"], flush=True)
    running.cancel()
asyncio.run(work())
os.write(write, b"x")
os.waitpid(child, 0)
print(sum(item.stat().st_size for item in place.iterdir()) / count)
shutil.rmtree(place)
"""


def history(mail: Installation) -> None:
    print("the history of mail")
    said = mail.docker(
        "exec", "-u", "chasquid", "-w", "/", NAME, "/opt/tambo/bin/python", "-c",
        RECORDER, str(EVENTS),
    ).split()  # fmt: skip
    per_second, micro, rss, dropped, child, size = map(float, said)
    row("events stored", per_second, "ev/s", f"{dropped:.0f} dropped")
    row("an event, in the holder", micro, "µs")
    row("an event, in the recorder", child, "µs")
    row("an event, on the disk", size, "bytes")
    row("the recorder's memory after them", rss / 1024, "MB")

    address = "history@example.com"
    secret = mail.add_user(address)
    mail.tambo("set-limit", address, "none")

    def kept() -> None:
        with login(address, secret) as client:
            for _ in range(MESSAGES // CLIENTS):
                client.sendmail(address, ["you@v4.example.net"], body(address))

    rates: dict[str, list[float]] = {"CONT": [], "STOP": []}
    for number in range(8):
        # In turn first: what the one run leaves in the queue burdens the next.
        for name in sorted(rates, reverse=number % 2 == 0):
            signal(mail, name)
            rates[name].append(rate(kept))
    signal(mail, "CONT")
    with_it, without = (statistics.median(rates[name]) for name in ("CONT", "STOP"))
    row("submission, one connection for all, median of 8", with_it, "msg/s")
    row("the same with the recorder stopped", without, "msg/s", f"{with_it / without:.2f} : 1")


def signal(mail: Installation, name: str) -> None:
    """To the recorder."""
    programs = json.loads(mail.docker("exec", NAME, "cat", "/run/tambo/programs.json"))["programs"]
    mail.docker("exec", NAME, "sh", "-c", f"kill -{name} {programs['recorder']['pid']}")


def rate(work: Callable[[], None]) -> float:
    with ThreadPoolExecutor(CLIENTS) as pool:
        took = timed(lambda: list(pool.map(lambda _: work(), range(CLIENTS))))
    return MESSAGES / took


def restarts(mail: Installation) -> None:
    print("five restarts of chasquid under 50 connections a second")
    waits: list[float] = []
    refused = 0

    def five() -> None:
        for _ in range(5):
            mail.restart_chasquid()
            time.sleep(1)

    with ThreadPoolExecutor(2) as pool:
        busy = pool.submit(five)
        while not busy.done():
            start = time.perf_counter()
            try:
                greeting()
            except OSError:
                refused += 1
            waits.append(time.perf_counter() - start)
            time.sleep(0.02)
    row("connections", len(waits), "")
    row("refused", refused, "")
    row("wait for the greeting, median", statistics.median(waits) * 1000, "ms")
    row("wait for the greeting, worst", max(waits) * 1000, "ms")


def memory(mail: Installation) -> None:
    print("memory")
    programs = json.loads(mail.docker("exec", NAME, "cat", "/run/tambo/programs.json"))["programs"]
    for name, pid in (("init", 1), *((name, item["pid"]) for name, item in programs.items())):
        status = mail.docker("exec", NAME, "cat", f"/proc/{pid}/status")
        row(name, int(status.partition("VmRSS:")[2].split()[0]) / 1024, "MB")
    stats = json.loads(mail.docker("stats", "--no-stream", "--format", "{{json .}}", NAME))
    print(f"  the container, after all this: {stats['MemUsage']}, {stats['PIDs']} processes")


if __name__ == "__main__":
    sys.exit(main())
