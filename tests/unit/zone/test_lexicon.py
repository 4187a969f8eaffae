"""What dns-lexicon's drivers send to a provider, as far as no provider is needed to see it."""

from __future__ import annotations

import importlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rrset
import dns.tsig
import pytest
import requests
from tldextract import tldextract

from entrypoint.common import process
from entrypoint.dns.records import Record, RecordType
from entrypoint.zone import lexicon
from entrypoint.zone.lexicon import Held, ProviderError, TooLateError
from entrypoint.zone.providers import KEY_FILE, PORT, Account, driver
from tests.unit.kit import EXAMPLE_COM, put

SECRET = "s3cret/with+signs"
TEXT = "v=DKIM1; k=rsa; p=" + "A" * 300
QUOTED = f'"{TEXT[:255]}" "{TEXT[255:]}"'
OTHERS = '"verification=1" "and more"'  # of somebody else, in two strings

A = Record(EXAMPLE_COM, "smtp.example.com", RecordType.A, "203.0.113.10", "")
MX = Record(EXAMPLE_COM, "example.com", RecordType.MX, "10 smtp.example.com.", "")
TXT = Record(EXAMPLE_COM, "example.com", RecordType.TXT, TEXT, "")
SRV = Record(
    EXAMPLE_COM, "_submissions._tcp.example.com", RecordType.SRV, "0 1 465 smtp.example.com.", ""
)


@dataclass
class Call:
    method: str
    url: str
    data: Any

    @property
    def path(self) -> str:
        return urlsplit(self.url).path


@dataclass
class Refusal:
    status: int


@dataclass
class Web:
    """Answers HTTP as `answers` say: the first whose pattern fits `METHOD path`."""

    answers: list[tuple[str, Any]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)

    def send(self, _session: Any, request: requests.PreparedRequest, **_: Any) -> Any:
        body = request.body.decode() if isinstance(request.body, bytes) else request.body or ""
        assert request.url
        assert request.method
        if body and body[0] in "[{":
            data = json.loads(body)
        else:
            pairs = parse_qs(body or urlsplit(request.url).query)
            data = {name: values[0] for name, values in pairs.items()}
        call = Call(request.method, request.url, data)
        self.calls.append(call)
        action = data.get("Action", "") if isinstance(data, dict) else ""
        line = f"{call.method} {call.path} {action}"
        found = next((said for pattern, said in self.answers if re.search(pattern, line)), None)
        if isinstance(found, Exception):
            raise found
        answer = requests.Response()
        answer.request, answer.url = request, request.url
        answer.status_code, answer.reason = (404, "Not Found") if found is None else (200, "OK")
        if isinstance(found, Refusal):
            answer.status_code, answer.reason = found.status, "Nope"
            found = {"message": f"no {SECRET}"}
        answer._content = json.dumps(found).encode()
        return answer

    @property
    def last(self) -> Call:
        return self.calls[-1]

    def sent(self, part: str) -> Call:
        """The one call that changes something whose URL or action has `part`."""
        found = [
            call for call in self.calls
            if call.method != "GET" or "Add" in str(call.data.get("Action"))
        ]  # fmt: skip
        [call] = [call for call in found if part in call.url or part in str(call.data)]
        return call


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Web:
    web = Web()
    monkeypatch.setattr(requests.Session, "send", lambda *a, **k: web.send(*a, **k))
    return web


NEXT = {"meta": {"links": {"next": ""}}}
PAGES = {"pagination": {"page": 1, "last_page": 1}}

