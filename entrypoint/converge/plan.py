"""(Settings, State) → Plan: every folder and file that must be, with owner and rights. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import IntEnum
from pathlib import Path

from entrypoint.chasquid import aliases, config, passwords, userdb
from entrypoint.chasquid.aliases import CATCH_ALL, Mailbox
from entrypoint.common.identity import Owner
from entrypoint.common.names import Domain, Selector, organizational_domain
from entrypoint.common.paths import Paths
from entrypoint.converge import routing
from entrypoint.converge.routing import aliases_via, served_aliases, served_users
from entrypoint.keys import certs
from entrypoint.keys.dkim import Algorithm, file_name
from entrypoint.policy import decide, grants
from entrypoint.settings.model import Settings
from entrypoint.state import edited
from entrypoint.state.load import DomainState, State

# chasquid's folder of the host name's certificate, which clients without SNI get: it sorts first.
DEFAULT = "0-default"
# And of the self-signed one, which covers every domain: it sorts last, to stand before no other.
STAND_IN = "zzz-self-signed"

_RENEW_SELF_SIGNED = timedelta(days=30)  # before its end


class Effect(IntEnum):
    """What chasquid needs after a change; the larger one includes the smaller."""

    NONE = 0
    RELOAD = 1  # users and aliases
    RESTART = 2  # certificates, DKIM keys, domains, its configuration


@dataclass(frozen=True)
class Folder:
    """A folder that must be. What is in it and not planned stays, but for `Plan.exclusive`."""

    path: Path
    owner: Owner
    group: Owner
    mode: int
    effect: Effect = Effect.NONE


@dataclass(frozen=True)
class File:
    """A file that must be, with this content: perhaps a secret, so it is not in the repr."""

    path: Path
    content: bytes = field(repr=False)
    owner: Owner
    group: Owner
    mode: int
    effect: Effect = Effect.NONE


@dataclass(frozen=True)
class Link:
    """A symbolic link to something in the image: what is to be executed, since Docker mounts tmpfs
    without the right to execute."""

    path: Path
    target: Path
    owner: Owner
    group: Owner
    effect: Effect = Effect.NONE


@dataclass(frozen=True)
class Plan:
    """`exclusive` folders hold nothing but what is planned."""

    folders: tuple[Folder, ...]
    files: tuple[File, ...]
    exclusive: Path
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class MissingKey:
    """A DKIM key to make: `path` is where its PEM goes."""

    domain: Domain
    selector: Selector
    algorithm: Algorithm
    path: Path


@dataclass(frozen=True)
class MissingCertificate:
    """A self-signed certificate to make, for clients until there is another."""

    names: tuple[Domain, ...]
    folder: Path


def missing(
    settings: Settings, state: State, paths: Paths, today: date
) -> tuple[MissingKey | MissingCertificate, ...]:
    """Key material to make. A key that exists is never missing, not even a damaged one."""
    found: list[MissingKey | MissingCertificate] = []
    prefix = settings.dkim_selector or _prefix(state) or Selector(f"t{today:%Y%m%d}")
    for domain in settings.domains:
        have = state.domain(domain)
        for word in settings.dkim_keys:
            algorithm = Algorithm(word)
            if any(key.algorithm is algorithm for key in have.keys) or any(
                _may_be(selector, algorithm, prefix) for selector in have.damaged
            ):
                continue
            selector = _free(prefix, algorithm, _taken(state, domain))
            path = paths.domain(domain) / file_name(selector)
            found.append(MissingKey(domain, selector, algorithm, path))
    stand_in = state.self_signed
    if (
        not stand_in
        or stand_in.not_after.date() <= today + _RENEW_SELF_SIGNED
        or not all(stand_in.covers(name) for name in _served_names(settings))
    ):
        found.append(MissingCertificate(_served_names(settings), paths.certs / certs.SELF_SIGNED))
    return tuple(found)


def next_keys(
    settings: Settings, state: State, paths: Paths, domain: Domain, today: date
) -> tuple[MissingKey, ...]:
    """The keys to make for a rotation: one for each algorithm that signs, pending at first."""
    have = state.domain(domain)
    prefix = settings.dkim_selector or Selector(f"t{today:%Y%m%d}")
    found = []
    for word in settings.dkim_keys:
        algorithm = Algorithm(word)
        if any(key.algorithm is algorithm for key in have.pending):
            continue
        selector = _free(prefix, algorithm, _taken(state, domain))
        path = paths.pending(domain) / file_name(selector)
        found.append(MissingKey(domain, selector, algorithm, path))
    return tuple(found)


def _taken(state: State, domain: Domain) -> frozenset[str]:
    """The selectors that no new key may have: a key has one, or had it."""
    return state.domain(domain).selectors | state.selectors.get(domain, frozenset())


def _free(prefix: str, algorithm: Algorithm, taken: frozenset[str]) -> Selector:
    """A selector of this prefix that no key ever had, whatever that key was.

    The number after the highest one: those below may have been in DNS before anybody wrote down
    which there were.
    """
    form = re.compile(rf"{re.escape(prefix)}(\d{{0,6}}){algorithm.letter}")
    matches = [match for name in taken if (match := form.fullmatch(name))]
    number = max((int(match[1] or 1) for match in matches), default=0) + 1
    return Selector(f"{prefix}{number if number > 1 else ''}{algorithm.letter}")


def _may_be(selector: str, algorithm: Algorithm, prefix: str) -> bool:
    """Whether a damaged key may be of this algorithm; only its name is left, if it was made here,
    to tell."""
    return selector not in {f"{prefix}{item.letter}" for item in Algorithm if item is not algorithm}


def _prefix(state: State) -> Selector | None:
    """The prefix of the keys that exist, so that those made after a crash match."""
    for domain in sorted(state.domains):
        for key in state.domains[domain].keys:
            if key.selector.endswith(key.algorithm.letter) and len(key.selector) > 1:
                return Selector(key.selector[:-1])
    return None


def _served_names(settings: Settings) -> tuple[Domain, ...]:
    return tuple(dict.fromkeys((Domain(settings.mail_hostname), *settings.domains)))


@dataclass(frozen=True)
class Wanted:
    """A certificate to have issued: `name` is its folder, `names` what it covers, first the name.

    `zone` is the domain whose DNS provider answers for it.
    """

    name: Domain
    names: tuple[str, ...]
    zone: Domain


def wanted(settings: Settings) -> tuple[Wanted, ...]:
    """The certificates that acme.sh is to keep."""
    host = Domain(settings.mail_hostname)
    if settings.tls_mode == "http":
        return (Wanted(host, (host,), host),)
    if settings.tls_mode != "dns":
        return ()
    found = [Wanted(domain, (domain, f"*.{domain}"), domain) for domain in settings.domains]
    if host not in settings.domains and host.parent not in settings.domains:
        found.append(Wanted(host, (host,), settings.host_zone))
    return tuple(found)


def build(settings: Settings, state: State, paths: Paths) -> Plan:
    """Needs the key material to be there already: see `missing`."""
    return Plan(
        folders=(*_volume(settings, state, paths), *_rendered_folders(settings, state, paths)),
        files=(
            *_good_copies(settings, state, paths),
            _selectors(state, paths),
            *_configuration(settings, paths),
            _policy(settings, state, paths),
            _passwords(settings, state, paths),
            *_certificates(settings, state, paths),
            *(
                file
                for domain in _local_domains(settings)
                for file in _domain_files(settings, state, paths, domain)
            ),
        ),
        exclusive=paths.chasquid,
        # chasquid looks for it at each message.
        links=(Link(paths.post_data, paths.lib / "hooks/post-data", Owner.TAMBO, Owner.CHASQUID),),
    )


def _local_domains(settings: Settings) -> tuple[Domain, ...]:
    """The domains that chasquid knows. The host's own name is one: bounces come back to it."""
    return tuple(dict.fromkeys((*settings.domains, Domain(settings.mail_hostname))))


