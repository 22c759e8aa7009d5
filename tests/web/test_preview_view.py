"""What a preview counted, in words: every part, an older version's result, and never more than a page can hold."""

from typing import Any

from briefly_admin.web.preview_view import Counted, counted_of, relevant
from briefly_admin.web.samples_view import Value
from tests.web.rendering import HOSTILE, Page, strict_environment

COUNTS = {"same": 77_690, "update": 22_310, "insert": 0, "delete": 5}
CLASSES = {"untouched": 77_690, "migrated": 22_307, "edited": 3, "created": 5, "deleted": 0}


def column(name: str, before: str | None, migrated: str | None, now: str | None, **more: Any) -> dict[str, Any]:
    return {"name": name, "before": before, "migrated": migrated, "now": now, "secret": False, **more}


def edited(*key: str, columns: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"class": "edited", "key": list(key), "columns": columns or [column("tier", None, "free", "pro")]}


def preview(**more: Any) -> dict[str, Any]:
    """A preview's result of one table, in the shape of the engine's."""
    return {
        "tables": {"users": COUNTS}, "classes": {"users": CLASSES}, "keep": {"users": {"update": 22_307}},
        "left_out": {}, "derived": {}, "lost": [], "samples": {"users": [edited("7")]}, "outside": [],
        "schema_changes": [], **more,
    }  # fmt: skip


def outside(table: str, of: str, action: str, **more: Any) -> dict[str, Any]:
    text = f"12 rows of {table} would go with 5 {of} ({action})."
    return {
        "table": table,
        "constraint": "c",
        "action": action,
        "of": of,
        "rows": 12,
        "blocks": False,
        "text": text,
    } | more


def html_of(counted: Counted) -> Page:
    template = strict_environment().from_string('{% include "backups/_counted.html" %}')
    return Page(template.render(counted=counted, settle=None))


def test_both_modes_stand_beside_what_became_of_the_rows() -> None:
    line, total = counted_of(preview()).lines
    assert line.since == (
        "77,690 untouched", "22,307 changed by the migration alone", "3 edited since", "5 created since"
    )  # fmt: skip
    assert line.exact == ("77,690 stay as they are", "22,310 restored", "5 deleted")
    assert line.keep == ("22,307 restored", "3 edited since kept", "5 created since kept")
    assert (total.name, total.since, total.keep) == ("together", line.since, line.keep)
    assert html_of(counted_of(preview())).one("div", id="counts").text.count("22,307 restored") == 2


def test_tables_stand_in_the_order_given_and_those_without_rows_say_so() -> None:
    nothing = dict.fromkeys(COUNTS, 0)
    counted = counted_of(preview(tables={"b": nothing, "users": COUNTS, "a": nothing}), ["users", "a", "b"])
    assert [line.name for line in counted.lines] == ["users", "a", "b", "together"]
    assert counted.lines[1].exact == ("no rows",)
    assert counted.lines[1].keep == ("nothing to do",)


def test_what_does_not_count_is_named() -> None:
    counted = counted_of(preview(
        left_out={"users": ["updated_at"]}, derived={"users": ["chats"]},
        lost=[{"table": "users", "column": "tier_since", "rows": 12}], schema_changes=["users: column tier_since"],
    ))  # fmt: skip
    text = html_of(counted).all[0].text + " ".join(each.text for each in html_of(counted).all)
    for words in (
        "users.updated_at", "users.chats", "users.tier_since: in 12 rows stands something", "1 schema change would"
    ):  # fmt: skip
        assert words in text


def test_null_empty_text_no_row_and_secrets_are_told_apart() -> None:
    columns = [
        column("tier", None, "", "pro"), column("token", None, None, None, secret=True),
        column("leak", "s3cret", "s3cret", "s3cret", secret=True),
    ]  # fmt: skip
    counted = counted_of(preview(samples={"users": [
        edited("7", columns=columns), {"class": "created", "key": ["8"], "columns": [column("tier", None, None, "x")]},
        {"class": "deleted", "key": ["9"], "columns": [column("tier", "x", None, None)]},
    ]}))  # fmt: skip
    tier, token, _ = counted.settleable[0].columns
    assert (tier.before, tier.migrated, tier.now) == (Value("null"), Value("empty"), Value("text", "pro"))
    assert token.now == Value("hidden")
    _, created, deleted = counted.groups
    assert created.samples[0].columns[0].before.kind == "absent"
    assert (deleted.samples[0].columns[0].migrated.kind, deleted.samples[0].columns[0].now.kind) == ("null", "absent")
    page = html_of(counted)
    assert not [e for e in page.all if "s3cret" in e.text or "s3cret" in "".join(map(str, e.attributes.values()))]
    cells = [cell.text for cell in page.every("td", data_label="Now")]
    assert cells == ["pro", "hidden", "hidden", "x"], "where a row is gone, no column stands for it"
    assert [cell.text for cell in page.every("td", data_label="Before")] == ["NULL", "hidden", "hidden", "x"]