# By driver: its options, and what its provider says of an empty zone.
PROVIDERS: dict[str, tuple[dict[str, str], list[tuple[str, Any]]]] = {
    "cloudflare": (
        {"auth_token": SECRET},
        [
            ("GET .*/dns_records", {"result": [], "result_info": {"page": 1, "total_pages": 1}}),
            (
                "GET .*/zones",
                {
                    "result": [{"name": "example.com", "id": "z1"}],
                    "result_info": {"total_pages": 1},
                },
            ),
            ("POST", {"success": True}),
        ],
    ),
    "aliyun": (
        {"auth_key_id": "key", "auth_secret": SECRET},
        [
            ("DescribeDomainInfo", {"DomainId": "1"}),
            ("DescribeDomainRecords", {"DomainRecords": {"Record": []}}),
            ("AddDomainRecord", {"RecordId": "1"}),
        ],
    ),
    "dnspod": (
        {"auth_username": "1", "auth_token": SECRET},
        [
            ("Domain.Info", {"status": {"code": "1"}, "domain": {"id": 7}}),
            ("Record.List", {"records": []}),
            ("Record.Create", {"status": {"code": "1"}}),
        ],
    ),
    "digitalocean": (
        {"auth_token": SECRET},
        [
            ("GET .*/records", {"domain_records": [], "links": {}}),
            ("GET .*/domains/example.com", {}),
            ("POST", {}),
        ],
    ),
    "hetzner": (
        {"auth_token": SECRET},
        [
            ("GET .*/rrsets", {"rrsets": [], "meta": PAGES}),
            ("GET .*/zones/example.com", {"zone": {"id": 5}}),
            ("POST", {"action": {"status": "success"}}),
        ],
    ),
    "desec": ({"auth_token": SECRET}, [("GET", []), ("POST|PATCH", {})]),
    "gandi": (
        {"auth_token": SECRET, "api_protocol": "rest"},
        [("GET .*/domains/example.com ", {}), ("POST|PUT", {})],
    ),
    "ovh": (
        {
            "auth_entrypoint": "ovh-eu",
            "auth_application_key": "key",
            "auth_application_secret": SECRET,
            "auth_consumer_key": "consumer",
        },
        [
            ("GET /1.0/auth/time", int(time.time())),
            ("GET .*/status", {"isDeployed": True}),
            ("GET .*/record", []),
            ("GET .*/zone/", ["example.com"]),
            ("POST", {"id": 1}),
        ],
    ),
    "godaddy": (
        {"auth_key": "key", "auth_secret": SECRET},
        [("GET .*/records", []), ("GET", {"domainId": 1}), ("PUT", {})],
    ),
    "linode": (
        {"auth_token": SECRET},
        [
            ("GET .*/records", {"pages": 1, "data": []}),
            ("GET .*/domains", {"data": [{"id": 3}]}),
            ("POST", {}),
        ],
    ),
    "vultr": (
        {"auth_token": SECRET},
        [
            ("GET .*/records", {"records": [], **NEXT}),
            ("GET .*/domains", {"domains": [{"domain": "example.com"}], **NEXT}),
            ("POST", {"record": {"id": "1"}}),
        ],
    ),
    "porkbun": (
        {"auth_key": "key", "auth_secret": SECRET},
        [
            ("POST .*/retrieve", {"status": "SUCCESS", "records": []}),
            ("POST", {"status": "SUCCESS"}),
        ],
    ),
    "powerdns": (
        {"auth_token": SECRET, "pdns_server": "http://ns.example.net:8081"},
        [("GET", {"kind": "Native", "rrsets": []}), ("PATCH", {})],
    ),
}


def stays_out(asked: Account, kind: type[ProviderError] = ProviderError) -> str:
    """Why no session can be opened."""
    with pytest.raises(kind) as error, lexicon.opened(asked, "example.com"):
        pass
    return str(error.value)


def account(name: str, **options: str) -> Account:
    return Account(driver(name), f"ACME_DNS=dns_{name}", options or PROVIDERS[name][0])


def added(web: Web, name: str, record: Record, *answers: tuple[str, Any], ttl: int = 3600) -> Call:
    """The request by which a driver adds a record to a zone."""
    web.answers = [*answers, *PROVIDERS[name][1]]
    with lexicon.opened(account(name), "example.com") as opened:
        assert opened.held(record) == [] or answers
        before = len(web.calls)
        opened.add(record, ttl)
    changes = [
        call for call in web.calls[before:]
        if call.method != "GET" or call.data.get("Action") == "AddDomainRecord"
    ]  # fmt: skip
    return next(
        call for call in changes if "refresh" not in call.url and "retrieve" not in call.url
        and "Record.List" not in call.url
    )  # fmt: skip


