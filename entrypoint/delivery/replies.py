"""What receivers' answers mean: cause and fix in a sentence or two. Pure.

A receiver says with a number whether it refuses for good (RFC 5321 4.2.1) and with words why. The
words of the large mailbox providers are known; those here are theirs, or what programs that many
others run (Postfix, Exim, Exchange) say. What chasquid says itself is here too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Hint:
    """`id` is stable: scripts may match it. HOST, DOMAIN and the like stand for the reader's."""

    id: str
    cause: str
    fix: str


@dataclass(frozen=True)
class _Rule:
    hint: Hint
    pattern: re.Pattern[str]


def explain(answer: str) -> tuple[Hint, ...]:
    """The hints that fit an answer, the most telling first; at most two. Empty if it says nothing
    that is known: the words themselves are then all there is."""
    text = one_line(answer[:_MAX_ANSWER])
    found = [rule.hint for rule in _RULES if rule.pattern.search(text)]
    ids = dict.fromkeys(hint.id for hint in found)
    for general, special in _SAID_BY:
        if general in ids and any(item in ids for item in special):
            del ids[general]
    return tuple(_HINTS[name] for name in list(ids)[:_MOST])


def one_line(answer: str) -> str:
    """An answer of several lines as one text, without the number that each line repeats."""
    first, *rest = _BREAK.split(answer.strip())
    lines = [_DASH.sub(" ", first), *(_NUMBERS.sub("", line) for line in rest)]
    return " ".join(" ".join(lines).split())


# As receivers send them, as chasquid's log joins them, and as they are shown escaped.
_BREAK = re.compile(r"\r?\n|\\r\\n|\\n| \| ")
_NUMBERS = re.compile(r"^\s*([245]\d\d[- ])?\s*([245]\.\d{1,3}\.\d{1,3}\s+)?")
_DASH = re.compile(r"(?<=\b[245]\d\d)-")
_MOST = 2
_MAX_ANSWER = 2000  # characters that are looked at
_HINTS: dict[str, Hint] = {}
_RULES: list[_Rule] = []


def _add(name: str, cause: str, fix: str, *patterns: str) -> None:
    """Rules are tried in the order of their adding."""
    hint = Hint(name, cause, fix)
    _HINTS[name] = hint
    _RULES.append(_Rule(hint, re.compile("|".join(patterns), re.IGNORECASE)))


def known() -> Iterator[Hint]:
    """Every hint, in the order in which they are tried."""
    yield from _HINTS.values()


# --- What the receiver misses in our DNS ----------------------------------------------------------

