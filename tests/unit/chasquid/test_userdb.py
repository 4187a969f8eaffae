"""chasquid's users file."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.chasquid import userdb
from entrypoint.chasquid.userdb import Denied, Plain, Scrypt, Secret
from tests.unit import chasquid_reference

KEY = bytes(range(32))
GOOD = {"logN": 14, "r": 8, "p": 1, "keyLen": 32, "salt": b"salt" * 4, "encrypted": KEY}

NAMES = st.from_regex(r"\A[a-z0-9_][a-z0-9é._+-]{0,20}\Z", fullmatch=True).filter(
    lambda name: name == name.lower()
)
SCRYPTS = st.builds(
    Scrypt,
    log_n=st.integers(1, 15), r=st.integers(1, 8), p=st.integers(1, 16),
    salt=st.binary(min_size=1, max_size=40), key=st.binary(min_size=16, max_size=64),
)  # fmt: skip
SECRETS = SCRYPTS | st.builds(Plain, st.binary(max_size=40)) | st.just(Denied())


def written(**changes: Any) -> str:
    return chasquid_reference.write_users({"i": {**GOOD, **changes}})


@given(st.dictionaries(NAMES, SECRETS, min_size=1, max_size=6))
def test_what_is_rendered_is_parsed(users: dict[str, Secret]) -> None:
    text = userdb.render(users)
    assert userdb.parse(text) == users
    assert userdb.render(userdb.parse(text)) == text


@given(st.dictionaries(NAMES, st.tuples(st.binary(min_size=1), st.binary(min_size=16, max_size=64)),
                       min_size=1, max_size=4))  # fmt: skip
def test_what_chasquid_writes_is_parsed(users: dict[str, tuple[bytes, bytes]]) -> None:
    text = chasquid_reference.write_users(
        {
            name: {**GOOD, "salt": salt, "encrypted": key, "keyLen": len(key)}
            for name, (salt, key) in users.items()
        }
    )
    assert userdb.parse(text) == {
        name: Scrypt(14, 8, 1, salt, key) for name, (salt, key) in users.items()
    }


def test_users_stand_in_order() -> None:
    """So that the same users are the same file, whoever was added first."""
    one, other = {"b": Denied(), "a": Denied()}, {"a": Denied(), "b": Denied()}
    assert userdb.render(one) == userdb.render(other)
    assert list(userdb.parse(userdb.render(one))) == ["a", "b"]


def test_a_file_that_chasquid_util_wrote() -> None:
    """Its double spaces, and its UTF-8 within bytes."""
    text = (
        'users:  {\n  key:  "someone"\n  value:  {\n    scrypt:  {\n      logN:  14\n      r:  8\n'
        "      p:  1\n      keyLen:  32\n"
        '      salt:  "J\\x01\\xed7]\\x02\\n\\xe9;z[\\x8d˱\\x10\\xc1"\n'
        '      encrypted:  "\\xa50宴\\xcbb\\xc1!r]K\\xd1yI\\xa2\\x99\\x8d\\xdaQx\\x8e69\\xac\\xf4$'
        '\\x01\\x11\\x03\\x8d\\x10"\n    }\n  }\n}\nusers:  {\n  key:  "closed"\n'
        "  value:  {\n    denied:  {}\n  }\n}\n"
    )
    found = userdb.parse(text)
    assert found["closed"] == Denied()
    someone = found["someone"]
    assert isinstance(someone, Scrypt)
    assert someone.salt == b"J\x01\xed7]\x02\n\xe9;z[\x8d\xcb\xb1\x10\xc1"
    assert someone.key == bytes.fromhex(
        "a530e5aeb4cb62c121725d4bd17949a2998dda51788e3639acf4240111038d10"
    )


def test_rfc_7914_vector() -> None:
    """The third of section 12; its work is that of a chosen password."""
    key = bytes.fromhex(
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
    )
    secret = Scrypt(14, 8, 1, b"SodiumChloride", key)
    assert secret.matches("pleaseletmein")
    assert not secret.matches("pleaseletmeout")


@pytest.mark.parametrize("log_n", [userdb.CHOSEN_LOG_N, userdb.GENERATED_LOG_N])
def test_a_password_matches_itself_alone(log_n: int) -> None:
    one, other = Scrypt.of("correct horse", log_n), Scrypt.of("correct horse", log_n)
    assert one.matches("correct horse")
    assert not one.matches("correct horse ")
    assert not one.matches("")
    assert one.salt != other.salt, "each has a salt of its own"
    assert one.key != other.key
    assert (len(one.salt), len(one.key), one.r, one.p) == (16, 32, 8, 1), "as chasquid makes them"


def test_other_schemes() -> None:
    assert Plain(b"s3cret").matches("s3cret")
    assert not Plain(b"s3cret").matches("s3cret2")
    assert not Denied().matches("")


@pytest.mark.parametrize(
    "changes",
    [
        {"logN": 1},
        {"logN": 16, "r": 8},
        {"logN": 15, "r": 1},
        {"r": 32, "logN": 14},
        {"p": 16},
        {"encrypted": KEY[:16], "keyLen": 16},
        {"encrypted": KEY * 2, "keyLen": 64},
        {"salt": b"s"},
    ],
)
def test_parameters_within_bounds_can_be_checked(changes: dict[str, Any]) -> None:
    """Whatever is accepted must not fail at the log-in."""
    assert not userdb.parse(written(**changes))["i"].matches("wrong")


@pytest.mark.parametrize(
    "changes",
    [
        {"logN": 0},
        {"logN": 21},
        {"logN": 17},  # 128 MiB a log-in
        {"logN": 63},
        {"logN": 64},
        {"logN": 16, "r": 1},  # RFC 7914 section 2: N < 2^(128 r / 8)
        {"r": 0},
        {"r": -1},
        {"r": 33},
        {"p": 0},
        {"p": -1},
        {"p": 17},
        {"keyLen": 0, "encrypted": b""},
        {"keyLen": 31},
        {"keyLen": 33},
        {"keyLen": 8, "encrypted": KEY[:8]},
        {"keyLen": 65, "encrypted": bytes(65)},
        {"salt": b""},
    ],
)
def test_parameters_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"^line 2: user 'i': scrypt parameters out of range; set the pass"
    ):
        userdb.parse(written(**changes))


@pytest.mark.parametrize("text", ["", "\n", "  \n\t\n"])
def test_an_empty_file_is_damage(text: str) -> None:
    with pytest.raises(ValueError, match="the file is empty; if it shall hold nobody, write a"):
        userdb.parse(text)


def test_only_comments_are_no_users() -> None:
    assert userdb.parse("# nobody yet\n") == {}


def test_a_name_that_stands_twice() -> None:
    with pytest.raises(ValueError, match=r"^line \d+: user 'i' stands twice$"):
        userdb.parse(written() + written())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "lower case, without spaces or @domain"),
        ("I", "lower case, without spaces or @domain"),
        ("a b", "lower case, without spaces or @domain"),
        ("a\nb", "lower case, without spaces or @domain"),
        ("i@example.com", "lower case, without spaces or @domain"),
        # chasquid's aliases file would take these for something else, or not at all.
        ("*", r"has no \*, # or \+ first"),
        ("+i", r"has no \*, # or \+ first"),
        ("#i", r"has no \*, # or \+ first"),
        ("a:b", "no colon, comma or control"),
        ("a,b", "no colon, comma or control"),
        ("a\x00b", "no colon, comma or control"),
        ("a\u202eb", "no colon, comma or control"),
    ],
)
def test_names_that_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        userdb.parse(chasquid_reference.write_users({name: {}}))
    assert str(caught.value).isprintable()


def test_a_user_needs_a_password_entry() -> None:
    with pytest.raises(ValueError, match=r"^line 1: user 'i' has no password entry$"):
        userdb.parse('users { key: "i" value {} }')
    with pytest.raises(ValueError, match=r"^line 1: user 'i' has no password entry$"):
        userdb.parse('users { key: "i" }')


def test_unknown_fields_are_refused_by_line() -> None:
    """chasquid would end at them."""
    with pytest.raises(ValueError, match=r"^line 2: not in chasquid's text format \(there is no"):
        userdb.parse('users { key: "i" value { denied {} } }\nquota: 3\n')


@pytest.mark.parametrize("secret", [Scrypt.of("s3cret-word", 1), Plain(b"s3cret-word")])
def test_secrets_do_not_show(secret: Secret) -> None:
    shown = f"{secret!r} {secret}"
    assert "s3cret" not in shown
    if isinstance(secret, Scrypt):
        for raw in (secret.key, secret.salt):
            assert repr(raw)[2:-1] not in shown
            assert raw.hex() not in shown
            assert base64.b64encode(raw).decode() not in shown


def test_no_error_shows_a_password() -> None:
    text = 'users { key: "i" value { plain { password: "s3cret" } } }\n'
    for broken in (text + text, text[:-4], text.replace('"i"', '"I"'), text + "x"):
        with pytest.raises(ValueError, match=r".") as caught:
            userdb.parse(broken)
        assert "s3cret" not in str(caught.value)


def test_a_generated_secret_is_strong_and_readable() -> None:
    made = {userdb.generate() for _ in range(200)}
    assert len(made) == 200
    for secret in made:
        assert re.fullmatch(r"[a-hjkmnp-z2-9]{7}(-[a-hjkmnp-z2-9]{7}){3}", secret)
        userdb.check_chosen(secret)
    assert len(set("".join(made)) - {"-"}) ** 28 > 2**138


@pytest.mark.parametrize(
    "password", ["12345678", "pässwörd", " spaces stay ", "x" * 512, "ß" * 256]
)
def test_passwords_that_may_be_chosen(password: str) -> None:
    userdb.check_chosen(password)
    assert Scrypt.of(password, 1).matches(password)


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", "the password is empty"),
        ("1234567", "the password has 7 characters; at least 8 are needed"),
        ("x" * 513, "the password has more than 512 bytes"),
        ("ß" * 257, "the password has more than 512 bytes"),
        ("12345678\n", "the password holds a control character"),
        ("1234\x005678", "the password holds a control character"),
        ("1234\x7f5678", "the password holds a control character"),
    ],
)
def test_passwords_that_may_not(password: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        userdb.check_chosen(password)
    assert not password or password not in str(caught.value)


def test_derivation_is_scrypt() -> None:
    """chasquid computes the same: golang.org/x/crypto/scrypt is RFC 7914."""
    secret = Scrypt.of("pässwörd", 3)
    assert secret.key == hashlib.scrypt(
        "pässwörd".encode(), salt=secret.salt, n=8, r=8, p=1, dklen=32
    )
