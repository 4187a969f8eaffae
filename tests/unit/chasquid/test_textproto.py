"""Text protocol buffers, as chasquid writes and reads them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.chasquid import textproto
from tests.unit import chasquid_reference

UTF8 = st.text(st.characters(codec="utf-8"))


@given(st.text())
def test_a_quoted_text_is_read_back_whole(text: str) -> None:
    literal = textproto.quote(text)
    assert re.fullmatch(r'"([ !#-\[\]-~]|\\["\\]|\\[0-7]{3})*"', literal), "nothing gets out of it"
    assert chasquid_reference.read_config(f"hostname: {literal}") == ({"hostname": text})


@given(st.binary(max_size=80))
def test_bytes_as_go_writes_them(raw: bytes) -> None:
    """protobuf-go puts UTF-8 into a bytes field wherever the bytes happen to be some."""
    text = (
        f'users: {{ key: "i" value: {{ plain: {{ password: {chasquid_reference.quote(raw)} }} }} }}'
    )
    [user] = textproto.parse(text, textproto.UserDatabase).users
    assert user.value.plain.password == raw


@given(UTF8)
def test_texts_as_go_writes_them(name: str) -> None:
    text = f"users: {{ key: {chasquid_reference.quote(name.encode())} value: {{ denied: {{}} }} }}"
    [user] = textproto.parse(text, textproto.UserDatabase).users
    assert user.key == name


@given(UTF8, st.binary())
def test_what_is_dumped_is_parsed(name: str, password: bytes) -> None:
    message = textproto.UserDatabase()
    message.users.add(key=name).value.plain.password = password  # type: ignore[attr-defined]
    assert textproto.parse(textproto.dump(message), textproto.UserDatabase) == message


@given(st.text() | st.text(st.sampled_from('users{}:"<>[]\\ \n#,;0x1key value')))
def test_no_text_raises_anything_but_value_error(text: str) -> None:
    try:
        textproto.parse(text, textproto.UserDatabase)
    except ValueError as error:
        caught = error
    else:
        return
    assert type(caught) is ValueError
    assert re.fullmatch(r"(line \d+: )?not in chasquid's text format( \([a-z ]+\))?", str(caught))


@pytest.mark.parametrize(
    "text",
    [
        'users { key: "s3cret }',
        "users { s3cret }",
        'users { key: "i" value { plain { password: s3cret } } }',
        'users { key: "i" value { scrypt { logN: s3cret } } }',
        'users { key: "i" value { scrypt { logN: -1 salt: "s3cret" } } }',
        'users { key: "i" value { scrypt { r: 99999999999 salt: "s3cret" } } }',
        'users { key: "\\xff s3cret" }',
        'users { key: "i" value { plain { password: "s3cret" } denied {} } }',
        "s3cret: 1",
        '[s3cret] { a: "b" }',
    ],
)
def test_errors_hold_no_value(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"^line \d+: not in chasquid's text format( \([a-z ]+\))?$"
    ) as caught:
        textproto.parse(f"\n{text}", textproto.UserDatabase)
    assert "s3cret" not in str(caught.value)


def test_errors_name_the_line() -> None:
    with pytest.raises(ValueError, match=r"^line 3: .* \(there is no such field\)$"):
        textproto.parse('users {\n  key: "i"\n  what: 1\n}\n', textproto.UserDatabase)
    with pytest.raises(ValueError, match=r"^line 2: .* \(a closing brace is missing\)$"):
        textproto.parse('users {\n  key: "i"\n', textproto.UserDatabase)
    with pytest.raises(ValueError, match=r"^line 2: .* \(a closing quote is missing\)$"):
        textproto.parse('users {\n  key: "i\n}\n', textproto.UserDatabase)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("# users {\n", []),
        ('users {\n  key: "i"\n}\nusers: < value {\n} key:\n"}" >\n', [2, 5]),
        ("users {\n  value { denied {} }\n}\n\nusers {}", [1, 5]),
        ('users: [\n{ key: "a" },\n{\n\nkey: "key"\n}]', [2, 5]),
        (
            'users { key: "{" # }\n}\r\nusers { value { plain { password: "key" } }\n\nkey: "i" }',
            [1, 5],
        ),
    ],
)
def test_where_entries_stand(text: str, lines: list[int]) -> None:
    assert len(textproto.parse(text, textproto.UserDatabase).users) == len(lines)
    assert textproto.entry_lines(text) == lines
