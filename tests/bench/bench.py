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
SENDER = "bench@example.com"
BODY = f"From: <{SENDER}>\r\nTo: <you@example.net>\r\nSubject: bench\r\n\r\n{'x' * 2000}\r\n"


def main() -> int:
    world = World(NAME, NET)
    mail = Installation(NAME, world)
    try:
        world.build(os.environ.get("TAMBO_BASE", "debian:trixie-slim"))
        world.up()
        boots(mail)
        verbs(mail)
        submissions(mail)
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
                client.sendmail(SENDER, ["you@v4.example.net"], BODY)

    def kept(count: int) -> None:
        with login("generated@example.com", generated) as client:
            for _ in range(count):
                client.sendmail(SENDER, ["you@v4.example.net"], BODY)

    share = MESSAGES // CLIENTS
    cheap = rate(lambda: each("generated@example.com", generated, share))
    costly = rate(lambda: each("chosen@example.com", "a long chosen password", share))
    row("a connection a message, generated secret", cheap, "msg/s")
    row("a connection a message, chosen password", costly, "msg/s", f"1 : {cheap / costly:.1f}")
    steady = rate(lambda: kept(share))
    row("one connection for all", steady, "msg/s", f"{steady / cheap:.1f} : 1")


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
    stats = json.loads(mail.docker("stats", "--no-stream", "--format", "{{json .}}", NAME))
    print(f"  the container, after all this: {stats['MemUsage']}, {stats['PIDs']} processes")


if __name__ == "__main__":
    sys.exit(main())
