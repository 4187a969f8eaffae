"""What a backup holds: the owner's files as a tree for git and back, and what a change is called.

Pure. In the tree, `data/` mirrors the volume; a secret's name ends in `.age`. Beside it stand the
settings; `state/`, what tambo remembers of selectors and credentials; and `overview/`, for people:
which users and which DKIM keys there are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from entrypoint.chasquid import aliases, userdb
from entrypoint.common import age
from entrypoint.common.errors import UserError, shown
from entrypoint.common.names import Address, Domain, Selector
from entrypoint.keys import certs, dkim
from entrypoint.settings.model import Given, Settings
from entrypoint.state import load
from entrypoint.state.load import Owned, Remembered

FORMAT = 1
ABOUT = "backup.json"
SETTINGS, SECRETS = "settings.env", "settings.secrets"
SUFFIX = ".age"
_PEM_MARK = b"PRIVATE KEY-----"


@dataclass(frozen=True)
class Item:
    """A file of the tree, by its name without `.age`. `parts` are what a secret is made of: which
    of them has changed is worth a word."""

    content: bytes = field(repr=False)
    secret: bool = False
    executable: bool = False
    parts: Mapping[str, bytes] = field(default_factory=dict, repr=False)


def is_clear(name: str, content: bytes) -> bool:
    """Whether an owner's file, by its path below /data, is no secret. What is not known is one."""
    parts = name.split("/")
    if _PEM_MARK in content:
        return False
    match parts:
        case ["domains", _, "aliases" | "senders"] | ["certs", _, certs.CHAIN]:
            return True
        case ["acme", *_]:
            return parts[-1].endswith(".cer")
    return False


def build(
    settings: Settings,
    files: Mapping[str, Owned],
    *,
    recipients: Sequence[str],
    remembered: Remembered | None = None,
) -> dict[str, Item]:
    """The tree of today, nothing encrypted yet."""
    tree: dict[str, Item] = {}
    for name, file in files.items():
        path = f"data/{name}"
        secret = not is_clear(name, file.content)
        tree[path] = Item(file.content, secret, file.executable, parts_of(path, file.content))
    for domain in sorted({name.split("/")[1] for name in files if name.startswith("domains/")}):
        for noun, text in (("users", _users(files, domain)), ("dkim", _keys(files, domain))):
            if text:
                tree[f"overview/{domain}/{noun}"] = Item(text.encode())
    tree |= _memory(remembered or Remembered())
    kept = [item for item in settings.given if item.kept]
    tree[SETTINGS] = Item(_settings(settings.given).encode())
    hidden = "".join(_assignment(item.name, item.value) for item in kept if item.secret).encode()
    if hidden:
        tree[SECRETS] = Item(hidden, secret=True, parts=parts_of(SECRETS, hidden))
    about = {
        "format": FORMAT,
        "host": str(settings.mail_hostname),
        "secrets": "age" if recipients else "clear",
        "recipients": list(recipients),
    }
    tree[ABOUT] = Item((json.dumps(about, indent=1) + "\n").encode())
    tree["README.md"] = Item(_readme(settings, recipients).encode())
    return tree


# What tambo remembers, by domain, as its change belongs to one of the domain's: a line each.
_SELECTORS, _CREATED = "selectors", "credentials"


def _memory(remembered: Remembered) -> dict[str, Item]:
    """`state/<domain>/selectors`, every selector that a DKIM key ever had; and `credentials`, a
    login and when it was made, in seconds since 1970."""
    found = {
        f"state/{domain}/{_SELECTORS}": Item("".join(f"{s}\n" for s in sorted(selectors)).encode())
        for domain, selectors in remembered.selectors.items()
        if selectors
    }
    lines: dict[str, list[str]] = {}
    for login, when in sorted(remembered.created.items()):
        if _is_created(login, when):
            lines.setdefault(login.rpartition("@")[2], []).append(f"{login} {when!r}\n")
    return found | {
        f"state/{domain}/{_CREATED}": Item("".join(rows).encode(), secret=True)
        for domain, rows in lines.items()
    }


def _is_created(login: str, when: float) -> bool:
    try:
        return Address.parse(login) == login and 0 <= when < _LAST
    except ValueError:
        return False


_LAST = 1e12  # seconds since 1970


