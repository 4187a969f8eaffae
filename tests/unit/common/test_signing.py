"""The keys that a backup is signed with, as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.common import signing

SIGN = signing.new_key()
VERIFY = signing.verification_key(SIGN)
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz234567"


def test_only_the_owner_of_the_key_signs() -> None:
    signature = signing.sign(SIGN, b"content")
    assert signing.verifies(VERIFY, signature, b"content")
    assert not signing.verifies(VERIFY, signature, b"other")
    assert not signing.verifies(VERIFY, signing.sign(signing.new_key(), b"content"), b"content")
    assert not signing.verifies(signing.verification_key(signing.new_key()), signature, b"content")
    for nonsense in ("", "x", signature[:-4], "=" * 88, "é"):
        assert not signing.verifies(VERIFY, nonsense, b"content")
    assert not signing.verifies("tambo-verify-x", signature, b"content")


def test_a_verification_key_in_the_file_of_the_identity() -> None:
    text = f"# created: 2026-01-01\nAGE-SECRET-KEY-1{'Q' * 58}\n# {VERIFY}\n"
    assert signing.verification_keys(text) == (VERIFY,)
    assert signing.verification_keys(text.upper()) == (VERIFY,), "typed from paper"
    assert signing.verification_keys(f"{VERIFY} {VERIFY}") == (VERIFY,)
    assert signing.verification_keys("nothing of the kind") == ()


@given(st.integers(0, 55), st.sampled_from(_CHARACTERS))
def test_a_mistyped_key_is_an_error_and_not_no_key(place: int, other: str) -> None:
    head, key = VERIFY[:13], VERIFY[13:]
    typed = head + key[:place] + other + key[place + 1 :]
    if typed == VERIFY:
        return
    with pytest.raises(ValueError, match="that is mistyped"):
        signing.verification_keys(f"# {typed}\n")


@pytest.mark.parametrize(
    "text",
    [VERIFY[:-1], f"{VERIFY}a", "tambo-verify-", f"{VERIFY};"],
    # The key is another one in each process of a parallel run, and names must not be.
    ids=["cut", "a letter more", "nothing of it", "a sign behind it"],
)
def test_a_key_that_is_cut_or_too_long_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="that is mistyped"):
        signing.verification_keys(text)


def test_a_signing_key_is_none_to_verify_with_and_is_not_shown() -> None:
    with pytest.raises(ValueError, match="holds a signing key") as caught:
        signing.verification_keys(SIGN)
    assert SIGN not in str(caught.value)


def test_a_signing_key_is_checked_and_never_shown() -> None:
    assert signing.check_signing_key(f" {SIGN.upper()} ") == SIGN
    for wrong in (SIGN[:-1], f"{SIGN}a", "x", "", "tambo-sign-" + "a" * 56):
        with pytest.raises(ValueError, match="is not a signing key") as caught:
            signing.check_signing_key(wrong)
        assert not wrong or wrong == "x" or wrong not in str(caught.value)
    with pytest.raises(ValueError, match="is the verification key"):
        signing.check_signing_key(VERIFY)
