"""The signed manifest: any change of the tree is noticed."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.backup import manifest
from entrypoint.backup.manifest import NAME, SIGNATURE, Manifest, UnverifiedError
from entrypoint.common import signing
from entrypoint.common.names import Domain

SIGN = signing.new_key()
VERIFY = signing.verification_key(SIGN)
HOST = Domain.parse("smtp.example.com")
_PATHS = st.text("abc./-_:~", min_size=1, max_size=12)
_LINES = st.builds(
    lambda content, executable: manifest.line(content, executable=executable),
    st.binary(max_size=8),
    st.booleans(),
)
TREES = st.dictionaries(_PATHS, _LINES, max_size=6)
FILES = {
    "backup.json": manifest.line(b"{}", executable=False),
    "data/reload/tell": manifest.line(b"#!/bin/sh", executable=True),
    "data/domains/example.com/users.age": manifest.line(b"sealed", executable=False),
}


def made(files: dict[str, str], number: int = 7) -> Manifest:
    when = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp())
    domains = (Domain.parse("example.com"), Domain.parse("example.org"))
    return Manifest(HOST, "1a2b3c4d", number, when, domains, ("age1abc",), files)


def verify(files: dict[str, str], signed: dict[str, bytes], *keys: str) -> Manifest:
    return manifest.verify(files, signed.get(NAME), signed.get(SIGNATURE), keys or (VERIFY,))


def refused(files: dict[str, str], signed: dict[str, bytes], *keys: str) -> UnverifiedError:
    with pytest.raises(UnverifiedError) as caught:
        verify(files, signed, *keys)
    return caught.value


@given(TREES)
def test_it_is_read_as_it_was_written(files: dict[str, str]) -> None:
    for domains in ((), (HOST,)):
        one = Manifest(HOST, "1a", 0, 0, domains, (), files)
        assert Manifest.parse(str(one).encode()) == one


@given(TREES, TREES)
def test_no_other_tree_is_verified(files: dict[str, str], other: dict[str, str]) -> None:
    signed = manifest.sign(made(files), SIGN)
    assert verify(files, signed) == made(files)
    if other != files:
        assert "changed after it was signed" in str(refused(other, signed))


def test_what_was_changed_is_named() -> None:
    signed = manifest.sign(made(FILES), SIGN)
    one, *_ = FILES
    other = manifest.line(b"other", executable=False)
    assert "'backup.json' was changed" in str(refused({**FILES, one: other}, signed))
    assert "'x' was added" in str(refused({**FILES, "x": other}, signed))
    assert "'backup.json' is missing" in str(refused({k: v for k, v in FILES.items() if k != one}, signed))  # fmt: skip  # noqa: E501
    renamed = {("moved" if k == one else k): v for k, v in FILES.items()}
    assert "'moved' was added, 'backup.json' is missing" in str(refused(renamed, signed))
    mode = {**FILES, "data/reload/tell": manifest.line(b"#!/bin/sh", executable=False)}
    assert "'data/reload/tell' was changed" in str(refused(mode, signed))
    swapped = dict(zip(FILES, reversed(FILES.values()), strict=True))
    refused(swapped, signed)
    hostile = {**FILES, "\x1b[2J\u202e": other, "y": other, "z" * 900: other, "zz": other}
    text = str(refused(hostile, signed))
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 400
    assert "and 1 more" in text


def test_a_signature_that_is_taken_away_is_told_from_a_wrong_one() -> None:
    signed = manifest.sign(made(FILES), SIGN)
    for name in (NAME, SIGNATURE):
        error = refused(FILES, {key: value for key, value in signed.items() if key != name})
        assert not error.signed
        assert "it is not signed" in str(error)
    assert refused(FILES, {**signed, SIGNATURE: b""}).signed


def test_another_key() -> None:
    theirs = signing.new_key()
    error = refused(FILES, manifest.sign(made(FILES), theirs))
    assert "it is signed with another key: tambo-verify-" in str(error)
    # Our key's name before their signature.
    forged = manifest.sign(made(FILES), theirs)
    forged[SIGNATURE] = VERIFY.encode() + forged[SIGNATURE][len(VERIFY) :]
    assert "manifest.sig is not that of manifest" in str(refused(FILES, forged))
    both = (VERIFY, signing.verification_key(theirs))
    assert verify(FILES, manifest.sign(made(FILES), theirs), *both).number == 7


def test_the_signature_of_another_repository_or_time() -> None:
    mine, other = (manifest.sign(made(FILES, number), SIGN) for number in (7, 8))
    assert "is not that of manifest" in str(refused(FILES, {**mine, SIGNATURE: other[SIGNATURE]}))
    assert "is not that of manifest" in str(refused(FILES, {**mine, NAME: other[NAME]}))


@given(st.data())
def test_one_octet_that_differs_is_noticed(data: st.DataObject) -> None:
    signed = manifest.sign(made(FILES), SIGN)
    name = data.draw(st.sampled_from(sorted(signed)))
    content = signed[name]
    place = data.draw(st.integers(0, len(content) - 1))
    octet = data.draw(st.integers(0, 255))
    changed = content[:place] + bytes([octet]) + content[place + 1 :]
    if changed != content and not _same_signature(signed, name, changed):
        refused(FILES, {**signed, name: changed})
    refused(FILES, {**signed, name: content[:place]})


def _same_signature(signed: dict[str, bytes], name: str, changed: bytes) -> bool:
    """Base64's last octet has bits that mean nothing: another spelling of the same signature."""
    if name != SIGNATURE:
        return False
    try:
        raw = base64.b64decode(changed.split(b" ")[1].strip(), validate=True)
    except (ValueError, IndexError):
        return False
    return changed.startswith(VERIFY.encode()) and raw == base64.b64decode(
        signed[SIGNATURE].split(b" ")[1]
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + "\n",
        lambda text: text.replace("manifest 1", "manifest 2"),
        lambda text: text.replace("number 7", "number 07"),
        lambda text: text.replace("host smtp.example.com", "host SMTP.example.com"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("100644", "120000", 1),
        lambda text: "\n".join([*text.split("\n")[:7], *reversed(text.split("\n")[7:])]),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("2026-01-31T12:00:00Z", "2026-13-31T12:00:00Z"),
        lambda text: text + text.split("\n")[-2] + "\n",
    ],
)
def test_only_the_canonical_form_is_read_whoever_signed_it(change: object) -> None:
    assert callable(change)
    content = change(str(made(FILES))).encode()
    signature = f"{VERIFY} {signing.sign(SIGN, content)}\n".encode()
    error = refused(FILES, {NAME: content, SIGNATURE: signature})
    assert "cannot be read by this version" in str(error)
