"""The only reader of the environment, and of files that NAME_FILE names. All problems at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import (
    SecretStr,
    ValidationError,
)

from entrypoint.common import log
from entrypoint.common.errors import Exit, UserError, shown
from entrypoint.settings import acmehooks, conflicts, values
from entrypoint.settings.model import CREDENTIALS, Given, Settings

_MAX_VALUE = 8192  # characters; a value that long is a file pasted by mistake
_MAX_FILE = 65536  # bytes of a NAME_FILE


# Names that start like ours are ours: a misspelt one must not pass in silence.
_PREFIXES = (
    "ACME_",
    "TLS_FILE",
    "MAIL_",
    "MAILBOX_",
    "PUBLIC_IP",
    "OUTBOUND_",
    "PACE_",
    "FORWARD_",
    "DKIM_",
    "SPF_",
    "DMARC_",
    "MAX_",
    "GIVE_UP_",
    "RATE_",
    "SEND_",
    "BACKUP_",
    "LEXICON_",
    "EVENTS_",
    "LOG_",
)
_NAMES = {name.upper(): name for name in Settings.model_fields if name not in CREDENTIALS}
# By their type: one that is forgotten here would stand in the backup in clear.
_SECRET = frozenset(
    name.upper()
    for name, info in Settings.model_fields.items()
    if SecretStr in get_args(info.annotation)
)
_DOOR = frozenset({"BACKUP_GIT_KEY", "BACKUP_GIT_TOKEN"})
# Stands in for a missing or wrong MAIL_HOSTNAME while the rest is checked (RFC 2606).
_NO_HOSTNAME = "missing.invalid"


def load(environ: Mapping[str, str], hooks: Path = acmehooks.FOLDER) -> Settings:
    """Settings from environment variables and the files that NAME_FILE variables name.

    An empty value counts as not set. Raises UserError (Exit.SETTINGS) that lists every problem;
    what a NAME_FILE holds is not shown, unless it is a valid name that another setting excludes.
    """
    problems: dict[str, str] = {}
    raw: dict[str, str] = {}
    from_file: set[str] = set()
    for name, key in _NAMES.items():
        try:
            raw[key] = _value(environ, name)
        except ValueError as error:
            problems[name] = str(error)
        if environ.get(f"{name}_FILE"):
            from_file.add(name)
    hook = _hook(raw.get("acme_dns", ""), hooks, problems)
    lexicon, wrong = _lexicon_options(environ, raw.get("lexicon_provider", ""))
    theirs = hook.variables if hook else frozenset()
    unknown, meant = _unknown(environ, theirs | lexicon.keys() | wrong.keys())
    problems |= wrong | unknown
    raw = {key: value for key, value in raw.items() if value.strip()}
    provider: dict[str, SecretStr] = {}
    if hook:
        provider, wrong = provider_variables(environ, hook)
        problems |= wrong

    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        unread = frozenset(problems)
        for item in error.errors(include_url=False, include_input=False):
            name = str(item["loc"][0]).upper()
            # A name whose value could not even be read has its problem already.
            if name not in unread:
                _add(problems, name, _explain(name, item, secret=name in from_file))
        # What remains is checked as a whole too, so that nobody mends one problem to meet the next.
        rest = {key: value for key, value in raw.items() if key.upper() not in problems}
        settings = Settings.model_validate({"mail_hostname": _NO_HOSTNAME, **rest})
    for name, text in tuple(conflicts.find(settings, ignore=frozenset(problems) | meant)):
        _add(problems, name, text)
    if problems:
        lines = [f"  {text}" for _, texts in sorted(problems.items()) for text in texts.split("\n")]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise UserError(
            "\n".join([f"The settings have {count}:", *lines]),
            "correct .env, then: docker compose up -d. All settings: docs/settings.md",
            exit_code=Exit.SETTINGS,
        )
    given = (
        *(
            Given(
                name, raw[key].strip(), name in _SECRET, environ.get(f"{name}_FILE", ""),
                kept=name not in _DOOR,
            )
            for name, key in _NAMES.items()
            if key in raw
        ),
        *(
            Given(name, value.get_secret_value(), True, environ.get(f"{name}_FILE", ""))
            for name, value in sorted((provider | lexicon).items())
        ),
    )  # fmt: skip
    return settings.model_copy(update={"provider": provider, "lexicon": lexicon, "given": given})


@dataclass(frozen=True)
class BackupAccess:
    """The part of the settings that gives access to the backup: all that a restore has."""

    remote: str = ""
    key: str = field(default="", repr=False)
    host_keys: tuple[str, ...] = ()
    token: str = field(default="", repr=False)
    signing_key: str = field(default="", repr=False)


def load_access(environ: Mapping[str, str]) -> BackupAccess:
    """What is set of it; a new machine may have no other settings yet. Raises UserError."""
    names: dict[str, Callable[[Any], Any]] = {
        "BACKUP_GIT_REMOTE": values.git_remote,
        "BACKUP_GIT_KEY": values.private_key,
        "BACKUP_GIT_HOST_KEY": values.host_keys,
        "BACKUP_GIT_TOKEN": values.token,
        "BACKUP_SIGNING_KEY": values.signing_key,
    }
    found: dict[str, Any] = {}
    for name, check in names.items():
        try:
            value = _value(environ, name)
        except ValueError as error:
            raise UserError(str(error), exit_code=Exit.SETTINGS) from None
        try:
            if value.strip():
                found[name] = check(value)
        except ValueError as error:
            msg = f"{name}: {error}"
            raise UserError(msg, exit_code=Exit.SETTINGS) from None
    return BackupAccess(
        found.get("BACKUP_GIT_REMOTE", ""), found.get("BACKUP_GIT_KEY", ""),
        found.get("BACKUP_GIT_HOST_KEY", ()), found.get("BACKUP_GIT_TOKEN", ""),
        found.get("BACKUP_SIGNING_KEY", ""),
    )  # fmt: skip


def log_style(environ: Mapping[str, str]) -> str:
    """How to log (see log.configure), also while the settings have problems; never raises.

    What LOG_PRIVACY may mean by another word than `off` is taken for `on`.
    """
    values = {}
    for name in ("LOG_FORMAT", "LOG_PRIVACY"):
        value = environ.get(name, "")
        with suppress(ValueError):
            value = _value(environ, name)
        values[name] = value.strip().lower()
    style = log.JSON if values["LOG_FORMAT"] == "json" else log.TEXT
    private = values["LOG_PRIVACY"] not in ("", "off")
    return f"{style},{log.SHORT}" if private else style


def _add(problems: dict[str, str], name: str, text: str) -> None:
    """Several problems of one setting stand on lines of their own."""
    lines = [*problems.get(name, "").split("\n"), text]
    problems[name] = "\n".join(dict.fromkeys(line for line in lines if line))


def _hook(name: str, folder: Path, problems: dict[str, str]) -> acmehooks.Hook | None:
    """The provider's hook, if there is such a one."""
    try:
        return acmehooks.load(values.hook_name(name), folder) if name.strip() else None
    except ValueError as error:
        problems["ACME_DNS"] = f"ACME_DNS: {error}"
        return None


