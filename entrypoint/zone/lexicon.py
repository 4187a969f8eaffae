"""One zone at its DNS provider, through dns-lexicon. dns-lexicon is imported when one is opened.

dns-lexicon's own client is not used: it looks for the zone by a list that it may fetch online.
Its drivers are mended here where they are wrong, and bounded in time. What they report of success
is worth nothing: the authoritative name servers are asked afterwards.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import hmac
import importlib
import ipaddress
import logging
import os
import queue
import re
import socket
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

from entrypoint.dns.records import Record, RecordType
from entrypoint.zone.providers import KEY_FILE, PORT, Account, Driver

_T = TypeVar("_T")
_REQUEST = 30.0  # seconds for an answer of the provider's
_OPERATION = 120.0  # seconds for one operation, which may be several requests
_DRIVERS = "lexicon._private.providers"
_KEY_LIMIT = 65536  # bytes of a TSIG key's file
_LONGEST = 300  # characters of an error's text


class ProviderError(Exception):
    """The provider did not do it. The text has no credential in it."""


class TooLateError(ProviderError):
    """No answer in time: the next question would have none either."""


@dataclass(frozen=True)
class Held:
    """A value that the provider holds, as it lists it; `value` is as a Record has it."""

    content: str
    value: str
    ttl: int | None
    identifier: str | None


@dataclass
class Session:
    """Adds and removes single records. Not for use by several threads."""

    account: Account
    zone: str
    _provider: Any
    _options: dict[str, Any]
    _fields: dict[str, Any]
    _said: list[str] = field(default_factory=list)

    @property
    def driver(self) -> Driver:
        return self.account.driver

    def held(self, record: Record) -> list[Held]:
        """What the provider has at the record's name and type."""
        name = self.driver.name_of(record.name, self.zone)
        listed = self._do(lambda: self._provider.list_records(record.type.value, name, None))
        return [
            Held(
                str(item["content"]),
                plain(record.type, str(item["content"])),
                int(item["ttl"]) if str(item.get("ttl") or "").isdigit() else None,
                str(item["id"]) if item.get("id") else None,
            )
            for item in listed
            if item["type"] == record.type.value and _full(item["name"], self.zone) == record.name
        ]

    def add(self, record: Record, ttl: int) -> None:
        """Add a value; those that are there stay. `ttl` is of them all."""
        record = replace(record, ttl=ttl)
        name = self.driver.name_of(record.name, self.zone)
        self._options["ttl"] = ttl
        self._fields.update(self.driver.fields(record))
        try:
            content = self.driver.content(record)
            done = self._do(lambda: self._provider.create_record(record.type.value, name, content))
        finally:
            self._fields.clear()
        # Drivers that nobody has read may mean anything by it.
        if done is False and self.driver.beside:
            raise ProviderError(_tidy(": ".join(self._said[-1:]), self.account) or "it refuses")

    def remove(self, record: Record, held: Held) -> None:
        """Take one value away, and nothing else."""
        name = self.driver.name_of(record.name, self.zone)
        identifier = held.identifier if self.driver.by_id else None
        self._do(
            lambda: self._provider.delete_record(identifier, record.type.value, name, held.content)
        )

    def _do(self, call: Callable[[], _T]) -> _T:
        return _within(_OPERATION, call, self.account)


def plain(kind: RecordType, content: str) -> str:
    """A value as a provider lists it, in the form of Record.value: a TXT without its quotes."""
    content = content.strip()
    if kind is RecordType.AAAA:
        with suppress(ValueError):
            return str(ipaddress.IPv6Address(content))
    if kind is not RecordType.TXT:
        return content.lower()
    if len(content) >= 2 and content[0] == content[-1] == '"':
        strings = re.findall(r'"((?:[^"\\]|\\.)*)"', content)
        return re.sub(r"\\(.)", r"\1", "".join(strings))
    return content.replace('" "', "")


def is_same(record: Record, value: str) -> bool:
    """Whether a value that a provider lists is the record's; some leave preferences out."""
    if record.type in (RecordType.MX, RecordType.SRV):
        host = record.rdata.split()[-1].removesuffix(".")
        return value.split()[-1:] in ([host], [f"{host}."])
    return value == record.value


def _full(name: str, zone: str) -> str:
    """A listed name as a full one: some drivers say `@.example.com`, some leave the zone out."""
    name = name.lower().rstrip(".").removeprefix("@.")
    if name in ("", "@"):
        return zone
    return name if name == zone or name.endswith(f".{zone}") else f"{name}.{zone}"


