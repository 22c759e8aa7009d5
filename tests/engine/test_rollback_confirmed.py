"""What was confirmed of a preview binds the rollback: every count, in both directions, up to the allowance."""

from pathlib import Path

import pytest

from briefly_admin.domain.errors import Refused
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import rollback
from briefly_admin.engine.rollback import preview, restore
from tests.engine.sealed_target import SealedTarget, plan_of
from tests.engine.three_way import CLASSES, edited


def test_every_count_of_exact_binds_it_up_to_the_allowance(target_database: str, tmp_path: Path) -> None:
    sealed = SealedTarget(target_database, plan_of("t"), tmp_path / "store")
    sealed.execute("CREATE TABLE t (id int PRIMARY KEY, v text)",
                   "INSERT INTO t SELECT i, 'v' FROM generate_series(1, 30) i")  # fmt: skip
    sealed.back_up()
    sealed.execute(
        "UPDATE t SET v = 'w' WHERE id < 5", "DELETE FROM t WHERE id > 27", "INSERT INTO t VALUES (90), (91)"
    )
    found = {"same": 23, "update": 4, "insert": 3, "delete": 2}
    rollback.run_phase(sealed.context(), Phase.STAGE)
    assert preview.run(sealed.context())["tables"] == {"t": found}
    for step, moved in ((preview.run, 2), (restore.run, -2)):
        expected = {"t": {what: count + moved for what, count in found.items()}}
        said = "; ".join(
            f"t: {found[what]} to {what} instead of {expected['t'][what]}" for what in ("update", "insert", "delete")
        )
        with pytest.raises(Refused, match=said):
            step(sealed.context(expected=expected, allowance=1))
    sealed.roll_back(expected=expected, allowance=2)
    assert sealed.query("SELECT count(*) FROM t WHERE v = 'v'") == [(30,)]


def test_every_class_binds_keep(target_database: str, tmp_path: Path) -> None:
    sealed = edited(target_database, tmp_path)
    found = CLASSES["users"]
    expected = {"users": {what: count + 1 for what, count in found.items()}}
    said = "; ".join(
        f"users: {found[what]} {what} instead of {found[what] + 1}"
        for what in ("migrated", "edited", "created", "deleted")
    )
    rollback.run_phase(sealed.context(mode="keep"), Phase.STAGE)
    with pytest.raises(Refused, match=said):
        preview.run(sealed.context(mode="keep", expected_classes=expected))
