"""acme.sh as it is in the image: its hooks, and the programs that it is kept from showing to."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from entrypoint.settings.acmehooks import AUTHORITIES
from tests.support.container import checked, docker
from tests.support.server import IMAGE, ROOT

# The functions that stand before the programs, without acme.sh itself.
FUNCTIONS = "sed '/^export ACME_PACKAGED/,$d' /usr/lib/tambo/acme >/tmp/functions; . /tmp/functions"
SPECIAL = "a\"b\\c 'd' $(e) `f` \t|&;<>#{}[]!*?~%é\n\r\nlast"

# Answers each request with what it was, as JSON.
ECHO = """
import json
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def answer(self):
        length = int(self.headers.get("Content-Length", 0))
        headers = sorted((k, v) for k, v in self.headers.items())
        body = self.rfile.read(length).decode()
        said = json.dumps([self.command, self.path, headers, body]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)
    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer
    def log_message(self, *_):
        pass

HTTPServer(("127.0.0.1", 8000), Handler).serve_forever()
"""
URL = "http://127.0.0.1:8000/x?a=b&c=[1]"
CURL = ("--silent", "--dump-header", "/run/headers", "-L", "-g", "--user-agent", "acme.sh/3 (x y)")
# As acme.sh calls it: see _post, _post_file and _get there.
CALLS = {
    "get": (*CURL, "-H", "", "-H", "", "--connect-timeout", "10", URL),
    "head": (*CURL, "-I", "-H", "X: y", URL),
    "post": (*CURL, "-X", "POST", "-H", "Content-Type: application/json", "-H", "X-Key: a\"b\\c $d",
             "-H", "", "--data", SPECIAL, URL),
    "put-empty": (*CURL, "-X", "PUT", "-H", "X-Key: k", URL),
    "delete": (*CURL, "-X", "DELETE", "-H", "X-Key: k", "--data", "x=y", URL),
    "file": (*CURL, "-X", "POST", "--data-binary", "@/etc/debian_version", URL),
    "closed": (*CURL, "http://127.0.0.1:1/"),
    "no-such-file": (*CURL, "--data-binary", "@/absent", URL),
}  # fmt: skip


def inside(script: str, *arguments: str) -> str:
    """What a shell script prints in a container without a network."""
    command = ("run", "--rm", "--network", "none", "--entrypoint", "sh", IMAGE, "-c", script, "sh")
    return checked(docker(*command, *arguments)).stdout


@pytest.mark.parametrize("name", CALLS)
def test_curl_does_what_it_would_do(name: str) -> None:
    """With its options on its standard input it sends the same, and ends the same."""
    script = f"""{FUNCTIONS}
    python3 -c '{ECHO}' &
    while ! command curl -s http://127.0.0.1:8000/ >/dev/null; do sleep 0.05; done
    {{ curl "$@"; echo "status $?"; }} >/tmp/one 2>/dev/null
    {{ command curl "$@"; echo "status $?"; }} >/tmp/other 2>/dev/null
    cat /tmp/one; echo ---; cat /tmp/other"""
    one, _, other = inside(script, *CALLS[name]).partition("---\n")
    assert _without_date(one) == _without_date(other)
    assert "status 0" in one or name in ("closed", "no-such-file")
    if name == "post":
        said: list[Any] = json.loads(one.splitlines()[0].removesuffix("status 0"))
        assert said[3] == SPECIAL


def _without_date(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("Date:")]


def test_macs_are_what_openssl_makes_of_them() -> None:
    """Their keys are in command lines otherwise: those of AWS, Alibaba and of account binding."""
    script = f"""{FUNCTIONS}
    for algorithm in sha1 sha256 sha512 md5; do for binary in "" -binary; do
        set -- dgst -$algorithm -mac HMAC -macopt hexkey:00ff10 $binary
        for one in openssl "command openssl"; do
            printf 'some data\\0\\377' | $one "$@" | cut -d = -f 2 | tr -d " " | base64 -w 0
            echo
        done
    done; done"""
    lines = inside(script).splitlines()
    assert len(lines) == 16
    assert lines[::2] == lines[1::2]
    assert len(set(lines)) == 8


def test_what_the_functions_do_not_know_goes_through() -> None:
    script = f"""{FUNCTIONS}
    echo hello | sed 's/h/j/'
    printf 'a\\nb\\n' | sed -n 2p
    printf 'X=1\\n' >/tmp/x; sed s/1/2/ /tmp/x
    openssl version | cut -d' ' -f1
    echo data | openssl dgst -sha256 -hex | cut -d= -f2
    curl --help | head -1 | cut -c1-5"""
    assert inside(script).splitlines() == [
        "jello", "b", "X=2", "OpenSSL",
        " 6667b2d1aab6a00caa5aee5af8ad9f1465e567abf1c209d15727d57b3e8f6e5f", "Usage",
    ]  # fmt: skip


@pytest.mark.parametrize("value", ["plain", r"a \| b", r"a\&b", r"a\\b", "a;b #c", "a`b$(c)'d\"e"])
def test_a_value_is_saved_by_the_script_that_it_would_be_saved_by(value: str) -> None:
    text = "printf 'A=old\\nB=b\\n'"
    script = f"""{FUNCTIONS}
    {text} | sed "$1"; {text} | command sed "$1" """
    lines = inside(script, f"s|^A=.*$|A='{value}'|").splitlines()
    assert lines[:2] == lines[2:]
    assert lines[0] not in ("A=old", "")


def test_every_hook_says_what_it_reads() -> None:
    code = (
        "import json; from entrypoint.settings import acmehooks; "
        "hooks = [acmehooks.load(name) for name in acmehooks.names()]; "
        "print(json.dumps({hook.name: [hook.title, sorted(hook.variables)] for hook in hooks}))"
    )
    hooks = json.loads(inside('/opt/tambo/bin/python -c "$1"', code))
    assert len(hooks) > 150
    silent = {name for name, (_, variables) in hooks.items() if not variables}
    assert len(silent) <= 3, silent
    written = (path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    named = set(re.findall(r"(?:ACME_DNS=|`)(dns_[a-z0-9]+)\b", "\n".join(written)))
    assert len(named) > 5
    assert named <= set(hooks), "the documentation names none that is not there"
    assert {"CF_Token", "CF_Zone_ID"} <= set(hooks["dns_cf"][1])
    assert {"NSUPDATE_SERVER", "NSUPDATE_KEY", "NSUPDATE_ZONE"} <= set(hooks["dns_nsupdate"][1])
    # No hook's variable is one that would change the shell or the linker.
    names = {variable for _, variables in hooks.values() for variable in variables}
    assert not {name for name in names if name.startswith(("LD_", "_"))}
    assert not names & {"PATH", "HOME", "IFS", "ENV", "USER", "SHELL", "DEBUG", "ACME_OPENSSL_BIN"}


def test_the_hook_of_rfc_2136_has_its_program() -> None:
    assert "/nsupdate" in inside("command -v nsupdate")


def test_the_authorities_names_are_acme_sh_s() -> None:
    """Whose names they are is what its own function makes of them, for an elliptic key."""
    names = " ".join(AUTHORITIES)
    script = f"""set -- --version; . /usr/share/acme.sh/acme.sh >/dev/null
    for name in {names}; do _selectServer $name ec-256; echo "$name $ACME_DIRECTORY"; done
    echo $CA_NAMES | tr ', A-Z' '\\n\\na-z' | sed 's/^/name /'"""
    lines = [line.split() for line in inside(script).splitlines()]
    known = {words[1] for words in lines if words[0] == "name"}
    assert known == set(AUTHORITIES)
    assert {name: url for name, url in lines if name != "name"} == AUTHORITIES