@contextmanager
def opened(account: Account, zone: str, roots: Path | None = None) -> Iterator[Session]:
    """A session with the provider, which has let us in and has the zone.

    `roots` is a file of the certificate authorities to trust. Raises ProviderError.
    """
    if roots and roots.exists():
        os.environ["REQUESTS_CA_BUNDLE"] = str(roots)
    fields: dict[str, Any] = {}
    said: list[str] = []
    handler = _Remember(said)
    logger = logging.getLogger("lexicon")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        options = _options(account, zone)
        provider = _within(_OPERATION, lambda: _connect(account, options, fields), account)
        try:
            yield Session(account, zone, provider, options, fields, said)
        finally:
            with suppress(Exception):
                provider.cleanup()
    finally:
        logger.removeHandler(handler)


class _Remember(logging.Handler):
    """Keeps what a driver logs as an error, instead of printing it."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.ERROR)
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


# --- dns-lexicon ----------------------------------------------------------------------------------


def _options(account: Account, zone: str) -> dict[str, Any]:
    """dns-lexicon's configuration. Raises ProviderError if it has no such provider or option."""
    name = account.driver.name
    own = dict(account.options)
    if name == "ddns":
        own = _rfc2136(own, zone)
    unknown = own.keys() - declared(name) - {"domain", PORT}
    for option in sorted(unknown):
        if f"auth_{option}" in declared(name):  # dns-lexicon takes it without `auth_` too
            own[f"auth_{option}"] = own.pop(option)
            continue
        near = difflib.get_close_matches(option, declared(name), n=1)
        hint = f"; did you mean {near[0].upper()}?" if near else ""
        msg = f"{account.source}: {name} has no option {option.upper()[:60]}{hint}"
        raise ProviderError(msg)
    return {"provider_name": name, "domain": zone, name: own}


def declared(name: str) -> frozenset[str]:
    """The options of one of dns-lexicon's providers. Raises ProviderError if there is none."""
    parser = ArgumentParser(add_help=False)
    _load(name).Provider.configure_parser(parser)
    return frozenset(action.dest for action in parser._actions)


def _load(name: str) -> Any:
    _prepare()
    try:
        if not re.fullmatch(r"[a-z0-9]+", name):
            raise ModuleNotFoundError
        return importlib.import_module(f"{_DRIVERS}.{name}")
    except ImportError:
        package = importlib.import_module(_DRIVERS)
        known = sorted(path.stem for path in Path(package.__path__[0]).glob("[a-z]*.py"))
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near and near[0] != name else ""
        msg = f"dns-lexicon has no provider that can be used here called {name[:60]}{hint}"
        raise ProviderError(msg) from None


_lock = threading.Lock()


def _prepare() -> None:
    """What must hold in this process before a driver runs: it ends in time, and asks no third
    party for a list of public suffixes."""
    import requests.adapters
    import tldextract.tldextract

    adapter = requests.adapters.HTTPAdapter
    with _lock:
        if getattr(adapter.send, "bounded", False):
            return
        original = adapter.send

        def send(self: Any, request: Any, *args: Any, **keywords: Any) -> Any:
            if keywords.get("timeout") is None:
                keywords["timeout"] = _REQUEST
            return original(self, request, *args, **keywords)

        send.bounded = True  # type: ignore[attr-defined]
        adapter.send = send  # type: ignore[method-assign]
        tldextract.tldextract.TLD_EXTRACTOR = tldextract.tldextract.TLDExtract(
            cache_dir=None, suffix_list_urls=()
        )


def _connect(account: Account, options: dict[str, Any], fields: Mapping[str, Any]) -> Any:
    name = account.driver.name
    config: Any = importlib.import_module("lexicon.config").ConfigResolver()
    provider = _load(name).Provider(config.with_dict(options))
    if mend := _MENDED.get(name):
        mend(provider, options[name])
    _add_fields(provider, fields)
    provider.authenticate()
    return provider


_CREATES = re.compile(r"records$|/dns/create/|/Record\.Create$|/records/[A-Z]+/[^/]+$")


