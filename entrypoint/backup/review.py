"""What a restore would change, and what of it has to be accepted by name. Pure.

It is read from the files as they were just decrypted, by the parsers that serve them, and printed
in ASCII: a name in a backup that somebody else wrote must not be able to move a terminal's cursor,
turn a line around (bidirectional text), or push others out of sight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from entrypoint.backup.tree import SECRETS, SETTINGS, Item, files_of, is_clear
from entrypoint.chasquid import aliases, userdb
from entrypoint.common.names import Domain
from entrypoint.keys import certs
from entrypoint.policy import grants
from entrypoint.state.load import Owned

_LONGEST = 160  # characters of a line


def plain(text: str) -> str:
    """A text in printable ASCII, and short."""
    cut = text[: _LONGEST + 1]
    safe = "".join(
        char if " " <= char <= "~" else char.encode("unicode_escape").decode() for char in cut
    )
    return safe if len(safe) <= _LONGEST else f"{safe[:_LONGEST]}..."


@dataclass(frozen=True)
class Kind:
    """Changes of one kind, a line each: `+` is new, `-` is gone, `~` differs."""

    title: str
    lines: tuple[str, ...]


def changes(before: Mapping[str, Owned], found: Mapping[str, Item]) -> list[Kind]:
    """What would differ from the files that are in place: an empty mapping on a new machine."""
    after = files_of(found)
    kinds: tuple[tuple[str, Mapping[str, object], Mapping[str, object]], ...] = (
        ("Logins", _logins(before), _logins(after)),
        ("Aliases", _aliases(before), _aliases(after)),
        ("Permissions to send", _senders(before), _senders(after)),
        ("Programs", _programs(before), _programs(after)),
        ("DKIM keys", _named(before, _is_key), _named(after, _is_key)),
        ("Certificates", _named(before, _is_certificate), _named(after, _is_certificate)),
        ("DNS providers and ACME accounts", _named(before, _is_acme), _named(after, _is_acme)),
        ("Other files", _named(before, _is_other), _named(after, _is_other)),
        ("Settings, for restored.env", {}, _settings(found)),
        ("Remembered", {}, {path: 0 for path in found if path.startswith("state/")}),
    )
    made = (Kind(title, tuple(_difference(old, new))) for title, old, new in kinds)
    return [kind for kind in made if kind.lines]


def _difference(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[str]:
    """`after` maps what is compared by what is shown."""
    for name in sorted(before.keys() | after.keys()):
        if name not in before:
            yield plain(f"+ {name}")
        elif name not in after:
            yield plain(f"- {name}")
        elif before[name] != after[name]:
            yield plain(f"~ {name}")


def _domain_files(files: Mapping[str, Owned], noun: str) -> Iterator[tuple[Domain, str]]:
    for name, file in sorted(files.items()):
        parts = name.split("/")
        if parts[0] == "domains" and parts[2:] == [noun]:
            yield Domain.parse(parts[1]), file.content.decode(errors="replace")


def _logins(files: Mapping[str, Owned]) -> dict[str, object]:
    found: dict[str, object] = {}
    for domain, text in _domain_files(files, "users"):
        found |= {f"{login}@{domain}": secret for login, secret in userdb.parse(text).items()}
    return found


def _rules(files: Mapping[str, Owned]) -> Iterator[tuple[str, aliases.Target]]:
    for domain, text in _domain_files(files, "aliases"):
        for name, targets in aliases.parse(text, domain).items():
            yield from ((f"{name}@{domain}", target) for target in targets)


def _aliases(files: Mapping[str, Owned]) -> dict[str, object]:
    return {f"{address}: {target}": target for address, target in _rules(files)}


def _senders(files: Mapping[str, Owned]) -> dict[str, object]:
    found: dict[str, object] = {}
    for domain, text in _domain_files(files, "senders"):
        for login, sender in grants.parse(text).items():
            others = ", ".join(str(grant) for grant in sender.grants)
            words = f" may send as {others}" if others else ""
            words += f", limit {sender.limit}" if sender.limit else ""
            found[f"{login}@{domain}{words}"] = sender
    return found


def _programs(files: Mapping[str, Owned]) -> dict[str, object]:
    return {name: file for name, file in files.items() if _is_program(name, file)}


def _is_program(name: str, file: Owned) -> bool:
    return file.executable or name.startswith("reload/")


def _named(files: Mapping[str, Owned], chosen: Callable[[list[str]], bool]) -> dict[str, object]:
    return {
        name: file
        for name, file in files.items()
        if chosen(name.split("/")) and not _is_program(name, file)
    }


def _is_key(parts: list[str]) -> bool:
    return parts[0] == "domains" and "dkim:" in parts[-1]


def _is_certificate(parts: list[str]) -> bool:
    return parts[0] == "certs" and parts[-1] in (certs.CHAIN, certs.KEY)


def _is_acme(parts: list[str]) -> bool:
    return parts[0] == "acme" or (parts[0] == "domains" and parts[2:] == ["acme.env"])


def _is_other(parts: list[str]) -> bool:
    shown = parts[0] == "domains" and parts[2:] in (["users"], ["aliases"], ["senders"])
    return not (shown or _is_key(parts) or _is_certificate(parts) or _is_acme(parts))


def _settings(tree: Mapping[str, Item]) -> dict[str, object]:
    """Those in clear as they are, of the others the names."""
    lines = tree.get(SETTINGS, Item(b"")).content.decode(errors="replace").splitlines()
    found: dict[str, object] = {line: line for line in lines if line and line[0] != "#"}
    for line in tree.get(SECRETS, Item(b"")).content.decode(errors="replace").splitlines():
        found[f"{line.partition('=')[0]}: secret"] = line
    return found


# --- what has to be accepted by name, in a backup that nobody vouches for


def by_name(tree: Mapping[str, Item], *, encrypted: bool) -> dict[str, str]:
    """What could run here, or cannot be the server's own; why, by the name to accept it with.

    `encrypted`: the backup's secrets should be.
    """
    files = files_of(tree)
    found: dict[str, str] = {}
    for path, item in sorted(tree.items()):
        hidden = path == SECRETS or (
            path.startswith("data/") and not is_clear(path.removeprefix("data/"), item.content)
        )
        if encrypted and hidden and not item.secret:
            found[path] = "it is in clear, and this server encrypts such a file"
    for address, target in _rules(files):
        if isinstance(target, aliases.Pipe):
            found[plain(address)] = f"mail to it goes to a program: {plain(str(target))}"
    for name, file in sorted(files.items()):
        if _is_program(name, file):
            found[name] = "it is a program"
        elif name.startswith("acme/") and not is_clear(name, file.content):
            home = "/".join(name.split("/")[:2])
            found[home] = "acme.sh runs what its files say as shell commands"
    return found