def remembered_in(tree: Mapping[str, Item]) -> Remembered:
    """What a decrypted tree remembers. Raises UserError if it makes no sense."""
    selectors: dict[Domain, frozenset[str]] = {}
    created: dict[str, float] = {}
    for path, item in tree.items():
        parts = path.split("/")
        try:
            match parts:
                case ["state", name, "selectors"]:
                    words = item.content.decode().split()
                    selectors[Domain.parse(name)] = frozenset(Selector.parse(w) for w in words)
                case ["state", name, "credentials"]:
                    domain = Domain.parse(name)
                    for row in item.content.decode().splitlines():
                        login, when = row.split(" ")
                        if Address.parse(login).domain != domain:
                            raise ValueError
                        if not _is_created(login, float(when)):
                            raise ValueError
                        created[login] = float(when)
        except ValueError:
            msg = f"{shown(path)} in the backup is damaged"
            raise UserError(msg, "take another commit: list-backups") from None
    return Remembered(selectors, created)


def parts_of(path: str, content: bytes) -> dict[str, bytes]:
    """What a secret of the tree is made of, by name: users, or settings."""
    if path == SECRETS:
        pairs = (line.partition(b"=") for line in content.splitlines())
        return {name.decode(errors="replace"): value for name, _, value in pairs}
    return _user_parts(content) if re.fullmatch(r"data/domains/[^/]+/users", path) else {}


def _user_parts(content: bytes) -> dict[str, bytes]:
    try:
        users = userdb.parse(content.decode())
    except ValueError:
        return {}
    return {name: userdb.render({name: secret}).encode() for name, secret in users.items()}


def _users(files: Mapping[str, Owned], domain: str) -> str:
    file = files.get(f"domains/{domain}/users")
    return "".join(
        f"{name}@{domain}\n" for name in sorted(_user_parts(file.content) if file else ())
    )


_STAGES = {"": "active", "pending": "pending", "retired": "retired"}


def _keys(files: Mapping[str, Owned], domain: str) -> str:
    """A line for each DKIM key: stage, selector, and the value of its record."""
    lines = []
    for name, file in files.items():
        match = re.fullmatch(
            rf"domains/{re.escape(domain)}/(?:dkim/(pending|retired)/)?(?:\d+T\d+Z\.)?(dkim:.+\.pem)",
            name,
        )
        if match:
            try:
                selector = dkim.selector_of(match[2])
                if selector:
                    key = dkim.load(selector, file.content)
                    lines.append(f"{_STAGES[match[1] or '']} {key.selector} {key.record}\n")
            except ValueError:
                continue
    return "".join(sorted(lines))


def _settings(given: Iterable[Given]) -> str:
    lines = ["# The settings in force; what is secret stands in settings.secrets.\n"]
    for item in given:
        if item.secret:
            where = f" (from the file {item.file})" if item.file else ""
            lines.append(f"# {item.name}: secret{where}\n")
        elif item.file:
            lines.append(f"# from the file {item.file}:\n{_assignment(item.name, item.value)}")
        else:
            lines.append(_assignment(item.name, item.value))
    return "".join(lines)


def _assignment(name: str, value: str) -> str:
    """A line of an env file, as docker compose reads it."""
    value = ",".join(value.split("\n"))  # of several lines there are lists only
    if re.fullmatch(r"[A-Za-z0-9_./:@%+,=~-]*", value):
        return f"{name}={value}\n"
    if "'" not in value:
        return f"{name}='{value}'\n"
    escaped = re.sub(r'([\\"$])', r"\\\1", value)
    return f'{name}="{escaped}"\n'


def _readme(settings: Settings, recipients: Sequence[str]) -> str:
    secrets = (
        f"Files that end in `.age` are encrypted to\n\n    {chr(10).join(recipients)}\n\n"
        "Without the private half of that nobody can read them: neither can tambo."
        if recipients
        else "Nothing in it is encrypted: keep it private."
    )
    return f"""# Backup of the mail server {settings.mail_hostname}

Made by tambo. Change nothing here by hand, and let one server alone push to it.

`data/` mirrors the server's data folder, without mail. {secrets}

To bring a new machine up from it, in a clone of tambo, with Docker there (docs/backup.md):

    make image
    docker run --rm -it -v ./data:/data tambo restore --help

By hand: `age --decrypt -i IDENTITY FILE.age`.
"""


# --- what a change is called


@dataclass(frozen=True, order=True)
class Group:
    """What one commit is about: changes of other groups get commits of their own."""

    noun: str
    about: str = ""


def group_of(path: str) -> Group:
    """By the path in the tree, without `.age`."""
    parts = path.split("/")
    match parts:
        case (
            ["data", "domains", domain, "users"]
            | ["overview", domain, "users"]
            | ["state", domain, "credentials"]
        ):
            return Group("users", domain)
        case ["data", "domains", domain, "aliases"]:
            return Group("aliases", domain)
        case ["data", "domains", domain, "senders"]:
            return Group("senders", domain)
        case ["data", "domains", domain, "acme.env"]:
            return Group("acme", domain)
        case ["data", "domains", domain, name, *_] if name.startswith("dkim"):
            return Group("dkim", domain)
        case ["overview", domain, "dkim"] | ["state", domain, "selectors"]:
            return Group("dkim", domain)
        case ["data", "domains", domain, *_]:
            return Group("domains", domain)
        case ["data", "certs" | "acme", name, *_]:
            return Group("certs", name)
        case ["data", "reload", *_]:
            return Group("reload")
        case ["settings.env" | "settings.secrets"]:
            return Group("settings")
    return Group("backup")


