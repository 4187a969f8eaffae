"""`make bench`, second part: what a message costs in the policy service and its hook.

    python3 -m tests.bench.policy

CPU, not time: of the hook's processes as the kernel counts them for whoever waits for them, and of
the service as /proc tells it. The hook is started as chasquid starts it, in the container, by a
small program that does nothing else. Standard library only. Every loop is bounded.
"""

from __future__ import annotations

import json
import os
import sys

from tests.bench.bench import row
from tests.world.installation import Installation
from tests.world.world import Net, World

NAME = "tambo-bench-policy"
NET = Net("198.18.21", "2001:db8:21")
LOGIN = "bench@example.com"
MOST = 5.0  # milliseconds of CPU for a message, hook and service together

# Runs in the container as chasquid's user: the hook so many times on one message.
_PROBE = """
import glob, json, os, resource, subprocess, sys

login, size, count, kind = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
head = f"From: <{login}>\\nTo: <you@example.net>\\nDate: Tue, 24 Nov 2026 08:00:00 +0000\\n"
head += f"Message-ID: <a@example.com>\\nSubject: bench\\n" + "X-Filler: x\\n" * 20 + "\\n"
message = (head + "x" * 70 + "\\n").encode() + (b"x" * 76 + b"\\n") * (size // 77)
environ = {
    "PATH": "/usr/bin:/bin", "AUTH_AS": login if kind == "submission" else "",
    "MAIL_FROM": login if kind == "submission" else "x@outside.example",
    "RCPT_TO": "you@example.net", "REMOTE_ADDR": "192.0.2.1:4711", "SPF_PASS": "0",
}
if kind != "submission":
    message = message.replace(login.encode(), b"x@outside.example")
[pid] = [
    path.split("/")[2]
    for path in glob.glob("/proc/[0-9]*/cmdline")
    if b"-m\\0entrypoint.services.policy" in open(path, "rb").read()
]

def service():
    words = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

def hooks():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime

before = service(), hooks()
for _ in range(count):
    done = subprocess.run(["/usr/lib/tambo/hooks/post-data"], input=message, env=environ)
    if done.returncode:
        sys.exit(f"the hook ended with {done.returncode}")
after = service(), hooks()
print(json.dumps([(b - a) / count * 1000 for a, b in zip(before, after)]))
"""


def main() -> int:
    world = World(NAME, NET)
    mail = Installation(NAME, world)
    try:
        world.build(os.environ.get("TAMBO_BASE", "debian:trixie-slim"))
        world.up()
        mail.up()
        mail.add_user(LOGIN)
        mail.tambo("set-limit", LOGIN, "none")
        worst = figures(mail)
    finally:
        mail.down()
        world.down()
    print(f"  at most {MOST:.0f} ms are allowed for a message of 20 KB: ", end="")
    print("kept" if worst < MOST else f"NOT KEPT, {worst:.2f} ms")
    return 0 if worst < MOST else 1


def figures(mail: Installation) -> float:
    print("CPU for a message, hook and policy service")
    worst = 0.0
    for kind, size, count in (
        ("submission", 2_000, 300),
        ("submission", 20_000, 300),
        ("incoming", 20_000, 300),
        ("submission", 20_000_000, 2),  # more would not fit into the memory for work on messages
    ):
        found = mail.docker(
            "exec", "-u", "chasquid", mail.name, "python3", "-c", _PROBE,
            LOGIN, str(size), str(count), kind,
        )  # fmt: skip
        service, hook = json.loads(found)
        note = f"hook {hook:.2f}, service {service:.2f}"
        row(f"{kind}, {size // 1000:,} KB", service + hook, "ms", note)
        if size <= 20_000:
            worst = max(worst, service + hook)
    return worst


if __name__ == "__main__":
    sys.exit(main())
