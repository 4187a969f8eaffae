"""Who runs an exchanger, and how many connections it is known to take. Pure.

An operator's exchangers share its limits, whatever domain they serve: it counts by who connects. A
figure is the one that the operator publishes, or, where it publishes none, a low one: the window
grows from it (`windows`).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

DEFAULT_CONNECTIONS = 10  # at once, to an operator of whom nothing is known
_GREETING = 512  # characters that are looked at: the longest reply line (RFC 5321 4.5.3.1.5)
_NAME = 255  # of a host (RFC 1035 2.3.4)
_KUMO = "https://raw.githubusercontent.com/KumoCorp/kumomta/main/assets/policy-extras/shaping.toml"
_NONE = "No figure is published; starts low."
_COMMON = "No figure is published; starts as any other."


@dataclass(frozen=True)
class Operator:
    """Who receives mail for many domains."""

    id: str  # stable: commands, kept state and the history name it
    title: str
    connections: int  # at once, at first
    hourly: int | None  # messages in an hour, where it is published
    source: str  # of the figures
    removal: str  # where to ask for an end of their block; "" if it is not known
    exchangers: tuple[str, ...]  # ends of MX host names
    greetings: tuple[str, ...]  # with a blank: words in the 220 line; else: ends of the name there
    says: str  # when it throttles; "" if no words of its own are known


def of_exchanger(host: str) -> Operator | None:
    """Who runs the MX host of this name; None if it is nobody known."""
    return _of_name(host, _BY_EXCHANGER)


def of_greeting(text: str) -> Operator | None:
    """Who greets so (RFC 5321 4.2: 220, its name, words); None if it is nobody known.

    A stranger wrote it. Anybody can greet in another's name, so let it decide only for a server
    whose name says nothing.
    """
    line = text[:_GREETING].partition("\n")[0].casefold()
    if line[:4] not in ("220 ", "220-"):
        return None
    words = line[4:].split()
    if not words:
        return None
    if found := _of_name(words[0], _BY_GREETING_NAME):
        return found
    said = " ".join(words)
    return next((operator for phrase, operator in _PHRASES if phrase in said), None)


def network(address: str) -> str:
    """The /24 or /48 of an address: what stands for an operator whom nothing else tells. An IPv4
    address in IPv6 (::ffff:192.0.2.1) counts as IPv4. ValueError: it is no address."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    bits = 24 if found.version == 4 else 48
    return str(ipaddress.ip_network((found, bits), strict=False))


def get(id: str) -> Operator | None:
    """The operator of that id."""
    return _BY_ID.get(id)


def all() -> tuple[Operator, ...]:
    """Every operator that is known."""
    return _OPERATORS


def _of_name(host: str, table: dict[str, Operator]) -> Operator | None:
    """By the longest end of the name, at a dot, that is in the table."""
    if len(host) > _NAME:
        return None
    name = host.casefold().removesuffix(".")
    while name:
        if found := table.get(name):
            return found
        name = name.partition(".")[2]
    return None


