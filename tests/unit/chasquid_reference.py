"""What chasquid would make of the files: its own readers and writer, as its Go source has them.

Written from chasquid 1.19 (internal/aliases/aliases.go, internal/config/config.proto) and, for
`marshal`, protobuf-go's prototext encoder. Independent of entrypoint on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

_Field = descriptor_pb2.FieldDescriptorProto
_STRING, _INT64, _UINT32, _BOOL = (
    _Field.TYPE_STRING, _Field.TYPE_INT64, _Field.TYPE_UINT32, _Field.TYPE_BOOL,
)  # fmt: skip
_CONFIG = {
    "hostname": (1, _STRING), "max_data_size_mb": (2, _INT64), "smtp_address": (3, _STRING),
    "submission_address": (4, _STRING), "submission_over_tls_address": (5, _STRING),
    "monitoring_address": (6, _STRING), "mail_delivery_agent_bin": (7, _STRING),
    "mail_delivery_agent_args": (8, _STRING), "data_dir": (9, _STRING),
    "suffix_separators": (10, _STRING), "drop_characters": (11, _STRING),
    "mail_log_path": (12, _STRING), "dovecot_auth": (13, _BOOL),
    "dovecot_userdb_path": (14, _STRING), "dovecot_client_path": (15, _STRING),
    "haproxy_incoming": (16, _BOOL), "max_queue_items": (17, _UINT32),
    "give_up_send_after": (18, _STRING),
}  # fmt: skip
_REPEATED = {
    "smtp_address", "submission_address", "submission_over_tls_address",
    "mail_delivery_agent_args",
}  # fmt: skip


def _config() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="config.proto", syntax="proto2")
    message = file.message_type.add(name="Config")
    for name, (number, kind) in _CONFIG.items():
        label = _Field.LABEL_REPEATED if name in _REPEATED else _Field.LABEL_OPTIONAL
        message.field.add(name=name, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Config"))


_Config = _config()


def read_config(text: str) -> dict[str, Any]:
    """The fields that chasquid.conf sets, and no others. Raises if chasquid would not start."""
    message = text_format.Parse(text, _Config())
    return {
        field.name: list(value) if field.name in _REPEATED else value
        for field, value in message.ListFields()
    }


@dataclass(frozen=True)
class Recipient:
    address: str
    kind: str  # "email", "pipe" or "forward"
    via: tuple[str, ...] = ()


def read_aliases(text: str, domain: str) -> dict[str, list[Recipient]]:
    """Resolver.parseReader. Raises ValueError where chasquid would end."""
    found = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        if len(raw.encode()) >= 64 * 1024:
            msg = "bufio.Scanner: token too long"
            raise ValueError(msg)
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not name or not value or "@" in name:
            msg = f"line {number}: missing ':', address or alias, or an @ on the left"
            raise ValueError(msg)
        found[f"{name.lower()}@{domain}"] = _right_side(value, domain)
    return found


def _right_side(value: str, domain: str) -> list[Recipient]:
    if value[0] == "|":
        command = value[1:].strip()
        if not command:
            msg = "the pipe alias is missing a command"
            raise ValueError(msg)
        return [Recipient(command, "pipe")]
    found = []
    for item in value.split(","):
        text = item.strip()
        if not text:
            continue
        address, via, servers = text.partition(" via ")
        address = address.strip()
        names = tuple(server.strip() for server in servers.split("/")) if via else ()
        if via and (not address or not all(names)):
            msg = "empty server in via list, or no address"
            raise ValueError(msg)
        if "@" not in address:
            address = f"{address}@{domain}"
        user = address.rpartition("@")[0]
        # PRECIS UsernameCaseMapped (RFC 8265 3.3) takes no space and no control character.
        if not user or any(char.isspace() or not char.isprintable() for char in user):
            msg = f"normalizing address {text!r}"
            raise ValueError(msg)
        found.append(Recipient(address.lower(), "forward" if via else "email", names))
    return found


# protobuf-go: internal/encoding/text/encode.go, appendString


def quote(raw: bytes) -> str:
    """A string or bytes literal as Go's prototext writes it: UTF-8 where it happens to be valid."""
    out = ['"']
    while raw:
        char, size = _decode_rune(raw)
        if char is None:
            out.append(f"\\x{raw[0]:02x}")
        elif char in '"\\':
            out.append(f"\\{char}")
        elif char in "\n\r\t":
            out.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}[char])
        elif char < " " or char == "\x7f":
            out.append(f"\\x{ord(char):02x}")
        elif "\x80" <= char <= "\x9f":
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(char)
        raw = raw[size:]
    return "".join([*out, '"'])


def _decode_rune(raw: bytes) -> tuple[str | None, int]:
    for size in range(1, min(4, len(raw)) + 1):
        try:
            return raw[:size].decode(), size
        except UnicodeDecodeError:
            continue
    return None, 1


def write_users(users: Mapping[str, Mapping[str, Any]]) -> str:
    """chasquid-util user-add's file. A value holds scrypt's fields, `password`, or nothing."""
    out = []
    for name, value in users.items():
        out.append(f"users:  {{\n  key:  {quote(name.encode())}\n  value:  {{")
        if "logN" in value:
            fields = "".join(
                f"      {key}:  {value[key]}\n" for key in ("logN", "r", "p", "keyLen")
            )
            fields += "".join(
                f"      {key}:  {quote(value[key])}\n" for key in ("salt", "encrypted")
            )
            out.append(f"    scrypt:  {{\n{fields}    }}")
        elif "password" in value:
            out.append(f"    plain:  {{\n      password:  {quote(value['password'])}\n    }}")
        else:
            out.append("    denied:  {}")
        out.append("  }\n}")
    return "\n".join(out) + "\n"
