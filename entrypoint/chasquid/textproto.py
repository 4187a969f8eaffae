"""chasquid's files are text-format protocol buffers: their messages, and text to and from them.

The messages are those of chasquid 1.19 (internal/{userdb/userdb,queue/queue,domaininfo/
domaininfo}.proto). Google's own
library reads them, with the same grammar that chasquid's reader has; what tambo gives chasquid is
always written anew from what was read, so the two cannot disagree.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message

_Field = descriptor_pb2.FieldDescriptorProto
_UINT64, _INT64, _INT32, _STRING, _BYTES, _MESSAGE, _ENUM = (
    _Field.TYPE_UINT64, _Field.TYPE_INT64, _Field.TYPE_INT32, _Field.TYPE_STRING,
    _Field.TYPE_BYTES, _Field.TYPE_MESSAGE, _Field.TYPE_ENUM,
)  # fmt: skip


def _add(parent: Any, name: str, fields: list[tuple[str, int, int, str]]) -> Any:
    """A message below a file or message: its fields as (name, number, type, name of the type)."""
    message = parent.add(name=name)
    for field, number, kind, type_name in fields:
        message.field.add(
            name=field, number=number, type=kind, type_name=type_name or None,
            label=_Field.LABEL_OPTIONAL, json_name=field,
        )  # fmt: skip
    return message


def _repeat(message: Any, *names: str) -> None:
    for field in message.field:
        if field.name in names:
            field.label = _Field.LABEL_REPEATED


def _class(file: descriptor_pb2.FileDescriptorProto, name: str) -> type[Message]:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def _userdb() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(
        name="userdb.proto", package="userdb", syntax="proto3"
    )
    database = _add(file.message_type, "ProtoDB", [("users", 1, _MESSAGE, ".userdb.ProtoDB.Entry")])
    _repeat(database, "users")
    _add(
        database.nested_type, "Entry",
        [("key", 1, _STRING, ""), ("value", 2, _MESSAGE, ".userdb.Password")],
    )  # fmt: skip
    password = _add(
        file.message_type, "Password",
        [("scrypt", 2, _MESSAGE, ".userdb.Scrypt"), ("plain", 3, _MESSAGE, ".userdb.Plain"),
         ("denied", 4, _MESSAGE, ".userdb.Denied")],
    )  # fmt: skip
    password.oneof_decl.add(name="scheme")
    for field in password.field:
        field.oneof_index = 0
    _add(
        file.message_type, "Scrypt",
        [("logN", 1, _UINT64, ""), ("r", 2, _INT32, ""), ("p", 3, _INT32, ""),
         ("keyLen", 4, _INT32, ""), ("salt", 5, _BYTES, ""), ("encrypted", 6, _BYTES, "")],
    )  # fmt: skip
    _add(file.message_type, "Plain", [("password", 1, _BYTES, "")])
    _add(file.message_type, "Denied", [])
    return _class(file, "userdb.ProtoDB")


def _queue() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(name="queue.proto", package="queue", syntax="proto3")
    message = _add(
        file.message_type, "Message",
        [("ID", 1, _STRING, ""), ("from", 2, _STRING, ""), ("To", 3, _STRING, ""),
         ("rcpt", 4, _MESSAGE, ".queue.Recipient"), ("data", 5, _BYTES, ""),
         ("created_at_ts", 6, _MESSAGE, ".queue.Timestamp")],
    )  # fmt: skip
    _repeat(message, "To", "rcpt")
    recipient = _add(
        file.message_type, "Recipient",
        [("address", 1, _STRING, ""), ("type", 2, _ENUM, ".queue.Recipient.Type"),
         ("status", 3, _ENUM, ".queue.Recipient.Status"),
         ("last_failure_message", 4, _STRING, ""), ("original_address", 5, _STRING, ""),
         ("via", 6, _STRING, "")],
    )  # fmt: skip
    _repeat(recipient, "via")
    for name, values in (
        ("Type", ("EMAIL", "PIPE", "FORWARD")),
        ("Status", ("PENDING", "SENT", "FAILED")),
    ):
        kind = recipient.enum_type.add(name=name)
        for number, value in enumerate(values):
            kind.value.add(name=value, number=number)
    _add(file.message_type, "Timestamp", [("seconds", 1, _INT64, ""), ("nanos", 2, _INT32, "")])
    return _class(file, "queue.Message")


def _domaininfo() -> type[Message]:
    file = descriptor_pb2.FileDescriptorProto(
        name="domaininfo.proto", package="domaininfo", syntax="proto3"
    )
    level = file.enum_type.add(name="SecLevel")
    for number, value in enumerate(("PLAIN", "TLS_CLIENT", "TLS_INSECURE", "TLS_SECURE")):
        level.value.add(name=value, number=number)
    _add(
        file.message_type, "Domain",
        [("name", 1, _STRING, ""), ("incoming_sec_level", 2, _ENUM, ".domaininfo.SecLevel"),
         ("outgoing_sec_level", 3, _ENUM, ".domaininfo.SecLevel")],
    )  # fmt: skip
    return _class(file, "domaininfo.Domain")


# `users` is a map in the .proto; a repeated key and value is the same text, and keeps duplicates
# visible, which a map would hide.
UserDatabase = _userdb()
QueueMessage = _queue()
DomainInfo = _domaininfo()


def parse(text: str, kind: type[Message]) -> Any:
    """Raises ValueError, whose text has the line and the reason but never a field's value."""
    message = kind()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        where = f"line {error.GetLine()}: " if error.GetLine() else ""
        # What the library says besides may quote the text, and a secret with it.
        why = next((why for words, why in _REASONS.items() if words in str(error)), "")
        msg = f"{where}not in chasquid's text format{why}"
        raise ValueError(msg) from None
    return message


_REASONS = {
    'Expected "}"': " (a closing brace is missing)",
    "String missing ending quote": " (a closing quote is missing)",
    "has no field named": " (there is no such field)",
}


def entry_lines(text: str) -> list[int]:
    """For each message of a repeated field at the top: the line where its `key` stands.

    An entry without a key has the line on which it opens. `text` must be one that `parse` takes.
    """
    tokens: Any = text_format.Tokenizer(text.split("\n"))
    found: list[int] = []
    depth = 0
    while not tokens.AtEnd():
        line = tokens.ParseError("").GetLine() or 1
        if tokens.token in ("{", "<"):
            depth += 1
            if depth == 1:
                found.append(line)
        elif tokens.token in ("}", ">"):
            depth -= 1
        elif tokens.token == "key" and depth == 1:  # noqa: S105 (a field's name)
            found[-1] = line
        tokens.NextToken()
    return found


def dump(message: Any) -> str:
    """A text protocol buffer, UTF-8, one field a line: what `parse` and chasquid read."""
    return text_format.MessageToString(message, as_utf8=True)


def quote(text: str) -> str:
    """A string literal. Anything but printable ASCII is escaped, so that nothing gets out of it."""
    escaped = "".join(
        f"\\{char}" if char in '"\\' else char if " " <= char <= "~" else
        "".join(f"\\{byte:03o}" for byte in char.encode())
        for char in text
    )  # fmt: skip
    return f'"{escaped}"'
