"""The cases of tests/cases/policy: who sends what as whom, and what must be answered."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tests.support.cases import CASES, unescape

FOLDER = CASES / "policy"
DOMAINS = ("example.com", "example.org", "xn--bcher-kva.example")
LOGINS = tuple((FOLDER / "logins").read_text().split())


@dataclass(frozen=True)
class PolicyCase:
    """`message` has LF as line ends. `wire` is what a client sees where chasquid itself answers
    before the policy is asked."""

    path: Path
    login: str = ""
    sender: str = "<>"
    recipients: tuple[str, ...] = ()
    remote: str = "192.0.2.25:4711"
    spf: bool = False
    answer: str = ""
    wire: str = ""
    message: bytes = b""

    @property
    def accepted(self) -> bool:
        return self.answer.startswith("250 ")

    def rewritten(self, answer: str) -> str:
        """The file's text with another answer."""
        head, _, message = self.path.read_text().partition("\n\n")
        lines = [
            f"answer={answer}" if line.startswith("answer=") else line for line in head.split("\n")
        ]
        return "\n".join(lines) + "\n\n" + message


def cases(kind: str) -> list[PolicyCase]:
    """`submission` or `incoming`."""
    return [_read(path) for path in sorted((FOLDER / kind).iterdir())]


def case_id(case: PolicyCase) -> str:
    return case.path.name


def _read(path: Path) -> PolicyCase:
    head, _, message = path.read_text().partition("\n\n")
    case = PolicyCase(path, message=unescape(message).encode(errors="surrogateescape"))
    for line in head.split("\n"):
        name, _, value = line.partition("=")
        match name:
            case "login":
                case = replace(case, login=value)
            case "from":
                case = replace(case, sender=value)
            case "to":
                case = replace(case, recipients=tuple(value.split()))
            case "remote":
                case = replace(case, remote=value)
            case "spf":
                case = replace(case, spf=value == "pass")
            case "answer":
                case = replace(case, answer=value)
            case "wire":
                case = replace(case, wire=value)
            case _:
                msg = f"{path}: {line}"
                raise ValueError(msg)
    return case