_add(
    "ptr-ipv6",
    "The IPv6 address that the mail left from has no reverse DNS (PTR), or its name does not lead "
    "back to it. IPv6 is where this is forgotten most.",
    "set the PTR of the IPv6 address to MAIL_HOSTNAME at the server's provider, and see that AAAA "
    "points back (docker exec mail doctor); or send by IPv4 alone: PUBLIC_IPV6=none",
    r"ipv6 sending guidelines",
    r"ipv6 address \[?[0-9a-f:]*\]? ?must have (a )?reverse dns",
    r"\[[0-9a-f]*:[0-9a-f:]+[^]]*\][^[]*(ptr record|reverse dns)",
)  # fmt: skip
_add(
    "ptr",
    "The address that the mail left from has no reverse DNS (PTR), or its name does not lead back "
    "to the address.",
    "set the PTR of each of the server's addresses to MAIL_HOSTNAME, at the server's provider (not "
    "the domain's); docker exec mail doctor shows both ways for both families",
    r"\b[45]\.7\.(23|25)\b[^;]*(ptr|reverse|rdns)",
    r"does ?n[o']t have a ptr record",
    r"\bptr resource record",
    r"\bc=rdns\b",
    r"cannot find your (reverse )?hostname",
    r"(no|missing|invalid|bad|without|lack\w*|fix)( a| your)? (valid )?(ptr|rdns|reverse[- ]dns)",
    r"reverse dns (lookup|entry|record)? ?(failed|failure|missing|required|is required|mismatch)",
    r"(ptr|rdns|reverse dns)[\w ]{0,40}(required|does not (exist|match|resolve)|not found|missing)",
    r"must have (a )?(valid )?reverse dns",
)  # fmt: skip
_add(
    "helo",
    "The receiver cannot look the server's greeting name (HELO) up: MAIL_HOSTNAME has no address "
    "in DNS.",
    "enter A and AAAA of MAIL_HOSTNAME: docker exec mail dns --check",
    r"helo command rejected: (host not found|need fully-qualified)",
    r"(helo|ehlo)[\w ]{0,40}(does not resolve|invalid name|no (a|dns) record)",
)  # fmt: skip
_add(
    "dmarc",
    "The domain's own DMARC policy asks receivers to refuse mail that fails, and this mail failed: "
    "neither SPF nor DKIM passed with the domain of the From line.",
    "find the record that is missing or wrong: docker exec mail dns --check",
    r"\b[45]\.7\.(509|26)\b.*dmarc",
    r"dmarc (verification|policy|check failed|rejection|evaluation)",
    r"due to (the )?(domain's|sender's|sending domain's) dmarc",
    r"p=DmarcRejection",
    r"\b[45]\.7\.32\b.*(aligned|alignment)",
    r"(fail\w*|not pass\w*|reject\w*|violat\w*)[\w ]{0,40}\bdmarc\b",
)  # fmt: skip
_add(
    "unauthenticated",
    "The receiver found neither SPF nor DKIM passing for the domain (or not both, where it wants "
    "both).",
    "compare what should stand in DNS with what does: docker exec mail dns --check. New records "
    "take up to their TTL to be seen everywhere",
    r"\b[45]\.7\.(26|515)\b",
    r"(mail|message|email|sender) is unauthenticated",
    r"unauthenticated (e-?mail|mail|sender)",
    r"does not meet the required authentication",
    r"must pass either spf or dkim",
    r"requires all senders to authenticate",
    r"554 5\.7\.9 message not accepted for policy reasons",
)  # fmt: skip
_add(
    "spf",
    "SPF does not pass: the address that the mail left from is not one that the domain's SPF "
    "record allows.",
    "let the record include _spf.DOMAIN, and have it once only: docker exec mail dns --check; if "
    "the mail left from another address than PUBLIC_… and OUTBOUND_… name, doctor says so",
    r"\b[45]\.7\.(23|24|27)\b.*(spf|sender policy)",
    r"spf (check|authentication|record|policy|validation)[^.]*"
    r"(fail|did ?n[o']t pass|not pass|susp)",
    r"(fail\w*|reject\w*|violation|due to)[\w :]{0,40}\b(spf|sender policy framework)\b",
    r"sender policy framework violation",
    r"\bMI:SPF\b",
    r"\bspf[:=] ?(hard|soft)?fail",
)  # fmt: skip
_add(
    "dkim",
    "The DKIM signature does not verify: the key in DNS is missing, cut, or another one.",
    "see which: docker exec mail dns --check. A long TXT value that the console cut must be "
    "entered again, whole",
    r"\b[45]\.7\.(20|21|22|30)\b.*dkim",
    r"dkim (authentication|signature|check|validation)[^.]*"
    r"(fail|did ?n[o']t pass|not pass|invalid)",
    r"(no|missing|bad|invalid) dkim",
)  # fmt: skip

# --- Trust in the address and the domain ----------------------------------------------------------

