#!/usr/bin/env python3
"""Sends as a recipe says, in a home folder with nothing else in it.

Reads JSON from its input: files, commands, secret, size (of the report, in bytes). Prints JSON: the
status of the first command that failed (or 0), all that was said, and the report's SHA-256.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

LASTING = ("node_modules", "vendor")
SUBJECT = "Report for März ✓"
SECONDS = 30


def main() -> None:
    order = json.load(sys.stdin)
    home = Path.home()
    os.chdir(home)
    for path in home.iterdir():
        if path.name not in LASTING:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    # What git has to carry is a patch: lines of text.
    report = (lines if "~/.gitconfig" in order["files"] else binary)(order["size"])
    (home / "report.pdf").write_bytes(report)
    (home / "message.eml").write_bytes(message(report))
    for name, text in order["files"].items():
        path = Path(name).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    password = home / ".config/msmtp/password"
    password.parent.mkdir(parents=True, exist_ok=True)
    password.write_text(f"{order['secret']}\n")
    password.chmod(0o600)
    if (home / ".gitconfig").exists():
        for command in (("init", "-q"), ("add", "report.pdf"), ("commit", "-qm", SUBJECT)):
            subprocess.run(("git", *command), check=True)  # noqa: S603, S607
    status, said = 0, ""
    for command in order["commands"]:
        done = subprocess.run(  # noqa: S603 (the document's own)
            ("timeout", str(SECONDS), "bash", "-c", command),  # noqa: S607
            env={**os.environ, "SMTP_PASSWORD": order["secret"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said += done.stdout.decode(errors="replace")
        status = status or done.returncode
    print(json.dumps([status, said, hashlib.sha256(report).hexdigest()]))


def binary(size: int) -> bytes:
    return b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(size // 32 + 1))


def lines(size: int) -> bytes:
    return b"".join(b"%064d\n" % number for number in range(size // 65 + 1))


def message(report: bytes) -> bytes:
    """For clients that are given a whole one."""
    mail = EmailMessage()
    mail["From"] = "i@example.com"
    mail["To"] = "you@example.net, them@example.net"
    mail["Subject"] = SUBJECT
    mail["Date"] = formatdate()
    mail["Message-ID"] = make_msgid(domain="example.com")
    mail.set_content("It is attached.\n")
    mail.add_attachment(report, maintype="application", subtype="pdf", filename="report.pdf")
    return bytes(mail)


main()
