"""Forms of From by which a stranger may try to speak for a domain: found ones, and any number more.

`generated(seed)` always gives the same form for the same number.
"""

from __future__ import annotations

import random
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from quopri import encodestring


@dataclass(frozen=True)
class Form:
    """`headers` has {d} where the domain stands; surrogate escapes stand for single octets."""

    name: str
    headers: str

    def section(self, domain: str) -> bytes:
        text = self.headers.replace("{d}", domain)
        return text.encode("utf-8", "surrogateescape") + b"\n"


def _b(text: str, charset: str = "utf-8") -> str:
    return f"=?{charset}?B?{b64encode(text.encode(charset)).decode()}?="


def _q(text: str) -> str:
    octets = encodestring(text.encode(), quotetabs=True, header=True).decode().replace("=\n", "")
    return f"=?utf-8?Q?{octets.replace('?', '=3F').replace('@', '=40').replace('<', '=3C')}?="


def _breaches(domain: str = "example.com") -> tuple[Form, ...]:
    """Those of the first attack and of later ones. Encoded ones name the domain themselves."""
    at = f"admin@{domain}"
    forms = {
        "plain": "From: ceo@{d}",
        "subdomain": "From: ceo@accounts.{d}",
        "subdomain of the host": "From: ceo@a.smtp.{d}",
        "space in the domain": "From: ceo@{d}".replace("{d}", domain.replace(".", " .")),
        "comment before the domain": "From: ceo@(x){d}",
        "comment in the domain": f"From: ceo@{domain[:3]}(x){domain[3:]}",
        "folded in the domain": f"From: ceo@{domain[:3]}\n {domain[3:]}",
        "folded at the at": "From: ceo@\n {d}",
        "encoded brackets, then elsewhere": f"From: {_b(f'<{at}>')}, x@outside.example",
        "encoded brackets as a name": f"From: {_b(f'<{at}>')} <x@outside.example>",
        "encoded address": f"From: {_b(at)}",
        "encoded address by q": f"From: {_q(at)} <x@outside.example>",
        "encoded domain": f"From: admin@{_q(domain)}",
        "brace": "From: <Alice@{d}}outside.example>",
        "sender alone": "Sender: ceo@{d}",
        "two": "From: x@outside.example\nFrom: ceo@{d}",
        "two, ours first": "From: ceo@{d}\nFrom: x@outside.example",
        "space before the colon": "From : ceo@{d}",
        "no-break space before the colon": "From\u00a0: ceo@{d}",
        "folded before the colon": "From\n : ceo@{d}",
        "two mailboxes": "From: x@outside.example, ceo@{d}",
        "two mailboxes, ours first": "From: ceo@{d}, x@outside.example",
        "group": "From: Us: ceo@{d};",
        "empty group and an address": "From: x:; <ceo@{d}>",
        "route": "From: <@outside.example:ceo@{d}>",
        "name before brackets": "From: ceo@{d} <x@outside.example>",
        "two brackets": "From: <ceo@{d}> <x@outside.example>",
        "quoted local part": 'From: "x@outside.example"@{d}',
        "quoted domain": 'From: ceo@"{d}"',
        "backslash": f"From: ceo@{domain[:3]}\\{domain[3:]}",
        "final dot": "From: ceo@{d}.",
        "upper case": f"From: CEO@{domain.upper()}",
        "full width": f"From: ceo@{_wide(domain)}",
        "ideographic full stop": f"From: ceo@{domain.replace('.', chr(0x3002))}",
        "soft hyphen": f"From: ceo@{domain[:3]}\u00ad{domain[3:]}",
        "zero width space": f"From: ceo@{domain[:3]}\u200b{domain[3:]}",
        "octet that is no UTF-8": f"From: ceo@{domain[:3]}\udcff{domain[3:]}",
        "control": f"From: ceo@{domain[:3]}\x0b{domain[3:]}",
        "brackets in quotes": 'From: "<ceo@{d}>" <x@outside.example>',
        "broken quotes": 'From: "x" ceo@{d} " <x@outside.example>',
        "nested comment": "From: x@outside.example ((ceo@{d}))",
        "unended comment": "From: (x ceo@{d}",
        "semicolons": "From: ceo@{d}; x@outside.example",
    }
    return tuple(Form(name, headers) for name, headers in forms.items())


def _wide(text: str) -> str:
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


BREACHES = _breaches()
NULS = (
    Form("nul in the domain", "From: ceo@exam\0ple.com"),
    Form("nul behind the domain", "From: <ceo@example.com\0}outside.example>"),
    Form("nul in the name of the field", "Fr\0om: ceo@example.com"),
)


def generated(seed: int, domain: str = "example.com") -> Form:
    """A form that somebody may read as an address of the domain, or of one below."""
    dice = random.Random(seed)  # noqa: S311 (the same for the same number)
    wanted = dice.choice(("", "accounts.", "a.b.")) + domain
    for mutate in dice.sample(_IN_DOMAIN, dice.choice((0, 1, 1, 2))):
        wanted = mutate(dice, wanted)
    local = dice.choice(("ceo", "i", '"c e o"', "o.k", "x+y"))
    address = f"{local}@{wanted}"
    value = dice.choice(_AROUND)(dice, address)
    headers = dice.choice(_HEADERS).replace("{v}", value)
    return Form(f"generated {seed}", headers)


_Mutation = Callable[[random.Random, str], str]


def _insert(*what: str) -> _Mutation:
    def mutate(dice: random.Random, text: str) -> str:
        place = dice.randrange(len(text) + 1)
        return text[:place] + dice.choice(what) + text[place:]

    return mutate


def _case(dice: random.Random, text: str) -> str:
    return "".join(dice.choice((char.upper(), char)) for char in text)