def subset(call: Call, **expected: Any) -> None:
    data = call.data[-1] if isinstance(call.data, list) else call.data
    assert {name: data.get(name) for name in expected} == expected


def test_every_known_driver_is_here() -> None:
    from entrypoint.zone import providers

    assert set(PROVIDERS) | {"ddns", "route53", "namecheap"} == set(providers._DRIVERS)


# Records in the form that each API is documented to take.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cloudflare", {"name": "example.com", "content": "smtp.example.com", "priority": 10}),
        ("aliyun", {"RR": "@", "Value": "smtp.example.com", "Priority": "10", "TTL": "3600"}),
        ("dnspod", {"sub_domain": "@", "value": "smtp.example.com.", "mx": "10"}),
        ("digitalocean", {"name": "@", "data": "smtp.example.com.", "priority": 10}),
        ("hetzner", {"records": [{"value": "10 smtp.example.com."}], "ttl": 3600}),
        ("desec", {"subname": "", "records": ["10 smtp.example.com."], "type": "MX"}),
        ("gandi", {"rrset_values": ["10 smtp.example.com."], "rrset_ttl": 3600}),
        ("ovh", {"subDomain": "", "target": "10 smtp.example.com.", "fieldType": "MX"}),
        ("godaddy", {"name": "@", "data": "smtp.example.com", "priority": 10, "type": "MX"}),
        ("linode", {"name": "", "target": "smtp.example.com", "priority": 10, "ttl_sec": 3600}),
        ("vultr", {"name": "", "data": "smtp.example.com", "priority": 10, "ttl": 3600}),
        ("porkbun", {"name": "", "content": "smtp.example.com", "prio": 10, "ttl": 3600}),
    ],
)
def test_an_mx_of_the_zone_itself(web: Web, name: str, expected: dict[str, Any]) -> None:
    subset(added(web, name, MX), **expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cloudflare", {"name": "example.com", "content": QUOTED}),
        ("aliyun", {"RR": "@", "Value": TEXT, "Type": "TXT"}),
        ("dnspod", {"sub_domain": "@", "value": TEXT}),
        ("digitalocean", {"name": "@", "data": TEXT}),
        ("hetzner", {"records": [{"value": QUOTED}]}),
        ("desec", {"subname": "", "records": [QUOTED]}),
        ("gandi", {"rrset_values": [QUOTED]}),
        ("ovh", {"subDomain": "", "target": TEXT}),
        ("godaddy", {"name": "@", "data": TEXT}),
        ("linode", {"name": "", "target": TEXT}),
        ("vultr", {"name": "", "data": QUOTED}),
        ("porkbun", {"name": "", "content": TEXT}),
    ],
)
def test_a_text_of_more_than_255(web: Web, name: str, expected: dict[str, Any]) -> None:
    subset(added(web, name, TXT), **expected)


_NAME = "_submissions._tcp"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "cloudflare",
            {
                "name": "_submissions._tcp.example.com",
                "data": {"priority": 0, "weight": 1, "port": 465, "target": "smtp.example.com"},
            },
        ),
        ("aliyun", {"RR": _NAME, "Value": "0 1 465 smtp.example.com."}),
        ("dnspod", {"sub_domain": _NAME, "value": "0 1 465 smtp.example.com."}),
        (
            "digitalocean",
            {"name": _NAME, "data": "smtp.example.com.", "priority": 0, "weight": 1, "port": 465},
        ),
        ("hetzner", {"records": [{"value": "0 1 465 smtp.example.com."}]}),
        ("desec", {"subname": _NAME, "records": ["0 1 465 smtp.example.com."]}),
        ("gandi", {"rrset_values": ["0 1 465 smtp.example.com."]}),
        ("ovh", {"subDomain": _NAME, "target": "0 1 465 smtp.example.com."}),
        (
            "linode",
            {
                "service": "submissions",
                "protocol": "tcp",
                "priority": 0,
                "weight": 1,
                "port": 465,
                "target": "smtp.example.com",
            },
        ),
        ("vultr", {"name": _NAME, "data": "1 465 smtp.example.com", "priority": 0}),
        ("porkbun", {"name": _NAME, "content": "1 465 smtp.example.com", "prio": 0}),
    ],
)
def test_a_service(web: Web, name: str, expected: dict[str, Any]) -> None:
    subset(added(web, name, SRV), **expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cloudflare", {"name": "smtp.example.com", "content": "203.0.113.10"}),
        ("digitalocean", {"name": "smtp", "data": "203.0.113.10"}),
        ("godaddy", {"name": "smtp", "data": "203.0.113.10"}),
        ("linode", {"name": "smtp", "target": "203.0.113.10", "ttl_sec": 600}),
    ],
)
def test_an_address(web: Web, name: str, expected: dict[str, Any]) -> None:
    subset(added(web, name, A, ttl=600), **expected)


