"""acme.sh: what it is handed, and what is made of its words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from entrypoint.common.names import Domain
from entrypoint.keys import certs
from entrypoint.renewal import acmesh
from tests.support.cases import Case, case_id, cases
from tests.unit.acmekit import NOW, SECRET, certificate
from tests.unit.kit import put

EAB_KEY = "the-key-of-the-binding"
DNS = acmesh.Request(
    names=("example.com", "*.example.com"),
    home=Path("/data/acme/example.com"),
    server="letsencrypt",
    hook="dns_pdns",
    credentials={"PDNS_Url": "http://ns.example.net", "PDNS_Token": SECRET, "PDNS_Ttl": "1"},
)
ALL = replace(
    DNS,
    email="me@example.net",
    eab=("kid-1", EAB_KEY),
    challenge_alias="challenges.example.net",
    dns_sleep=60,
    ca_bundle=Path("/run/tambo/ca-bundle.pem"),
)
HTTP = acmesh.Request(
    names=("smtp.example.com",),
    home=Path("/data/acme/smtp.example.com"),
    server="letsencrypt",
    webroot="/run/tambo/acme-challenge",
)


def options(request: acmesh.Request, *, renew: bool = False) -> list[str]:
    """The arguments that are not the same for all."""
    program, verb, force, *rest = acmesh.arguments(request, renew=renew)
    assert program == "/usr/lib/tambo/acme", "which shows no credentials"
    assert verb == ("--renew" if renew else "--issue")
    assert force == "--force", "it is us who know when"
    assert rest[:4] == ["--home", "/usr/share/acme.sh", "--config-home", str(request.home)]
    assert rest[4:6] == ["--server", request.server], "its default is another one"
    return rest[6:]


# --- what it is handed ---------------------------------------------------------------------------


def test_issuing_by_dns_names_the_bare_domain_first() -> None:
    assert options(DNS) == [
        "--keylength", "ec-256", "--domain", "example.com", "--domain", "*.example.com",
        "--dns", "dns_pdns",
    ]  # fmt: skip


def test_issuing_by_http_uses_the_webroot() -> None:
    assert options(HTTP) == [
        "--keylength", "ec-256", "--domain", "smtp.example.com",
        "--webroot", "/run/tambo/acme-challenge",
    ]  # fmt: skip


def test_everything_that_can_be_asked_for() -> None:
    assert options(ALL) == [
        "--ca-bundle", "/run/tambo/ca-bundle.pem", "--keylength", "ec-256",
        "--domain", "example.com", "--domain", "*.example.com", "--dns", "dns_pdns",
        "--challenge-alias", "challenges.example.net", "--dnssleep", "60",
        "--email", "me@example.net",
    ]  # fmt: skip


def test_a_renewal_leaves_the_rest_to_what_acme_sh_has_noted() -> None:
    assert options(ALL, renew=True) == [
        "--ca-bundle", "/run/tambo/ca-bundle.pem", "--domain", "example.com", "--ecc",
    ]  # fmt: skip


@pytest.mark.parametrize("renew", [False, True])
def test_no_credential_is_in_the_arguments(renew: bool) -> None:
    line = " ".join(acmesh.arguments(ALL, renew=renew))
    for secret in (SECRET, EAB_KEY, "ns.example.net", "kid-1"):
        assert secret not in line


def test_the_environment_is_complete_and_no_one_else_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/x")
    assert acmesh.environment(DNS) == {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/data/acme/example.com",
        "LANG": "C.UTF-8", "ACME_NO_COLOR": "1", **DNS.credentials,
    }  # fmt: skip


def test_the_environment_is_checked_once_more() -> None:
    for name, value in (("PDNS_Token", "$(x)"), ("A B", "x"), ("PDNS_Token", "x\ny")):
        with pytest.raises(ValueError, match=r"acme\.sh cannot keep|not a variable's name"):
            acmesh.environment(replace(DNS, credentials={name: value}))


@pytest.mark.parametrize(
    ("server", "folder"),
    [
        ("https://acme.example.net/directory", "acme.example.net/directory"),
        ("https://acme.example.net:14000/dir", "acme.example.net/dir"),
        ("https://acme.example.net/a/b/c", "acme.example.net/a/b/c"),
        ("zerossl", "acme.zerossl.com/v2/DV90"),
        ("sslcom", "acme.ssl.com/sslcom-dv-ecc"),
        ("google", "dv.acme-v02.api.pki.goog/directory"),
    ],
)
def test_the_account_s_key_stands_where_acme_sh_looks(server: str, folder: str) -> None:
    """Its own rule (_initpath): the port is left out."""
    found = acmesh.account_file(replace(ALL, server=server))
    assert found == (
        ALL.home / "ca" / folder / "ca.conf",
        f"CA_EAB_KEY_ID='kid-1'\nCA_EAB_HMAC_KEY='{EAB_KEY}'\n",
    )


def test_without_binding_there_is_no_such_file() -> None:
    assert acmesh.account_file(DNS) is None


def test_secrets_do_not_show() -> None:
    for text in (repr(ALL), str(ALL)):
        assert SECRET not in text
        assert EAB_KEY not in text


def test_where_acme_sh_puts_it() -> None:
    assert DNS.chain == DNS.home / "example.com_ecc/fullchain.cer"
    assert DNS.key == DNS.home / "example.com_ecc/example.com.key"


@pytest.mark.parametrize(
    "changed",
    [
        replace(DNS, server="letsencrypt_test"),
        replace(DNS, hook="dns_cf"),
        replace(DNS, challenge_alias="challenges.example.net"),
        replace(DNS, names=("example.com",)),
        replace(DNS, hook="", webroot="/webroot"),
    ],
)
def test_another_request_has_another_identity(changed: acmesh.Request) -> None:
    assert changed.identity != DNS.identity


@pytest.mark.parametrize(
    "changed",
    [
        replace(DNS, credentials={}),
        replace(DNS, dns_sleep=60),
        replace(DNS, email="me@example.net"),
        replace(DNS, ca_bundle=Path("/x")),
    ],
)
def test_how_it_is_asked_for_does_not_count(changed: acmesh.Request) -> None:
    assert changed.identity == DNS.identity
    assert SECRET not in DNS.identity


# --- running it ----------------------------------------------------------------------------------


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], acmesh.Request]:
    """Puts a shell script in acme.sh's place."""

    def write(text: str) -> acmesh.Request:
        path = put(tmp_path / "acme", f"#!/bin/sh\n{text}\n")
        path.chmod(0o700)
        monkeypatch.setattr(acmesh, "_ACME_SH", str(path))
        return replace(ALL, home=tmp_path)

    return write


