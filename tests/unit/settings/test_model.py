"""Settings that are fine; those that are not are in test_bad_env.py."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from entrypoint.common import age, signing
from entrypoint.common.errors import UserError
from entrypoint.settings import environment, model
from entrypoint.settings.model import Settings
from tests.unit.kit import HOST, asked, put


def test_only_the_hostname_is_needed() -> None:
    found = environment.load({"MAIL_HOSTNAME": HOST})
    assert found.mail_hostname == HOST
    assert found.domains == ("example.com",)
    assert found.receiving == ("example.com",)
    assert (found.public_ipv4, found.public_ipv6, found.forward_to) == (None, None, None)
    assert (found.outbound_ipv4, found.outbound_ipv6) == ((), ())
    assert (found.warmup, found.pace_share) == ("off", None)
    assert (found.dkim_keys, found.dkim_selector) == (("rsa2048",), None)
    assert (found.spf_include, found.spf_mechanisms, found.spf_all) == ((), (), "~all")
    assert (found.dmarc_policy, found.dmarc_fo) == ("quarantine", "1")
    assert (found.dmarc_rua, found.dmarc_ruf) == (None, None)
    assert (found.max_message_mb, found.max_queue, found.give_up_after) == (25, 2000, 432000)


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("MAIL_DOMAINS", "example.org, example.net\texample.org", ("example.org", "example.net")),
        ("MAIL_DOMAINS", "Example.org\nEXAMPLE.ORG.", ("example.org",)),
        ("MAIL_RECEIVE", "None", ()),
        ("MAIL_RECEIVE", "Example.com", ("example.com",)),
        ("PUBLIC_IPV4", "none", "none"),
        ("PUBLIC_IPV4", " 203.0.113.10 ", IPv4Address("203.0.113.10")),
        ("PUBLIC_IPV6", "2001:DB8::0010", IPv6Address("2001:db8::10")),
        (
            "OUTBOUND_IPV4", "203.0.113.11, 10.0.0.5",
            (IPv4Address("203.0.113.11"), IPv4Address("10.0.0.5")),
        ),
        ("OUTBOUND_IPV6", "2001:DB8::0011", (IPv6Address("2001:db8::11"),)),
        ("WARMUP", "On", "on"),
        ("PACE_SHARE", " None ", "none"),
        ("PACE_SHARE", "1", 1),
        ("FORWARD_TO", "Me@Example.net", "me@example.net"),
        ("DKIM_KEYS", "ed25519 rsa2048,ed25519", ("ed25519", "rsa2048")),
        ("DKIM_SELECTOR", "T2026", "t2026"),
        ("DKIM_SELECTOR", "s" * 40, "s" * 40),
        ("SPF_INCLUDE", "_spf.Example.net., include:a.example", ("_spf.example.net", "a.example")),
        (
            "SPF_MECHANISMS",
            "A mx a:x.example/24//64 IP4:192.0.2.0/24 ip6:2001:db8::/32 mx include:_spf.x.example",
            ("a", "mx", "a:x.example/24//64", "ip4:192.0.2.0/24", "ip6:2001:db8::/32",
             "include:_spf.x.example"),
        ),
        ("SPF_ALL", " -ALL ", "-all"),
        ("DMARC_POLICY", "Reject", "reject"),
        ("DMARC_FO", "1:D:S", "1:d:s"),
        ("DMARC_RUA", "none", ()),
        ("DMARC_RUA", "mailto:a@example.net,A@example.net", ("a@example.net",)),
        ("MAX_MESSAGE_MB", " 200 ", 200),
        ("MAX_QUEUE", "10", 10),
        ("EVENTS_KEEP_DAYS", "1", 1),
        ("LOG_FORMAT", " JSON ", "json"),
        ("LOG_PRIVACY", "On", "on"),
        ("GIVE_UP_AFTER", "60M", 3600),
        ("GIVE_UP_AFTER", "14d", 14 * 86400),
        ("GIVE_UP_AFTER", "36h", 36 * 3600),
    ],
)  # fmt: skip
def test_values_in_their_canonical_form(name: str, value: str, found: Any, tmp_path: Path) -> None:
    direct = asked(**{name: value})
    assert getattr(direct, name.lower()) == found
    path = put(tmp_path / "value", f"{value}\n")
    assert asked(**{f"{name}_FILE": str(path)}) == direct


@pytest.mark.parametrize(
    "name", [field.upper() for field, info in Settings.model_fields.items() if info.examples]
)
def test_an_empty_value_counts_as_not_set(name: str) -> None:
    if name == "MAIL_HOSTNAME":
        with pytest.raises(UserError, match="MAIL_HOSTNAME is missing"):
            environment.load({name: " \t"})
    elif name.lower() not in model.CREDENTIALS:
        assert asked(**{name: "  ", f"{name}_FILE": ""}) == asked()


def test_every_setting_has_its_example_accepted() -> None:
    """The examples of .env.example are themselves right."""
    for field, info in Settings.model_fields.items():
        apart = ("acme", "tls", "backup_git", "backup_signing")
        if info.examples and not field.startswith(apart):
            environ = {field.upper(): str(info.examples[0])}
            if field == "mail_hostname":
                environment.load(environ)
            else:
                assert getattr(asked(**environ), field) != getattr(asked(), field), field


def test_other_variables_are_nobodys_business() -> None:
    container = {
        "PATH": "/usr/bin", "HOME": "/root", "HOSTNAME": "a1b2c3", "TERM": "xterm", "LANG": "C",
        "MAIL": "/var/mail/root", "LC_ALL": "C.UTF-8", "TZ": "UTC", "PWD": "/", "SHLVL": "1",
        "CF_Token": "x", "PUBLIC": "1", "LOG": "x", "DOMAIN": "x", "GIT_REVISION": "x",
    }  # fmt: skip
    assert asked(**container) == asked()


def test_receive_elsewhere() -> None:
    found = asked(MAIL_DOMAINS="example.com example.org", MAIL_RECEIVE="example.org")
    assert found.domains == ("example.com", "example.org")
    assert found.receiving == ("example.org",)
    assert asked(MAIL_RECEIVE="none").receiving == ()


def test_forwarding_to_a_domain_that_receives_elsewhere_is_no_loop() -> None:
    found = asked(
        MAIL_DOMAINS="example.com example.org", MAIL_RECEIVE="example.com",
        FORWARD_TO="i@example.org",
    )  # fmt: skip
    assert found.forward_to == "i@example.org"


def test_a_wrong_setting_is_no_reason_to_blame_another() -> None:
    """FORWARD_TO is fine or not depending on MAIL_RECEIVE, which is not known here."""
    with pytest.raises(UserError) as caught:
        asked(MAIL_RECEIVE="exa_mple.org", FORWARD_TO="i@example.com")
    assert "FORWARD_TO" not in caught.value.message


def test_the_host_zone_is_the_nearest_domain_above() -> None:
    def zone(host: str, domains: str) -> str:
        return environment.load({"MAIL_HOSTNAME": host, "MAIL_DOMAINS": domains}).host_zone

    assert zone("a.b.example.com", "example.com b.example.com") == "b.example.com"
    assert zone("example.com", "example.com") == "example.com"
    assert zone("smtp.hosting.example", "example.com") == "hosting.example"


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        asked().max_queue = 3


@pytest.mark.parametrize(
    ("environ", "style"),
    [
        ({}, "text"),
        ({"LOG_FORMAT": " JSON ", "LOG_PRIVACY": " OFF "}, "json"),
        ({"LOG_FORMAT": "xml", "LOG_PRIVACY": "yes"}, "text,short"),
        ({"LOG_FORMAT": "json", "LOG_PRIVACY": "on"}, "json,short"),
        ({"LOG_FORMAT_FILE": "/nonexistent"}, "text"),
        ({"MAIL_HOSTNAME": "smtp", "LOG_FORMAT": "json"}, "json"),
    ],
)
def test_how_to_log_is_known_while_the_settings_have_problems(
    environ: dict[str, str], style: str
) -> None:
    assert environment.log_style(environ) == style


def test_how_to_log_from_a_file(tmp_path: Path) -> None:
    file = put(tmp_path / "format", "json\n")
    assert environment.log_style({"LOG_FORMAT_FILE": str(file)}) == "json"


# The backup: what belongs together, and what was set.

KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----"
HOST_KEY = "ssh-ed25519 " + "A" * 68


def ssh_backup(tmp_path: Path, **more: str) -> dict[str, str]:
    return {
        "BACKUP_GIT_REMOTE": "git@git.example.com:me/backup.git",
        "BACKUP_GIT_KEY_FILE": str(put(tmp_path / "key", f"{KEY}\n")),
        "BACKUP_GIT_HOST_KEY": HOST_KEY,
        **more,
    }


def test_a_signing_key_is_checked_never_shown_and_goes_with_a_recipient() -> None:
    key, (_, recipient) = signing.new_key(), age.new_identity()
    both = {"BACKUP_SIGNING_KEY": key, "BACKUP_AGE_RECIPIENT": recipient}
    found = asked(**both)
    assert found.backup_signing_key
    assert found.backup_signing_key.get_secret_value() == key
    assert key not in repr(found)
    [given] = [item for item in found.given if item.name == "BACKUP_SIGNING_KEY"]
    assert given.secret
    assert given.kept, "a new machine signs on"
    with pytest.raises(UserError, match="BACKUP_SIGNING_KEY goes with BACKUP_AGE_RECIPIENT"):
        asked(BACKUP_SIGNING_KEY=key)
    with pytest.raises(UserError, match="BACKUP_SIGNING_KEY: is not a signing key") as caught:
        asked(**{**both, "BACKUP_SIGNING_KEY": key[:-1]})
    assert key[:-1] not in str(caught.value)


def test_a_backup_over_ssh(tmp_path: Path) -> None:
    found = asked(**ssh_backup(tmp_path))
    assert found.backup_git_key
    assert found.backup_git_key.get_secret_value() == KEY
    assert "c2VjcmV0" not in repr(found)
    assert found.backup_git_host_key == (HOST_KEY,)


@pytest.mark.parametrize(
    ("remote", "right"),
    [
        ("git@git.example.com:me/backup.git", True),
        ("ssh://git@git.example.com:2222/srv/backup.git", True),
        ("ssh://git@[2001:db8::1]/srv/backup.git", True),
        ("git@git.example.com:~/backup.git", True),
        ("me@git.example.com:-oProxyCommand=id", False),
        ("ssh://-oProxyCommand=id/x", False),
        ("-u@x:y", False),
        ("ext::sh -c id", False),
        ("file:///srv/backup.git", False),
        ("/srv/backup.git", False),
        ("http://git.example.com/x.git", False),
        ("git@git.example.com:a b", False),
        ("git@git.example.com", False),
    ],
)
def test_addresses_of_repositories(remote: str, right: bool, tmp_path: Path) -> None:
    environ = ssh_backup(tmp_path, BACKUP_GIT_REMOTE=remote)
    if right:
        assert asked(**environ).backup_git_remote == remote
    else:
        with pytest.raises(UserError, match="is not the address of a git repository"):
            asked(**environ)


def test_a_password_in_the_address_is_not_shown() -> None:
    with pytest.raises(UserError, match="holds a password") as caught:
        asked(BACKUP_GIT_REMOTE="https://me:hunter2@git.example.com/x.git")
    assert "hunter2" not in str(caught.value)


def test_what_a_backup_over_ssh_lacks() -> None:
    with pytest.raises(UserError) as caught:
        asked(BACKUP_GIT_REMOTE="git@git.example.com:me/backup.git")
    assert "BACKUP_GIT_KEY: " in str(caught.value)
    assert "BACKUP_GIT_HOST_KEY: " in str(caught.value)
    with pytest.raises(UserError, match="BACKUP_GIT_TOKEN: "):
        asked(BACKUP_GIT_REMOTE="https://git.example.com/x.git")


def test_host_keys_as_ssh_keyscan_prints_them(tmp_path: Path) -> None:
    path = put(tmp_path / "keys", f"# git:22 SSH-2.0\ngit {HOST_KEY}\n[git]:2222 {HOST_KEY} me\n")
    environ = ssh_backup(tmp_path, BACKUP_GIT_HOST_KEY="", BACKUP_GIT_HOST_KEY_FILE=str(path))
    assert asked(**environ).backup_git_host_key == (HOST_KEY,)
    with pytest.raises(UserError, match="is not a public host key"):
        asked(**ssh_backup(tmp_path, BACKUP_GIT_HOST_KEY="SHA256:abc"))


def test_what_was_set_is_remembered_as_it_was_set(tmp_path: Path) -> None:
    found = asked(**ssh_backup(tmp_path, DMARC_POLICY="reject"))
    given = {item.name: item for item in found.given}
    assert given["DMARC_POLICY"].value == "reject"
    assert not given["DMARC_POLICY"].secret
    assert given["BACKUP_GIT_KEY"].secret
    assert given["BACKUP_GIT_KEY"].file == str(tmp_path / "key")
    assert not given["BACKUP_GIT_KEY"].kept
    assert "SPF_ALL" not in given


def test_the_door_to_a_backup_needs_no_other_setting(tmp_path: Path) -> None:
    found = environment.load_access(ssh_backup(tmp_path))
    assert found.remote == "git@git.example.com:me/backup.git"
    assert found.key == KEY
    assert found.host_keys == (HOST_KEY,)
    assert environment.load_access({}) == environment.BackupAccess()
    with pytest.raises(UserError, match="BACKUP_GIT_KEY: is not a private key"):
        environment.load_access({"BACKUP_GIT_KEY": "hunter2"})


@pytest.mark.parametrize("read", [environment.load, environment.load_access])
def test_what_opens_the_backup_is_read_from_files_as_every_setting_is(
    tmp_path: Path, read: Callable[[dict[str, str]], object]
) -> None:
    given = {"MAIL_HOSTNAME": HOST, **ssh_backup(tmp_path)}
    with pytest.raises(UserError) as caught:
        read({**given, "BACKUP_GIT_KEY": KEY})
    assert "both BACKUP_GIT_KEY and BACKUP_GIT_KEY_FILE are set; keep one" in str(caught.value)
    with pytest.raises(UserError) as caught:
        read({**given, "BACKUP_GIT_KEY_FILE": "/nonexistent"})
    wrong = "BACKUP_GIT_KEY_FILE: cannot read '/nonexistent': No such file or directory"
    assert wrong in str(caught.value)