def _volume(settings: Settings, state: State, paths: Paths) -> Iterator[Folder]:
    tambo, chasquid = Owner.TAMBO, Owner.CHASQUID
    # chasquid passes through to its own two folders, and can list nothing on the way.
    yield Folder(paths.data, tambo, chasquid, 0o710)
    own = [
        paths.domains, paths.certs, paths.certs / certs.SELF_SIGNED, paths.acme, paths.reload,
        paths.state, paths.good, edited.copy_of(paths, paths.certs), paths.issues,
    ]  # fmt: skip
    for domain in settings.domains:
        own += [paths.domain(domain), edited.copy_of(paths, paths.domain(domain))]
    own += [edited.copy_of(paths, paths.certs / name) for name in state.certificates]
    for path in own:
        yield Folder(path, tambo, tambo, 0o700)
    for path in (paths.queue, paths.mail, paths.events, paths.policy):
        yield Folder(path, chasquid, chasquid, 0o700)


def _rendered_folders(settings: Settings, state: State, paths: Paths) -> Iterator[Folder]:
    root = paths.chasquid
    names = [root, root / "certs", root / "domains", paths.post_data.parent]
    names += [root / "certs" / name for name in served_certificates(settings, state)]
    names += [root / "domains" / domain for domain in _local_domains(settings)]
    yield Folder(paths.run, Owner.TAMBO, Owner.CHASQUID, 0o750)
    yield Folder(paths.auth, Owner.TAMBO, Owner.AUTH, 0o750)
    for path in names:
        yield Folder(path, Owner.TAMBO, Owner.CHASQUID, 0o750, Effect.RESTART)


