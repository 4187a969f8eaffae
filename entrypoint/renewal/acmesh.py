"""acme.sh: its command lines, its environment, and what its words mean.

Credentials go through the environment, or through acme.sh's own files (0600), never through the
command line; they are cut out of everything that it prints.
"""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from entrypoint.common import process
from entrypoint.keys import certs
from entrypoint.settings import acmehooks

_ACME_SH = "/usr/lib/tambo/acme"  # acme.sh itself, which would show credentials in `ps`
_HOME = "/usr/share/acme.sh"
_TIMEOUT = 900.0  # seconds for one certificate: some DNS providers take ten minutes
_KEPT_LINES = 200  # of acme.sh's output
_ARI_TIMEOUT = 20.0  # seconds
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_STAMP = re.compile(r"^\[[A-Z][a-z]{2} [^\]]*\] ")


@dataclass(frozen=True)
class Request:
    """All that decides what acme.sh does for one certificate.

    `home` is its configuration home, `webroot` set for HTTP-01, else `hook` for DNS-01.
    """

    names: tuple[str, ...]
    home: Path
    server: str
    hook: str = ""
    webroot: str = ""
    email: str = ""
    eab: tuple[str, str] | None = field(default=None, repr=False)
    challenge_alias: str = ""
    dns_sleep: int | None = None
    ca_bundle: Path | None = None
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def identity(self) -> str:
        """Changes when a renewal would no longer be the same request."""
        parts = (self.server, self.hook or "webroot", self.challenge_alias, *self.names)
        return " ".join(parts)

    @property
    def digest(self) -> str:
        """Changes with anything of the request, credentials too. Tells nothing of them."""
        parts = (self.identity, self.webroot, self.email, self.eab, self.dns_sleep)
        words = json.dumps([*parts, sorted(self.credentials.items())])
        return hashlib.sha256(words.encode()).hexdigest()

    @property
    def folder(self) -> Path:
        return self.home / f"{self.name}_ecc"

    @property
    def chain(self) -> Path:
        return self.folder / "fullchain.cer"

    @property
    def key(self) -> Path:
        return self.folder / f"{self.name}.key"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be printed: short values would cut up every other line."""
        values = [*self.credentials.values(), *(self.eab[1:] if self.eab else ())]
        return tuple(sorted((value for value in values if len(value) >= 5), key=len, reverse=True))


def arguments(request: Request, *, renew: bool) -> list[str]:
    """The command line. A renewal names the certificate that it replaces (RFC 9773 5), which the
    authority's rate limits favour; acme.sh reads the rest from its own file then."""
    argv = [_ACME_SH, "--renew" if renew else "--issue", "--force"]
    argv += ["--home", _HOME, "--config-home", str(request.home), "--server", request.server]
    if request.ca_bundle:
        argv += ["--ca-bundle", str(request.ca_bundle)]
    if renew:
        return [*argv, "--domain", request.name, "--ecc"]
    argv += ["--keylength", "ec-256"]
    for name in request.names:
        argv += ["--domain", name]
    if request.webroot:
        argv += ["--webroot", request.webroot]
    else:
        argv += ["--dns", request.hook]
    if request.challenge_alias:
        argv += ["--challenge-alias", request.challenge_alias]
    if request.dns_sleep:
        argv += ["--dnssleep", str(request.dns_sleep)]
    if request.email:
        argv += ["--email", request.email]
    return argv


def environment(request: Request) -> dict[str, str]:
    """acme.sh's whole environment. Raises ValueError if a credential must not reach a shell."""
    for name, value in request.credentials.items():
        acmehooks.check(name, value)
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": str(request.home),
        "LANG": "C.UTF-8",
        "ACME_NO_COLOR": "1",
        **request.credentials,
    }


