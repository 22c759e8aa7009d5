"""What a rollback may be asked for: every wrong wish is named by its field, every wrong preview by what it is."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from briefly_admin.domain.errors import BrieflyError, Busy, InvalidRequest, NotFound, Refused
from briefly_admin.domain.runs import ACTIVE, RunKind, RunState
from briefly_admin.engine.identity import identify
from briefly_admin.services.views import RunView
from tests.services.conftest import Stage
from tests.services.keeping import keep


@pytest.fixture
def migration(stage: Stage) -> RunView:
    """A finished one; it took the backup `one`, of users and their settings and a table beyond the plan."""
    run = stage.lead(stage.services.runs.start(stage.olga, RunKind.MIGRATION))
    assert run.state is RunState.COMPLETED
    for name in ("one", "two"):
        keep(stage, name, run_id=run.id)
    tables = json.dumps([{"table": name, "rows": 1, "bytes": 1} for name in ("users", "user_settings", "public.bills")])
    with psycopg.connect(stage.app_url) as connection:
        connection.execute(
            "UPDATE briefly_admin.backup SET tables = %s, target_id = %s", (tables, identify(stage.servers.target))
        )
    return run


def rollback(stage: Stage, **wish: Any) -> RunView:
    return stage.services.runs.rollback(stage.ana, wish.pop("backup", "one"), **{"confirm": True} | wish)


def settled(values: dict[str, Any], *, key: tuple[str, ...] = ("1",), table: str = "users") -> dict[str, Any]:
    row = {"key": list(key), "how": "edit", "values": values}
    return {"mode": "keep", "settled": {table: [row | {"key": ["0"], "how": "keep", "values": {}}, row]}}


MAIL = {"email": "x"}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"confirm": False}, "confirm", "Must be true"),
    ({"mode": "EXACT"}, "mode", "exact, keep"),
    ({"reason": "x" * 501}, "reason", "at most 500"),
    *(({"reason": f"a{each}b"}, "reason", "plain text") for each in ("\0", "\x1b[2J", "\x7f", "\x9b", "\ud800")),
    ({"allowance": -1}, "allowance", "from 0"),
    ({"allowance": 5}, "allowance", "Belongs to a preview"),
    ({"rules": {"edited": "keep"}}, "rules", "the mode keep"),
    ({"mode": "keep", "rules": {"moved": "keep"}}, "rules", "moved cannot be decided so"),
    (settled(MAIL) | {"mode": "exact"}, "settled", "the mode keep"),
    ({"tables": []}, "tables", "users, user_settings"),
    ({"tables": ["users", "chats"]}, "tables", "users, user_settings"),
    ({"tables": ["public.bills"]}, "tables", "that the plan has: users, user_settings"),
    (settled(MAIL, table="chats"), "settled", "chats must be one of the tables that go back: users, user_settings"),
    (settled(MAIL) | {"tables": ["user_settings"]}, "settled", "users must be one of the tables that go back: user_s"),
    (settled(MAIL, key=("1", "2")), "settled", "users, row 2: key must have 1 of id, and has 2"),
    (settled(MAIL | {"nonsense": "1"}), "settled", "users, row 2: nonsense cannot be edited here: the plan has no such"),
    (settled({"id": "2"}), "settled", "users, row 2: id cannot be edited here: it is of the key"),
    ({"allow": ["public.nothing"]}, "allow", "public.nothing: there is no such table"),
]  # fmt: skip


def test_every_wrong_wish_is_named_by_its_field(stage: Stage, migration: RunView) -> None:
    for wish, field, words in WRONG:
        with pytest.raises(InvalidRequest) as raised:
            rollback(stage, **wish)
        assert list(raised.value.details) == [field], wish
        assert words in " ".join(raised.value.details[field]), (wish, raised.value.details)
    with pytest.raises(InvalidRequest) as raised:
        stage.services.runs.start(stage.olga, RunKind.PREVIEW, options={"backup": "one", "tables": ["users"]})
    assert list(raised.value.details) == ["kind"]
    assert stage.services.runs.count(stage.vito) == 1


def test_what_is_odd_and_right(stage: Stage, migration: RunView) -> None:
    """Tables named twice or in another order, a reason of several lines, and all of the plan's tables by name."""
    wishes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"tables": ["users", "users"]}, {"tables": ["users"]}),
        ({"tables": ["user_settings", "users"]}, {"tables": None}),
        ({"reason": "Tiers\n\twrong \u200d 🙂\r\n"}, {"reason": "Tiers\n\twrong \u200d 🙂\r\n"}),
        ({"mode": "keep", "settled": {"users": []}}, {"settled": {"users": []}}),
        ({"backup": "one "}, {"backup_name": "one", "origin": {"run_id": migration.id, "number": migration.number}}),
    ]
    for wish, options in wishes:
        run = rollback(stage, **wish)
        assert {name: run.options[name] for name in options} == options, wish
        stage.services.runs.cancel(stage.ana, run.id)