# Beside the records of others.


def test_powerdns_gets_the_others_back_as_they_were(web: Web) -> None:
    rrset = {
        "name": "example.com.", "type": "TXT", "ttl": 300, "comments": [],
        "records": [{"content": OTHERS, "disabled": False}],
    }  # fmt: skip
    zone = ("GET", {"kind": "Native", "rrsets": [rrset]})
    call = added(web, "powerdns", TXT, zone, ttl=300)
    [change] = call.data["rrsets"]
    assert change["ttl"] == 300
    assert [item["content"] for item in change["records"]] == [QUOTED, OTHERS]
    assert call.data["rrsets"][0].get("comments") is None


def test_gandi_gets_the_others_back_as_they_were(web: Web) -> None:
    """Left to itself the driver takes their quotes off."""
    known = {
        "rrset_type": "TXT", "rrset_name": "@", "rrset_ttl": 300, "rrset_values": [OTHERS],
    }  # fmt: skip
    call = added(web, "gandi", TXT, ("GET .*/records/@/TXT", known), ttl=300)
    assert (call.method, call.path) == ("PUT", "/v5/livedns/domains/example.com/records/@/TXT")
    assert call.data == {"rrset_values": [OTHERS, QUOTED], "rrset_ttl": 300}


def test_desec_gets_the_others_back_as_they_were(web: Web) -> None:
    known = {
        "type": "TXT", "name": "example.com.", "subname": "", "ttl": 3600, "records": [OTHERS],
    }  # fmt: skip
    call = added(web, "desec", TXT, ("GET .*/rrsets//$|GET .*rrsets/+ ", [known]))
    assert call.method == "PATCH"
    assert call.path == "/api/v1/domains/example.com/rrsets/@/TXT/", "deSEC's name of the apex"
    assert call.data["records"] == [OTHERS, QUOTED]


def test_godaddy_gets_the_others_back_as_they_were(web: Web) -> None:
    known = [{"type": "TXT", "name": "@", "data": "verification=1", "ttl": 600}]
    call = added(web, "godaddy", TXT, ("GET .*/records/TXT/@", known))
    assert (call.method, call.path) == ("PUT", "/v1/domains/example.com/records/TXT/@")
    assert call.data[0] == known[0]
    assert [item["data"] for item in call.data] == ["verification=1", TEXT]


class Aws:
    """What route53's driver asks of boto3."""

    def __init__(self, values: list[str]) -> None:
        self.values = values
        self.changes: list[Any] = []

    def list_hosted_zones_by_name(self) -> Any:
        zones = [
            {"Id": "/private", "Name": "example.com.", "Config": {"PrivateZone": True}},
            {"Id": "/public", "Name": "example.com.", "Config": {"PrivateZone": False}},
        ]
        return {"HostedZones": zones, "IsTruncated": False}

    def list_resource_record_sets(self, **_: Any) -> Any:
        values = [{"Value": value} for value in self.values]
        found = {"Name": "example.com.", "Type": "TXT", "TTL": 300, "ResourceRecords": values}
        return {"ResourceRecordSets": [found] if values else [], "IsTruncated": False}

    def change_resource_record_sets(self, **change: Any) -> None:
        self.changes.append(change)


