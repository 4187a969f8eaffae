import re
import time

import pytest

from entrypoint.delivery import operators


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("aspmx.l.google.com.", "google"),
        ("ALT4.ASPMX.L.GOOGLE.COM", "google"),
        ("smtp.google.com", "google"),
        ("aspmx2.googlemail.com", "google"),
        ("example-com.mail.protection.outlook.com", "microsoft"),
        ("outlook-com.olc.protection.outlook.com.", "microsoft"),
        ("example-com.a-v1.mx.microsoft", "microsoft"),
        ("mta5.am0.yahoodns.net", "yahoo"),
        ("mx01.mail.icloud.com", "apple"),
        ("mx00.emig.gmx.net", "gmx"),
        ("mx-ha02.web.de", "gmx"),
        ("mx00.kundenserver.de", "gmx"),
        ("mx00.t-online.de", "t-online"),
        ("smtp-in.orange.fr", "orange"),
        ("mx1.comcast.net", "comcast"),
        ("mxs.mail.ru", "mailru"),
        ("mx.yandex.net", "yandex"),
        ("mxbiz1.qq.com", "qq"),
        ("163mx01.mxmail.netease.com", "163"),
        ("eu-smtp-inbound-1.mimecast.com", "mimecast"),
        ("mx0a-00000000.pphosted.com", "proofpoint"),
        ("d00000a.ess.barracudanetworks.com", "barracuda"),
        ("google.com.example.net", None),
        ("notgoogle.com", None),
        ("mymail.ru", None),
        ("mx.example.com", None),
        ("", None),
        (".", None),
        ("a." * 200 + "google.com", None),
    ],
)
def test_an_exchanger_is_known_by_the_end_of_its_name(host: str, wanted: str | None) -> None:
    found = operators.of_exchanger(host)
    assert (found.id if found else None) == wanted


@pytest.mark.parametrize(
    ("greeting", "wanted"),
    [
        ("220 mx.google.com ESMTP a1-2002 - gsmtp", "google"),
        ("220 DB5.mail.protection.outlook.com Microsoft ESMTP MAIL Service ready", "microsoft"),
        ("220 mtaproxy1.free.mail.ne1.yahoo.com ESMTP ready\r\n", "yahoo"),
        ("220-web.de (mxweb113) Nemesis ESMTP Service ready", "gmx"),
        ("220 mx.example.com (mx1) Nemesis ESMTP Service ready", "gmx"),
        ("220 mailin1.aul.t-online.de T-Online ESMTP receiver ready", "t-online"),
        ("220 newmx.example.com MX QQ Mail Server.", "qq"),
        ("220 exchange.example.com Microsoft ESMTP MAIL Service ready", None),
        ("220 mx.example.com ESMTP not google.com", None),
        ("220 mx.example.com ESMTP\n220 mx.google.com", None),
        ("421 mx.google.com too many", None),
        ("220", None),
        ("220 ", None),
        ("", None),
    ],
)
def test_a_greeting_tells_the_operator(greeting: str, wanted: str | None) -> None:
    found = operators.of_greeting(greeting)
    assert (found.id if found else None) == wanted


@pytest.mark.parametrize(
    "text",
    ["220 " + "a." * 5_000_000, "220 " + " " * 10_000_000, "220 " + "Nemesis ESMTP " * 700_000],
    ids=["labels", "blanks", "words"],
)
def test_a_greeting_of_ten_megabytes_costs_nothing(text: str) -> None:
    before = time.process_time()
    for _ in range(100):
        assert operators.of_greeting(text) is None
    assert time.process_time() - before < 0.5


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("fe80::1%eth0", "fe80::/48"),
    ],
)
def test_the_network_stands_for_an_unknown_operator(address: str, wanted: str) -> None:
    assert operators.network(address) == wanted


def test_what_is_no_address_has_no_network() -> None:
    with pytest.raises(ValueError, match="mx"):
        operators.network("mx.example.com")


def test_each_operator_is_complete_and_found_by_each_of_its_names() -> None:
    names = [end for operator in operators.all() for end in operator.exchangers]
    assert len(names) == len(set(names)), "two operators claim one exchanger"
    assert len({operator.id for operator in operators.all()}) == len(operators.all()) == 15
    for operator in operators.all():
        assert operators.get(operator.id) is operator
        assert 1 <= operator.connections <= 25
        assert "figure" in operator.source or re.search(r"https?://", operator.source)
        for end in operator.exchangers:
            assert operators.of_exchanger(f"mx1.{end}") is operator
        for words in operator.greetings:
            assert words == words.casefold()
            name = f"mx1.{words}" if " " not in words else f"mx.example.com {words}"
            assert operators.of_greeting(f"220 {name} ready") is operator


def test_an_unknown_id_is_nobody() -> None:
    assert operators.get("example") is None