def _some_wide(dice: random.Random, text: str) -> str:
    return "".join(dice.choice((_wide(char), char)) for char in text)


def _dots(dice: random.Random, text: str) -> str:
    return text.replace(".", dice.choice(("\u3002", "\uff0e", "\uff61", " .", ". ", ".(x)")))


_IN_DOMAIN: tuple[_Mutation, ...] = (
    _insert(" ", "\t", "\n ", "\n\t"),
    _insert("(x)", "(a(b)c)", "(\\))", '(")', "(x)(y)", "( \n )"),
    _insert("\u200b", "\u00ad", "\u2060", "\ufeff", "\u034f", "\u3164"),
    _insert("\x0b", "\x0c", "\x01", "\x7f", "\udc85", "\udcff"),
    _insert("\\", '"', '""', "'", "`"),
    lambda dice, text: text + dice.choice((".", "}", "_", "]", " ", "|x", "}outside.example", ">")),
    _case,
    _some_wide,
    _dots,
)


def _encoded(dice: random.Random, text: str) -> str:
    text = text.encode("utf-8", "replace").decode().replace("\n", "")
    kind = dice.choice(("b", "q", "parts", "broken", "latin", "utf-16", "inside"))
    if kind == "q":
        return _q(text)
    if kind == "parts":
        place = dice.randrange(len(text))
        return f"{_b(text[:place])} {_q(text[place:])}"
    if kind == "broken":
        return _b(text).replace("=?=", "?=")
    if kind == "latin":
        return f"=?ISO-8859-1?B?{b64encode(text.encode()).decode()}?="
    if kind == "utf-16":
        return _b(text, "utf-16")
    if kind == "inside":
        return f'"{_b(text)}"'
    return _b(text)


_AROUND: tuple[_Mutation, ...] = (
    lambda _, a: a,
    lambda _, a: f"<{a}>",
    lambda _, a: f"Boss <{a}>",
    lambda _, a: f'"Boss, the" <{a}>',
    lambda _, a: f"{a} <x@outside.example>",
    lambda _, a: f"<{a}> <x@outside.example>",
    lambda _, a: f"x@outside.example, {a}",
    lambda _, a: f"{a}, <x@outside.example>",
    lambda _, a: f"Us: {a};",
    lambda _, a: f"Us:; {a}",
    lambda _, a: f"<@outside.example,@x.example:{a}>",
    lambda _, a: f"({a}) {a}",
    lambda _, a: f"<{a}",
    lambda _, a: f"{a}>",
    lambda _, a: f'"<{a}>" <x@outside.example>',
    lambda _, a: f"x@outside.example (({a}))",
    lambda dice, a: f"{_encoded(dice, f'<{a}>')} <x@outside.example>",
    lambda dice, a: f"{_encoded(dice, f'<{a}>')}, x@outside.example",
    lambda dice, a: _encoded(dice, a),
    lambda dice, a: f"{_encoded(dice, a)} <x@outside.example>",
)
_HEADERS = (
    "From: {v}", "From: {v}", "From: {v}", "from:{v}", "FROM:\n {v}", "From : {v}", "From\t: {v}",
    "From: x@outside.example\nFrom: {v}", "From: {v}\nFrom: x@outside.example", "Sender: {v}",
    "From: {v}\nSender: x@outside.example",
)  # fmt: skip

_STRANGERS = (
    "outside.example", "notexample.com", "example.com.outside.example", "my-example.com",
    "example.community", "mail.outside.example", "b\u00fccher.outside.example",
)  # fmt: skip


def stranger(seed: int, domain: str = "example.com") -> Form:
    """A form whose address is a stranger's, more or less clear; half of them have the domain
    somewhere, where a careless reader may take it for the address."""
    dice = random.Random(-seed - 1)  # noqa: S311 (the same for the same number)
    wanted = dice.choice(_STRANGERS)
    for mutate in dice.sample(_IN_DOMAIN, dice.choice((0, 0, 0, 1))):
        wanted = mutate(dice, wanted)
    address = f"{dice.choice(('hans', 'x.y', 'a+b'))}@{wanted}"
    about = domain
    if dice.random() < 0.3:
        about = dice.choice(_IN_DOMAIN)(dice, about)
    mention = dice.choice(("", "", f"i@{about}", about, f"<i@{about}>"))
    value = dice.choice(_BESIDE)(dice, mention, address)
    headers = dice.choice(_HEADERS[:6]).replace("{v}", value)
    return Form(f"stranger {seed}", headers)


_BESIDE: tuple[Callable[[random.Random, str, str], str], ...] = (
    lambda _, m, a: f'"{m}" <{a}>',
    lambda _, m, a: f'"{m} via List" <{a}>',
    lambda _, m, a: f"\"'{m}' via List\" <{a}>",
    lambda _, m, a: f"{m} <{a}>",
    lambda _, m, a: f"{a} ({m})",
    lambda _, m, a: f"({m}) {a}",
    lambda _, m, a: f"{a} ((x) {m})",
    lambda _, m, a: f'"Meier, {m}" <{a}>',
    lambda _, m, a: f'"\\"{m}" <{a}>',
    lambda _, m, a: f'"a" {m} "b" <{a}>',
    lambda dice, m, a: f"{_encoded(dice, m or 'Hans')} <{a}>",
    lambda dice, m, a: f'"{_encoded(dice, m or "Hans")}" <{a}>',
    lambda dice, m, a: f"{_encoded(dice, m + ' Müller, Hans')} <{a}>",
    lambda dice, m, a: f"({_encoded(dice, m or 'x')}) {a}",
    lambda _, m, a: f"Us: {a};" + m,
    lambda _, m, a: f"{a}, {m} <{a}>",
)
