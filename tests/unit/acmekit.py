"""What the unit tests of certificates share: acme.sh's hooks, an authority, one that pretends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest

from entrypoint.common.names import Domain
from entrypoint.common.paths import Paths
from entrypoint.keys import certs
from entrypoint.renewal import acmesh
from entrypoint.settings import acmehooks, environment
from entrypoint.settings.model import Settings
from entrypoint.state import load
from entrypoint.state.load import Issue
from tests.support.ca import Authority
from tests.unit.kit import HOST, put

DAY = timedelta(days=1)
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECRET = "a-secret-of-ours"

# In the form of acme.sh 3.1.5.
HOOKS = {
    "dns_cf": """#!/usr/bin/env sh
dns_cf_info='CloudFlare
Site: CloudFlare.com
Docs: github.com/acmesh-official/acme.sh/wiki/dnsapi#dns_cf
Options:
 CF_Key API Key
 CF_Email Your account email
OptionsAlt:
 CF_Token API Token
 CF_Account_ID Account ID
 CF_Zone_ID Zone ID. Optional.
Issues: github.com/acmesh-official/acme.sh/issues/1
'

dns_cf_add() {
  CF_Token="${CF_Token:-$(_readaccountconf_mutable CF_Token)}"
}
""",
    "dns_pdns": """#!/usr/bin/env sh
# shellcheck disable=SC2034
dns_pdns_info='PowerDNS Server API
Site: PowerDNS.com
Options:
 PDNS_Url API URL. E.g. "http://ns.example.com:8081"
 PDNS_ServerId Server ID. E.g. "localhost"
 PDNS_Token API Token
 PDNS_Ttl Domain TTL. Default: "60".
'
dns_pdns_add() {
  _saveaccountconf_mutable PDNS_Url "$PDNS_Url"
}
""",
    "dns_aws": """#!/usr/bin/env sh
dns_aws_info='Amazon AWS Route53 domain API
Site: docs.aws.amazon.com/route53/
Options:
 AWS_ACCESS_KEY_ID API Key ID
 AWS_SECRET_ACCESS_KEY API Secret
'
dns_aws_add() {
  AWS_DNS_SLOWRATE="${AWS_DNS_SLOWRATE:-$(_readaccountconf_mutable AWS_DNS_SLOWRATE)}"
  AWS_OLD="$(_readaccountconf "AWS_OLD")"
}
""",
    "dns_bare": "#!/usr/bin/env sh\ndns_bare_add() {\n  :\n}\n",
}


def put_hooks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of DNS hooks, which is the image's one for whoever names none."""
    for name, text in HOOKS.items():
        put(folder / f"{name}.sh", text)
    (folder / "README.md").write_text("not a hook")
    for function in (acmehooks.names, acmehooks.load):
        count = len(function.__defaults__ or ())
        monkeypatch.setattr(function, "__defaults__", (folder,) * count)
    return folder


def asked(hooks: Path, **environ: str) -> Settings:
    """Settings for TLS=dns at PowerDNS; an empty value takes one away."""
    common = {"MAIL_HOSTNAME": HOST, "ACME_DNS": "dns_pdns", "PDNS_Url": "http://ns.example.net",
              "PDNS_ServerId": "localhost", "PDNS_Token": SECRET}  # fmt: skip
    return environment.load({**common, **environ}, hooks)


@cache
def authority() -> Authority:
    return Authority()


def certificate(
    *names: str, lifetime: timedelta = 90 * DAY, left: timedelta | None = None
) -> certs.Certificate:
    """One of the tests' authority, by the real clock."""
    pair = authority().issue(*names, lifetime=lifetime, left=left)
    return certs.load(pair.chain.encode(), pair.key.encode())


def install(paths: Paths, name: str, held: certs.Certificate) -> None:
    put(paths.certs / name / certs.CHAIN, held.chain)
    put(paths.certs / name / certs.KEY, held.key)


def remember(paths: Paths, name: str, issue: Issue) -> None:
    put(paths.issues / f"{name}.json", load.dump_issue(issue))


def remembered(paths: Paths, name: str) -> Issue:
    return load.load(paths).issues.get(Domain(name), Issue())


@dataclass
class Pretender:
    """Stands in acme.sh's place, and notes what it was asked for.

    `work` may raise, or say how acme.sh ends; by default there is a new certificate of 90 days.
    """

    requests: list[acmesh.Request] = field(default_factory=list)
    renewals: list[bool] = field(default_factory=list)
    answers: list[tuple[int, list[str]]] = field(default_factory=list)
    before: Callable[[acmesh.Request], None] = lambda _request: None

    def __call__(
        self,
        request: acmesh.Request,
        *,
        renew: bool,
        on_line: Callable[[str], None] = lambda _line: None,
    ) -> tuple[int, list[str]]:
        self.requests.append(request)
        self.renewals.append(renew)
        self.before(request)
        status, lines = self.answers.pop(0) if self.answers else (0, ["Cert success."])
        for line in lines:
            on_line(line)
        if status == 0:
            made = certificate(*request.names)
            put(request.chain, made.chain)
            put(request.key, made.key)
        return status, lines
