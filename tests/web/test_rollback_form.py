"""The form of a rollback by itself: what it asks the service for, and every wrong way to fill it."""

from typing import Any

import pytest
from werkzeug.datastructures import MultiDict

from briefly_admin.web.preview_view import counted_of
from briefly_admin.web.rollback_forms import ConfirmForm, confirm_form
from briefly_admin.web.samples_view import Sample
from tests.web.test_preview_view import CLASSES, COUNTS, column, edited, outside, preview

COLUMNS = [
    column("tier", None, "free", "pro"), column("note", None, None, None), column("token", None, None, None, secret=True),
    column("bio", None, None, "two\nlines"), column("cut", None, None, "x" * 200),
]  # fmt: skip
COUNTED = preview(
    tables={"users": COUNTS, "chats": COUNTS}, classes={"users": CLASSES, "chats": CLASSES},
    keep={"users": {"update": 1}, "chats": {"update": 1}},
    samples={"users": [edited("7", "a", columns=COLUMNS), edited("8")]},
    outside=[
        outside("app.logs", "users", "CASCADE"), outside("app.notes", "chats", "RESTRICT", blocks=True),
    ],
)  # fmt: skip
RIGHT = {
    "preview_id": "p-1", "mode": "keep", "tables": ["users", "chats"], "edited": "keep", "created": "keep",
    "deleted": "leave", "allowance": "0", "reason": " wrong tiers ", "word": "ROLLBACK", "database": "briefly",
}  # fmt: skip


def rows(result: dict[str, Any] = COUNTED) -> tuple[Sample, ...]:
    return counted_of(result).settleable


SEVEN, EIGHT = (sample.name for sample in rows())
AS_IT_CAME = {
    f"value_{SEVEN}_0": "pro", f"value_{SEVEN}_1": "", f"null_{SEVEN}_1": "y",
    f"value_{SEVEN}_3": "two\r\nlines", f"value_{EIGHT}_0": "pro",
}  # fmt: skip
"""What a browser sends of the rows where nobody touched them."""


def form(result: dict[str, Any] = COUNTED, **fields: Any) -> ConfirmForm:
    sent = MultiDict[str, Any](RIGHT | AS_IT_CAME | fields)
    return confirm_form(
        sent, counted=counted_of(result), tables=["users", "chats"], database="briefly", preview_id="p-1"
    )


def wish(**fields: Any) -> dict[str, Any]:
    filled = form(**fields)
    assert filled.validate(), filled.errors
    return filled.wish()


def test_untouched_rows_go_by_the_rules() -> None:
    assert wish() == {
        "mode": "keep", "tables": ["users", "chats"], "reason": "wrong tiers", "preview_id": "p-1", "allow": (),
        "allowance": 0, "rules": {"edited": "keep", "created": "keep", "deleted": "leave"}, "settled": {},
    }  # fmt: skip


def test_rows_are_settled_one_by_one_and_only_what_was_typed_is_sent() -> None:
    found = wish(**{
        f"how_{SEVEN}": "edit", f"value_{SEVEN}_0": "pro\r\nbyok", f"value_{SEVEN}_1": "", f"null_{SEVEN}_1": [],
        f"how_{EIGHT}": "restore",
    })["settled"]  # fmt: skip
    assert found == {
        "users": [
            {"key": ["7", "a"], "how": "edit", "values": {"tier": "pro\nbyok", "note": ""}},
            {"key": ["8"], "how": "restore"},
        ]
    }
    nulled = wish(**{f"how_{SEVEN}": "edit", f"null_{SEVEN}_0": "y"})["settled"]
    assert nulled["users"][0]["values"] == {"tier": None}, "what was left in the text does not count beside NULL"
    assert wish(**{f"how_{EIGHT}": "keep"})["settled"] == {"users": [{"key": ["8"], "how": "keep"}]}


