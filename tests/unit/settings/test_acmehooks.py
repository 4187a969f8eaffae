"""acme.sh's DNS hooks, and what may be handed to them."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.common.errors import UserError
from entrypoint.settings import acmehooks, environment
from tests.unit.acmekit import HOOKS, put_hooks
from tests.unit.kit import HOST, put

SAFE = string.ascii_letters + string.digits + " !#%&()*+,-./:;<=>?@[]^_{|}~"
UNSAFE = [
    char for char in map(chr, (*range(256), 0x2028, 0x202E, 0xFF07, 0x1F4E7)) if char not in SAFE
]
HOSTILE = [
    "$(touch /tmp/x)", "`touch /tmp/x`", "${IFS}", "$HOME", "x'; touch /tmp/x; '", 'x"; touch x; "',
    "x\ntouch /tmp/x", "x\r", "x\\", "\\x27", "x\x00y", "\x1b]0;x\x07", "é", "\u2019",
]  # fmt: skip


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return put_hooks(tmp_path / "dnsapi", monkeypatch)


# --- hooks ---------------------------------------------------------------------------------------


def test_all_hooks_are_known_by_name(hooks: Path) -> None:
    assert acmehooks.names(hooks) == ("dns_aws", "dns_bare", "dns_cf", "dns_pdns")


def test_a_hook_says_what_it_reads(hooks: Path) -> None:
    hook = acmehooks.load("dns_cf", hooks)
    assert hook.title == "CloudFlare"
    assert hook.variables == {"CF_Key", "CF_Email", "CF_Token", "CF_Account_ID", "CF_Zone_ID"}
    assert hook.groups == (("CF_Key", "CF_Email"), ("CF_Token", "CF_Account_ID"))


def test_what_has_a_default_or_is_optional_is_no_credential(hooks: Path) -> None:
    hook = acmehooks.load("dns_pdns", hooks)
    assert "PDNS_Ttl" in hook.variables
    assert hook.groups == (("PDNS_Url", "PDNS_ServerId", "PDNS_Token"),)


def test_what_is_read_without_being_declared_is_known_too(hooks: Path) -> None:
    assert acmehooks.load("dns_aws", hooks).variables == {
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DNS_SLOWRATE", "AWS_OLD",
    }  # fmt: skip


def test_a_hook_that_says_nothing_reads_nothing(hooks: Path) -> None:
    hook = acmehooks.load("dns_bare", hooks)
    assert (hook.title, hook.variables, hook.groups) == ("dns_bare", frozenset(), ())
    assert hook.missing(frozenset()) == ""


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ([], "CF_Key and CF_Email, or CF_Token and CF_Account_ID"),
        (["CF_Zone_ID"], "CF_Key and CF_Email, or CF_Token and CF_Account_ID"),
        (["CF_Key"], "CF_Email"),
        (["CF_Token"], "CF_Account_ID"),
        (["CF_Key", "CF_Email"], ""),
        (["CF_Token", "CF_Account_ID", "CF_Key"], ""),
    ],
    ids=["none", "optional", "half", "other-half", "complete", "and-more"],
)
def test_what_is_missing_is_named(hooks: Path, given: list[str], missing: str) -> None:
    assert acmehooks.load("dns_cf", hooks).missing(frozenset(given)) == missing


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("cf", "did you mean dns_cf"),
        ("dns_cff", "did you mean dns_cf"),
        ("cloudflare", "did you mean dns_cf"),
        ("dns_cloudflare", "did you mean dns_cf"),
        ("route53", "did you mean dns_aws"),
        ("amazon", "did you mean dns_aws"),
        ("powerdns", "did you mean dns_pdns"),
        ("pdns", "did you mean dns_pdns"),
        ("dns_pdn", "dns_pdns"),
        ("qqqqqqq", ""),
    ],
)
def test_the_near_hooks_are_suggested(hooks: Path, name: str, hint: str) -> None:
    with pytest.raises(ValueError, match=r"is not one of acme\.sh's 4 DNS hooks") as raised:
        acmehooks.load(name, hooks)
    assert hint in str(raised.value)
    assert ("did you mean" in str(raised.value)) == bool(hint)


@pytest.mark.parametrize("name", ["dns_cf", "dns_aws", "dns_pdns"])
def test_settings_take_the_hook_s_variables_and_no_others(hooks: Path, name: str) -> None:
    variables = acmehooks.load(name, hooks).variables
    every = {
        variable: "value" for hook in HOOKS for variable in acmehooks.load(hook, hooks).variables
    }
    found = environment.load({"MAIL_HOSTNAME": HOST, "ACME_DNS": name, **every}, hooks).provider
    assert set(found) == variables
    assert "value" not in repr(found)


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("char", SAFE)
def test_what_means_nothing_inside_single_quotes_passes(char: str) -> None:
    acmehooks.check("NAME", f"a{char}b{char}")


@pytest.mark.parametrize("char", UNSAFE, ids=[f"U+{ord(char):04X}" for char in UNSAFE])
def test_no_other_character_passes(char: str) -> None:
    for value in (char, f"a{char}", f"{char}a", f"a{char}b"):
        with pytest.raises(ValueError, match="NAME: the value holds a character") as raised:
            acmehooks.check("NAME", value)
        assert f"a{char}b" not in str(raised.value)


@pytest.mark.parametrize(
    "name", ["", "1A", "A B", "A;touch x", "$(x)", "A\n", "é", "A" * 65, "A-B"]
)
def test_a_name_that_a_shell_would_not_assign_to(name: str) -> None:
    with pytest.raises(ValueError, match="is not a variable's name"):
        acmehooks.check(name, "x")


@pytest.mark.parametrize("value", [value for value in HOSTILE if value != "x\r"])
def test_hostile_values_are_refused_in_the_environment(hooks: Path, value: str) -> None:
    environ = {"MAIL_HOSTNAME": HOST, "ACME_DNS": "dns_pdns", "PDNS_Token": value}
    with pytest.raises(UserError) as raised:
        environment.load(environ, hooks)
    assert "PDNS_Token" in raised.value.message
    assert value not in raised.value.message


@pytest.mark.parametrize("value", [value for value in HOSTILE if value != "x\r"])
def test_hostile_values_are_refused_in_a_file(
    hooks: Path,
    tmp_path: Path,
    value: str,
) -> None:
    path = put(tmp_path / "token", value)
    environ = {"MAIL_HOSTNAME": HOST, "ACME_DNS": "dns_pdns", "PDNS_Token_FILE": str(path)}
    with pytest.raises(UserError) as raised:
        environment.load(environ, hooks)
    assert "PDNS_Token" in raised.value.message
    assert value not in raised.value.message


@pytest.mark.parametrize(
    "value", [value for value in HOSTILE if "\n" not in value and "\r" not in value]
)
@pytest.mark.parametrize("form", ["X={}", "X='{}'", 'X="{}"', "export X={}"])
def test_hostile_values_are_refused_in_acme_env(value: str, form: str) -> None:
    with pytest.raises(ValueError, match=r"\Aline 3: X: the value") as raised:
        acmehooks.parse_environment(f"A=1\n\n{form.format(value)}\nB=2\n")
    assert value not in str(raised.value)


# --- acme.env ------------------------------------------------------------------------------------


def test_acme_env_is_read_as_people_write_it() -> None:
    text = """