def provider_variables(
    environ: Mapping[str, str], hook: acmehooks.Hook
) -> tuple[dict[str, SecretStr], dict[str, str]]:
    """The hook's variables that are set, each perhaps as NAME_FILE; and the problems by name."""
    found: dict[str, SecretStr] = {}
    problems: dict[str, str] = {}
    for name in sorted(hook.variables):
        is_own = f"{name}_FILE" in hook.variables  # a variable of the hook's, and no file for us
        try:
            value = (environ.get(name, "") if is_own else _value(environ, name)).strip()
            acmehooks.check(name, value)
        except ValueError as error:
            problems[name] = str(error)
            continue
        if value:
            found[name] = SecretStr(value)
    return found, problems


def _lexicon_options(
    environ: Mapping[str, str], provider: str
) -> tuple[dict[str, SecretStr], dict[str, str]]:
    """The options of dns-lexicon's provider that are set, each perhaps as NAME_FILE; and the
    problems by name. What each is called is checked when they are used."""
    found: dict[str, SecretStr] = {}
    problems: dict[str, str] = {}
    provider = provider.strip().upper()
    if not re.fullmatch(r"[A-Z0-9]+", provider):
        return found, problems
    for variable in environ:
        if not re.fullmatch(rf"LEXICON_{provider}_[A-Z0-9_]{{1,60}}", variable):
            continue
        name = variable.removesuffix("_FILE")
        try:
            found[name] = SecretStr(_value(environ, name).strip())
        except ValueError as error:
            problems[name] = str(error)
    return found, problems