def test_exact_takes_neither_rules_nor_rows() -> None:
    found = wish(mode="exact", tables="users", allow="app.logs", allowance="12")
    assert (found["rules"], found["settled"], found["allow"], found["allowance"]) == (None, None, ("app.logs",), 12)
    assert found["tables"] == ["users"]


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"mode": "exact", f"how_{EIGHT}": "keep", "tables": "users", "allow": "app.logs"}, "mode", "Exact restores every"),
    ({"mode": ""}, "mode", "Choose exact or keep"),
    ({"mode": "some"}, "mode", "Not a valid choice"),
    ({"edited": "edit"}, "edited", "Not a valid choice"),
    ({"created": "x"}, "created", "Not a valid choice"),
    ({"deleted": "keep"}, "deleted", "Not a valid choice"),
    ({f"how_{SEVEN}": "burn"}, f"how_{SEVEN}", "Not a valid choice"),
    ({f"how_{SEVEN}": "edit"}, f"how_{SEVEN}", "Nothing was edited"),
    ({f"value_{SEVEN}_0": "free"}, f"how_{SEVEN}", "A value was typed (tier): choose"),
    ({f"how_{SEVEN}": "restore", f"null_{SEVEN}_0": "y"}, f"how_{SEVEN}", "A value was typed (tier)"),
    ({f"how_{SEVEN}": "edit", f"value_{SEVEN}_1": "text and NULL"}, f"how_{SEVEN}", "note: either NULL or a text"),
    ({f"how_{SEVEN}": "edit", f"value_{SEVEN}_0": "a\x00b"}, f"how_{SEVEN}", "the character NUL"),
    ({f"how_{SEVEN}": "edit", f"value_{SEVEN}_0": "x" * 10_001}, f"value_{SEVEN}_0", "longer than 10000"),
    ({f"how_{EIGHT}": "restore", "tables": "chats"}, f"how_{EIGHT}", "Choose the table users, too"),
    ({"mode": "exact", "tables": "users"}, "allow", "Rows of app.logs would go or change"),
    ({"mode": "exact", "tables": "chats"}, "tables", "12 rows of app.notes would go"),
    ({"created": "delete"}, "allow", "Rows of app.logs would go or change"),
    ({"allow": "app.notes"}, "allow", "not a valid choice"),
    ({"allow": "pg_catalog.pg_class"}, "allow", "not a valid choice"),
    ({"allowance": "-1"}, "allowance", "from 0 to"),
    ({"allowance": "1000000001"}, "allowance", "from 0 to"),
    ({"tables": []}, "tables", "at least one table"),
    ({"preview_id": "p-2"}, "preview_id", "Look first"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "name", "said"), WRONG)
def test_whatever_is_wrong_is_said_beside_its_field(fields: dict[str, Any], name: str, said: str) -> None:
    filled = form(**fields)
    assert not filled.validate()
    assert said in " ".join(map(str, filled.errors[name]))


def test_keep_is_off_where_there_is_no_migration_or_nothing_told_of_it() -> None:
    old = {name: value for name, value in COUNTED.items() if name != "keep"}
    for result, why in ((COUNTED | {"keep": None}, "not of a migration"), (old, "count again")):
        filled = form(result)
        assert not filled.validate()
        assert why in " ".join(map(str, filled.errors["mode"]))
        assert why in filled.notes()["keep"]
        assert not [name for name in filled._fields if name.startswith("how_")]


def test_it_begins_with_what_an_earlier_rollback_asked_for() -> None:
    before = {
        "mode": "keep", "tables": ["users"], "allow": ["app.logs"], "allowance": 3, "reason": "because",
        "rules": {"deleted": "bring_back"}, "settled": {"users": [
            {"key": ["7", "a"], "how": "edit", "values": {"tier": "free", "note": None, "gone": "x"}},
            {"key": ["no longer edited"], "how": "restore"},
        ]},
    }  # fmt: skip
    begun = confirm_form(
        counted=counted_of(COUNTED), tables=["users", "chats"], database="briefly", preview_id="p-1", before=before
    )
    found = {name: begun[name].data for name in ("mode", "tables", "allow", "allowance", "reason", "deleted", "edited")}
    assert found == {
        "mode": "keep", "tables": ["users"], "allow": ["app.logs"], "allowance": 3, "reason": "because",
        "deleted": "bring_back", "edited": "keep",
    }  # fmt: skip
    assert (begun[f"how_{SEVEN}"].data, begun[f"value_{SEVEN}_0"].data, begun[f"how_{EIGHT}"].data) == (
        "edit",
        "free",
        "",
    )
    assert begun[f"null_{SEVEN}_1"].data is True
    assert (begun.word.data, begun.database.data) == (None, None)
    off = confirm_form(
        counted=counted_of(COUNTED | {"keep": None}), tables=["users"], database="b", preview_id="p", before=before
    )
    assert off.mode.data == "exact", "where keep is off, what asked for it cannot be kept"


def test_what_a_mode_needs_stands_beside_it() -> None:
    filled = form()
    assert "rows of app.notes stand against it. Needs the ticks above: app.logs" in filled.notes()["exact"]
    assert filled.created_notes()["delete"] in filled.notes()["exact"]
    assert form(COUNTED | {"outside": []}).created_notes() == {}


def test_neither_a_secret_nor_what_was_cut_can_be_edited() -> None:
    sent: dict[str, Any] = {
        f"how_{SEVEN}": "edit", f"value_{SEVEN}_0": "free", f"value_{SEVEN}_2": "mine", f"value_{SEVEN}_4": "short",
    }  # fmt: skip
    filled = form(**sent)
    assert filled.validate()
    assert filled.wish()["settled"]["users"][0]["values"] == {"tier": "free"}
    only = COUNTED | {"samples": {"users": [edited("9", columns=[column("token", None, None, None, secret=True)])]}}
    (row,) = rows(only)
    assert not form(only).values(row)
    only_edit: dict[str, Any] = {f"how_{row.name}": "edit"}
    assert not form(only, **only_edit).validate()