@dataclass(frozen=True)
class Change:
    """One file before and after; None where there was, or is, none, or where it is not known.

    `parts` are the names of what has changed in a secret.
    """

    path: str
    before: bytes | None
    after: bytes | None
    added: bool = False
    removed: bool = False
    parts: tuple[str, ...] = ()


def subject(group: Group, changes: Sequence[Change]) -> str:
    """The subject of a commit, such as `users: add i@example.com`."""
    by_path = {change.path: change for change in changes}
    match group.noun:
        case "users":
            words = list(_user_words(group.about, by_path))
        case "aliases":
            words = list(_alias_words(group.about, changes))
        case "dkim":
            words = list(_key_words(group.about, by_path))
        case "certs":
            words = list(_cert_words(group.about, by_path))
        case "settings":
            words = list(_setting_words(by_path))
        case _:
            words = [_file_words(changes)]
    words = words or [f"change {group.about}".strip()]
    text = ", ".join(words[:_NAMED])
    if len(words) > _NAMED:
        text += f" and {len(words) - _NAMED} more"
    return f"{group.noun}: {text}"


_NAMED = 6  # changes that a subject names


def _lines(content: bytes | None) -> list[str]:
    return (content or b"").decode(errors="replace").splitlines()


def _user_words(domain: str, changes: Mapping[str, Change]) -> Iterator[str]:
    overview = changes.get(f"overview/{domain}/users")
    before, after = (
        (set(_lines(overview.before)), set(_lines(overview.after))) if overview else (set(), set())
    )
    yield from (f"add {name}" for name in sorted(after - before))
    yield from (f"remove {name}" for name in sorted(before - after))
    file = changes.get(f"data/domains/{domain}/users")
    for name in file.parts if file else ():
        address = f"{name}@{domain}"
        if address not in after ^ before:
            yield f"new password for {address}"


def _alias_words(domain: str, changes: Sequence[Change]) -> Iterator[str]:
    rules = []
    for content in (changes[0].before, changes[0].after):
        try:
            rules.append(aliases.parse((content or b"").decode(), Domain.parse(domain)))
        except ValueError:
            rules.append({})
    before, after = rules
    yield from (f"add {name}@{domain}" for name in after if name not in before)
    yield from (f"remove {name}@{domain}" for name in before if name not in after)
    yield from (
        f"change {name}@{domain}"
        for name in after
        if name in before and after[name] != before[name]
    )


def _key_words(domain: str, changes: Mapping[str, Change]) -> Iterator[str]:
    overview = changes.get(f"overview/{domain}/dkim")
    if not overview:
        return

    def stages(content: bytes | None) -> dict[str, str]:
        words = (line.split(" ")[:2] for line in _lines(content))
        return {selector: stage for stage, selector in words}

    before, after = stages(overview.before), stages(overview.after)
    verbs = {"active": "signs", "pending": "waits for DNS", "retired": "retired"}
    for selector in sorted(after):
        if before.get(selector) != after[selector]:
            new = "new key " if selector not in before else ""
            yield f"{new}{selector} of {domain} {verbs[after[selector]]}"
    yield from (f"remove {item} of {domain}" for item in sorted(before.keys() - after.keys()))


def _cert_words(name: str, changes: Mapping[str, Change]) -> Iterator[str]:
    chain = changes.get(f"data/certs/{name}/{certs.CHAIN}")
    if chain:
        verb = "add" if chain.added else "remove" if chain.removed else "renew"
        yield f"{verb} {name}"
    else:
        yield f"ACME account of {name}"


def _setting_words(changes: Mapping[str, Change]) -> Iterator[str]:
    clear = changes.get(SETTINGS)
    if clear:

        def values(content: bytes | None) -> dict[str, str]:
            pairs = (line.removeprefix("# ") for line in _lines(content))
            found = (re.fullmatch(r"([A-Za-z0-9_]+)(?:=|: )(.*)", pair) for pair in pairs)
            return {match[1]: match[2] for match in found if match}

        before, after = values(clear.before), values(clear.after)
        yield from (f"set {item}" for item in after if after[item] != before.get(item))
        yield from (f"remove {item}" for item in before if item not in after)
    secret = changes.get(SECRETS)
    named = set(re.findall(r"[A-Za-z0-9_]+", " ".join(_lines(clear.after) if clear else [])))
    for name in secret.parts if secret else ():
        if not (clear and secret and secret.added and name in named):
            yield f"new {name}"