def _value(environ: Mapping[str, str], name: str) -> str:
    """What NAME is set to, or what the file that NAME_FILE names holds; empty if neither is set.

    Raises ValueError, which says all and never shows the content.
    """
    value, path = environ.get(name, ""), environ.get(f"{name}_FILE", "")
    if value and path:
        msg = f"both {name} and {name}_FILE are set; keep one of them"
        raise ValueError(msg)
    try:
        return read_file(path) if path else value
    except ValueError as error:
        msg = f"{name}_FILE: {error}"
        raise ValueError(msg) from None


def read_file(path: str) -> str:
    """What a file of the owner's holds. Raises ValueError, which never shows the content."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        msg = f"cannot read {shown(path)}: {reason}"
        raise ValueError(msg) from None
    if len(content) > _MAX_FILE:
        msg = f"{shown(path)} is larger than {_MAX_FILE} bytes"
        raise ValueError(msg)
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        msg = f"{shown(path)} is not UTF-8 text"
        raise ValueError(msg) from None
    if not text:
        msg = f"{shown(path)} is empty"
        raise ValueError(msg)
    return text


def _unknown(
    environ: Mapping[str, str], provider: frozenset[str]
) -> tuple[dict[str, str], frozenset[str]]:
    """The problems of names that are no settings, and the settings that were probably meant."""
    problems = {}
    meant = set()
    for name in environ:
        base = name.removesuffix("_FILE")
        if base in _NAMES or base in provider:
            continue
        near = difflib.get_close_matches(base, _NAMES, n=1, cutoff=0.8)
        near = near or difflib.get_close_matches(base, provider, n=1, cutoff=0.85)
        if name.startswith(_PREFIXES) or near:
            hint = f"; did you mean {near[0]}?" if near else ""
            if name.startswith("LEXICON_") and not near:
                hint = "; only options of LEXICON_PROVIDER are, with its name after LEXICON_"
            plain = re.fullmatch(r"\w{1,60}", name, re.ASCII)
            problems[name] = f"{name if plain else shown(name)} is not a setting{hint}"
            meant.update(near)
    return problems, frozenset(meant)


def _explain(name: str, item: Mapping[str, Any], *, secret: bool) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind == "missing":
        return f"{name} is missing; set it to this server's full name, such as smtp.example.com"
    if secret:
        return f"{name}: the content of {name}_FILE is not valid"
    if kind == "value_error":
        return f"{name}: {context['error']}"
    if kind == "literal_error":
        return f"{name}: must be {context['expected']}"
    if kind == "string_too_long":
        return f"{name}: is longer than {_MAX_VALUE} characters"
    if kind == "string_unicode":
        return f"{name}: is not UTF-8 text"
    if kind == "greater_than_equal":
        return f"{name}: must be {context['ge']} or more"
    if kind == "less_than_equal":
        return f"{name}: must be {context['le']} or less"
    return f"{name}: {item['msg'][0].lower()}{item['msg'][1:]}"