@pytest.mark.parametrize("others", [[], [OTHERS], [OTHERS, '"x=1"']])
def test_route53_gets_the_others_back_as_they_were(
    monkeypatch: pytest.MonkeyPatch, others: list[str]
) -> None:
    aws = Aws(others)
    monkeypatch.setattr("boto3.client", lambda *_, **__: aws)
    options = {"auth_access_key": "k", "auth_access_secret": SECRET, "private_zone": "false"}
    with lexicon.opened(account("route53", **options), "example.com") as opened:
        held = opened.held(TXT)
        assert [item.ttl for item in held] == [300] * len(others)
        opened.add(TXT, 300)
        if held:
            opened.remove(TXT, held[0])
    change = aws.changes[0]
    assert change["HostedZoneId"] == "/public"
    [item] = change["ChangeBatch"]["Changes"]
    assert [value["Value"] for value in item["ResourceRecordSet"]["ResourceRecords"]] == [
        *others, QUOTED,
    ]  # fmt: skip
    assert item["ResourceRecordSet"]["TTL"] == 300


# What a provider lists, and how one value is taken away.


@pytest.mark.parametrize(
    ("kind", "content", "value"),
    [
        ("TXT", '"a" "b"', "ab"),
        ("TXT", 'a" "b', "ab"),
        ("TXT", "a b; c=d", "a b; c=d"),
        ("TXT", r'"say \"x\" \\ ; y"', r'say "x" \ ; y'),
        ("TXT", '"', '"'),
        ("AAAA", "2001:DB8:0::0010", "2001:db8::10"),
        ("AAAA", "?", "?"),
        ("MX", "10 Smtp.Example.COM.", "10 smtp.example.com."),
    ],
)
def test_listed_values_as_ours(kind: str, content: str, value: str) -> None:
    assert lexicon.plain(RecordType(kind), content) == value


def test_the_same_value_in_other_words() -> None:
    for listed in ("10 smtp.example.com.", "smtp.example.com", "5 smtp.example.com"):
        assert lexicon.is_same(MX, listed)
    assert not lexicon.is_same(MX, "10 other.example.com.")
    assert not lexicon.is_same(MX, "")
    assert lexicon.is_same(TXT, TEXT)
    assert not lexicon.is_same(TXT, TEXT[:-1])


def test_one_value_goes_by_its_number(web: Web) -> None:
    known = [
        {"type": "TXT", "name": "@", "ttl": 300, "data": "mine", "id": 17},
        {"type": "TXT", "name": "@", "ttl": 300, "data": "theirs", "id": 18},
        {"type": "TXT", "name": "sub", "ttl": 300, "data": "mine", "id": 19},
        {"type": "A", "name": "@", "ttl": 300, "data": "192.0.2.1", "id": 20},
    ]
    web.answers = [
        ("GET .*/records", {"domain_records": known, "links": {}}),
        ("DELETE", {}),
        *PROVIDERS["digitalocean"][1],
    ]
    with lexicon.opened(account("digitalocean"), "example.com") as opened:
        held = opened.held(TXT)
        assert held == [Held("mine", "mine", 300, "17"), Held("theirs", "theirs", 300, "18")]
        opened.remove(TXT, held[0])
    assert [call.path for call in web.calls if call.method == "DELETE"] == [
        "/v2/domains/example.com/records/17"
    ]


def test_one_value_goes_by_its_content(web: Web) -> None:
    values = [QUOTED, OTHERS, '"p=a/b=c"']
    rrset = {
        "name": "example.com.", "type": "TXT", "ttl": 300,
        "records": [{"content": value, "disabled": False} for value in values],
    }  # fmt: skip
    web.answers = [("GET", {"kind": "Native", "rrsets": [rrset]}), ("PATCH", {})]
    with lexicon.opened(account("powerdns"), "example.com") as opened:
        held = opened.held(TXT)
        assert [item.value for item in held] == [TEXT, "verification=1and more", "p=a/b=c"]
        opened.remove(TXT, held[2])
    [change] = web.last.data["rrsets"]
    assert [item["content"] for item in change["records"]] == [QUOTED, OTHERS]


