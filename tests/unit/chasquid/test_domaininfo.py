"""What chasquid remembers of the TLS of other domains."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from entrypoint.chasquid import domaininfo
from entrypoint.chasquid.domaininfo import Remembered

VALID, ANY, NONE = "TLS with a valid certificate", "TLS with any certificate", "no TLS"


def put(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)


def test_a_domain_as_chasquid_writes_it(tmp_path: Path) -> None:
    put(
        tmp_path, "s:big.example",
        'name:  "big.example"\nincoming_sec_level:  TLS_INSECURE\n'
        "outgoing_sec_level:  TLS_SECURE\n",
    )  # fmt: skip
    put(tmp_path, "s:other.example", 'name:  "other.example"\n')
    expected = Remembered("s:big.example", "big.example", incoming=ANY, outgoing=VALID)
    assert domaininfo.find(tmp_path, "big.example") == (expected,)
    assert domaininfo.find(tmp_path, "Big.Example") == (expected,)
    [other] = domaininfo.find(tmp_path, "other.example")
    assert (other.incoming, other.outgoing) == (NONE, NONE), "what is 0 is not written"
    assert domaininfo.find(tmp_path, "example") == ()
    assert domaininfo.find(tmp_path / "absent", "big.example") == ()


def test_a_domain_in_unicode(tmp_path: Path) -> None:
    """chasquid keeps it in Unicode, and the file name is its URL-escaped form."""
    put(
        tmp_path,
        "s:m%C3%BCnchen.example",
        'name:  "münchen.example"\noutgoing_sec_level:  TLS_SECURE',
    )
    [found] = domaininfo.find(tmp_path, "xn--mnchen-3ya.example")
    assert (found.file, found.domain) == ("s:m%C3%BCnchen.example", "münchen.example")
    assert domaininfo.find(tmp_path, "München.example") == (found,)


def test_every_form_of_it(tmp_path: Path) -> None:
    for name in (
        "s:big.example",
        "s:BIG.example",
        ".s:big.example123",
        "big.example",
        "x:big.example",
    ):
        put(tmp_path, name, "outgoing_sec_level: TLS_CLIENT")
    found = domaininfo.find(tmp_path, "big.example")
    assert [item.file for item in found] == ["s:BIG.example", "s:big.example"]
    assert {item.outgoing for item in found} == {"TLS"}


@pytest.mark.parametrize(
    "content", ["}", "outgoing_sec_level: 9", "name: 3", "\0", "outgoing_sec_level: -1"]
)
def test_a_damaged_file_can_be_forgotten_too(tmp_path: Path, content: str) -> None:
    put(tmp_path, "s:big.example", content)
    [found] = domaininfo.find(tmp_path, "big.example")
    assert (found.file, found.incoming) == ("s:big.example", "")


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    put(tmp_path, "secret", "outgoing_sec_level: TLS_SECURE")
    (tmp_path / "s:link.example").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "s:pipe.example")
    for name in ("link.example", "pipe.example"):
        [found] = domaininfo.find(tmp_path, name)
        assert found.outgoing in ("", NONE)


def test_the_levels_are_chasquids() -> None:
    assert domaininfo.LEVELS == (NONE, "TLS", ANY, VALID)