_OPERATORS = (
    Operator(
        "google", "Google", 10, None,
        f"https://support.google.com/mail/answer/81126. {_COMMON}",
        "https://postmaster.google.com",
        ("google.com", "googlemail.com"), ("google.com", "google.com esmtp"),
        "421 4.7.28: an unusual rate of unsolicited mail from the address; 421 4.7.0",
    ),
    Operator(
        "microsoft", "Microsoft", 5, None,
        "https://sendersupport.olc.protection.outlook.com/pm/policies: no more than 500 at once. "
        "New addresses are told 4.7.652 long before; starts low.",
        "https://olcsupport.office.com (Outlook.com, Hotmail); https://sender.office.com (365)",
        ("protection.outlook.com", "mx.microsoft", "protection.partner.outlook.cn"),
        ("protection.outlook.com", "outlook.com"),
        "451 4.7.650, 4.7.651: limited for its reputation; 451 4.7.652: too many connections; "
        "451 4.7.500: server busy; RP-001 to RP-003",
    ),
    Operator(
        "yahoo", "Yahoo, AOL", 5, None,
        "https://help.yahoo.com/kb/SLN3433.html: no figure for connections, which they ask to keep "
        "few; starts low.",
        "https://senders.yahooinc.com/smtp-error-codes",
        ("yahoodns.net",), ("yahoo.com", "yahoodns.net", "aol.com"),
        "421 4.7.0 [TSS04]: temporarily deferred for unexpected volume or complaints",
    ),
    Operator(
        "apple", "Apple (iCloud)", 10, None,
        f"https://support.apple.com/en-us/102322: no figure. {_KUMO} has 10.",
        "https://support.apple.com/en-us/102322",
        ("icloud.com",), ("icloud.com", "apple.com"),
        "421 4.7.1: deferred due to excessive volume; 451 4.7.1: service unavailable",
    ),
    Operator(
        "gmx", "GMX, WEB.DE, mail.com, IONOS", 5, None,
        f"https://postmaster.gmx.net/en/error-messages. {_NONE}",
        "https://postmaster.gmx.com/en/contact, https://postmaster.web.de/en/contact",
        ("gmx.net", "gmx.com", "web.de", "mail.com", "kundenserver.de", "1and1.com", "ionos.com",
         "ionos.de", "ionos.co.uk", "ionos.fr", "ionos.es", "ionos.it"),
        ("gmx.net", "web.de", "mail.com", "kundenserver.de", "nemesis esmtp service"),
        "421 Nemesis ESMTP Service not available: too many messages in a short period of time",
    ),
    Operator(
        "t-online", "Telekom (T-Online)", 5, None,
        f"https://postmaster.t-online.de/. {_NONE}",
        "tosa@rx.t-online.de (https://postmaster.t-online.de/)",
        ("t-online.de",), ("t-online.de", "t-online esmtp receiver"),
        "554 at the greeting, for servers that it does not know: that is no throttling",
    ),
    Operator(
        "orange", "Orange, Wanadoo", 3, 1000,
        "https://www.groork.com/orange-offre-une-protection-a-son-systeme-de-messagerie-"
        "electronique-en-instaurant-certaines-regles/: 3 at once for each exchanger, both domains "
        f"together, and 1,000 connections an hour; {_KUMO} has 3 too.",
        "",
        ("orange.fr", "wanadoo.fr"), ("orange.fr", "wanadoo.fr"),
        "421 OFR004_104: too many connections, slow down; 421 OFR_999: service refused",
    ),
    Operator(
        "comcast", "Comcast (Xfinity)", 25, 1000,
        "http://postmaster.comcast.net/block-removal-request.html: 25 at once for each address; "
        "its page on IPv6 (avoidblocksv6): 1,000 messages an hour for each network.",
        "http://postmaster.comcast.net/block-removal-request.html",
        ("comcast.net",), ("comcast.net",),
        "421 RL000001 and kin: the rate for the address's reputation is passed",
    ),
    Operator(
        "mailru", "Mail.ru (VK)", 5, None,
        f"https://help.mail.ru/enpostmaster/mailing_rules. {_NONE}",
        "https://help.mail.ru/enpostmaster/mailing_rules",
        ("mail.ru",), ("mail.ru", "mail.ru esmtp"),
        "",
    ),
    Operator(
        "yandex", "Yandex", 5, None,
        f"https://yandex.com/support/mail/web/letter/create/send-many-letters.html. {_NONE}",
        "",
        ("yandex.ru", "yandex.net", "yandex.com"),
        ("yandex.ru", "yandex.net", "yandex.com", "use yandex.mail for your domain"),
        "",
    ),
    Operator(
        "qq", "QQ (Tencent)", 3, None,
        "https://smtp.codes/qq: there are limits by hour and by day, and they are not disclosed; "
        "starts low.",
        "",
        ("qq.com",), ("qq.com", "mx qq mail server"),
        "550 Connection, Ip, Domain or Sender frequency limited. It is a refusal for good",
    ),
    Operator(
        "163", "163, 126 (NetEase)", 3, None,
        f"http://mail.163.com/help/help_spam_16.htm. {_NONE}", "",
        ("netease.com", "163.com", "126.com"), ("163.com", "126.com", "netease.com"),
        "421 HL:ICC: too many connections at once; 421 HL:IFC: too many messages in a short time; "
        "451 MI:SFQ: too many of one sender in 15 minutes",
    ),
    Operator(
        "mimecast", "Mimecast", 10, None,
        f"{_KUMO}: 10 for each region, which it says comes from Mimecast.", "",
        ("mimecast.com", "mimecast.co.za", "mimecast-offshore.com"),
        ("mimecast.com", "mimecast.co.za", "mimecast-offshore.com"),
        "",
    ),
    Operator(
        "proofpoint", "Proofpoint", 10, None, _COMMON,
        "https://ipcheck.proofpoint.com/",
        ("pphosted.com", "ppe-hosted.com", "gpphosted.com"),
        ("pphosted.com", "ppe-hosted.com", "gpphosted.com"),
        "",
    ),
    Operator(
        "barracuda", "Barracuda", 10, None, _COMMON,
        "https://www.barracudacentral.org/rbl/removal-request",
        ("barracudanetworks.com",), ("barracudanetworks.com",),
        "",
    ),
)  # fmt: skip
_BY_ID = {operator.id: operator for operator in _OPERATORS}
_BY_EXCHANGER = {end: operator for operator in _OPERATORS for end in operator.exchangers}
_BY_GREETING_NAME = {
    end: operator for operator in _OPERATORS for end in operator.greetings if " " not in end
}
_PHRASES = tuple(
    (phrase, operator) for operator in _OPERATORS for phrase in operator.greetings if " " in phrase
)
