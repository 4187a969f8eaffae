"""acme.sh's DNS hooks: which there are, and which variables each declares. Reads the image only."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from entrypoint.common.errors import shown

FOLDER = Path("/usr/share/acme.sh/dnsapi")

# acme.sh keeps what it is given in files that a shell evaluates, and some hooks build JSON or XML
# by hand: nothing that means something to either is let through.
_SAFE = re.compile(r"[A-Za-z0-9 !#%&()*+,./:;<=>?@\[\]^_{|}~-]*")
_OPTION = re.compile(r"^ ([A-Za-z_][A-Za-z0-9_]*) (.*)$")
_READ = re.compile(r"_readaccountconf(?:_mutable)?\s+\"?([A-Za-z_][A-Za-z0-9_]*)")


# acme.sh's own names of the authorities that it knows (its CA_NAMES and CA_SERVERS). ssl.com has
# another directory for RSA keys, of which none are made here.
AUTHORITIES = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt.org": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt_test": "https://acme-staging-v02.api.letsencrypt.org/directory",
    "letsencrypttest": "https://acme-staging-v02.api.letsencrypt.org/directory",
    "letsencrypt.org_test": "https://acme-staging-v02.api.letsencrypt.org/directory",
    "zerossl": "https://acme.zerossl.com/v2/DV90",
    "zerossl.com": "https://acme.zerossl.com/v2/DV90",
    "sslcom": "https://acme.ssl.com/sslcom-dv-ecc",
    "ssl.com": "https://acme.ssl.com/sslcom-dv-ecc",
    "google": "https://dv.acme-v02.api.pki.goog/directory",
    "google.com": "https://dv.acme-v02.api.pki.goog/directory",
    "googletest": "https://dv.acme-v02.test-api.pki.goog/directory",
    "google_test": "https://dv.acme-v02.test-api.pki.goog/directory",
    "google.com_test": "https://dv.acme-v02.test-api.pki.goog/directory",
    "actalis": "https://acme-api.actalis.com/acme/directory",
    "actalis.com": "https://acme-api.actalis.com/acme/directory",
}


@dataclass(frozen=True)
class Hook:
    """`variables` is all that the hook reads; `groups` are the ways to give it credentials."""

    name: str
    title: str
    variables: frozenset[str]
    groups: tuple[tuple[str, ...], ...]

    def missing(self, given: frozenset[str]) -> str:
        """What to set, if no way to give credentials is complete; else an empty string.

        Not all of it may be needed: some hooks declare what they can do without.
        """
        lacking = [tuple(name for name in group if name not in given) for group in self.groups]
        if not all(lacking):
            return ""
        begun = [lack for lack, group in zip(lacking, self.groups, strict=True) if lack != group]
        ways = [min(begun, key=len)] if begun else lacking
        return ", or ".join(" and ".join(way) for way in ways)


def names(folder: Path = FOLDER) -> tuple[str, ...]:
    """The hooks' names as ACME_DNS takes them, such as dns_cf."""
    return tuple(sorted(path.stem for path in folder.glob("dns_*.sh")))


def load(name: str, folder: Path = FOLDER) -> Hook:
    """Raises ValueError, with the near names, if acme.sh has no such hook."""
    known = names(folder)
    if name not in known:
        wanted = f"dns_{name.removeprefix('dns_')}"
        near = [wanted] if wanted in known else difflib.get_close_matches(wanted, known, n=3)
        near = (_titled(name, folder) + near)[:4]
        hint = f"; did you mean {' or '.join(dict.fromkeys(near))}?" if near else ""
        msg = (
            f"{shown(name)} is not one of acme.sh's {len(known)} DNS hooks{hint} "
            "(all: docker run --rm --entrypoint ls tambo /usr/share/acme.sh/dnsapi)"
        )
        raise ValueError(msg)
    text = (folder / f"{name}.sh").read_text(errors="replace")
    info = re.search(rf"^{name}_info='(.*?)'$", text, re.DOTALL | re.MULTILINE)
    lines = info[1].splitlines() if info else []
    groups: list[tuple[str, ...]] = []
    declared: set[str] = set()
    section: list[str] | None = None
    for line in lines[1:]:
        if line.startswith("Options"):  # Options: and OptionsAlt:
            section = []
            groups.append(())
        elif not line.startswith(" "):
            section = None
        elif section is not None and (match := _OPTION.match(line)):
            declared.add(match[1])
            if "Optional." not in match[2] and "Default:" not in match[2]:
                section.append(match[1])
                groups[-1] = tuple(section)
    return Hook(
        name=name,
        title=lines[0] if lines else name,
        variables=frozenset(declared | set(_READ.findall(text))),
        groups=tuple(group for group in groups if group),
    )


def _titled(word: str, folder: Path) -> list[str]:
    """The hooks whose provider is called like `word`: people know its name, not the hook's."""
    word = word.removeprefix("dns_").lower()
    if len(word) < 3:
        return []
    found = []
    for path in sorted(folder.glob("dns_*.sh")):
        head = path.read_text(errors="replace")[:600]
        info = re.search(
            r"^dns_\w+_info='([^']*?)(Docs:|Options|')", head, re.MULTILINE | re.DOTALL
        )
        if info and word in info[1].lower():
            found.append(path.stem)
    return found[:3]


def check(name: str, value: str) -> None:
    """Raises ValueError if a variable's value must not reach acme.sh. Never shows the value."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
        msg = f"{shown(name)} is not a variable's name"
        raise ValueError(msg)
    if not _SAFE.fullmatch(value):
        msg = (
            f"{name}: the value holds a character that acme.sh cannot keep safely: only printable "
            "ASCII without quotes, backquotes, dollar signs and backslashes"
        )
        raise ValueError(msg)


def parse_environment(text: str) -> dict[str, str]:
    """An acme.env file: NAME=VALUE a line, # comments, a pair of quotes around a value goes.

    Raises ValueError with the line's number; never shows a value.
    """
    found: dict[str, str] = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        try:
            if not equals:
                msg = "no = in it; write it as NAME=VALUE"
                raise ValueError(msg)
            check(name.strip(), value)
        except ValueError as error:
            msg = f"line {number}: {error}"
            raise ValueError(msg) from None
        found[name.strip()] = value
    return found