def _add_fields(provider: Any, fields: Mapping[str, Any]) -> None:
    """Have what is in `fields` sent with each record that is created."""
    request = provider._request

    def with_fields(
        action: str = "GET", url: str = "/", data: Any = None, query_params: Any = None
    ) -> Any:
        if fields and action in ("POST", "PUT") and _CREATES.search(url):
            # A list is a whole set of records, the new one last.
            data = [*data[:-1], data[-1] | fields] if isinstance(data, list) else data | fields
        return request(action, url, data, query_params)

    provider._request = with_fields
    if hasattr(provider, "_request_aliyun"):
        call = provider._request_aliyun

        def call_with_fields(action: str, query_params: Any = None) -> Any:
            if fields and action == "AddDomainRecord":
                query_params = query_params | fields
            return call(action, query_params)

        provider._request_aliyun = call_with_fields


def _mend_aliyun(provider: Any, options: Mapping[str, str]) -> None:
    """Its signature is wrong as soon as a value holds a space, and its time has two zones."""
    parameters = provider._build_signature_parameters

    def with_time() -> dict[str, str]:
        return {**parameters(), "Timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}

    def sign(method: str, query: Mapping[str, Any]) -> str:
        return aliyun_signature(method, query, options.get("auth_secret", ""))

    provider._build_signature_parameters = with_time
    provider._calculate_signature = sign


def aliyun_signature(method: str, query: Mapping[str, Any], secret: str) -> str:
    """Alibaba Cloud's RPC signature, version 1.0: HMAC-SHA1 over RFC 3986 encoding."""
    pairs = (f"{_encoded(name)}={_encoded(str(query[name]))}" for name in sorted(query))
    text = f"{method}&{_encoded('/')}&{_encoded('&'.join(pairs))}"
    # It is what their interface asks for.
    digest = hmac.new(f"{secret}&".encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def _encoded(text: str) -> str:
    return quote(text, safe="~")


def _mend_desec(provider: Any, _options: Mapping[str, str]) -> None:
    """Of the zone itself it leaves the name out of the path."""
    request = provider._request

    def with_apex(
        action: str = "GET", url: str = "/", data: Any = None, query_params: Any = None
    ) -> Any:
        return request(action, f"@{url}" if url.startswith("/") else url, data, query_params)

    provider._request = with_apex


def _mend_gandi(provider: Any, _options: Mapping[str, str]) -> None:
    """It takes the outer quotes off each text before it writes all of a name anew: others' long
    texts would come out changed."""
    provider._clean_TXT_record = lambda record: record


def _mend_ddns(provider: Any, options: Mapping[str, Any]) -> None:
    """It takes REFUSED for success, knows no port, cannot list, and never asks whether the server
    has the zone and knows the key."""
    import dns.exception
    import dns.message
    import dns.query
    import dns.rcode
    import dns.rdatatype

    port = int(options.get(PORT, 53))

    def run(message: Any) -> Any:
        try:
            answer = dns.query.tcp(message, provider.endpoint, timeout=10, port=port)
        except (dns.exception.Timeout, OSError) as error:
            msg = f"the name server {provider.endpoint} cannot be reached on port {port}"
            raise TooLateError(msg) from error
        except dns.exception.DNSException as error:
            msg = f"the name server does not take the key: {error}"
            raise ProviderError(msg) from error
        code = answer.rcode()
        if code not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            msg = f"the name server answers {dns.rcode.to_text(code)}"
            raise ProviderError(msg)
        return answer

    def signed(name: str, kind: str) -> Any:
        query = dns.message.make_query(name, kind)
        query.use_tsig(provider.keyring)
        return run(query)

    def list_records(rtype: str, name: str, _content: str | None = None) -> list[dict[str, Any]]:
        return [
            {"type": rtype, "name": name, "content": item.to_text(), "ttl": rrset.ttl}
            for rrset in signed(f"{name}.", rtype).answer
            if rrset.rdtype == dns.rdatatype.from_text(rtype)
            and rrset.name == dns.name.from_text(name)
            for item in rrset
        ]

    def authenticate() -> None:
        if not signed(f"{options['domain']}.", "SOA").answer:
            msg = f"the name server does not have the zone {options['domain']}"
            raise ProviderError(msg)

    provider._run_query = run
    provider.list_records = list_records
    provider.authenticate = authenticate


_MENDED: Mapping[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "aliyun": _mend_aliyun,
    "ddns": _mend_ddns,
    "desec": _mend_desec,
    "gandi": _mend_gandi,
}


def _rfc2136(options: dict[str, str], zone: str) -> dict[str, str]:
    """nsupdate's settings as dns-lexicon's: a key's file as algorithm:name:secret, a server as an
    address. Raises ProviderError."""
    path = options.pop(KEY_FILE, "")
    if path:
        options["auth_token"] = ":".join(_tsig_key(path))
    if options.get("auth_token", "").count(":") != 2:
        msg = "AUTH_TOKEN must be algorithm:name:secret"
        raise ProviderError(msg)
    if not re.fullmatch(r"[0-9]{1,5}", options.setdefault(PORT, "53")):
        msg = "NSUPDATE_SERVER_PORT is not a port"
        raise ProviderError(msg)
    server, port = options.get("ddns_server", ""), int(options[PORT])
    try:
        # Of several addresses the one that answers.
        with socket.create_connection((server, port), timeout=10) as connection:
            address = str(connection.getpeername()[0])
    except (OSError, UnicodeError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        msg = f"the name server {server[:80]!r} cannot be reached on port {port}: {reason}"
        raise TooLateError(msg) from None
    return {**options, "ddns_server": address, "domain": zone}


def _tsig_key(path: str) -> tuple[str, str, str]:
    """(algorithm, name, secret) of a key's file as tsig-keygen writes it."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(_KEY_LIMIT).decode(errors="replace")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        msg = f"NSUPDATE_KEY: {path[:80]!r} cannot be read: {reason}"
        raise ProviderError(msg) from None
    found = re.search(r'\bkey\s+"?([A-Za-z0-9._-]+)"?\s*\{([^}]*)\}', text)
    secret = re.search(r'\bsecret\s+"?([A-Za-z0-9+/=]+)"?\s*;', found[2]) if found else None
    if not found or not secret:
        msg = f"NSUPDATE_KEY: {path[:80]!r} is not a key's file as tsig-keygen writes it"
        raise ProviderError(msg)
    algorithm = re.search(r'\balgorithm\s+"?([A-Za-z0-9.-]+)"?\s*;', found[2])
    name = algorithm[1].lower() if algorithm else "hmac-md5"
    return "hmac-md5.sig-alg.reg.int" if name == "hmac-md5" else name, found[1], secret[1]


# --- what may go wrong ----------------------------------------------------------------------------


def _within(seconds: float, call: Callable[[], _T], account: Account) -> _T:
    """What `call` returns, if it does in time. Raises ProviderError for whatever happens.

    A call that hangs is left to itself: it ends with the process.
    """
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((call(), None))
        except BaseException as error:  # noqa: BLE001 (a thread has nobody else to tell)
            answers.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        result, error = answers.get(timeout=seconds)
    except queue.Empty:
        msg = f"no answer within {seconds:.0f} s"
        raise TooLateError(msg) from None
    if error is None:
        return result  # type: ignore[no-any-return]
    if isinstance(error, ProviderError):
        raise error
    kind = TooLateError if _is_unreachable(error) else ProviderError
    raise kind(_words(error, account)) from None


def _is_unreachable(error: BaseException) -> bool:
    import requests

    return isinstance(error, requests.ConnectionError | requests.Timeout)


def _words(error: BaseException, account: Account) -> str:
    """What went wrong, for a person."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        said = re.sub(r"<[^>]*>|[{}\[\]]", " ", error.response.text)
        code = error.response.status_code
        text = f"it answers {code} {error.response.reason}: {said}"
        if code in (401, 403):
            text = f"the credentials are not accepted ({account.source}): {text}"
    elif isinstance(error, requests.Timeout):
        text = f"no answer within {_REQUEST:.0f} s"
    elif isinstance(error, requests.ConnectionError):
        place = error.request.url if error.request is not None else ""
        cause = re.search(
            r"\[(?:Errno|SSL)[^'\")]*|[A-Z][a-z]+ed out|certificate[^'\")]*", str(error)
        )
        text = f"{place} cannot be reached: {cause[0] if cause else type(error).__name__}"
    elif isinstance(error, KeyError | TypeError | AttributeError | IndexError):
        text = f"its answer is not what dns-lexicon expects ({type(error).__name__}: {error})"
    else:
        text = str(error) or f"the credentials are not accepted ({account.source})"
    return _tidy(text, account)


def _tidy(text: str, account: Account) -> str:
    """Printable, short, on one line, without credentials and what follows the host in a URL."""
    for secret in account.secrets:
        for form in (secret, quote(secret), quote_plus(secret)):
            text = text.replace(form, "[secret]")
    text = re.sub(r"(https?://)[^\s/'\"@]*@?([^\s/'\"?]*)[^\s'\"]*", r"\1\2", text)
    text = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    text = re.sub(r"\[ ?secret ?\]", "[secret]", text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