def _rendered(path: Path, content: bytes, effect: Effect) -> File:
    return File(path, content, Owner.TAMBO, Owner.CHASQUID, 0o640, effect)


def _good_copies(settings: Settings, state: State, paths: Paths) -> Iterator[File]:
    """What serves now, for the day on which an edit breaks it."""

    def keep(path: Path, content: bytes) -> File:
        return File(edited.copy_of(paths, path), content, Owner.TAMBO, Owner.TAMBO, 0o600)

    for name, certificate in state.certificates.items():
        yield keep(paths.certs / name / certs.CHAIN, certificate.chain)
        yield keep(paths.certs / name / certs.KEY, certificate.key)
    for domain in settings.domains:
        have, folder = state.domain(domain), paths.domain(domain)
        if have.users or "users" in have.present:
            # An empty file of users would count as damage.
            text = userdb.render(have.users) or "# none\n"
            yield keep(folder / "users", text.encode())
        if have.senders or "senders" in have.present:
            # Else a later break would bring back what was taken away.
            yield keep(folder / "senders", grants.render(have.senders).encode())
        if have.aliases or "aliases" in have.present:
            yield keep(folder / "aliases", aliases.render(have.aliases).encode())
        for key in have.keys:
            yield keep(folder / key.file_name, key.pem)


def _selectors(state: State, paths: Paths) -> File:
    taken = {domain: sorted(_taken(state, domain)) for domain in sorted(state.selectors)}
    known = {domain: names for domain, names in taken.items() if names}
    content = json.dumps(known, indent=1).encode()
    return File(paths.selectors, content, Owner.TAMBO, Owner.TAMBO, 0o600)


def _configuration(settings: Settings, paths: Paths) -> Iterator[File]:
    text = config.render(
        "chasquid.conf.j2",
        hostname=settings.mail_hostname,
        data_dir=paths.queue,
        max_message_mb=settings.max_message_mb,
        max_queue=settings.max_queue,
        give_up_after=f"{settings.give_up_after}s",
        delivery_agent=paths.lib / "mda",
        auth_socket=paths.auth_socket,
        auth_users=paths.auth_users,
    )
    yield _rendered(paths.chasquid / "chasquid.conf", text.encode(), Effect.RESTART)


def _policy(settings: Settings, state: State, paths: Paths) -> File:
    text = decide.dump(rules(settings, state))
    return _rendered(paths.policy_rules, text.encode(), Effect.NONE)


def _passwords(settings: Settings, state: State, paths: Paths) -> File:
    text = passwords.dump(chosen_passwords(settings, state))
    return File(paths.passwords, text.encode(), Owner.TAMBO, Owner.AUTH, 0o640)


def chosen_passwords(settings: Settings, state: State) -> dict[str, passwords.Chosen]:
    """Those that the auth service checks, by login as chasquid says it: with U-labels."""
    return {
        f"{name}@{domain.unicode}": secret
        for domain in settings.domains
        for name, secret in state.domain(domain).users.items()
        if not isinstance(secret, userdb.Denied) and passwords.is_chosen(secret)
    }