def test_names_and_values_of_tenants_stay_text() -> None:
    hostile = preview(
        tables={HOSTILE: COUNTS}, classes={HOSTILE: CLASSES}, keep={HOSTILE: {"update": 1}},
        samples={HOSTILE: [edited(HOSTILE, columns=[column(HOSTILE, HOSTILE, HOSTILE, None)])]},
        left_out={HOSTILE: [HOSTILE]}, lost=[{"table": HOSTILE, "column": HOSTILE, "rows": 1}],
        outside=[outside(HOSTILE, HOSTILE, "CASCADE")], schema_changes=[HOSTILE],
    )  # fmt: skip
    page = html_of(counted_of(hostile))
    assert not page.every("script")
    assert not [element for element in page.all if "onload" in element.attributes]


def test_a_backup_of_no_migration_has_no_state_as_migrated() -> None:
    counted = counted_of(preview(keep=None))
    assert "not of a migration" in counted.keep_why_not
    assert counted.settleable == ()
    page = html_of(counted)
    assert "As migrated" not in page.one("details").text
    assert not page.every("td", data_label="Keep would do")


def test_what_an_older_version_counted_still_reads() -> None:
    old = {"tables": {"users": COUNTS}, "outside": ["Rows of job_logs stand against it."], "schema_changes": ["a", "b"]}
    counted = counted_of(old)
    assert "count again" in counted.keep_why_not
    page = html_of(counted)
    assert not page.every("td", data_label="Since the backup")
    assert "22,310 restored" in page.one("div", id="counts").text
    assert "Rows of job_logs stand against it" in page.one("section", id="outside").text
    assert counted_of({}).lines[0].exact == ("no rows",)


def test_the_page_never_grows_beyond_its_room_and_says_what_it_leaves_out() -> None:
    wide = [column(f"column_{n}", '"<&>"' * 40, "é" * 200, "'" * 200) for n in range(30)]
    rows = [edited(str(n), columns=wide) for n in range(100)]
    rows += [{"class": "created", "key": [str(n)], "columns": wide} for n in range(20)]
    names = [f"table_{n}" for n in range(8)]
    huge = preview(
        tables=dict.fromkeys(names, COUNTS), classes=dict.fromkeys(names, CLASSES | {"edited": 5000}),
        keep={name: {"update": 1} for name in names}, samples=dict.fromkeys(names, rows),
    )  # fmt: skip
    assert len(strict_environment().from_string('{% include "backups/_counted.html" %}').render(
        counted=counted_of(huge), settle=None
    ).encode()) < 150_000  # fmt: skip
    assert "no room for any" in " ".join(group.left for group in counted_of(huge).groups)
    slim = preview(
        classes={"users": CLASSES | {"edited": 5000}}, samples={"users": [edited(str(n)) for n in range(100)]}
    )
    (group,) = counted_of(slim).groups
    assert len(group.samples) == 20
    assert group.left.startswith("20 of 5,000 rows are shown. The others go by the rule; 100 are named in the preview")
    assert counted_of(slim).settleable == counted_of(slim).settleable
    assert len({sample.name for sample in counted_of(huge).settleable}) == len(counted_of(huge).settleable)


def test_edited_rows_do_not_crowd_out_the_others() -> None:
    broad = [column(f"column_{n}", "a" * 100, "b" * 100, "c" * 100) for n in range(10)]
    rows = [edited(str(n), columns=broad) for n in range(20)]
    rows += [{"class": kind, "key": [kind], "columns": broad} for kind in ("migrated", "created", "deleted")]
    found = {group.kind: len(group.samples) for group in counted_of(preview(samples={"users": rows})).groups}
    assert 1 < found.pop("edited") < 20
    assert found == {"migrated": 1, "created": 1, "deleted": 1}


def test_consequences_follow_from_the_tables_that_lose_rows() -> None:
    first = outside("app.logs", "users", "CASCADE")
    second = outside("app.lines", "app.logs", "RESTRICT", blocks=True)
    third = outside("app.notes", "chats", "SET NULL")
    chain = counted_of(preview(outside=[second, first, third])).outside
    assert [each.table for each in relevant(chain, ["users"])] == ["app.lines", "app.logs"]
    assert [each.table for each in relevant(chain, ["chats"])] == ["app.notes"]
    assert relevant(chain, []) == ()
    assert [each.allowable for each in chain] == [False, True, True]
    page = html_of(counted_of(preview(outside=[second, first])))
    assert [("stands against it" in item.text) for item in page.every("li")] == [True, False]


def test_rows_whose_key_is_secret_are_shown_without_it_and_cannot_be_settled() -> None:
    counted = counted_of(preview(samples={"users": [edited(), edited()]}))
    [group] = counted.groups
    first, second = group.samples
    assert (first.title, first.name != second.name) == ("key hidden", True)
    assert (counted.settleable, group.keyed) == ((), False)
    page = html_of(counted)
    assert "2 of 3 rows are shown. The others go by the rule. Their key is secret" in page.one("details").text
    assert counted_of(preview()).settleable != ()
