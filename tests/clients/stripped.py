#!/usr/bin/env python3
"""What a thief on the way makes of port 587: no STARTTLS is to be seen, and AUTH is welcome.

Prints each line that it hears.
"""

import socketserver

ANSWERS = {
    "EHLO": "250-smtp.example.com\r\n250 AUTH PLAIN LOGIN",
    "AUTH": "235 2.7.0 Authentication successful",
    "QUIT": "221 2.0.0 Bye",
}


class Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.say("220 smtp.example.com ESMTP")
        for line in self.rfile:
            command = line.decode(errors="replace").strip()
            print(command, flush=True)
            verb = command[:4].upper()
            self.say(ANSWERS.get(verb, "502 5.5.1 Unknown command"))
            if verb == "QUIT":
                return

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


with socketserver.ThreadingTCPServer(("", 587), Session) as server:
    server.daemon_threads = True
    server.serve_forever()
