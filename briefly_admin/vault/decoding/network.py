"""Addresses: inet, cidr, macaddr. Source: network_send and pg_inet_net_ntop."""

from itertools import groupby
from typing import Final

_BYTES: Final = {2: 4, 3: 16}
"""PGSQL_AF_INET, PGSQL_AF_INET6 → bytes of an address."""
_MAC, _MAC8 = 6, 8


def _address(data: bytes) -> tuple[str, int, int]:
    """The address, its prefix length, and the longest there is."""
    family, bits, _, count = data[:4]
    address = data[4:]
    if count != len(address) or _BYTES[family] != count:
        raise ValueError("not an address of its family")
    return (_version4(address) if count == 4 else _version6(address)), bits, 8 * count  # noqa: PLR2004 - IPv4's bytes


def _version4(address: bytes) -> str:
    return ".".join(map(str, address))


def _version6(address: bytes) -> str:
    words = [int.from_bytes(address[i : i + 2], "big") for i in range(0, 16, 2)]
    start, length = _longest_zeros(words)
    if start == 0 and (length == 6 or (length == 5 and words[5] == 0xFFFF)):  # noqa: PLR2004 - an IPv4 address inside
        return f"::{'ffff:' if length == 5 else ''}{_version4(address[12:])}"  # noqa: PLR2004 - the mapped ones
    if not length:
        return ":".join(f"{word:x}" for word in words)
    head, tail = words[:start], words[start + length :]
    return f"{':'.join(f'{word:x}' for word in head)}::{':'.join(f'{word:x}' for word in tail)}"


def _longest_zeros(words: list[int]) -> tuple[int, int]:
    """Where the first longest run of two zeros or more begins, and its length; (-1, 0) without one."""
    best, place = (-1, 0), 0
    for word, group in groupby(words):
        length = len(list(group))
        if word == 0 and length > max(best[1], 1):
            best = (place, length)
        place += length
    return best


def inet(data: bytes) -> str:
    """192.168.0.1, and /24 unless the prefix is the whole address."""
    address, bits, whole = _address(data)
    return address if bits == whole else f"{address}/{bits}"


def cidr(data: bytes) -> str:
    """192.168.0.0/24."""
    address, bits, _ = _address(data)
    return f"{address}/{bits}"


def macaddr(data: bytes) -> str:
    """08:00:2b:01:02:03."""
    if len(data) not in (_MAC, _MAC8):
        raise ValueError("not a MAC address")
    return data.hex(":")
