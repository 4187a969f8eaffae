"""Mail clients and libraries, set up by the very words of docs/clients.md."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path

import pytest
from docker import DockerClient

from tests.image.conftest import TAMBO, Servers
from tests.support import desk, parallel, smtp
from tests.support.ca import Authority
from tests.support.desk import Desk
from tests.support.recipes import DOCUMENT, Recipe, configurations, recipes, words
from tests.support.server import DOMAIN, HOST, ROOT, Server
from tests.support.smtp import SUBMISSION, SUBMISSIONS, Endpoint
from tests.world.world import NONE, Delivery, World

pytestmark = pytest.mark.long

USER = f"i@{DOMAIN}"
RECIPIENTS = ("you@example.net", "them@example.net")
OTHER = f"other.{DOMAIN}"  # the same server by a name that its certificate does not have
STRIPPED = f"stripped.{DOMAIN}"  # port 587 as a thief on the way would show it
MEGABYTE = 1 << 20
LIMIT = 8  # MAX_MESSAGE_MB; base64 makes 5 MB 6.8
RECIPES = {recipe.name: recipe for recipe in recipes()}
WORDS = words()
# Those that the document warns of, for port 587.
CARELESS = {"PHP: Symfony Mailer"}
SUBJECTS = {"git send-email": "[PATCH] Report for März ✓", "swaks": "Report"}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority(strict=True)


@pytest.fixture(scope="module")
def server(
    module_servers: Servers, world: World, base: Path, authority: Authority
) -> Iterator[Server]:
    folder = base / "clients-certificate"
    folder.mkdir()
    pair = authority.issue(HOST)
    (folder / "fullchain.pem").write_text(pair.chain)
    (folder / "privkey.pem").write_text(pair.key)
    settings = {"TLS": "files", "TLS_FILES": "/certificates", "MAX_MESSAGE_MB": str(LIMIT)}
    server = module_servers.make(settings, host=TAMBO, mounts=[f"{folder}:/certificates:ro"])
    server.up()
    # At this first start the keeper may look before chasquid listens.
    zone = server.ok("dns", "--format", "zone")
    world.load_zone(DOMAIN, f"{zone}\n{OTHER}. 60 IN A {server.ipv4}\n")
    yield server
    world.load_zone(DOMAIN, "")


@pytest.fixture(scope="module")
def secret(server: Server) -> str:
    return server.add_user(USER)


@pytest.fixture(scope="module")
def clients_image(base_image: str) -> None:
    with parallel.lock("clients-image"):
        desk.build(base_image)


@pytest.fixture(scope="module")
def trusting(
    client: DockerClient,
    world: World,
    resolv_conf: Path,
    clients_image: None,  # noqa: ARG001 (it is built before it starts)
    authority: Authority,
) -> Iterator[Desk]:
    """A computer that trusts the server's authority as any other."""
    found = Desk(client, world, resolv_conf, "trusting", authority.pem)
    yield found
    found.remove()


@pytest.fixture(scope="module")
def strange(
    client: DockerClient,
    world: World,
    resolv_conf: Path,
    clients_image: None,  # noqa: ARG001
) -> Iterator[Desk]:
    """A computer that has never heard of the authority."""
    found = Desk(client, world, resolv_conf, "strange")
    yield found
    found.remove()


@pytest.fixture(scope="module")
def thief(strange: Desk, server: Server, world: World) -> Desk:
    assert server.greets(), "the zone is there"
    strange.as_root("sh", "-c", "stripped.py >>/tmp/heard 2>&1 &")
    record = (DOMAIN, STRIPPED.partition(".")[0], "A", "60", strange.ipv4)
    world.exec("authoritative", "pdnsutil", "add-record", *record)
    return strange


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return RECIPES[request.param]


def through(recipe: Recipe, port: int) -> Recipe:
    return recipe if port == SUBMISSIONS else recipe.for_port_587()


def carried(delivery: Delivery) -> str:
    """The SHA-256 of the attachment, or of what a patch adds."""
    mail = message_from_bytes(delivery.raw, EmailMessage, policy=default)
    attachments = [part.get_content() for part in mail.iter_attachments()]
    if attachments:
        [content] = attachments
        return hashlib.sha256(content).hexdigest()
    added = [
        f"{line[1:]}\n"
        for line in mail.get_content().splitlines()
        if line.startswith("+") and not line.startswith("+++")
    ]
    return hashlib.sha256("".join(added).encode()).hexdigest()


def assert_no_login(server: Server, log: str) -> None:
    """Nobody has told the server a secret since its log was `log`."""
    assert " auth " not in server.container.log().removeprefix(log)


@pytest.mark.parametrize(("port", "size"), [(SUBMISSIONS, 5 * MEGABYTE), (SUBMISSION, 1000)])
@pytest.mark.usefixtures("server")
def test_it_sends_and_every_verdict_is_a_pass(
    trusting: Desk, secret: str, world: World, recipe: Recipe, port: int, size: int
) -> None:
    sent = trusting.send(through(recipe, port), secret, size)
    assert sent.status == 0, sent.said
    subject = SUBJECTS.get(recipe.name, "Report for März ✓")
    deliveries = world.wait_for(subject=subject, count=len(RECIPIENTS), timeout=30)
    world.discard(deliveries)
    assert sorted(delivery.to for delivery in deliveries) == sorted(RECIPIENTS)
    for delivery in deliveries:
        assert delivery.envelope_from == USER
        assert (delivery.spf, delivery.dmarc) == ("pass", "pass")
        assert list(delivery.dkim.values()) == ["pass"]
        # Large receivers refuse mail without.
        assert delivery.message_id != NONE
        assert b"\nDate: " in delivery.raw
        assert carried(delivery) == sent.digest