# Alibaba Cloud.


def test_alibaba_cloud_s_own_example_of_a_signature() -> None:
    query = {
        "AccessKeyId": "testid", "Action": "DescribeRegions", "Format": "XML",
        "SignatureMethod": "HMAC-SHA1",
        "SignatureNonce": "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf", "SignatureVersion": "1.0",
        "Timestamp": "2016-02-23T12:46:24Z", "Version": "2014-05-26",
    }  # fmt: skip
    assert lexicon.aliyun_signature("GET", query, "testsecret") == "OLeaidS1JvxuMvnyHOwuJ+uX5qY="


def test_what_is_signed_is_what_is_sent(web: Web) -> None:
    call = added(web, "aliyun", TXT)
    signature = call.data.pop("Signature")
    assert lexicon.aliyun_signature("GET", call.data, SECRET) == signature
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", call.data["Timestamp"])


# What goes wrong.


def failing(web: Web, *answers: tuple[str, Any]) -> str:
    web.answers = [*answers, *PROVIDERS["powerdns"][1]]
    with (
        pytest.raises(ProviderError) as error,
        lexicon.opened(account("powerdns"), "example.com") as opened,
    ):
        opened.add(TXT, 3600)
    text = str(error.value)
    assert SECRET not in text
    assert "\n" not in text
    return text


def test_a_wrong_key(web: Web) -> None:
    text = failing(web, ("GET", Refusal(401)))
    assert "the credentials are not accepted (ACME_DNS=dns_powerdns)" in text
    assert "no [secret]" in text
    assert all(call.method == "GET" for call in web.calls)


def test_no_such_zone(web: Web) -> None:
    assert "404" in failing(web, ("GET", Refusal(404)))


def test_a_refusal(web: Web) -> None:
    assert "it answers 422 Nope" in failing(web, ("PATCH", Refusal(422)))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (requests.ConnectTimeout("x"), "no answer within"),
        (requests.ReadTimeout("x"), "no answer within"),
        (requests.ConnectionError(f"[Errno 111] refused, token={SECRET}"), "cannot be reached"),
    ],
)
def test_nobody_answers(web: Web, error: Exception, words: str) -> None:
    assert words in failing(web, ("PATCH", error))
    web.answers = [("GET", error)]
    stays_out(account("powerdns"), TooLateError)


def test_an_answer_that_the_driver_does_not_know(web: Web) -> None:
    assert "not what dns-lexicon expects (KeyError" in failing(web, ("GET", {"kind": "Native"}))


def test_what_a_driver_logs_is_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(Aws):
        def change_resource_record_sets(self, **_: Any) -> None:
            errors = importlib.import_module("botocore.exceptions")
            error = {"Error": {"Code": "AccessDenied", "Message": f"not for you, {SECRET}"}}
            raise errors.ClientError(error, "ChangeResourceRecordSets")

    monkeypatch.setattr("boto3.client", lambda *_, **__: Refusing([]))
    options = {"auth_access_key": "k", "auth_access_secret": SECRET, "private_zone": "false"}
    with (
        lexicon.opened(account("route53", **options), "example.com") as opened,
        pytest.raises(ProviderError, match=r"AccessDenied.*\[secret\]"),
    ):
        opened.add(TXT, 300)


def test_a_driver_that_never_ends(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexicon, "_OPERATION", 0.05)
    done = threading.Event()
    web.answers = PROVIDERS["powerdns"][1]
    with lexicon.opened(account("powerdns"), "example.com") as opened:
        opened._provider.list_records = lambda *_: done.wait(5)
        with pytest.raises(TooLateError, match="no answer within"):
            opened.held(TXT)
    done.set()


