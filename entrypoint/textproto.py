"""chasquid's files are text-format protocol buffers: their messages, and text to and from them.

The messages are those of chasquid 1.19 (internal/userdb/userdb.proto). Google's own library reads
them, with the same grammar that chasquid's reader has; what tambo gives chasquid is always written
anew from what was read, so the two cannot disagree.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message

_Field = descriptor_pb2.FieldDescriptorProto
_UINT64, _INT32, _STRING, _BYTES, _MESSAGE = (
    _Field.TYPE_UINT64, _Field.TYPE_INT32, _Field.TYPE_STRING, _Field.TYPE_BYTES,
    _Field.TYPE_MESSAGE,
)  # fmt: skip


def _userdb() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(
        name="userdb.proto", package="userdb", syntax="proto3"
    )

    def add(parent: Any, name: str, fields: list[tuple[str, int, int, str]]) -> Any:
        message = parent.add(name=name)
        for field, number, kind, type_name in fields:
            message.field.add(
                name=field, number=number, type=kind, type_name=type_name or None,
                label=_Field.LABEL_OPTIONAL, json_name=field,
            )  # fmt: skip
        return message

    database = add(file.message_type, "ProtoDB", [("users", 1, _MESSAGE, ".userdb.ProtoDB.Entry")])
    database.field[0].label = _Field.LABEL_REPEATED
    add(
        database.nested_type, "Entry",
        [("key", 1, _STRING, ""), ("value", 2, _MESSAGE, ".userdb.Password")],
    )  # fmt: skip
    password = add(
        file.message_type, "Password",
        [("scrypt", 2, _MESSAGE, ".userdb.Scrypt"), ("plain", 3, _MESSAGE, ".userdb.Plain"),
         ("denied", 4, _MESSAGE, ".userdb.Denied")],
    )  # fmt: skip
    password.oneof_decl.add(name="scheme")
    for field in password.field:
        field.oneof_index = 0
    add(
        file.message_type, "Scrypt",
        [("logN", 1, _UINT64, ""), ("r", 2, _INT32, ""), ("p", 3, _INT32, ""),
         ("keyLen", 4, _INT32, ""), ("salt", 5, _BYTES, ""), ("encrypted", 6, _BYTES, "")],
    )  # fmt: skip
    add(file.message_type, "Plain", [("password", 1, _BYTES, "")])
    add(file.message_type, "Denied", [])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("userdb.ProtoDB"))


# `users` is a map in the .proto; a repeated key and value is the same text, and keeps duplicates
# visible, which a map would hide.
UserDatabase = _userdb()


def parse(text: str, kind: type[Message]) -> Any:
    """Raises ValueError, whose text has the line and the reason but never a field's value."""
    message = kind()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        where = f"line {error.GetLine()}: " if error.GetLine() else ""
        msg = f"{where}not in chasquid's text format"
        raise ValueError(msg) from None
    return message


def dump(message: Any) -> str:
    return text_format.MessageToString(message, as_utf8=True)


def quote(text: str) -> str:
    """A string literal. Anything but printable ASCII is escaped, so that nothing gets out of it."""
    escaped = "".join(
        f"\\{char}" if char in '"\\' else char if " " <= char <= "~" else
        "".join(f"\\{byte:03o}" for byte in char.encode())
        for char in text
    )  # fmt: skip
    return f'"{escaped}"'