_add(
    "outlook-blocked",
    "Microsoft (Outlook.com, Hotmail, Live) blocks the server's address or its whole network. It "
    "happens to new addresses at large hosting companies that never sent anything.",
    "ask for the block to be lifted, with the address in the answer: "
    "https://olcsupport.office.com, and sign the address up at "
    "https://sendersupport.olc.protection.outlook.com/snds. It takes days, and one or two replies",
    r"\((S3140|S3150|S3[0-9]{3})\)",
    r"\b(SC|DY|OU)-00[1-9]\b",
    r"part of their network is on our block list",
)  # fmt: skip
_add(
    "microsoft-banned",
    "Microsoft 365 bans the server's address.",
    "take it off at https://sender.office.com (the address alone is asked); where the answer names "
    "delist@microsoft.com, forward the answer there",
    r"\b5\.7\.(511|60[6-9]|6[1-4]\d)\b",
    r"access denied, banned send(er|ing ip)",
    r"delist@microsoft\.com",
)  # fmt: skip
_add(
    "outlook-rate",
    "Microsoft limits a new or little trusted address to few messages an hour.",
    "nothing: it is tried again by itself. Send little at first; sign the address up at "
    "https://sendersupport.olc.protection.outlook.com/snds. If it stays so for days, write to "
    "https://olcsupport.office.com",
    r"\bRP-00[1-9]\b",
    r"\b4\.7\.65[0-2]\b",
    r"temporarily rate limited due to ip reputation",
    r"\(S(775|3115|3114)\)",
)  # fmt: skip
_add(
    "yahoo-permanent",
    "Yahoo or AOL refuses everything from the address, and trying again will not help.",
    "read https://senders.yahooinc.com/smtp-error-codes and write to them through the form there",
    r"\[(TS03|TSS09|TSS11|TSS12)\]",
    r"permanently deferred",
)  # fmt: skip
_add(
    "yahoo-deferred",
    "Yahoo or AOL puts mail from the address off: unusual volume for what it knows of it, or "
    "complaints. New addresses see this.",
    "nothing: it is tried again by itself, and stops after some hours or days of little mail. If "
    "not: https://senders.yahooinc.com/smtp-error-codes",
    r"\[(TSS?\d\d)\]",
    r"deferred due to (unexpected volume|user complaints)",
)  # fmt: skip
_add(
    "blocklist",
    "The server's address or domain is on the block list that the answer names.",
    "see whether it is still there (docker exec mail doctor), end what put it there, and follow "
    "the link in the answer. What came with the address was a former owner's: ask the provider for "
    "another",
    r"spamhaus|spamcop|barracuda(central)?|sorbs|uceprotect|psbl|dnswl|invaluement|abuseat|"
    r"mailspike|abusix|nixspam|manitu|surriel|junkemailfilter|hostkarma|backscatterer",
    r"\[BL\d\d\]",
    r"proofpoint\.com",
    r"(ip|address|host|client|sender|domain)[\w \[\].:]{0,60}\b(is|has been|was|are)?"
    r" ?(blocked|listed|black ?listed|block listed|denylisted)\b[\w ]{0,40}"
    r"( (by|in|on|using|at) |\.|$)",
    r"blocked using \S+\.\S+",
    r"\bDT:RBL\b",
    r"\bc=bl\b",
    r"(dns|real.?time) ?(black|block) ?list",
)  # fmt: skip
_add(
    "dynamic",
    "The receiver takes the address for one of a home or dial-up connection, or for one that may "
    "not send at all.",
    "set a PTR that does not contain the address (MAIL_HOSTNAME); if the answer names a list "
    "(PBL), take the address off there. Mail from a real home connection will "
    "not be taken: use a server",
    r"p=NotAuthorizedError",
    r"not authorized to send email directly",
    r"dynamic(ally assigned)? ip|dial-?up|residential|\bpbl\b|generic (ptr|rdns|reverse)",
    r"\bc=dip\b",
)  # fmt: skip
_add(
    "t-online",
    "Telekom (t-online.de) takes mail only from servers that it knows, and from no new one.",
    "write to the address in the answer (tosa@rx.t-online.de); they want a web page at "
    "MAIL_HOSTNAME that says who runs the server, and a PTR that looks like a mail server's",
    r"rx\.t-online\.de",
)  # fmt: skip
_add(
    "rate",
    "The receiver limits how much it takes from this address or domain for now.",
    "nothing: it is tried again by itself. Send less at a time; a new address earns more with "
    "weeks of wanted mail",
    r"\b[45]\.7\.28\b",
    r"unusual (rate|amount) of unsolicited",
    r"(temporarily )?rate[- ]limit",
    r"p=(UnsolicitedRateLimitError|ReceivingRate)",
    r"(ip|domain|sender|connection) frequency limited",
    r"\b(HL:(REP|ICC|IFC|ITC|MEP)|RP:(TRC|DRC|CEL)|MI:(SFQ|STC|DMC|CEL))\b",
    r"too many (connections|messages|recipients|mails|emails|errors)|too much mail|exceeded the "
    r"(maximum number of connections|rate)|sending (limit|rate)|throttl",
    r"try again later, closing connection",
    r"receiving mail (at a rate|too quickly)",
    r"\b4\.7\.500\b|server busy",
)  # fmt: skip
_add(
    "reputation",
    "The receiver takes the message for spam, or does not trust the address or the domain yet.",
    "let all of docker exec mail doctor pass, send few messages to people who answer, and wait: "
    "days to weeks. Gmail shows what it thinks at https://postmaster.google.com",
    r"p=UnsolicitedMessageError|likely (unsolicited|suspicious)|low reputation",
    r"detected that this message is (likely|suspicious)",
    r"(poor|bad|low|none/bad) reputation|\breputation\b",
    r"\b(classified|detected|identified|rejected|considered|looks like|blocked)"
    r"[\w ]{0,40}(as )?spam\b",
    r"spam (message|content|detected|score)|high probability of spam",
    r"\bDT:SPM\b|mail content denied|suspected spam|content (denied|rejected)",
    r"\[(PH01|CS01|HM08|HME1)\]|HT204137",
    r"message (rejected|refused) due to local policy|reject(ed)? due to policy restrictions",
    r"not accepted for policy reasons|message not allowed",
    r"\b5\.7\.708\b|traffic not accepted from this ip",
)  # fmt: skip

