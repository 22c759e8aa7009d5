"""What a preview counted, as the rollback's page and the preview's own page show it.

An older version's preview lacks parts: what it lacks is left out, and `exact` alone can be confirmed on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from briefly_admin.web import formats
from briefly_admin.web.samples_view import CLASSES, Sample, SampleGroup, sample_groups

ALLOWABLE: Final = frozenset({"CASCADE", "SET NULL", "SET DEFAULT"})
"""What a foreign key of a table outside does, and a tick may allow."""


@dataclass(frozen=True, slots=True)
class TableLine:
    """A table: what became of its rows, and what each mode would do with them."""

    name: str
    since: tuple[str, ...]
    exact: tuple[str, ...]
    keep: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Consequence:
    """What would happen to rows outside the plan: `of` names the table whose rows go, `allowable` by a tick."""

    table: str
    of: str
    action: str
    text: str
    allowable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A preview's result; `lines` end with the total. `keep_why_not` says why keep is off, or ''."""

    names: tuple[str, ...]
    lines: tuple[TableLine, ...]
    classified: bool
    keep_why_not: str
    written: int
    """Rows that exact writes."""
    same: int
    left_out: tuple[str, ...]
    derived: tuple[str, ...]
    lost: tuple[str, ...]
    outside: tuple[Consequence, ...]
    changes: tuple[str, ...]
    groups: tuple[SampleGroup, ...]

    @property
    def indexes(self) -> int:
        """How many of the schema changes keep leaves."""
        return sum(map(is_plain_index, self.changes))

    @property
    def three_ways(self) -> bool:
        """Whether there is a state that a migration left, apart from the backup's."""
        return not self.keep_why_not

    @property
    def settleable(self) -> tuple[Sample, ...]:
        """The edited rows on the page that can be settled one by one: none where keep is off."""
        if self.keep_why_not:
            return ()
        groups = (group for group in self.groups if group.kind == "edited" and group.keyed)
        return tuple(sample for group in groups for sample in group.samples)


def counted_of(preview: Mapping[str, Any], order: Sequence[str] = ()) -> Counted:
    """From `report["preview"]`; tables in the given order, those that it does not name after them."""
    tables = _map(preview.get("tables"))
    names = tuple(name for name in order if name in tables) + tuple(name for name in tables if name not in order)
    classes, keep = _map(preview.get("classes")), preview.get("keep")
    lines = tuple(_line(name, _map(tables[name]), _map(classes.get(name)), _map(keep).get(name)) for name in names)
    whole = _sum(tables.values())
    total = _line("together", whole, _sum(classes.values()), _sum(_map(keep).values()))
    return Counted(
        names=names, lines=(*lines, total), classified=bool(classes), keep_why_not=_keep_why_not(preview),
        written=sum(whole.get(name, 0) for name in ("update", "insert", "delete")), same=whole.get("same", 0),
        left_out=_columns(preview.get("left_out"), names), derived=_columns(preview.get("derived"), names),
        lost=tuple(_lost(item) for item in _list(preview.get("lost"))),
        outside=tuple(_consequence(item) for item in _list(preview.get("outside"))),
        changes=tuple(str(text) for text in _list(preview.get("schema_changes"))),
        groups=sample_groups(_map(preview.get("samples")), classes, names),
    )  # fmt: skip


def relevant(outside: Sequence[Consequence], going: Sequence[str]) -> tuple[Consequence, ...]:
    """Those that follow when rows of the tables `going` are deleted, and what follows from them in turn."""
    reached, found = set(going), dict.fromkeys(each for each in outside if not each.of)
    while True:
        more = [each for each in outside if each.of in reached and each not in found]
        if not more:
            return tuple(each for each in outside if each in found)
        found |= dict.fromkeys(more)
        reached |= {each.table for each in more if each.action == "CASCADE"}


def is_plain_index(change: str) -> bool:
    """Whether a schema change, as its sentence says, is one that keep leaves: 'users: index users_email_idx'."""
    return change.partition(": ")[2].startswith("index ")


def _keep_why_not(preview: Mapping[str, Any]) -> str:
    if "keep" not in preview:
        return "An older version counted this: count again."
    if preview["keep"] is None:
        return "This backup is not of a migration: there is nothing to undo alone."
    return ""


def _line(name: str, counts: Mapping[str, Any], classes: Mapping[str, Any], keep: Any) -> TableLine:
    exact = _words(counts, {
        "same": "stay as they are", "update": "restored", "insert": "brought back", "delete": "deleted",
    })  # fmt: skip
    kept = _words(_map(keep), {"update": "restored"}) + _words(
        classes, {"edited": "edited since kept", "created": "created since kept", "deleted": "deleted since stay away"}
    )
    return TableLine(name, _words(classes, CLASSES) or ("no rows",), exact or ("no rows",), kept or ("nothing to do",))


def _words(counts: Mapping[str, Any], words: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{formats.number(counts[name])} {text}" for name, text in words.items() if counts.get(name))


def _sum(counts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for name, count in _map(each).items():
            total[name] = total.get(name, 0) + count
    return total


def _columns(by_table: Any, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{name}.{column}" for name in names for column in _list(_map(by_table).get(name)))


def _lost(item: Mapping[str, Any]) -> str:
    rows = int(item["rows"])
    where = "1 row" if rows == 1 else f"{rows:,} rows"
    return f"{item['table']}.{item['column']}: in {where} stands something that the migration did not put there."


def _consequence(item: Any) -> Consequence:
    """An older version wrote sentences alone; each of them stood against the rollback."""
    if not isinstance(item, Mapping):
        return Consequence("", "", "", str(item), allowable=False)
    action = str(item["action"])
    allowable = action in ALLOWABLE and not item.get("blocks")
    return Consequence(str(item["table"]), str(item["of"]), action, str(item["text"]), allowable)


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()