def test_its_lines_come_without_stamps_colours_and_credentials(
    script: Callable[[str], acmesh.Request],
) -> None:
    request = script(
        f"""printf "[Tue Nov 24 03:56:04 UTC 2026] \\033[1;32mCert success.\\033[0m\\n\\n"
        echo "token {SECRET} and {EAB_KEY}."
        echo "on stderr, $PDNS_Token" >&2
        exit 3"""
    )
    seen: list[str] = []
    status, lines = acmesh.run(request, renew=False, on_line=seen.append)
    assert status == 3
    assert lines == seen == [
        "Cert success.", "token [secret] and [secret].", "on stderr, [secret]",
    ]  # fmt: skip


def test_it_gets_its_arguments_and_its_environment(script: Callable[[str], acmesh.Request]) -> None:
    request = script('echo "$@"; env | cut -d= -f1 | sort | tr "\\n" " "')
    _, lines = acmesh.run(request, renew=True)
    assert lines[0] == " ".join(acmesh.arguments(request, renew=True)[1:])
    # PWD is the shell's own.
    assert set(lines[1].split()) - {"PWD", "_", "SHLVL"} == set(acmesh.environment(request))


def test_only_the_last_lines_are_kept(script: Callable[[str], acmesh.Request]) -> None:
    seen: list[str] = []
    _, lines = acmesh.run(script("seq 1000"), renew=False, on_line=seen.append)
    assert len(seen) == 1000
    assert lines == [str(number) for number in range(801, 1001)]