# comment
PLAIN=value
  INDENTED = value with blanks\t
export EXPORTED=value
SINGLE='in quotes'
DOUBLE="in quotes"
EQUALS=a=b==
HASH=a#b
EMPTY=
"""
    assert acmehooks.parse_environment(text) == {
        "PLAIN": "value", "INDENTED": "value with blanks", "EXPORTED": "value",
        "SINGLE": "in quotes", "DOUBLE": "in quotes", "EQUALS": "a=b==", "HASH": "a#b", "EMPTY": "",
    }  # fmt: skip


def test_acme_env_may_be_empty() -> None:
    assert acmehooks.parse_environment("") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("secret", "line 1: no = in it; write it as NAME=VALUE"),
        ("A=1\n\nsecret more\n", "line 3: no = in it"),
        ("A B=secret", "line 1: 'A B' is not a variable's name"),
        ("=secret", "line 1: '' is not a variable's name"),
        ("A=1\nX='secret", "line 2: X: the value holds a character"),
        ("A=1\nX=se\x0bcret", "line 2: X: the value holds a character"),
        ("A=1\r\nX=se\u2028B=cret\r\n", "line 2: X: the value holds a character"),
    ],
)
def test_acme_env_s_mistakes_are_named_by_line_and_without_values(text: str, message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the message is looked at)
        acmehooks.parse_environment(text)
    assert str(raised.value).startswith(message)
    assert "secret" not in str(raised.value)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True), st.text(SAFE, max_size=30)
    )
)
def test_acme_env_in_quotes_comes_back_as_it_was(values: dict[str, str]) -> None:
    values = {name: value for name, value in values.items() if name != "export"}
    text = "".join(f"{name}='{value}'\n" for name, value in values.items())
    assert acmehooks.parse_environment(text) == values


@given(st.text())
def test_whatever_acme_env_holds_it_is_read_or_refused(text: str) -> None:
    try:
        found = acmehooks.parse_environment(text)
    except ValueError as error:
        found = {}
        message = str(error)
    else:
        message = "line 0: none"
    assert re.match(r"line \d+: .", message)
    for name, value in found.items():
        acmehooks.check(name, value)