@pytest.mark.parametrize("hidden", [SECRET, "s3cret%2Fwith%2Bsigns", "s3cret/with%2Bsigns"])
def test_credentials_and_queries_are_cut_out(hidden: str) -> None:
    text = lexicon._tidy(
        f"at https://me:pw@api.example/x?token={hidden} was {hidden}\x1b[1m", account("powerdns")
    )
    assert text == "at https://api.example was [secret] [1m"


def test_texts_are_short() -> None:
    assert len(lexicon._tidy("x" * 9000, account("powerdns"))) < 320


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("powerdn", {}, "called powerdn; did you mean powerdns?"),
        ("../x", {}, "no provider"),
        ("powerdns", {"auth_tokn": "x"}, "has no option AUTH_TOKN; did you mean AUTH_TOKEN?"),
    ],
)
def test_names_that_dns_lexicon_does_not_have(
    name: str, options: dict[str, str], words: str
) -> None:
    asked = Account(driver(name), "LEXICON_PROVIDER=x", options)
    assert re.search(re.escape(words), stays_out(asked))


def test_dns_lexicon_s_older_names_of_options(web: Web) -> None:
    web.answers = PROVIDERS["powerdns"][1]
    options = {"token": SECRET, "pdns_server": "http://ns.example.net"}
    with lexicon.opened(account("powerdns", **options), "example.com"):
        pass


# What holds for the whole process.


def test_requests_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float | None] = []

    def send(_self: Any, _request: Any, *_: Any, **keywords: Any) -> Any:
        seen.append(keywords.get("timeout"))
        raise requests.ConnectionError

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    lexicon._prepare()
    for timeout in (None, 3.0):
        with pytest.raises(requests.ConnectionError):
            requests.get("http://ns.example.net/", timeout=timeout)
    assert seen == [lexicon._REQUEST, 3.0]


def test_no_list_of_suffixes_is_fetched() -> None:
    lexicon._prepare()
    assert tldextract.TLD_EXTRACTOR.suffix_list_urls == ()
    assert tldextract.extract("a.example.co.uk").suffix == "co.uk"


def test_dns_lexicon_is_imported_only_when_it_is_used() -> None:
    code = (
        "import sys; import entrypoint.commands.publish;"
        "print([name for name in ('lexicon', 'requests', 'boto3') if name in sys.modules])"
    )
    lines: list[str] = []
    argv = [sys.executable, "-c", code]
    environ = {"PYTHONPATH": str(Path(__file__).parents[3])}
    status = process.run(argv, environ, timeout=30, on_line=lines.append)
    assert (status, lines) == (0, ["[]"])


# RFC 2136.

KEY = 'key "tambo" {\n  algorithm hmac-sha256;\n  secret "c2VjcmV0LW9mLXRzaWc=";\n};\n'


@dataclass
class NameServer:
    """One that is asked over TCP."""

    say: Callable[[dns.message.Message], dns.message.Message]
    asked: list[tuple[dns.message.Message, str, int]] = field(default_factory=list)

    def tcp(self, query: Any, where: str, timeout: float, port: int = 53) -> Any:
        assert timeout
        self.asked.append((query, where, port))
        return self.say(query)


def answering(records: Mapping[str, tuple[int, list[str]]]) -> Callable[[Any], Any]:
    def say(query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        if query.question:
            kind = dns.rdatatype.to_text(query.question[0].rdtype)
            ttl, values = records.get(kind, (0, []))
            if values:
                name = query.question[0].name
                answer.answer.append(dns.rrset.from_text(name, ttl, "IN", kind, *values))
        return answer

    return say


SOA = "ns.example.net. hostmaster.example.net. 1 1 1 1 1"


class Connection:
    """To the one address that answers."""

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def getpeername(self) -> tuple[str, int]:
        return "192.0.2.53", 5300


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    server = NameServer(answering({"SOA": (60, [SOA]), "TXT": (300, [OTHERS])}))
    monkeypatch.setattr(dns.query, "tcp", server.tcp)
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: Connection())
    return server


def rfc2136(tmp_path: Path, key: str = KEY, **options: str) -> Account:
    path = put(tmp_path / "tsig.key", key)
    options = {KEY_FILE: str(path), "ddns_server": "ns.example.net", **options}
    return Account(driver("ddns"), "ACME_DNS=dns_nsupdate", options)


