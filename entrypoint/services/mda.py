"""The mail delivery agent (RFC 5598 4.3): from standard input into a Maildir.

    mda FROM TO        exit 0: on the disk for good; 75: chasquid tries again

Nothing else: for chasquid any other status is a permanent failure, which bounces the message.
Standard library only, as far as it goes, since it is started once a message.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
import time
from pathlib import Path
from urllib.parse import quote

_TEMPORARY = 75  # EX_TEMPFAIL
_SAFE = "+=_-.@"


def folder_name(text: str) -> str:
    """A name that is one folder, whatever a remote wrote: percent-encoded, no leading dot."""
    name = quote(text, safe=_SAFE, errors="surrogateescape")
    return re.sub(r"^\.", "%2E", name) or "%00"


def _line(text: str) -> str:
    """`text` without what could begin a header of its own."""
    return re.sub(r"[\x00-\x1f\x7f]", "?", text)


def deliver(root: Path, sender: str, recipient: str, message: bytes) -> Path:
    """Write one message; returns where. It is on the disk when this returns. Raises OSError."""
    local, _, domain = recipient.rpartition("@")
    if not domain.isascii():
        import idna  # rare: chasquid gives a domain in its Unicode form

        domain = idna.encode(domain, uts46=True).decode()
    maildir = root / folder_name(domain) / folder_name(local)
    for name in ("tmp", "new", "cur"):
        (maildir / name).mkdir(mode=0o700, parents=True, exist_ok=True)
    # RFC 5321 4.4: final delivery adds Return-Path.
    sender = "" if sender == "<>" else sender
    head = f"Return-Path: <{_line(sender)}>\nDelivered-To: {_line(recipient)}\n"
    content = head.encode(errors="surrogateescape") + message.replace(b"\r\n", b"\n")
    host = socket.gethostname().replace("/", "\\057").replace(":", "\\072")
    now = time.time()
    name = f"{int(now)}.M{int(now % 1 * 1e6)}P{os.getpid()}R{secrets.token_hex(8)}.{host}"
    aside, final = maildir / "tmp" / name, maildir / "new" / f"{name},S={len(content)}"
    # Not files.write: a Maildir has its own protocol (tmp/ to new/), and many write at a time.
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(fd, "wb") as stream:  # noqa: PTH123 (a descriptor)
            stream.write(content)
            stream.flush()
            os.fsync(fd)
        aside.rename(final)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    # The new folders of a first delivery must survive a power cut as well.
    for path in (final.parent, maildir, maildir.parent, root):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return final


def main() -> int:
    """Status 75 (EX_TEMPFAIL) for whatever goes wrong: any other would bounce the message."""
    try:
        sender, recipient = sys.argv[1:]
        os.umask(0o077)
        deliver(Path("/data/mail"), sender, recipient, sys.stdin.buffer.read())
    except Exception as error:  # noqa: BLE001 (chasquid tries again after status 75)
        sys.stdout.write(f"delivery failed: {type(error).__name__}: {error}\n")
        return _TEMPORARY
    return 0


if __name__ == "__main__":
    sys.exit(main())