@pytest.mark.parametrize("port", [SUBMISSIONS, SUBMISSION])
def test_it_refuses_a_certificate_of_a_stranger(
    strange: Desk, server: Server, secret: str, recipe: Recipe, port: int
) -> None:
    log = server.container.log()
    sent = strange.send(through(recipe, port), secret)
    assert sent.status != 0
    assert sent.says_any_of(WORDS[recipe.name].certificate), sent.said
    assert_no_login(server, log)


@pytest.mark.parametrize("port", [SUBMISSIONS, SUBMISSION])
def test_it_refuses_a_certificate_of_another_name(
    trusting: Desk, server: Server, secret: str, recipe: Recipe, port: int
) -> None:
    log = server.container.log()
    sent = trusting.send(through(recipe, port).for_host(OTHER), secret)
    assert sent.status != 0
    assert sent.says_any_of(WORDS[recipe.name].certificate), sent.said
    assert_no_login(server, log)


def test_it_tells_no_secret_where_starttls_is_hidden(
    trusting: Desk, thief: Desk, recipe: Recipe
) -> None:
    thief.as_root("truncate", "--size=0", "/tmp/heard")  # noqa: S108 (in its container)
    sent = trusting.send(recipe.for_port_587().for_host(STRIPPED), "a-secret-of-the-owner")
    heard = thief.as_root("cat", "/tmp/heard").upper()  # noqa: S108
    assert sent.status != 0, sent.said
    assert "EHLO" in heard
    assert ("AUTH" in heard) is (recipe.name in CARELESS)


@pytest.mark.usefixtures("server", "secret")
def test_it_says_that_the_secret_is_wrong(trusting: Desk, recipe: Recipe) -> None:
    sent = trusting.send(recipe, "a-secret-of-another-user")
    assert sent.status != 0
    assert sent.says_any_of(WORDS[recipe.name].secret), sent.said


@pytest.mark.usefixtures("server")
def test_it_says_that_the_message_is_too_large(trusting: Desk, secret: str, recipe: Recipe) -> None:
    sent = trusting.send(recipe, secret, LIMIT * MEGABYTE)
    assert sent.status != 0
    assert sent.says_any_of(WORDS[recipe.name].size), sent.said


def test_auth_login_is_refused_in_the_words_of_the_document(
    server: Server, authority: Authority
) -> None:
    endpoint = Endpoint(server.ipv4, HOST, authority.pem)
    with smtp.mail_program(endpoint) as session:
        session.ehlo()
        code, text = session.docmd("AUTH", "LOGIN")
    assert f"`{code} {text.decode()}`" in DOCUMENT.read_text(encoding="utf-8")


def test_the_first_test_mail_of_the_readme(trusting: Desk, secret: str, world: World) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n((?:(?!```).*\n)*)```$", text, re.MULTILINE)
    sending = [block for block in blocks if HOST in block and RECIPIENTS[0] in block]
    assert sending
    for block in sending:
        before = world.deliveries(to=RECIPIENTS[0])
        said, status = trusting.container.type_in("bash", "-c", block, answers=[secret])
        assert status == 0, said
        assert smtp.encoded(USER, secret) not in said
        delivery = world.wait_for(to=RECIPIENTS[0], count=len(before) + 1, timeout=30)[-1]
        world.discard([delivery])
        assert (delivery.envelope_from, delivery.spf, delivery.dmarc) == (USER, "pass", "pass")


@pytest.fixture(scope="module")
def etc(trusting: Desk, secret: str, world: World) -> None:
    """The files of the document that are for a whole computer."""
    network = f"{world.net.net4}.0/24"
    for recipe in configurations():
        for path, text in recipe.files.items():
            for old, new in (
                ("SECRET", secret), ("192.0.2.0/24", network), ("192.0.2.10", trusting.ipv4)
            ):  # fmt: skip
                text = text.replace(old, new)
            trusting.as_root("tee", path, input=text)


@pytest.mark.usefixtures("etc")
def test_a_device_sends_through_a_relay(trusting: Desk, world: World) -> None:
    trusting.as_root("postfix", "start")
    subject = smtp.deliver(trusting.ipv4, RECIPIENTS[0], USER)
    [delivery] = world.wait_for(subject=subject, timeout=30)
    assert (delivery.envelope_from, delivery.spf, delivery.dmarc) == (USER, "pass", "pass")


@pytest.mark.usefixtures("etc")
def test_mail_of_cron_goes_to_the_owner(trusting: Desk, world: World) -> None:
    subject = "Cron <root@computer> backup"
    trusting.as_root(
        "msmtp", "-FCronDaemon", "-i", "-oem", "-t",
        input=f"From: root (Cron Daemon)\nTo: root\nSubject: {subject}\n\nIt works.\n",
    )  # fmt: skip
    [delivery] = world.wait_for(subject=subject, timeout=30)
    world.discard([delivery])
    assert (delivery.to, delivery.envelope_from) == (RECIPIENTS[0], USER)
    assert (delivery.spf, delivery.dmarc) == ("pass", "pass")
    assert delivery.message_id != NONE
