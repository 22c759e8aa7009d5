"""A few rounds of edits; what brute force says of rows made by hand; and that what is not so is noticed."""

import struct
from typing import Any

import pytest

from tests.faults.aftermath import UNCOUNTED, Migrated
from tests.faults.ground import Ground
from tests.faults.oracle import TABLES
from tests.faults.rows import edits
from tests.faults.test_rows import says
from tests.faults.three_ways import Choice, Row, Rows, Settled, ThreeWays, differences


def test_a_few_rounds(common_ground: Ground, migrated_place: Migrated) -> None:
    facts = edits.rounds(migrated_place, common_ground.servers, 3, 5)
    assert facts["migrated"] > 10
    assert facts["edits"] > 0
    assert "5 rounds with" in says("edits", facts)


def number(value: int) -> bytes:
    return struct.pack(">i", value)


def key(of: str) -> bytes:
    return of.encode() * 16


def rows(**tables: dict[str, Row]) -> Rows:
    """Rows by the letter of their id."""
    return {
        table: {key(letter): {"id": key(letter), **row} for letter, row in tables.get(table, {}).items()}
        for table in TABLES
    }  # fmt: skip


def talk(count: int, title: bytes = b"t", at: bytes = b"1") -> Row:
    return {"message_count": number(count), "title": title, "updated_at": at}


def said(of: str) -> Row:
    return {"conversation_id": key(of), "content": b"x"}


@pytest.fixture
def ways() -> ThreeWays:
    """Conversations by what became of them; the migration counted the messages of all: a has two, b to f have one."""
    messages = {str(place): said(of) for place, of in enumerate("aabcdef")}
    before = {"a": talk(2), "b": talk(9), "c": talk(9), "d": talk(9), "e": talk(9), "f": talk(1)}
    after = before | {letter: talk(1, at=b"2") for letter in "bcde"}
    now = after | {"b": talk(2, at=b"3"), "c": talk(1, b"u"), "a": talk(2, at=b"4"), "f": talk(2), "z": talk(0)}
    del now["e"]
    more = messages | {"7": said("b"), "8": said("f")}
    return ThreeWays(
        rows(conversations=before, chat_messages=messages), rows(conversations=after, chat_messages=messages),
        rows(conversations=now, chat_messages=more), UNCOUNTED,
    )  # fmt: skip


def titled(found: Rows, letter: str) -> tuple[int, bytes | None] | None:
    row = found["conversations"].get(key(letter))
    return None if row is None else (int.from_bytes(row["message_count"] or b""), row["title"])


def test_classes(ways: ThreeWays) -> None:
    classes = {chr(id_[0]): what for id_, what in ways.classes["conversations"].items()}
    assert classes == {
        "a": "untouched", "b": "migrated", "c": "edited", "d": "migrated", "e": "deleted", "f": "migrated", "z": "created",
    }  # fmt: skip
    assert ways.exact()["conversations"] == {"same": 0, "update": 5, "insert": 1, "delete": 1}
    assert ways.counts()["chat_messages"]["created"] == 2


def test_what_keep_leaves(ways: ThreeWays) -> None:
    found = ways.kept(Choice())
    assert [titled(found, letter) for letter in "abcdefz"] == [
        (2, b"t"), (9, b"t"), (1, b"u"), (9, b"t"), None, (2, b"t"), (0, b"t"),
    ]  # fmt: skip
    assert found["conversations"][key("a")]["updated_at"] == b"4"
    assert ways.written(Choice(), {})["conversations"] == {"same": 4, "update": 2, "insert": 0, "delete": 0}


def test_what_rules_and_settled_rows_leave(ways: ThreeWays) -> None:
    found = ways.kept(Choice(edited="restore", created="delete", deleted="bring_back"))
    assert [titled(found, letter) for letter in "cefz"] == [(9, b"t"), (9, b"t"), (1, b"t"), None]
    assert titled(ways.kept(Choice("restore", settled={("conversations", key("c")): Settled("keep")})), "c") == (
        1,
        b"u",
    )
    edited = ways.kept(Choice(settled={("conversations", key("c")): Settled("edit", {"title": b"v"})}))
    assert titled(edited, "c") == (1, b"v")


def preview(ways: ThreeWays) -> dict[str, Any]:
    """One that is true."""
    samples: dict[str, list[dict[str, Any]]] = {
        table: [{"class": what, "key": [edits.text_of(id_)]} for id_, what in found.items() if what != "untouched"]
        for table, found in ways.classes.items()
    }
    updates = {table: {"update": each["update"]} for table, each in ways.written(Choice(), {}).items()}
    return {"tables": ways.exact(), "classes": ways.counts(), "keep": updates, "samples": samples}


def test_a_preview_that_is_not_true_is_noticed(ways: ThreeWays) -> None:
    edits.require_counts(preview(ways), ways)
    for part, what in (("tables", "update"), ("classes", "edited"), ("keep", "update")):
        wrong = preview(ways)
        wrong[part]["conversations"][what] += 1
        with pytest.raises(AssertionError, match=f"{part}: conversations"):
            edits.require_counts(wrong, ways)
    samples = preview(ways)["samples"]["conversations"]
    for other in (samples[1:], [*samples, samples[0]], [samples[0] | {"class": "deleted"}, *samples[1:]]):
        wrong = preview(ways)
        wrong["samples"]["conversations"] = other
        with pytest.raises(AssertionError, match="samples of conversations"):
            edits.require_counts(wrong, ways)


def test_rows_that_are_left_otherwise_are_noticed(ways: ThreeWays) -> None:
    right = ways.kept(Choice())
    assert differences(right, ways.kept(Choice()), {}) == []
    for hurt in ("title", "updated_at"):
        wrong = ways.kept(Choice())
        wrong["conversations"][key("b")][hurt] = None
        with pytest.raises(AssertionError, match=f"62: {hurt}"):
            edits.require_rows(right, wrong, {}, "keep")
    lost = ways.kept(Choice())
    del lost["conversations"][key("a")]
    assert differences(right, lost, {}) == [f"conversations {key('a').hex()} is lost"]
    assert differences(lost, right, {}) == [f"conversations {key('a').hex()} is too much"]