def account_file(request: Request) -> tuple[Path, str] | None:
    """Where acme.sh looks for external account binding, and what must stand there.

    It takes the key as an argument or from this file; arguments are for all to see.
    """
    if not request.eab:
        return None
    # acme.sh leaves the port out of its folder's name.
    server = re.sub(
        r"^https://([^/:]+)(:[0-9]+)?",
        r"\1",
        acmehooks.AUTHORITIES.get(request.server, request.server),
    )
    kid, key = request.eab
    text = f"CA_EAB_KEY_ID='{kid}'\nCA_EAB_HMAC_KEY='{key}'\n"
    return request.home / "ca" / server / "ca.conf", text


def run(
    request: Request, *, renew: bool, on_line: Callable[[str], None] = lambda _line: None
) -> tuple[int, list[str]]:
    """Run acme.sh; returns its status and its last lines, credentials cut out."""
    lines: list[str] = []

    def keep(raw: str) -> None:
        line = redact(_STAMP.sub("", _COLOUR.sub("", raw)), request.secrets).rstrip()
        if line:
            lines.append(line)
            del lines[:-_KEPT_LINES]
            on_line(line)

    status = process.run(
        arguments(request, renew=renew), environment(request), timeout=_TIMEOUT, on_line=keep
    )
    return status, lines


def redact(text: str, secrets: tuple[str, ...]) -> str:
    """The text with `[secret]` for each of these, as they stand: encoded forms are not found."""
    return re.sub("|".join(map(re.escape, secrets)), "[secret]", text) if secrets else text


_PROVIDER = "the DNS provider did not take the challenge"

# What acme.sh prints, what it means and what mends it; the first that matches is told.
_CAUSES = (
    (
        r"No space left on device|: I/O error|curl: \(23\)",
        "the disk is full",
        "make room on the volume's disk",
    ),
    (
        "rateLimited|too many (certificates|new orders|failed|requests)|HTTP/1.1 429|429 Too Many",
        "the certificate authority limits how often it is asked",
        "wait, the next try comes by itself; to try settings, use ACME_SERVER=letsencrypt_test",
    ),
    (
        "certificate is not yet valid|certificate has expired",
        "a certificate is out of date by this machine's clock",
        "see that the clock is right: timedatectl",
    ),
    (
        "SSL certificate problem",
        "a server's certificate is signed by nobody who is known here",
        "for a private certificate authority set ACME_CA_BUNDLE to its root certificate",
    ),
    (
        "urn:ietf:params:acme:error:serverInternal|HTTP/1.1 50[0-9]|The CA server answered 50[0-9]",
        "the certificate authority is in trouble itself",
        "wait, the next try comes by itself",
    ),
    (
        r"externalAccountRequired|\bEAB\b|external account",
        "the certificate authority wants an account of its own (external account binding)",
        "set ACME_EAB_KID and ACME_EAB_HMAC_KEY as it gave them to you",
    ),
    (
        (
            "Error adding|[Aa]dd txt record error|Error add txt|[Ii]nvalid domain|Can not find"
            "|Please (check|specify|set|define|export|provide)|[Yy]ou (didn't|don't|haven't|must)"
            "|Unauthorized|Authentication|Invalid (token|key|signature|credential|API)"
            "|HTTP/1.1 40[13]"
        ),
        _PROVIDER,
        (
            "see that the credentials are right and may edit this zone, that the zone is there, "
            "and that this server reaches the provider"
        ),
    ),
    (
        (
            "Incorrect TXT record|No TXT record found|NXDOMAIN looking up TXT|DNS problem"
            "|retrieving TXT records|Invalid response from http"
            "|urn:ietf:params:acme:error:(dns|unauthorized|incorrectResponse)|[Tt]imed? ?out.*DNS"
        ),
        "the certificate authority did not see the challenge",
        (
            "DNS: see that the domain's name servers are the provider's, and raise ACME_DNS_SLEEP; "
            "HTTP: see that port 80 reaches this server on IPv4 and IPv6"
        ),
    ),
    (
        r"urn:ietf:params:acme:error:caa|\bCAA\b",
        "a CAA record forbids this certificate authority",
        "add the authority to the CAA record of the domain, or remove the record",
    ),
    (
        "urn:ietf:params:acme:error:connection|Fetching http|Verification error details: Get ",
        "the certificate authority could not reach this server",
        "see that port 80 is open to the internet on every address that DNS has for it",
    ),
    (
        (
            "error code: (6|7|28|35|56|60|77)|Cannot init API|Could not get nonce|Can not init api"
            "|Could not resolve host|Connection refused|timed out"
        ),
        "the certificate authority could not be reached",
        "see that this server reaches the internet by HTTPS; it is tried again by itself",
    ),
)