# --- The mailbox ----------------------------------------------------------------------------------

_add(
    "full",
    "The recipient's mailbox is full.",
    "nothing on this side: tell the recipient by another way. Where the answer begins with 4 it is "
    "tried again",
    r"\b[45]\.2\.2\b",
    r"(over ?quota|quota exceeded|mailbox (is )?full|mailbox size limit|out of storage|"
    r"user is over|exceeded (its|their) (quota|storage)|insufficient storage)",
)  # fmt: skip
_add(
    "no-mailbox",
    "The receiver knows no such mailbox, or it is closed.",
    "check the spelling of the recipient's address",
    r"\b[45]\.1\.(1|10)\b",
    r"p=NoSuchUser|account that you tried to reach (does not exist|is (inactive|disabled))",
    r"(user|mailbox|recipient|address|account)[\w <>@.\-:]{0,80}"
    r"(unknown|not found|does ?n[o']t (exist|have)|no longer|disabled|inactive|unavailable|"
    r"suspended|invalid)",
    r"(unknown|no such|invalid|nonexistent|non-existent) (user|mailbox|recipient|address|account|"
    r"person|local)",
    r"this user does ?n[o']t have a|recipientnotfound|not our customer",
    r"\b5\.4\.1\b.*recipient address rejected",
    r"\b5\.2\.1\b",
)  # fmt: skip
_add(
    "recipient-refuses",
    "The recipient, or a rule of theirs, refuses mail from this sender.",
    "ask the recipient, by another way, to allow the address",
    r"rejected by recipients?\b|recipient (has )?block|"
    r"sender (is )?(denied|blocked|blacklisted) by",
    r"\b5\.7\.1\b.*(sender not (allowed|authorized)|restricted to senders)",
)  # fmt: skip
_add(
    "greylisting",
    "Greylisting: the receiver puts the first message of a stranger off, and takes it on a later "
    "try.",
    "nothing: it is tried again by itself, after one or two minutes, then after 5, 10 and 20. "
    "Often it takes 5 to 15 minutes",
    r"gr[ea]y-?list",
    r"\b45[01]\b.*(try again (later|in)|please (re)?try|come back later|resources temporarily)",
    r"\bDT:SPM ?,please try again",
)  # fmt: skip
_add(
    "size",
    "The message is larger than the receiver takes.",
    "send a smaller one, or a link to what is attached",
    r"\b[45]\.3\.4\b|\b5\.2\.3\b",
    r"(message|mail|size)[\w ']{0,40}(exceed\w*|too (big|large))",
    r"exceed\w*[\w ']{0,40}(message|mail) ?size",
)  # fmt: skip
_add(
    "relay",
    "The server that the domain's MX names does not serve the domain.",
    "check the spelling of the domain; else the recipient's side must mend its MX or its server",
    r"relay(ing)? (access )?(denied|not (allowed|permitted))|unable to relay|"
    r"not permitted to relay",
)  # fmt: skip

# --- TLS and the way there ------------------------------------------------------------------------

