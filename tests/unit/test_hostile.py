"""Whatever a setting holds, nothing of it gets out of the place where it belongs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

from entrypoint.chasquid import config
from entrypoint.common.errors import UserError
from entrypoint.common.paths import Paths
from entrypoint.converge import plan
from entrypoint.keys.dkim import Algorithm, DkimKey
from entrypoint.settings import environment
from entrypoint.settings.model import Settings
from entrypoint.state.load import DomainState, State
from entrypoint.zone import render
from entrypoint.zone.required import Addresses, required
from tests.unit import chasquid_reference
from tests.unit.kit import HOST, asked, loaded_key, put

# What each setting is when it is right, to hide the hostile in.
RIGHT = {
    field.upper(): str(info.examples[0])
    for field, info in Settings.model_fields.items()
    if info.examples
}
HOSTILE = [
    '"',
    "'",
    "`reboot`",
    "$(reboot)",
    "${IFS}",
    "{{ 7*7 }}",
    "{% raw %}",
    "{# #}",
    "\\",
    '\\"',
    '\nmonitoring_address: "0.0.0.0:1099"',
    "\r\nmonitoring_address: 'x'",
    '" monitoring_address: "0.0.0.0:1099',
    "\n*: |reboot",
    ", |reboot@example.net",
    "#",
    "|",
    "*",
    "<",
    "; p=none",
    '" "v=spf1 +all',
    "../../../etc/cron.d/x",
    "/etc/passwd",
    "..",
    ".",
    "\0",
    "\x1b[2J",
    "\x7f",
    "\x85",
    "\u00a0",
    "\u2028",
    "\u202e",
    "\ufeff",
    "\uff0e\uff0e\uff0f",
    "\udcff",
    "é",
    "\U0001f4e7",
    "xn--",
    "xn--a",
    "\t",
    "%from%",
    "%",
    "a" * 10240,
    "a," * 5000,
    "\n" * 10240,
]
FORMS = ("{0}", "{1}{0}", "{0}{1}", "{1},{0}", "{1} {0}")


@cache
def keys(wanted: tuple[str, ...]) -> tuple[DkimKey, ...]:
    return tuple(loaded_key(Algorithm(word), f"t1{word[0]}") for word in wanted)


def state_of(wanted: Settings) -> State:
    have = DomainState(keys=keys(wanted.dkim_keys))
    return State(domains=dict.fromkeys(wanted.domains, have))


def values(name: str) -> Iterator[str]:
    for hostile in HOSTILE:
        for form in FORMS:
            yield form.format(hostile, RIGHT[name])


def environ_with(name: str, value: str) -> dict[str, str]:
    return {"MAIL_HOSTNAME": HOST, name: value}


@pytest.mark.parametrize("name", RIGHT)
def test_is_refused_or_harmless(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Settings] = []
    for value in values(name):
        for environ in (environ_with(name, value), from_file(name, value)):
            try:
                wanted = environment.load(environ)
            except UserError as error:
                text = str(error).replace("…", "").replace("\n", "")
                assert re.fullmatch(r"[ -~]*", text), ascii(value)
                continue
            if wanted in seen:
                continue
            seen.append(wanted)
            try:
                check_plan(wanted)
                check_records(wanted)
            except AssertionError as error:
                error.add_note(f"{name}={value!a}")
                raise


def from_file(name: str, value: str) -> dict[str, str]:
    put(Path("value"), value.encode(errors="surrogateescape"))
    environ = environ_with(name, "")
    return {**environ, f"{name}_FILE": "value"}


def check_plan(wanted: Settings) -> None:
    paths = Paths()
    made = plan.build(wanted, state_of(wanted), paths)
    files = {item.path: item.content.decode() for item in made.files}
    for path in (*(item.path for item in made.folders), *files):
        assert ".." not in path.parts
        assert path.is_relative_to(paths.data) or path.is_relative_to(paths.run)
    known = {paths.chasquid / "domains" / name for name in (*wanted.domains, wanted.mail_hostname)}
    for path in files:
        if path.is_relative_to(paths.chasquid / "domains"):
            assert path.parent in known
    assert chasquid_reference.read_config(files[paths.chasquid / "chasquid.conf"]) == {
        "hostname": str(wanted.mail_hostname),
        "data_dir": str(paths.queue),
        "max_data_size_mb": wanted.max_message_mb,
        "max_queue_items": wanted.max_queue,
        "give_up_send_after": f"{wanted.give_up_after}s",
        "smtp_address": ["systemd"],
        "submission_address": ["systemd"],
        "submission_over_tls_address": ["systemd"],
        "mail_log_path": "<stdout>",
        "suffix_separators": "+",
        "drop_characters": "",
        "mail_delivery_agent_bin": str(paths.lib / "mda"),
        "mail_delivery_agent_args": ["%from%", "%to%"],
        "dovecot_auth": True,
        "dovecot_client_path": str(paths.auth_socket),
        "dovecot_userdb_path": str(paths.auth_users),
    }
    for domain in {*wanted.domains, wanted.mail_hostname}:
        check_aliases(wanted, domain, files[paths.chasquid / "domains" / domain / "aliases"])


def check_aliases(wanted: Settings, domain: str, text: str) -> None:
    found = chasquid_reference.read_aliases(text, domain)
    if domain in wanted.receiving or domain == wanted.mail_hostname:
        names = ["*", "abuse", "postmaster"] if wanted.forward_to else []
        target = chasquid_reference.Recipient(str(wanted.forward_to), "email")
    else:
        names = ["*"]
        target = chasquid_reference.Recipient(f"*@{domain}", "email")
    assert found == {f"{name}@{domain}": [target] for name in names}


def check_records(wanted: Settings) -> None:
    """Each record is one line of a zone file, and each of its strings closed."""
    records = required(wanted, state_of(wanted), Addresses(None, None))
    lines = [line for line in render.zone(records).splitlines() if line and line[0] not in ";$"]
    assert len(lines) == len([item for item in records if item.zone and item.value is not None])
    for record in records:
        assert all(
            text.isascii() and text.isprintable() for text in (record.name, record.value or "")
        )
        assert '"' not in (record.value or "")
        assert PurePosixPath(record.name).name == record.name or record.zone is None


def test_some_of_these_are_accepted() -> None:
    """Else the test above would only ever see refusals."""
    assert asked(MAIL_DOMAINS="example.com,\texample.org").domains == ("example.com", "example.org")
    wanted = asked(MAIL_DOMAINS="example.com é.example")
    assert wanted.domains == ("example.com", "xn--9ca.example")
    check_plan(wanted)


@pytest.mark.parametrize(
    "hostile",
    [text for text in HOSTILE if "\udcff" not in text],  # no file holds it
    ids=lambda text: ascii(text[:20]),
)
def test_a_checked_name_that_is_not_one_could_still_add_no_field(hostile: str) -> None:
    """The second line of defence: what gets past `names` is quoted."""
    text = config.render(
        "chasquid.conf.j2", hostname=hostile, data_dir=hostile, max_message_mb=1, max_queue=1,
        give_up_after=hostile, delivery_agent=hostile, auth_socket=hostile, auth_users=hostile,
    )  # fmt: skip
    fields = chasquid_reference.read_config(text)
    assert "monitoring_address" not in fields
    for name in ("hostname", "data_dir", "give_up_send_after", "mail_delivery_agent_bin",
                 "dovecot_client_path", "dovecot_userdb_path"):  # fmt: skip
        assert fields[name] == hostile
