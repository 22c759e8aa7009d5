"""From the names of types, as a manifest has them, to what reads their values."""

import re
from collections.abc import Iterable
from typing import Final

from briefly_admin.domain.manifest import ColumnManifest, TypeManifest
from briefly_admin.vault.decoding import nested
from briefly_admin.vault.decoding.codec import TEXT, UNREADABLE, Codec, json_string, unknown
from briefly_admin.vault.decoding.scalars import BUILT_IN, BUILT_IN_RANGES, OF_EXTENSIONS

_LAST_NAME: Final = re.compile(r'(?:"((?:[^"]|"")*)"|([^".]+))$')
_ALIASES: Final = {
    "bool": "boolean", "int2": "smallint", "int4": "integer", "int8": "bigint", "float4": "real",
    "float8": "double precision", "varchar": "character varying", "char": '"char"', "time": "time without time zone",
    "timetz": "time with time zone", "timestamp": "timestamp without time zone",
    "timestamptz": "timestamp with time zone", "varbit": "bit varying",
}  # fmt: skip
"""pg_type.typname → as format_type says it."""

_OF_ONE: Final = {"array": nested.array, "range": nested.range_, "multirange": nested.multirange}


class Types:
    """What a backup's types are made of."""

    def __init__(self, types: Iterable[TypeManifest]) -> None:
        self._described = {each.name: each for each in types}
        self._codecs: dict[str, Codec] = {}

    def of_column(self, column: ColumnManifest) -> Codec:
        """What reads a column's fields: of the type's binary form, or of text where it has none."""
        codec = self.codec(column.type)
        if column.binary:
            return codec
        return Codec(TEXT.text, lambda data: _json_of(codec, TEXT.text(data)), codec.json_of_text)

    def codec(self, name: str) -> Codec:
        """By the type's name; one that is not known gives hexadecimal, and a note that says so."""
        if name not in self._codecs:
            self._codecs[name] = self._made(name)
        return self._codecs[name]

    def _made(self, name: str) -> Codec:
        described = self._described.get(name)
        return self._built_in(name) if described is None else self._of(described)

    def _built_in(self, name: str) -> Codec:
        if name.startswith("pg_catalog."):
            name = name.removeprefix("pg_catalog.")
            name = (
                f"{_ALIASES[name[:-2]]}[]"
                if name[:-2] in _ALIASES and name.endswith("[]")
                else _ALIASES.get(name, name)
            )
        if name.endswith("[]"):
            return nested.array(self.codec(name.removesuffix("[]")))
        if subtype := BUILT_IN_RANGES.get(name):
            return nested.range_(self.codec(subtype))
        if "multirange" in name and (range_name := name.replace("multirange", "range")) in BUILT_IN_RANGES:
            return nested.multirange(self.codec(range_name))
        if name in {"int2vector", "oidvector"}:
            return nested.number_vector(self.codec("smallint" if name == "int2vector" else "oid"))
        return BUILT_IN.get(name) or unknown(name)

    def _of(self, described: TypeManifest) -> Codec:
        if described.kind == "enum":
            return TEXT
        if described.kind == "domain":
            return self.codec(described.base)
        if described.kind == "composite":
            return nested.composite([(field.name, self.codec(field.type)) for field in described.fields])
        if made := _OF_ONE.get(described.kind):
            return made(self.codec(described.element))
        return OF_EXTENSIONS.get((described.extension, last_name(described.name))) or unknown(described.name)


def _json_of(codec: Codec, text: str) -> str:
    try:
        return codec.json_of_text(text)
    except UNREADABLE:
        return json_string(text)


def last_name(qualified: str) -> str:
    """The name behind the schema's, without quotes."""
    found = _LAST_NAME.search(qualified)
    if not found:
        return qualified
    return str(found[2]) if found[1] is None else found[1].replace('""', '"')