def rules(settings: Settings, state: State) -> decide.Rules:
    """Who may send as whom: a login as itself, as what it was granted, and as every alias whose
    mail reaches it. Not what FORWARD_TO adds: that leads to a mailbox elsewhere."""
    owners = {
        f"{name}@{domain}": (domain, name, secret)
        for domain in settings.domains
        for name, secret in {
            **state.temporary.get(domain, {}),
            **state.domain(domain).users,
        }.items()
        if not isinstance(secret, userdb.Denied)
    }
    addresses = {login: {login, decide.base(login)} for login in owners}
    for domain in settings.domains:
        for name in state.domain(domain).aliases:
            reached = _reached(settings, state, f"{name}@{domain}")
            for login in addresses:
                if name != CATCH_ALL and {login, decide.base(login)} & reached:
                    addresses[login].add(f"{name}@{domain}")
    logins = {}
    for login, (domain, name, secret) in owners.items():
        allowed = state.domain(domain).senders
        own = allowed.get(name, grants.Sender())
        shared = allowed.get(decide.base(login).rpartition("@")[0], grants.Sender())
        granted = (*own.grants, *shared.grants)
        logins[login] = decide.LoginRules(
            addresses=frozenset(
                {*addresses[login], *(str(item) for item in granted if item.local is not None)}
            ),
            domains=frozenset(item.domain for item in granted if item.local is None),
            limit=own.limit,
            fingerprint=passwords.fingerprint(login, secret),
            chosen=passwords.is_chosen(secret),
        )
    return decide.Rules(
        host=settings.mail_hostname,
        domains=frozenset(settings.domains),
        logins=logins,
        limit=settings.send_limit,
        named=frozenset(
            f"{name}@{domain}"
            for domain in settings.domains
            for name in state.domain(domain).aliases
            if decide.SUFFIX in name
        ),
        organizations=frozenset(
            organizational_domain(Domain(name)) for name in _local_domains(settings)
        ),
        routes=routing.routes(settings, state),
        forward_unproven=settings.forward_unproven == "forward",
        max_queue=settings.max_queue,
        mailbox_mb=settings.mailbox_mb or 0,
    )


def _reached(settings: Settings, state: State, address: str) -> set[str]:
    """The addresses that mail to one passes through or ends at, as chasquid resolves them."""
    seen: set[str] = set()
    next_ones = {address}
    while next_ones:
        seen |= next_ones
        found: set[str] = set()
        for item in next_ones:
            local, _, name = item.rpartition("@")
            domain = Domain(name)
            have = state.domain(domain).aliases if domain in settings.domains else {}
            targets = have.get(local)
            if targets is None:
                local = local.partition(decide.SUFFIX)[0]
                seen.add(f"{local}@{domain}")
                targets = have.get(local, ())
            for target in targets:
                if isinstance(target, Mailbox):
                    onward = local if target.local == CATCH_ALL else target.local
                    found.add(f"{onward}@{target.domain}")
        next_ones = found - seen
    return seen - {address}


def _certificates(settings: Settings, state: State, paths: Paths) -> Iterator[File]:
    for name, certificate in served_certificates(settings, state).items():
        folder = paths.chasquid / "certs" / name
        yield _rendered(folder / certs.CHAIN, certificate.chain, Effect.RESTART)
        yield _rendered(folder / certs.KEY, certificate.key, Effect.RESTART)


def served_certificates(settings: Settings, state: State) -> dict[str, certs.Certificate]:
    """What chasquid serves, by the name of its folder.

    By SNI it serves the first folder that covers the name, without SNI the first of all. The
    self-signed one stands in until the host name has a better one.
    """
    real = state.certificates if settings.tls_mode != "self-signed" else {}
    host = settings.mail_hostname
    covering = [name for name in real if real[name].covers(host)]
    best = max(covering, key=lambda name: real[name].not_after, default=None)
    served: dict[str, certs.Certificate] = {}
    if best:
        served[DEFAULT] = real[best]
    served.update({name: real[name] for name in real if name != best})
    if not best and state.self_signed:
        served[STAND_IN] = state.self_signed
    return served


def _domain_files(settings: Settings, state: State, paths: Paths, domain: Domain) -> Iterator[File]:
    # A folder of the host's own name does not serve, unless that is one of MAIL_DOMAINS.
    have = state.domain(domain) if domain in settings.domains else DomainState()
    folder = paths.chasquid / "domains" / domain
    receives = domain in settings.receiving or domain == settings.mail_hostname
    if receives:
        users = served_users(have)
        rules = served_aliases(settings, have)
    else:
        users = have.users
        rules = aliases_via(domain, have, state.exchangers.get(domain))
    users = {**state.temporary.get(domain, {}), **users}
    if users:
        text = userdb.render(for_chasquid(users))
        yield _rendered(folder / "users", text.encode(), Effect.RELOAD)
    text = aliases.render(rules)
    yield _rendered(folder / "aliases", text.encode(), Effect.RELOAD)
    enabled = {Algorithm(word) for word in settings.dkim_keys}
    if domain in settings.domains:
        for key in have.keys:
            if key.algorithm in enabled:
                yield _rendered(folder / key.file_name, key.pem, Effect.RESTART)


def for_chasquid(users: userdb.Users) -> userdb.Users:
    """As chasquid gets them: it says no to a chosen password, and asks the auth service."""
    return {
        name: userdb.Denied() if passwords.is_chosen(secret) else secret
        for name, secret in users.items()
    }