def test_an_update(name_server: NameServer, tmp_path: Path) -> None:
    with lexicon.opened(rfc2136(tmp_path, **{PORT: "5300"}), "example.com") as opened:
        [held] = opened.held(TXT)
        assert held == Held(OTHERS, "verification=1and more", 300, None)
        opened.add(TXT, 300)
        opened.remove(TXT, held)
    soa, question, add, remove = [item[0] for item in name_server.asked]
    assert {item[1:] for item in name_server.asked} == {("192.0.2.53", 5300)}
    assert all(item.keyring for item in (soa, question, add, remove))
    assert f"@ 300 IN TXT {QUOTED}" in add.to_text()
    assert f"@ 0 NONE TXT {OTHERS}" in remove.to_text()
    assert "example.com. IN SOA" in add.to_text(), "the zone"


TSIG: Any = dns.tsig  # its exceptions have no types
TIMEOUT: Any = dns.exception.Timeout


@pytest.mark.parametrize(
    ("fails", "words"),
    [
        (TSIG.PeerBadKey(), "does not take the key"),
        (TSIG.PeerBadSignature(), "does not take the key"),
        (TIMEOUT(), "cannot be reached"),
        (ConnectionRefusedError(111, "refused"), "cannot be reached"),
    ],
)
def test_a_name_server_that_does_not_let_us_in(
    name_server: NameServer, tmp_path: Path, fails: Exception, words: str
) -> None:
    def say(_: Any) -> Any:
        raise fails

    name_server.say = say
    assert re.search(words, stays_out(rfc2136(tmp_path)))


def test_a_zone_that_the_name_server_does_not_have(name_server: NameServer, tmp_path: Path) -> None:
    name_server.say = answering({})
    assert re.search("does not have the zone example.com", stays_out(rfc2136(tmp_path)))


def test_a_refused_update_is_no_success(name_server: NameServer, tmp_path: Path) -> None:
    with lexicon.opened(rfc2136(tmp_path), "example.com") as opened:
        before = name_server.say

        def refuse(query: dns.message.Message) -> dns.message.Message:
            answer = before(query)
            answer.set_rcode(dns.rcode.REFUSED)
            return answer

        name_server.say = refuse
        with pytest.raises(ProviderError, match="REFUSED"):
            opened.add(TXT, 300)


@pytest.mark.parametrize(
    ("key", "words"),
    [("", "is not a key's file"), ('key "x" { algorithm hmac-sha256; };', "is not a key's file")],
)
def test_a_file_that_holds_no_key(tmp_path: Path, key: str, words: str) -> None:
    assert re.search(words, stays_out(rfc2136(tmp_path, key)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({KEY_FILE: "/nowhere"}, "cannot be read: No such file"),
        ({KEY_FILE: "\0"}, "not a path"),
        ({PORT: "x"}, "not a port"),
        ({KEY_FILE: "", "auth_token": "x"}, "algorithm:name:secret"),
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, options: dict[str, str], words: str) -> None:
    assert re.search(words, stays_out(rfc2136(tmp_path, **options)))


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "Name or service not known"), TimeoutError("timed out")]
)
def test_a_server_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", fail)
    text = stays_out(rfc2136(tmp_path, ddns_server="ns.example.net"), TooLateError)
    assert re.search(r"ns\.example\.net.* cannot be reached on port 53: .+", text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (KEY, ("hmac-sha256", "tambo", "c2VjcmV0LW9mLXRzaWc=")),
        ("key a.b { secret AAAA; };", ("hmac-md5.sig-alg.reg.int", "a.b", "AAAA")),
        ('key "k" {algorithm "HMAC-SHA512";secret "AAAA";};', ("hmac-sha512", "k", "AAAA")),
    ],
)
def test_key_files(tmp_path: Path, text: str, found: tuple[str, str, str]) -> None:
    assert lexicon._tsig_key(str(put(tmp_path / "key", text))) == found
