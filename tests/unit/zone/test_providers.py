"""From acme.sh's variables to dns-lexicon's options; whose credentials are used for which zone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from entrypoint.common.errors import UserError
from entrypoint.dns.records import Record, RecordType
from entrypoint.settings import environment
from entrypoint.settings.model import Settings
from entrypoint.state.load import DomainState, State
from entrypoint.zone import lexicon
from entrypoint.zone.providers import (
    HOOKS,
    KEY_FILE,
    PORT,
    Account,
    Mapped,
    NoAccount,
    account,
    driver,
)
from tests.unit.kit import EXAMPLE_COM, EXAMPLE_ORG, asked, put

LONG = "v=DKIM1; k=rsa; p=" + "A" * 300


def with_provider(hook: str = "", lexicon: str = "", **variables: str) -> Settings:
    """Settings as they are loaded where acme.sh's hooks are."""
    secrets = {name: SecretStr(value) for name, value in variables.items()}
    return asked().model_copy(
        update={
            "acme_dns": hook or None,
            "lexicon_provider": lexicon or None,
            "provider": {k: v for k, v in secrets.items() if not k.startswith("LEXICON_")},
            "lexicon": {k: v for k, v in secrets.items() if k.startswith("LEXICON_")},
        }
    )


def with_file(**variables: str) -> State:
    return State(domains={EXAMPLE_COM: DomainState(provider=variables)})


def given(settings: Settings, state: State | None = None) -> Account:
    found = account(settings, state or State(), EXAMPLE_COM)
    assert isinstance(found, Account), found
    return found


def refused(settings: Settings, state: State | None = None) -> NoAccount:
    found = account(settings, state or State(), EXAMPLE_COM)
    assert isinstance(found, NoAccount), found
    return found


# The table.


@pytest.mark.parametrize(("hook", "mapped"), HOOKS.items())
def test_every_option_is_one_that_dns_lexicon_declares(hook: str, mapped: Mapped) -> None:
    assert hook.startswith("dns_")
    declared = lexicon.declared(mapped.driver) | {KEY_FILE, PORT}
    assert mapped.options.keys() <= declared
    assert mapped.optional <= mapped.options.keys()
    found = mapped.read({name: f"value-{name}" for name in mapped.variables})
    assert found.keys() <= declared
    assert found.keys() >= mapped.options.keys() - mapped.optional


@pytest.mark.parametrize(("hook", "mapped"), HOOKS.items())
def test_what_is_missing_is_named(hook: str, mapped: Mapped) -> None:
    with pytest.raises(ValueError, match=r"\w+ is not set"):
        mapped.read({})
    no = refused(with_provider(hook))
    if not driver(mapped.driver).refused:
        assert hook in no.reason


