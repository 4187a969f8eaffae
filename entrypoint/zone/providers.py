"""DNS providers: one table from acme.sh's variables to dns-lexicon's options. Pure.

It also says what each of dns-lexicon's drivers has to be told.

PowerDNS and RFC 2136 are tested against real servers. For the others it is tested that the
options are those that dns-lexicon declares, and what the driver would send; nobody has tried them
at the provider's yet. So little is asked of them: never more than the records of ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from entrypoint.common.names import Domain
from entrypoint.dns.records import Record, RecordType
from entrypoint.settings.model import Settings
from entrypoint.state.load import State

A, AAAA, MX, TXT, SRV = (
    RecordType.A, RecordType.AAAA, RecordType.MX, RecordType.TXT, RecordType.SRV,
)  # fmt: skip
_ALL = frozenset({A, AAAA, MX, TXT, SRV})

Fields = Mapping[str, Any]
Variables = Mapping[str, str]


class Text(Enum):
    """How a driver takes the text of a TXT record."""

    WHOLE = "whole"  # without quotes; the provider splits what is longer than 255
    QUOTED = "quoted"  # "as in" "a zone file"
    INNER = "inner"  # likewise, less the first and the last quote, which the driver adds


@dataclass(frozen=True)
class Driver:
    """One of dns-lexicon's drivers.

    `apex` is what it takes for the zone itself, if not the full name. `fields` are what the
    provider's API wants of a record and the driver does not send. `beside`: it is known from its
    code that adding leaves other values of the same name and type alone. `removes`: that it can
    take away one value and nothing else; by its identifier, or by its content as listed.
    """

    name: str
    text: Text = Text.WHOLE
    apex: str = ""
    types: frozenset[RecordType] = frozenset({A, AAAA, TXT})
    fields: Callable[[Record], Fields] = lambda _record: {}
    beside: bool = False
    removes: bool = False
    by_id: bool = False
    refused: str = ""

    def name_of(self, name: str, zone: str) -> str:
        return self.apex if self.apex and name == zone else name

    def content(self, record: Record) -> str:
        """The value in the form that the driver takes."""
        if record.type is not TXT or self.text is Text.WHOLE:
            return record.value or ""
        return record.rdata if self.text is Text.QUOTED else record.rdata[1:-1]


def _mx(record: Record) -> tuple[int, str]:
    preference, host = record.rdata.split()
    return int(preference), host


def _srv(record: Record) -> tuple[int, int, int, str]:
    priority, weight, port, host = record.rdata.split()
    return int(priority), int(weight), int(port), host


def _split_mx(content: str, priority: str, *, dot: bool = True) -> Callable[[Record], Fields]:
    """For an API that wants the preference of an MX in a field of its own."""

    def fields(record: Record) -> Fields:
        if record.type is not MX:
            return {}
        preference, host = _mx(record)
        return {content: host if dot else host.removesuffix("."), priority: preference}

    return fields


def _cloudflare(record: Record) -> Fields:
    if record.type is SRV:
        priority, weight, port, host = _srv(record)
        target = host.removesuffix(".")
        return {"data": {"priority": priority, "weight": weight, "port": port, "target": target}}
    return _split_mx("content", "priority", dot=False)(record)


def _digitalocean(record: Record) -> Fields:
    if record.type is SRV:
        priority, weight, port, host = _srv(record)
        return {"data": host, "priority": priority, "weight": weight, "port": port}
    return _split_mx("data", "priority")(record)


def _linode(record: Record) -> Fields:
    fields: dict[str, Any] = {"ttl_sec": record.ttl}
    if record.type is SRV:
        priority, weight, port, host = _srv(record)
        service, protocol = (label.removeprefix("_") for label in record.name.split(".")[:2])
        fields |= {"service": service, "protocol": protocol, "target": host.removesuffix(".")}
        fields |= {"priority": priority, "weight": weight, "port": port}
    return {**fields, **_split_mx("target", "priority", dot=False)(record)}


def _vultr(record: Record) -> Fields:
    if record.type is SRV:
        priority, weight, port, host = _srv(record)
        return {"data": f"{weight} {port} {host.removesuffix('.')}", "priority": priority}
    return _split_mx("data", "priority", dot=False)(record)


def _porkbun(record: Record) -> Fields:
    if record.type is SRV:
        priority, weight, port, host = _srv(record)
        return {"content": f"{weight} {port} {host.removesuffix('.')}", "prio": priority}
    return _split_mx("content", "prio", dot=False)(record)


_DRIVERS = {
    driver.name: driver
    for driver in (
        Driver("aliyun", apex="@", types=_ALL, beside=True, removes=True, by_id=True,
               fields=_split_mx("Value", "Priority", dot=False)),
        Driver("cloudflare", Text.QUOTED, types=_ALL, beside=True, removes=True, by_id=True,
               fields=_cloudflare),
        Driver("ddns", Text.QUOTED, types=_ALL, beside=True, removes=True),
        Driver("desec", Text.INNER, types=_ALL, beside=True, removes=True),
        Driver("digitalocean", apex="@", types=_ALL, beside=True, removes=True, by_id=True,
               fields=_digitalocean),
        Driver("dnspod", apex="@", types=_ALL, beside=True, removes=True, by_id=True,
               fields=_split_mx("value", "mx")),
        Driver("gandi", Text.QUOTED, apex="@", types=_ALL, beside=True, removes=True),
        # To remove one TXT, its driver writes all TXT of the zone anew. SRV has other fields.
        Driver("godaddy", apex="@", types=_ALL - {SRV}, beside=True,
               fields=_split_mx("data", "priority", dot=False)),
        Driver("hetzner", apex="@", types=_ALL, beside=True, removes=True),
        Driver("linode", types=_ALL, beside=True, removes=True, by_id=True, fields=_linode),
        Driver("namecheap", refused="its API replaces the whole zone at once, and without a "
               "setting that dns-lexicon does not send it drops the MX records"),
        Driver("ovh", types=_ALL, beside=True, removes=True, by_id=True),
        Driver("porkbun", types=_ALL, beside=True, removes=True, by_id=True, fields=_porkbun),
        Driver("powerdns", Text.QUOTED, types=_ALL, beside=True, removes=True),
        Driver("route53", Text.INNER, types=_ALL, beside=True, removes=True),
        Driver("vultr", Text.INNER, types=_ALL, beside=True, removes=True, by_id=True,
               fields=_vultr),
    )
}  # fmt: skip


def driver(name: str) -> Driver:
    """What is known of a driver; of one that nobody looked at, the least."""
    return _DRIVERS.get(name, Driver(name))


# --- from acme.sh's variables ---------------------------------------------------------------------


@dataclass(frozen=True)
class Mapped:
    """A hook's variables for dns-lexicon: of each option's the first that is set is taken.

    `finish` has the last word. It may raise ValueError, without a secret in it.
    """

    driver: str
    options: Mapping[str, tuple[str, ...]]
    optional: frozenset[str] = frozenset()
    finish: Callable[[Variables, dict[str, str]], None] = lambda _variables, _options: None

    @property
    def variables(self) -> frozenset[str]:
        return frozenset(name for names in self.options.values() for name in names)

    def read(self, variables: Variables) -> dict[str, str]:
        """The options. Raises ValueError that names what is missing."""
        found = {}
        for option, names in self.options.items():
            value = next((variables[name] for name in names if variables.get(name)), "")
            if value:
                found[option] = value
            elif option not in self.optional:
                msg = f"{' or '.join(names)} is not set"
                raise ValueError(msg)
        self.finish(variables, found)
        return found


def _one_cloudflare_login(variables: Variables, options: dict[str, str]) -> None:
    """A token goes without the e-mail address, which would make it an old global key."""
    if variables.get("CF_Token"):
        options.pop("auth_username", None)
    elif "auth_username" not in options:
        msg = "CF_Email is not set, which goes with CF_Key"
        raise ValueError(msg)


def _ovh_endpoint(_variables: Variables, options: dict[str, str]) -> None:
    name = re.sub(r"^(ovh|kimsufi|soyoustart)-?", r"\1-", options.get("auth_entrypoint", "ovh-eu"))
    if name.startswith("http"):
        msg = "OVH_END_POINT must be a name, such as ovh-eu"
        raise ValueError(msg)
    options["auth_entrypoint"] = name


def _gandi_rest(_variables: Variables, options: dict[str, str]) -> None:
    options["api_protocol"] = "rest"


def _public_zone(_variables: Variables, options: dict[str, str]) -> None:
    options["private_zone"] = "false"


def _first_server(_variables: Variables, options: dict[str, str]) -> None:
    options["ddns_server"] = options.get("ddns_server", "localhost").partition(",")[0].strip()


# Options of ours for RFC 2136, besides dns-lexicon's.
KEY_FILE, PORT = "key_file", "port"

HOOKS = {
    "dns_ali": Mapped("aliyun", {"auth_key_id": ("Ali_Key",), "auth_secret": ("Ali_Secret",)}),
    "dns_aws": Mapped(
        "route53",
        {"auth_access_key": ("AWS_ACCESS_KEY_ID",),
         "auth_access_secret": ("AWS_SECRET_ACCESS_KEY",)},
        finish=_public_zone,
    ),
    "dns_cf": Mapped(
        "cloudflare",
        {"auth_token": ("CF_Token", "CF_Key"), "auth_username": ("CF_Email",)},
        frozenset({"auth_username"}),
        _one_cloudflare_login,
    ),
    "dns_cloudns": Mapped(
        "cloudns",
        {"auth_id": ("CLOUDNS_AUTH_ID",), "auth_subid": ("CLOUDNS_SUB_AUTH_ID",),
         "auth_password": ("CLOUDNS_AUTH_PASSWORD",)},
        frozenset({"auth_id", "auth_subid"}),
    ),
    "dns_desec": Mapped("desec", {"auth_token": ("DEDYN_TOKEN",)}),
    "dns_dgon": Mapped("digitalocean", {"auth_token": ("DO_API_KEY",)}),
    "dns_dnsimple": Mapped("dnsimple", {"auth_token": ("DNSimple_OAUTH_TOKEN",)}),
    "dns_dp": Mapped("dnspod", {"auth_username": ("DP_Id",), "auth_token": ("DP_Key",)}),
    "dns_exoscale": Mapped(
        "exoscale", {"auth_key": ("EXOSCALE_API_KEY",), "auth_secret": ("EXOSCALE_SECRET_KEY",)}
    ),
    "dns_gandi_livedns": Mapped(
        "gandi", {"auth_token": ("GANDI_LIVEDNS_TOKEN", "GANDI_LIVEDNS_KEY")}, finish=_gandi_rest
    ),
    "dns_gd": Mapped("godaddy", {"auth_key": ("GD_Key",), "auth_secret": ("GD_Secret",)}),
    "dns_hetznercloud": Mapped("hetzner", {"auth_token": ("HETZNER_TOKEN",)}),
    "dns_hostingde": Mapped("hostingde", {"auth_token": ("HOSTINGDE_APIKEY",)}),
    "dns_infomaniak": Mapped("infomaniak", {"auth_token": ("INFOMANIAK_API_TOKEN",)}),
    "dns_inwx": Mapped(
        "inwx", {"auth_username": ("INWX_User",), "auth_password": ("INWX_Password",)}
    ),
    "dns_linode_v4": Mapped("linode", {"auth_token": ("LINODE_V4_API_KEY",)}),
    "dns_lua": Mapped("luadns", {"auth_username": ("LUA_Email",), "auth_token": ("LUA_Key",)}),
    "dns_me": Mapped("dnsmadeeasy", {"auth_username": ("ME_Key",), "auth_token": ("ME_Secret",)}),
    "dns_namecheap": Mapped(
        "namecheap",
        {"auth_token": ("NAMECHEAP_API_KEY",), "auth_username": ("NAMECHEAP_USERNAME",),
         "auth_client_ip": ("NAMECHEAP_SOURCEIP",)},
    ),
    "dns_namecom": Mapped(
        "namecom", {"auth_username": ("Namecom_Username",), "auth_token": ("Namecom_Token",)}
    ),
    "dns_namesilo": Mapped("namesilo", {"auth_token": ("Namesilo_Key",)}),
    "dns_nsone": Mapped("nsone", {"auth_token": ("NS1_Key",)}),
    # The file is read, and the port used, in lexicon.py. The zone is the one that DNS has.
    "dns_nsupdate": Mapped(
        "ddns",
        {KEY_FILE: ("NSUPDATE_KEY",), "ddns_server": ("NSUPDATE_SERVER",),
         PORT: ("NSUPDATE_SERVER_PORT",)},
        frozenset({"ddns_server", PORT}),
        _first_server,
    ),
    "dns_ovh": Mapped(
        "ovh",
        {"auth_entrypoint": ("OVH_END_POINT",), "auth_application_key": ("OVH_AK",),
         "auth_application_secret": ("OVH_AS",), "auth_consumer_key": ("OVH_CK",)},
        frozenset({"auth_entrypoint"}),
        _ovh_endpoint,
    ),
    "dns_pdns": Mapped(
        "powerdns",
        {"auth_token": ("PDNS_Token",), "pdns_server": ("PDNS_Url",),
         "pdns_server_id": ("PDNS_ServerId",)},
        frozenset({"pdns_server_id"}),
    ),
    "dns_porkbun": Mapped(
        "porkbun", {"auth_key": ("PORKBUN_API_KEY",), "auth_secret": ("PORKBUN_SECRET_API_KEY",)}
    ),
    "dns_rcode0": Mapped("rcodezero", {"auth_token": ("RCODE0_API_TOKEN",)}),
    "dns_vultr": Mapped("vultr", {"auth_token": ("VULTR_API_KEY",)}),
}  # fmt: skip


# --- whose account --------------------------------------------------------------------------------


_NO_SECRETS = frozenset({
    "api_protocol", "auth_entrypoint", "ddns_server", KEY_FILE, "pdns_server", "pdns_server_id",
    PORT, "private_zone",
})  # fmt: skip


@dataclass(frozen=True)
class Account:
    """How to reach a zone's provider. `source` says where that is set, for messages."""

    driver: Driver
    source: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be printed, the longest first: short values would cut up other words."""
        found = {v for name, v in self.options.items() if name not in _NO_SECRETS and len(v) >= 5}
        return tuple(sorted(found, key=len, reverse=True))


@dataclass(frozen=True)
class NoAccount:
    """Why a zone cannot be published, and what would change that."""

    reason: str
    fix: str


_ACME_ONLY = frozenset({"ACME_CHALLENGE_ALIAS", "ACME_DNS_SLEEP"})


def account(settings: Settings, state: State, domain: Domain) -> Account | NoAccount:
    """The provider of a domain's DNS: its acme.env's, else the common one.

    As for certificates, common credentials reach only the provider that they were given for.
    """
    own = {name: v for name, v in state.domain(domain).provider.items() if name not in _ACME_ONLY}
    file = f"data/domains/{domain}/acme.env"
    lexicon = own.get("LEXICON_PROVIDER", "").strip().lower()
    hook = own.get("ACME_DNS", "")
    common = {name: value.get_secret_value() for name, value in settings.provider.items()}
    if lexicon:
        options = _plain(settings) if lexicon == settings.lexicon_provider else {}
        return _by_name(lexicon, {**options, **own}, f"LEXICON_PROVIDER={lexicon} in {file}")
    if hook or (own and settings.acme_dns):
        chosen = hook or settings.acme_dns or ""
        variables = {**common, **own} if chosen == settings.acme_dns else own
        return _by_hook(chosen, variables, f"ACME_DNS={chosen} with {file}")
    if settings.lexicon_provider:
        name = settings.lexicon_provider
        return _by_name(name, _plain(settings), f"LEXICON_PROVIDER={name}")
    if settings.acme_dns:
        return _by_hook(settings.acme_dns, common, f"ACME_DNS={settings.acme_dns}")
    return NoAccount(
        "no DNS provider is set for it",
        f"set ACME_DNS and its variables in .env, or for this domain alone in {file}",
    )


def _plain(settings: Settings) -> dict[str, str]:
    return {name: value.get_secret_value() for name, value in settings.lexicon.items()}


def _by_hook(hook: str, variables: Variables, source: str) -> Account | NoAccount:
    mapped = HOOKS.get(hook)
    if mapped is None:
        return NoAccount(
            f"{hook} is for certificates only: publish-dns does not know it",
            "set LEXICON_PROVIDER and its options, if dns-lexicon has the provider",
        )
    try:
        options = mapped.read(variables)
    except ValueError as error:
        return NoAccount(f"{source}: {error}", "set it beside ACME_DNS")
    return _account(mapped.driver, options, source)


def _by_name(name: str, variables: Variables, source: str) -> Account | NoAccount:
    prefix = f"LEXICON_{name.upper()}_"
    options = {
        variable.removeprefix(prefix).lower(): value
        for variable, value in variables.items()
        if variable.startswith(prefix) and value
    }
    return _account(name, options, source)


def _account(name: str, options: Mapping[str, str], source: str) -> Account | NoAccount:
    known = driver(name)
    if known.refused:
        return NoAccount(f"{name} cannot be published to: {known.refused}", "")
    return Account(known, source, options)