def _file_words(changes: Sequence[Change]) -> str:
    first = changes[0]
    verb = "add" if first.added else "remove" if first.removed else "change"
    more = f" and {len(changes) - 1} more" if len(changes) > 1 else ""
    return f"{verb} {first.path.removeprefix('data/')}{more}"


# --- back from the tree


@dataclass(frozen=True)
class About:
    """What a backup says of itself."""

    host: Domain
    recipients: tuple[str, ...]
    encrypted: bool


def parse_about(content: bytes | None) -> About:
    """Raises UserError if this is no backup that this version can read."""
    fix = "see that the address is that of a backup, and take another commit: list-backups"
    if content is None:
        msg = "this is no backup of tambo's: it has no backup.json"
        raise UserError(msg, fix)
    try:
        found = json.loads(content)
        if found["format"] != FORMAT:
            said = shown(str(found["format"]))
            msg = f"this backup is of format {said}, and this tambo knows {FORMAT}"
            raise UserError(msg, "restore it with a newer tambo")
        recipients = tuple(age.check_recipient(item) for item in found["recipients"])
        if found["secrets"] not in ("age", "clear"):
            raise ValueError
        return About(Domain.parse(found["host"]), recipients, found["secrets"] == "age")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        msg = "backup.json in the backup is damaged"
        raise UserError(msg, fix) from None


def files_of(tree: Mapping[str, Item]) -> dict[str, Owned]:
    """The owner's files of a decrypted tree. Raises UserError for a path that leads elsewhere."""
    found = {}
    for path, item in tree.items():
        parts = path.split("/")
        if parts[0] != "data":
            continue
        if len(parts) < 3 or parts[1] not in load.BACKED_UP or not load.is_plain(parts[1:]):
            msg = f"{shown(path)} in the backup is in no folder that a backup has"
            raise UserError(msg, "take another commit: list-backups")
        found["/".join(parts[1:])] = Owned(item.content, item.executable)
    for name in found:
        if above := next((folder for folder in _above(name) if folder in found), ""):
            msg = f"{shown(above)} in the backup is a file and a folder"
            raise UserError(msg, "take another commit: list-backups")
    return found


def _above(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def problems(tree: Mapping[str, Item]) -> list[str]:
    """What is wrong with a decrypted tree: every file, and what belongs together."""
    files = files_of(tree)
    found = [f"data/{name}: {text}" for name, text in sorted(load.broken_files(files).items())]
    for domain in sorted({name.split("/")[1] for name in files if name.startswith("domains/")}):
        for noun, text in (("users", _users(files, domain)), ("dkim", _keys(files, domain))):
            said = tree.get(f"overview/{domain}/{noun}", Item(b"")).content.decode(errors="replace")
            if said != text:
                found.append(f"overview/{domain}/{noun} does not agree with what is in data/")
    return found


_DOORS = {"BACKUP_GIT_KEY": "/data/backup.key", "BACKUP_GIT_TOKEN": "/data/backup.token"}


def env_file(tree: Mapping[str, Item], host: str) -> str:
    """A .env for the new machine: as it was, less what belonged to the old one's addresses."""
    lines = [
        f"# Settings of {host}, from its backup. To be .env beside compose.yaml.\n",
        "# What gives access to the backup itself is not in it: BACKUP_GIT_KEY_FILE and\n",
        "# BACKUP_GIT_TOKEN_FILE name files to put in place again.\n",
    ]
    for line in _lines(tree.get(SETTINGS, Item(b"")).content)[1:]:
        name, equals, value = line.partition("=")
        if equals and name in ("PUBLIC_IPV4", "PUBLIC_IPV6") and value != "none":
            lines.append(
                f"# The old machine's address; the new one's is found by itself.\n#{line}\n"
            )
        elif equals and name in ("OUTBOUND_IPV4", "OUTBOUND_IPV6"):
            lines.append(
                "# The old machine's addresses: mail cannot leave from them here. Name those of "
                f"this one.\n#{line}\n"
            )
        elif door := re.fullmatch(r"# (BACKUP_GIT_\w+): secret(?: \(from the file (.+)\))?", line):
            lines.append(f"{door[1]}_FILE={door[2] or _DOORS.get(door[1], '')}\n")
        elif re.fullmatch(r"# \w+: secret.*", line):
            continue  # follows in clear
        else:
            lines.append(f"{line}\n")
    lines += [f"{line}\n" for line in _lines(tree.get(SECRETS, Item(b"")).content)]
    return "".join(lines)