def test_it_does_not_run_for_ever(
    script: Callable[[str], acmesh.Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acmesh, "_TIMEOUT", 0.3)
    status, lines = acmesh.run(script("echo started; sleep 60 & sleep 60"), renew=False)
    assert (status, lines) == (124, ["started"])


def test_long_secrets_are_cut_out_before_the_short_ones_that_they_hold() -> None:
    request = replace(
        DNS, credentials={"A": "secret", "B": "secret-and-more", "C": "1", "D": "abcd"}
    )
    said = acmesh.redact("secret-and-more secret 1 abcd", request.secrets)
    assert said == "[secret] [secret] 1 abcd", "short ones would cut up every other line"


# --- what it says --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases("acme"), ids=case_id)
def test_the_cause_and_the_fix(case: Case, regenerate: bool) -> None:
    given = case.sections
    status, missing = int(given.get("status", "1")), given.get("missing", "").strip()
    message, fix = acmesh.explain(status, given["output"].splitlines(), missing)
    said = f"{message}\n{fix}\n"
    if regenerate:
        case.write({"said": said})
    assert said == case.sections["said"]


def test_its_words_are_never_long() -> None:
    message, _ = acmesh.explain(1, ["error " + "x" * 10000])
    assert len(message) < 400


def test_random_letters_are_no_cause() -> None:
    """A thumbprint may hold any three letters."""
    message, _ = acmesh.explain(1, ["ACCOUNT_THUMBPRINT='jmeEABCAAxyz'", "something failed"])
    assert message == "acme.sh ended with status 1: something failed"


def test_an_account_that_the_authority_has_forgotten() -> None:
    known = '{"type": "urn:ietf:params:acme:error:accountDoesNotExist", "status": 400}'
    assert acmesh.account_is_lost(["x", f"Error: {known}"])
    assert not acmesh.account_is_lost(["urn:ietf:params:acme:error:unauthorized"])


# --- renewal information (RFC 9773) --------------------------------------------------------------

DIRECTORY = "https://acme.example.net/directory"
WINDOW = {"start": "2026-01-03T00:00:00Z", "end": "2026-01-04T00:00:00+00:00"}


@pytest.fixture
def issued(tmp_path: Path) -> tuple[acmesh.Request, certs.Certificate, Path]:
    """A request that has been answered, what was issued, and a bundle of roots."""
    request = replace(DNS, home=tmp_path / "home")
    put(request.folder / "example.com.conf", f"Le_Domain='example.com'\nLe_API='{DIRECTORY}'\n")
    held = certificate("example.com")
    return request, held, put(tmp_path / "roots.pem", held.chain)


def answers(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], *, base: str = f"{DIRECTORY}/ari"
) -> list[str]:
    """Have the authority answer so; the URLs that it is asked for."""
    asked: list[str] = []

    def get(url: str, _context: object) -> dict[str, Any]:
        asked.append(url)
        if url == DIRECTORY:
            return {"renewalInfo": base} if base else {}
        return found

    monkeypatch.setattr(acmesh, "_get", get)
    return asked