# Its telling lines, the most telling first.
_TELLING = (
    r"curl: \(\d+\)",
    r"Please (set|specify|provide|define|export)|Verification error details",
    r"(?i)error|fail|invalid|limit|refus|space",
)


def explain(status: int, lines: list[str], missing: str = "") -> tuple[str, str]:
    """What went wrong, with acme.sh's own telling words, and the fix.

    `missing` are the variables that the DNS provider's hook would also read.
    """
    if status == 124:
        return f"acme.sh did not end within {_TIMEOUT / 60:.0f} minutes", "try again later"
    if status < 0:
        return f"acme.sh was killed by signal {-status}", "see that the container has memory enough"
    text = "\n".join(lines)
    details = re.findall(r'"detail" *: *"([^"]+)"', text)
    telling = ([line for line in lines if re.search(pattern, line)] for pattern in _TELLING)
    found = next(filter(None, (details, *telling, lines)), ["nothing"])
    words = found[-1].strip(" (\\")[:300]
    for pattern, meaning, fix in _CAUSES:
        if re.search(pattern, text):
            if missing and meaning == _PROVIDER:
                fix = f"set {missing}; else {fix}"
            return f"{meaning} (acme.sh: {words})", fix
    return f"acme.sh ended with status {status}: {words}", "see the log above for the reason"


def replaced_is_unknown(lines: list[str]) -> bool:
    """Whether the authority refuses since it does not find what the order replaces (RFC 9773 5)."""
    return any("could not find an order for the given certificate" in line for line in lines)


def account_is_lost(lines: list[str]) -> bool:
    """Whether the authority no longer knows the account (test authorities forget them)."""
    return any("urn:ietf:params:acme:error:accountDoesNotExist" in line for line in lines)


@dataclass(frozen=True)
class Window:
    """When the authority would like a certificate renewed (RFC 9773 4.2)."""

    start: datetime
    end: datetime


def renewal_window(request: Request, certificate: certs.Certificate, bundle: Path) -> Window | None:
    """Ask the authority; None if it does not say, for whatever reason."""
    identifier = certs.ari_identifier(certificate)
    directory = _directory(request)
    if not identifier or not directory:
        return None
    context = ssl.create_default_context(cafile=str(bundle))
    # acme.sh's curl takes a private authority's root without key usage; so must this.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    try:
        base = _get(directory, context).get("renewalInfo")
        window = _get(f"{base}/{identifier}", context)["suggestedWindow"] if base else None
        if not window:
            return None
        found = Window(_time(window["start"]), _time(window["end"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found if found.start < found.end else None


def _directory(request: Request) -> str:
    """The directory's URL, as acme.sh noted it when it issued."""
    try:
        text = (request.folder / f"{request.name}.conf").read_text()
    except OSError:
        return ""
    found = re.search(r"^Le_API='(https://[^']+)'$", text, re.MULTILINE)
    return found[1] if found else ""


def _get(url: str, context: ssl.SSLContext) -> dict[str, Any]:
    if not url.startswith("https://"):
        msg = "not an https URL"
        raise ValueError(msg)
    query = urllib.request.Request(url, headers={"User-Agent": "tambo"})  # noqa: S310 (https)
    with urllib.request.urlopen(query, timeout=_ARI_TIMEOUT, context=context) as answer:  # noqa: S310
        content = json.loads(answer.read(65536))
    if not isinstance(content, dict):
        msg = "not an object"
        raise ValueError(msg)
    return content


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        msg = "no time zone"
        raise ValueError(msg)
    return moment
