"""The file of chosen passwords, and which secrets belong into it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.chasquid import passwords, userdb
from entrypoint.chasquid.passwords import Chosen, Denied, Plain, Scrypt

SECRETS = st.one_of(
    st.builds(Plain, st.binary(max_size=80)),
    st.builds(
        Scrypt, st.integers(2, 16), st.integers(1, 32), st.integers(1, 16), st.binary(max_size=64),
        st.binary(min_size=16, max_size=64),
    ),
)  # fmt: skip


@given(st.dictionaries(st.text(max_size=40), SECRETS, max_size=5))
def test_what_is_written_is_read(logins: dict[str, Chosen]) -> None:
    assert passwords.load(passwords.dump(logins)) == logins


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"logins": []}', '{"logins": {"i": {}}}', '{"logins": {"i": {"plain": 1}}}',
     '{"logins": {"i": {"scrypt": [12, 8, 4, "?", "?"]}}}'],
)  # fmt: skip
def test_what_is_no_such_file(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        passwords.load(text)


def test_what_tambo_generates_is_not_chosen_and_all_else_is() -> None:
    made = Scrypt.of(userdb.generate(), passwords.GENERATED_LOG_N)
    assert not passwords.is_chosen(made)
    assert not passwords.is_chosen(Denied())
    for secret in (Scrypt.chosen("correct horse"), Scrypt.of("x", 14), Scrypt.of("x", 2)):
        assert passwords.is_chosen(secret)
    assert passwords.is_chosen(Plain(b"x"))


def test_a_chosen_one_takes_four_mebibytes_and_one_of_before_sixteen() -> None:
    new, old = Scrypt.chosen("correct horse"), Scrypt.of("correct horse", 14)
    assert (new.log_n, new.r, new.p) == (12, 8, 4)
    assert (new.memory, old.memory) == (4 << 20, 16 << 20)
    assert not passwords.is_outdated(new)
    assert passwords.is_outdated(old)
    assert passwords.is_outdated(Plain(b"x"))
    for secret in (new, old):
        assert secret.matches("correct horse")
        assert secret.matches(b"correct horse")
        assert not secret.matches("correct horsf")


def test_a_hash_does_not_show_itself() -> None:
    secret = Scrypt(12, 8, 4, b"salt-in-clear", b"key-in-clear")
    assert "in-clear" not in f"{secret} {Plain(b'in-clear')}"


def test_a_fingerprint_changes_with_the_secret_and_tells_nothing_of_it() -> None:
    """Whoever reads it lacks the salt, and so cannot try passwords."""
    one, other = Scrypt.of("correct horse", 1), Scrypt.of("correct horse", 1)
    prints = [passwords.fingerprint("i@example.com", item) for item in (one, other, Denied())]
    assert len(set(prints)) == 3, "the same password with another salt is another"
    assert prints[0] == passwords.fingerprint("j@example.com", one), "it is the hash's alone"
    assert all(len(item) == 24 for item in prints), "not the whole of any hash"
    assert one.key.hex()[:24] not in prints
    clear = passwords.fingerprint("i@example.com", Plain(b"x"))
    assert clear != passwords.fingerprint("i@example.com", Plain(b"y"))
    assert clear != passwords.fingerprint("j@example.com", Plain(b"x")), "no table fits two"