def test_the_authority_is_asked_where_acme_sh_has_been(
    issued: tuple[acmesh.Request, certs.Certificate, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(monkeypatch, {"suggestedWindow": WINDOW})
    window = acmesh.renewal_window(*issued)
    assert window is not None
    assert (window.end - window.start).total_seconds() == 86400
    assert asked == [DIRECTORY, f"{DIRECTORY}/ari/{certs.ari_identifier(issued[1])}"]


@pytest.mark.parametrize(
    "found",
    [
        {}, {"suggestedWindow": None}, {"suggestedWindow": {}}, {"suggestedWindow": "x"},
        {"suggestedWindow": {"start": "x", "end": "y"}},
        {"suggestedWindow": {"start": 1, "end": 2}},
        {"suggestedWindow": {"start": "2026-01-03T00:00:00", "end": "2026-01-04T00:00:00"}},
        {"suggestedWindow": {"start": WINDOW["end"], "end": WINDOW["start"]}},
        {"suggestedWindow": {"start": WINDOW["end"], "end": WINDOW["end"]}},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_an_answer_that_makes_no_sense_is_none(
    issued: tuple[acmesh.Request, certs.Certificate, Path],
    monkeypatch: pytest.MonkeyPatch,
    found: dict[str, Any],
) -> None:
    answers(monkeypatch, found)
    assert acmesh.renewal_window(*issued) is None


def test_an_authority_without_renewal_information(
    issued: tuple[acmesh.Request, certs.Certificate, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert answers(monkeypatch, {}, base="") == []
    assert acmesh.renewal_window(*issued) is None


@pytest.mark.parametrize("error", [OSError("no route"), ValueError("not JSON")])
def test_an_authority_that_does_not_answer(
    issued: tuple[acmesh.Request, certs.Certificate, Path],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def get(_url: str, _context: object) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(acmesh, "_get", get)
    assert acmesh.renewal_window(*issued) is None


@pytest.mark.parametrize("text", [None, "", "Le_API='http://plain.example.net/'\n", "Le_API=\n"])
def test_where_acme_sh_has_not_been_nobody_is_asked(
    issued: tuple[acmesh.Request, certs.Certificate, Path],
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
) -> None:
    path = issued[0].folder / "example.com.conf"
    path.unlink()
    if text is not None:
        put(path, text)
    asked = answers(monkeypatch, {"suggestedWindow": WINDOW})
    assert acmesh.renewal_window(*issued) is None
    assert asked == []


def test_a_certificate_without_an_authority_s_key_is_not_asked_for(
    issued: tuple[acmesh.Request, certs.Certificate, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answers(monkeypatch, {"suggestedWindow": WINDOW})
    plain = certs.self_signed([Domain("example.com")])
    assert acmesh.renewal_window(issued[0], plain, issued[2]) is None
    assert asked == []


# RFC 9773, appendix A.
EXAMPLE = b"""-----BEGIN CERTIFICATE-----
MIIBQzCB66ADAgECAgUAh2VDITAKBggqhkjOPQQDAjAVMRMwEQYDVQQDEwpFeGFt
cGxlIENBMCIYDzAwMDEwMTAxMDAwMDAwWhgPMDAwMTAxMDEwMDAwMDBaMBYxFDAS
BgNVBAMTC2V4YW1wbGUuY29tMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEeBZu
7cbpAYNXZLbbh8rNIzuOoqOOtmxA1v7cRm//AwyMwWxyHz4zfwmBhcSrf47NUAFf
qzLQ2PPQxdTXREYEnKMjMCEwHwYDVR0jBBgwFoAUaYhba4dGQEHhs3uEe6CuLN4B
yNQwCgYIKoZIzj0EAwIDRwAwRAIge09+S5TZAlw5tgtiVvuERV6cT4mfutXIlwTb
+FYN/8oCIClDsqBklhB9KAelFiYt9+6FDj3z4KGVelYM5MdsO3pK
-----END CERTIFICATE-----
"""


def test_the_identifier_of_the_standard_s_own_example() -> None:
    """Its serial has a first bit that is set, so that DER puts a zero octet before it."""
    held = certs.Certificate((), "", NOW, NOW, EXAMPLE, b"")
    assert certs.ari_identifier(held) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


def test_order_that_replaces_what_the_authority_does_not_know() -> None:
    said = '"detail": "could not find an order for the given certificate: could not find order"'
    assert acmesh.replaced_is_unknown(["Renew: example.com", said])
    assert not acmesh.replaced_is_unknown(["Error creating new order"])