@pytest.mark.parametrize(
    ("hook", "variables", "name", "options"),
    [
        ("dns_cf", {"CF_Token": "t"}, "cloudflare", {"auth_token": "t"}),
        (
            "dns_cf",
            {"CF_Key": "k", "CF_Email": "me@example.net"},
            "cloudflare",
            {"auth_token": "k", "auth_username": "me@example.net"},
        ),
        (
            "dns_cf",
            {"CF_Token": "t", "CF_Key": "k", "CF_Email": "me@example.net", "CF_Zone_ID": "z"},
            "cloudflare",
            {"auth_token": "t"},
        ),
        (
            "dns_ali",
            {"Ali_Key": "k", "Ali_Secret": "s"},
            "aliyun",
            {"auth_key_id": "k", "auth_secret": "s"},
        ),
        (
            "dns_dp",
            {"DP_Id": "1", "DP_Key": "k"},
            "dnspod",
            {"auth_username": "1", "auth_token": "k"},
        ),
        (
            "dns_aws",
            {"AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "s"},
            "route53",
            {"auth_access_key": "i", "auth_access_secret": "s", "private_zone": "false"},
        ),
        ("dns_dgon", {"DO_API_KEY": "t"}, "digitalocean", {"auth_token": "t"}),
        ("dns_hetznercloud", {"HETZNER_TOKEN": "t"}, "hetzner", {"auth_token": "t"}),
        ("dns_desec", {"DEDYN_TOKEN": "t"}, "desec", {"auth_token": "t"}),
        (
            "dns_gandi_livedns",
            {"GANDI_LIVEDNS_TOKEN": "t", "GANDI_LIVEDNS_KEY": "k"},
            "gandi",
            {"auth_token": "t", "api_protocol": "rest"},
        ),
        (
            "dns_ovh",
            {"OVH_AK": "a", "OVH_AS": "s", "OVH_CK": "c", "OVH_END_POINT": "ovhca"},
            "ovh",
            {
                "auth_entrypoint": "ovh-ca",
                "auth_application_key": "a",
                "auth_application_secret": "s",
                "auth_consumer_key": "c",
            },
        ),
        (
            "dns_pdns",
            {"PDNS_Url": "http://ns", "PDNS_ServerId": "s", "PDNS_Token": "t", "PDNS_Ttl": "60"},
            "powerdns",
            {"pdns_server": "http://ns", "pdns_server_id": "s", "auth_token": "t"},
        ),
        (
            "dns_nsupdate",
            {"NSUPDATE_KEY": "/k", "NSUPDATE_SERVER": "ns1.example.net, ns2.example.net"},
            "ddns",
            {KEY_FILE: "/k", "ddns_server": "ns1.example.net"},
        ),
        (
            "dns_nsupdate",
            {"NSUPDATE_KEY": "/k"},
            "ddns",
            {KEY_FILE: "/k", "ddns_server": "localhost"},
        ),
        (
            "dns_gd",
            {"GD_Key": "k", "GD_Secret": "s"},
            "godaddy",
            {"auth_key": "k", "auth_secret": "s"},
        ),
        ("dns_linode_v4", {"LINODE_V4_API_KEY": "t"}, "linode", {"auth_token": "t"}),
        ("dns_vultr", {"VULTR_API_KEY": "t"}, "vultr", {"auth_token": "t"}),
        (
            "dns_porkbun",
            {"PORKBUN_API_KEY": "k", "PORKBUN_SECRET_API_KEY": "s"},
            "porkbun",
            {"auth_key": "k", "auth_secret": "s"},
        ),
    ],
)  # fmt: skip
def test_the_variables_of_a_hook(
    hook: str, variables: Mapping[str, str], name: str, options: Mapping[str, str]
) -> None:
    found = given(with_provider(hook, **variables))
    assert (found.driver.name, found.options) == (name, options)
    assert found.source == f"ACME_DNS={hook}"


def test_half_a_login_is_said() -> None:
    assert "CF_Email" in refused(with_provider("dns_cf", CF_Key="k")).reason
    no = refused(
        with_provider("dns_ovh", OVH_AK="a", OVH_AS="s", OVH_CK="c", OVH_END_POINT="https://x")
    )
    assert "ovh-eu" in no.reason


def test_a_hook_that_is_for_certificates_alone() -> None:
    no = refused(with_provider("dns_acmedns", ACMEDNS_USERNAME="u"))
    assert "dns_acmedns" in no.reason
    assert "LEXICON_PROVIDER" in no.fix


def test_a_provider_that_would_lose_records_is_refused() -> None:
    no = refused(
        with_provider(
            "dns_namecheap", NAMECHEAP_API_KEY="k", NAMECHEAP_USERNAME="u", NAMECHEAP_SOURCEIP="1"
        )
    )
    assert "drops the MX records" in no.reason
    assert "drops the MX" in refused(with_provider(lexicon="namecheap")).reason


def test_without_a_provider() -> None:
    no = refused(asked())
    assert "ACME_DNS" in no.fix
    assert "data/domains/example.com/acme.env" in no.fix


# Whose.


def test_a_domain_s_own_file_wins() -> None:
    common = with_provider("dns_cf", CF_Token="common")
    assert given(common, with_file(CF_Token="own")).options == {"auth_token": "own"}
    assert given(common, with_file(ACME_DNS_SLEEP="5")).options == {"auth_token": "common"}
    other = account(common, with_file(CF_Token="own"), EXAMPLE_ORG)
    assert isinstance(other, Account)
    assert other.options == {"auth_token": "common"}


def test_common_credentials_reach_no_other_provider() -> None:
    common = with_provider("dns_pdns", PDNS_Url="http://ns", PDNS_Token="common")
    found = given(common, with_file(ACME_DNS="dns_desec", DEDYN_TOKEN="own"))
    assert (found.driver.name, found.options) == ("desec", {"auth_token": "own"})
    assert "acme.env" in found.source
    no = refused(common, with_file(ACME_DNS="dns_desec"))
    assert "DEDYN_TOKEN" in no.reason
    common = with_provider(lexicon="hover", LEXICON_HOVER_AUTH_USERNAME="u")
    assert given(common, with_file(LEXICON_PROVIDER="joker")).options == {}


def test_in_dns_lexicon_s_own_terms() -> None:
    common = with_provider(
        "dns_cf", "hover", CF_Token="t", LEXICON_HOVER_AUTH_USERNAME="u",
        LEXICON_HOVER_AUTH_PASSWORD="p",
    )  # fmt: skip
    found = given(common)
    assert (found.driver.name, found.source) == ("hover", "LEXICON_PROVIDER=hover")
    assert found.options == {"auth_username": "u", "auth_password": "p"}
    own = with_file(LEXICON_PROVIDER="Hover", LEXICON_HOVER_AUTH_PASSWORD="own")
    assert given(common, own).options == {"auth_username": "u", "auth_password": "own"}


def test_credentials_show_nowhere() -> None:
    found = given(with_provider("dns_pdns", PDNS_Url="http://ns", PDNS_Token="a-token"))
    assert "a-token" not in repr(found)
    assert found.secrets == ("a-token",)


# LEXICON_ in the environment.


def test_options_are_read_with_their_provider() -> None:
    found = asked(
        LEXICON_PROVIDER=" Hover ",
        LEXICON_HOVER_AUTH_USERNAME="u",
        LEXICON_HOVER_AUTH_PASSWORD=" p$'\" ",
    )
    assert found.lexicon_provider == "hover"
    assert {k: v.get_secret_value() for k, v in found.lexicon.items()} == {
        "LEXICON_HOVER_AUTH_USERNAME": "u",
        "LEXICON_HOVER_AUTH_PASSWORD": "p$'\"",
    }
    assert "p$" not in repr(found)


def test_an_option_from_a_file(tmp_path: Path) -> None:
    path = put(tmp_path / "secret", "s\n")
    found = asked(LEXICON_PROVIDER="hover", LEXICON_HOVER_AUTH_PASSWORD_FILE=str(path))
    assert found.lexicon["LEXICON_HOVER_AUTH_PASSWORD"].get_secret_value() == "s"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"LEXICON_HOVER_AUTH_TOKEN": "x"}, "LEXICON_HOVER_AUTH_TOKEN is not a setting"),
        ({"LEXICON_PROVIDER": "hover", "LEXICON_JOKER_AUTH_TOKEN": "x"}, "only options of"),
        ({"LEXICON_PROVIDR": "hover"}, "did you mean LEXICON_PROVIDER"),
        ({"LEXICON_PROVIDER": "a/b"}, "not the name of a provider"),
        (
            {"LEXICON_PROVIDER": "hover", "LEXICON_HOVER_AUTH_PASSWORD_FILE": "/nowhere"},
            "LEXICON_HOVER_AUTH_PASSWORD_FILE: cannot read",
        ),
        (
            {
                "LEXICON_PROVIDER": "hover",
                "LEXICON_HOVER_AUTH_PASSWORD_FILE": "/nowhere",
                "LEXICON_HOVER_AUTH_PASSWORD": "x",
            },
            "both LEXICON_HOVER_AUTH_PASSWORD and",
        ),
    ],
)
def test_a_name_that_is_none_of_ours(environ: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)) as error:
        environment.load({"MAIL_HOSTNAME": "smtp.example.com", **environ})
    assert "1 problem:" in str(error.value)


# What a driver is given.


def record(kind: RecordType, value: str) -> Record:
    return Record(EXAMPLE_COM, "x.example.com", kind, value, "")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("digitalocean", LONG),
        ("powerdns", f'"{LONG[:255]}" "{LONG[255:]}"'),
        ("route53", f'{LONG[:255]}" "{LONG[255:]}'),
        ("somebody", LONG),
    ],
)
def test_a_long_text(name: str, form: str) -> None:
    assert driver(name).content(record(RecordType.TXT, LONG)) == form


def test_other_values_as_in_a_zone_file() -> None:
    for name in ("powerdns", "route53", "ovh"):
        assert driver(name).content(record(RecordType.MX, "10 a.example.")) == "10 a.example."


def test_the_zone_s_own_name() -> None:
    assert driver("gandi").name_of("example.com", "example.com") == "@"
    assert driver("gandi").name_of("a.example.com", "example.com") == "a.example.com"
    assert driver("powerdns").name_of("example.com", "example.com") == "example.com"
