#!/usr/bin/python3
"""Reads header sections as programs in Python do, with both parsers of its e-mail package.

A section a line, in hexadecimal; for each a line of the addresses found in From, in hexadecimal.
"""

import sys
from contextlib import suppress
from email import message_from_bytes
from email.header import decode_header, make_header
from email.policy import compat32, default
from email.utils import getaddresses, parseaddr


def read(section: bytes) -> list[str]:
    """What each of them finds; one that fails finds nothing."""
    found: list[str] = []
    with suppress(Exception):
        message = message_from_bytes(section + b"\n", policy=default)
        for value in message.get_all("from", []):
            found += [item.addr_spec for item in value.addresses]
    old = message_from_bytes(section + b"\n", policy=compat32)
    for value in map(str, old.get_all("from", [])):
        texts = [value]
        with suppress(Exception):
            texts.append(str(make_header(decode_header(value))))
        for text in texts:
            for strict in (True, False):
                with suppress(Exception):
                    found += [address for _, address in getaddresses([text], strict=strict)]
                    found.append(parseaddr(text, strict=strict)[1])
    return found


for line in sys.stdin:
    addresses = "\n".join(read(bytes.fromhex(line)))
    print(addresses.encode("utf-8", "surrogateescape").hex())
