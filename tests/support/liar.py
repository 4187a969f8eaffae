"""A mail server that refuses every recipient, at a length and in words of its own choice.

`forge@`: lines as chasquid logs them. `long@`: a megabyte. Others: a name in the words.
"""

from __future__ import annotations

import socketserver

STAMP = "2026-01-02 03:04:05.000006"
FORGED = (
    f"{STAMP} AAAAAAAAAAA from=forged@example.com to=forged@example.net sent",
    f"{STAMP} 192.0.2.66:1 auth succeeded for forged@example.com",
    f"{STAMP} AAAAAAAAAAA from=forged@example.com all done",
)


class Session(socketserver.StreamRequestHandler):
    def say(self, *lines: str) -> None:
        code, *words = lines
        for line in words[:-1]:
            self.wfile.write(f"{code}-{line}\r\n".encode())
        self.wfile.write(f"{code} {words[-1]}\r\n".encode())

    def handle(self) -> None:
        self.say("220", "liar ESMTP")
        while line := self.rfile.readline(1000):
            words = line.decode(errors="replace").strip().lower()
            if words.startswith("rcpt to:<forge@"):
                self.say("550", "no", *FORGED, "end")
            elif words.startswith("rcpt to:<long@"):
                self.say("550", *("x" * 990 for _ in range(1000)), "end")
            elif words.startswith("rcpt"):
                who = words.partition("<")[2].partition(">")[0]
                self.say("550", f"5.1.1 <{who}>: nobody here, ask postmaster@liar.example")
            elif words.startswith("quit"):
                self.say("221", "bye")
                return
            else:
                self.say("250", "ok")


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True


Server(("0.0.0.0", 25), Session).serve_forever()  # noqa: S104
