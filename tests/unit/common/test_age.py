"""age, with pyrage as it is."""

from __future__ import annotations

import pytest

from entrypoint.common import age


def test_only_the_private_half_opens_it_and_it_is_never_the_same_twice() -> None:
    mine, public = age.new_identity()
    other, _ = age.new_identity()
    sealed = age.encrypt(b"secret", [public])
    assert sealed.startswith(age.HEADER)
    assert b"secret" not in sealed
    assert sealed != age.encrypt(b"secret", [public])
    assert age.decrypt(sealed, [other, mine]) == b"secret"
    with pytest.raises(ValueError, match=r"[Nn]o matching"):
        age.decrypt(sealed, [other])
    with pytest.raises(ValueError, match=r"\w"):
        age.decrypt(sealed[:-3], [mine])


def test_each_of_several_recipients_can_open_it() -> None:
    pairs = [age.new_identity() for _ in range(2)]
    sealed = age.encrypt(b"x", [public for _, public in pairs])
    assert [age.decrypt(sealed, [private]) for private, _ in pairs] == [b"x", b"x"]


def test_the_identities_in_a_file_of_age_keygen() -> None:
    private, public = age.new_identity()
    text = f"# created: 2026-01-01\n# public key: {public}\n{private}\n"
    assert age.identities(text) == (private,)
    assert age.identities(private.lower()) == (private,)
    assert age.recipient_of(private) == public


@pytest.mark.parametrize("text", ["", "age1abc", "AGE-SECRET-KEY-1" + "Q" * 58, "hunter2"])
def test_no_identity_and_it_is_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="holds no private half") as caught:
        age.identities(text)
    assert not text or text not in str(caught.value)


def test_a_recipient_is_checked() -> None:
    private, public = age.new_identity()
    assert age.check_recipient(f" {public.upper()} ") == public
    for wrong in (
        "age1",
        public[:-1],
        public[:-1] + "b" * (public[-1] != "b") + "c",
        "ssh-ed25519",
    ):
        with pytest.raises(ValueError, match="is not an age recipient"):
            age.check_recipient(wrong)
    with pytest.raises(ValueError, match="is a private half") as caught:
        age.check_recipient(private)
    assert private.lower() not in str(caught.value).lower()