_add(
    "tls-required",
    "The receiver insists on TLS, and the connection had none: STARTTLS failed, or something on "
    "the way takes it out.",
    "see whether STARTTLS works from here: docker exec mail send-test shows it; a firewall that "
    "inspects SMTP (\"fixup\") must leave port 25 alone",
    r"must issue a starttls|tls (is )?required|\b[45]\.7\.29\b|encryption (is )?(required|needed)|"
    r"was ?n[o']t sent over a tls",
)  # fmt: skip
_add(
    "level",
    "chasquid once saw this domain with better TLS than now, and does not go below that: it could "
    "be somebody in between.",
    "if the receiver really changed: docker exec mail forget-domain DOMAIN",
    r"security level check failed",
)  # fmt: skip
_add(
    "mta-sts",
    "The receiver's domain publishes MTA-STS in mode enforce, and its server's certificate does "
    "not verify. Mail waits rather than go to the wrong one.",
    "nothing on this side: it is the recipient's side that must renew its certificate",
    r"mta-sts policy|invalid security level .* for sts policy",
)  # fmt: skip
_add(
    "port-25",
    "No connection to the receiver's port 25. If it is so for every receiver, the server's "
    "provider or a firewall keeps outgoing port 25 closed.",
    "look: docker exec mail doctor (theme network); then ask the provider to open port 25",
    r"could not dial[^;]*(timeout|timed out)|dial tcp [^;]*(i/o timeout|deadline)",
)  # fmt: skip
_add(
    "unreachable",
    "The receiver's server cannot be reached: nothing listens there, or there is no route.",
    "nothing, if it is for this domain alone: it is tried again by itself. \"no route\" or "
    "\"network is unreachable\" for IPv6: the host has no working IPv6; mend it, or "
    "PUBLIC_IPV6=none",
    r"connection refused|no route to host|network is unreachable|host is down",
)  # fmt: skip
_add(
    "resolver",
    "DNS did not say where the recipient's domain takes mail: this host's resolver does not "
    "answer, or the domain's own name servers do not.",
    "see which: docker exec mail doctor (theme network); the resolver stands in "
    "/etc/resolv.conf of the host",
    r"error looking up mail servers|lookup \S+ on \S+:53: ",
)  # fmt: skip
_add(
    "dropped",
    "The receiver closed the connection, or fell silent, in the middle.",
    "nothing, if it is once: it is tried again by itself",
    r"(?<!dial tcp )\b(eof|connection reset|broken pipe|i/o timeout)\b",
)  # fmt: skip
_add(
    "no-domain",
    "The recipient's domain does not exist in DNS, or takes no mail.",
    "check the spelling. If the domain is right, see that this host's resolver works: docker exec "
    "mail doctor",
    r"no such host|could not find mail server|no mail servers found|"
    r"\bnxdomain\b|null mx|does not accept mail|"
    r"domain[\w ]{0,40}(not found|does not exist)",
)  # fmt: skip

# Of two hints for one answer, the general one says nothing more beside these.
_SAID_BY = (
    ("ptr", ("ptr-ipv6",)),
    ("unauthenticated", ("dmarc", "ptr", "ptr-ipv6")),
    ("spf", ("dmarc", "unauthenticated", "ptr", "ptr-ipv6")),
    ("dkim", ("dmarc", "unauthenticated")),
    ("yahoo-deferred", ("yahoo-permanent",)),
    ("blocklist", ("outlook-blocked", "microsoft-banned", "outlook-rate")),
    (
        "rate",
        ("outlook-rate", "yahoo-permanent", "yahoo-deferred", "spf", "dkim", "ptr", "ptr-ipv6",
         "dmarc", "tls-required", "unauthenticated", "full"),
    ),
    (
        "reputation",
        ("outlook-blocked", "microsoft-banned", "outlook-rate", "blocklist", "yahoo-permanent",
         "yahoo-deferred", "t-online", "dmarc", "unauthenticated", "greylisting", "dynamic",
         "rate"),
    ),
    (
        "no-mailbox",
        ("full", "blocklist", "greylisting", "ptr", "ptr-ipv6", "dmarc", "unauthenticated",
         "no-domain", "relay", "rate"),
    ),
    ("recipient-refuses", ("no-mailbox",)),
    ("dynamic", ("t-online",)),
    ("greylisting", ("rate", "outlook-rate", "yahoo-deferred", "full")),
    ("dropped", ("port-25", "unreachable", "resolver")),
    ("unreachable", ("resolver",)),
    ("resolver", ("no-domain",)),
)  # fmt: skip