def test_every_wrong_preview_is_named_by_what_it_is(stage: Stage, migration: RunView) -> None:
    runs = stage.services.runs

    def preview(backup: str = "one", *, state: RunState | None = None, **more: Any) -> RunView:
        run = runs.preview(stage.olga, backup, **more)
        if state is None:
            return stage.lead(run, lambda _: {"preview": {"tables": {"users": {"same": 1}}}})
        with psycopg.connect(stage.app_url) as connection:
            connection.execute("UPDATE briefly_admin.run SET state = %s WHERE id = %s", (state.value, run.id))
        return run

    def refused(
        reference: str, kind: type[BrieflyError], words: str, remedy: str = "Preview this", **more: Any
    ) -> None:
        with pytest.raises(kind) as raised:
            rollback(stage, preview_id=reference, **more)
        assert words in raised.value.message, (reference, raised.value.message)
        assert raised.value.remedy.startswith(remedy), (reference, raised.value.remedy)

    missing = "There is no such run to be the preview: "
    for reference in ("", "0", "99999", "1" * 30, "x' OR 1=1", "..", "\0", "\ud800", str(uuid4()), "9" * 36, "\u0661"):
        refused(reference, NotFound, missing)
    refused("x" * 1000, NotFound, f"{missing}'{'x' * 80}'")
    refused(migration.id, Refused, "Run 1 is no finished preview of one: it is a migration.")
    refused(preview("two").id, Refused, "of one: it is a preview of two.")
    for state in RunState:
        words = "of one: it is still" if state in {RunState.RUNNING, RunState.PENDING} else "of one: it is"
        if state is not RunState.COMPLETED:
            remedy = "Wait until" if state in ACTIVE else "Preview this"
            refused(preview(state=state).id, Refused, f"{words} ", remedy)
    part = preview(tables=["users"])
    for tables in (None, ["user_settings"], ["users", "user_settings"]):
        refused(part.id, Refused, "is a preview of users alone", "Preview all tables", tables=tables)
    # One whose staged tables are long gone is still what was confirmed.
    old = preview()
    stage.clock.move(hours=5)
    run = rollback(stage, preview_id=str(old.number), tables=["users"], allowance=5)
    assert (run.options["preview_id"], run.options["expected"]) == (old.id, {"users": {"same": 1}})


def test_of_two_at_once_one_begins(stage: Stage, migration: RunView) -> None:
    def ask(number: int) -> str:
        try:
            return str(rollback(stage, reason=f"the {number}th").number)
        except Busy as error:
            return error.message

    with ThreadPoolExecutor(4) as pool:
        begun = list(pool.map(ask, range(4)))
    number, *others = sorted(begun, key=len)
    assert number == str(migration.number + 1)
    assert set(others) == {f"Run {number} (rollback, pending) holds the target."}
    with pytest.raises(Busy, match=r"Run 2 \(rollback, pending\) holds the target"):
        rollback(stage)
    assert stage.services.runs.preview(stage.olga, "one").state is RunState.PENDING, "it may run beside"
