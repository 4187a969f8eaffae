"""The cases of tests/cases/honest: mail that must arrive, and how it is sent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.support.cases import CASES, unescape

FOLDER = CASES / "honest"
# Whose SPF names the machine that sends; the others have no SPF.
WITH_SPF = ("list.example", "service.example", "spf.example", "six.example", "bounces.example.com")
# What each domain publishes besides, in zone-file form.
RECORDS = {
    "strict.example": '_dmarc TXT "v=DMARC1; p=reject"\n@ TXT "v=spf1 -all"\n',
    "spf.example": '_dmarc TXT "v=DMARC1; p=reject"\n',
    "six.example": '_dmarc TXT "v=DMARC1; p=quarantine"\n',
    "lax.example": '_dmarc TXT "v=DMARC1; p=none"\n',
}


@dataclass(frozen=True)
class Honest:
    """`message` has LF as line ends. `sign`: the domain that signs it; `add`: what a list writes
    below afterwards; `echo`: it is one of ours, as the receiver got it."""

    name: str
    message: bytes
    sender: str
    sign: str = ""
    add: str = ""
    echo: bool = False
    family: int = 4

    @property
    def subject(self) -> str:
        return f"honest {self.name}"

    @property
    def spf(self) -> bool:
        return self.sender.strip("<>").rpartition("@")[2] in WITH_SPF


def cases() -> list[Honest]:
    return [_read(path) for path in sorted(FOLDER.iterdir())]


def _read(path: Path) -> Honest:
    head, _, message = path.read_text().partition("\n\n")
    values = dict(line.split("=", 1) for line in head.split("\n"))
    case = Honest(
        name=path.stem,
        message=unescape(message).encode(errors="surrogateescape"),
        sender=values.pop("from"),
        sign=values.pop("sign", ""),
        add=values.pop("add", ""),
        echo=values.pop("echo", "") == "yes",
        family=int(values.pop("family", "4")),
    )
    assert not values, f"{path}: {values}"
    return case
