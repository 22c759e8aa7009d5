"""Full text search: tsvector and tsquery. Source: tsvectorsend, tsquerysend and the output functions beside them."""

import struct
from typing import Final

from briefly_admin.vault.decoding.codec import decoded

_VALUE, _OPERATOR = 1, 2
_NOT, _AND, _OR, _PHRASE = 1, 2, 3, 4
_PRIORITY: Final = {_NOT: 4, _AND: 2, _OR: 1, _PHRASE: 3}
_WEIGHTS: Final = "DCBA"


def _quoted(lexeme: bytes) -> str:
    return "'" + decoded(lexeme).replace("\\", "\\\\").replace("'", "''") + "'"


def tsvector(data: bytes) -> str:
    """'cat':3A,5 'sat'."""
    (count,) = struct.unpack_from(">I", data)
    position = 4
    lexemes = []
    for _ in range(count):
        end = data.index(0, position)
        (places,) = struct.unpack_from(">H", data, end + 1)
        text = _quoted(data[position:end])
        found = struct.unpack_from(f">{places}H", data, end + 3)
        lexemes.append(f"{text}:{','.join(map(_place, found))}" if found else text)
        position = end + 3 + 2 * places
    return " ".join(lexemes)


def _place(entry: int) -> str:
    weight = _WEIGHTS[entry >> 14]
    return f"{entry & 0x3FFF}{'' if weight == 'D' else weight}"


class _Query:
    """A tsquery's items, an operator before its right and then its left operand, written infix."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 4
        self._left = int(struct.unpack_from(">I", data)[0])

    def text(self) -> str:
        return self._item(0, right_of_phrase=False) if self._left else ""

    def _byte(self) -> int:
        self._position += 1
        return self._data[self._position - 1]

    def _item(self, outer: int, *, right_of_phrase: bool) -> str:
        self._left -= 1
        if self._left < 0:
            raise ValueError("the query ends early")
        kind = self._byte()
        if kind == _VALUE:
            return self._value()
        if kind != _OPERATOR:
            raise ValueError("neither a value nor an operator")
        operator = self._byte()
        priority = _PRIORITY[operator]
        if operator == _NOT:
            text = "!" + self._item(priority, right_of_phrase=False)
            return f"( {text} )" if priority < outer else text
        sign = {_AND: "&", _OR: "|"}.get(operator) or self._distance()
        right = self._item(priority, right_of_phrase=operator == _PHRASE)
        left = self._item(priority, right_of_phrase=False)
        text = f"{left} {sign} {right}"
        return f"( {text} )" if priority < outer or (operator == _PHRASE and right_of_phrase) else text

    def _distance(self) -> str:
        (distance,) = struct.unpack_from(">H", self._data, self._position)
        self._position += 2
        return "<->" if distance == 1 else f"<{distance}>"

    def _value(self) -> str:
        weight, prefix = self._byte(), self._byte()
        end = self._data.index(0, self._position)
        text = _quoted(self._data[self._position : end])
        self._position = end + 1
        marks = ("*" if prefix else "") + "".join(_WEIGHTS[bit] for bit in (3, 2, 1, 0) if weight & 1 << bit)
        return f"{text}:{marks}" if marks else text


def tsquery(data: bytes) -> str:
    """'fat' & ( 'rat':* | 'cat' )."""
    return _Query(data).text()
