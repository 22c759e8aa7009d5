"""A table whose key is secret: its rows are shown without it, and go by the rules alone."""

import json
from pathlib import Path

import pytest
from marshmallow import Schema

from briefly_admin.domain.errors import Refused
from briefly_admin.plans.base import Column, Plan, Repair, Table
from tests.engine.sealed_target import SealedTarget

_TABLE = Table(
    "links", Schema, (Column("token", "text", secret=True), Column("n", "int"), Column("tier", "text")),
    key=("n", "token"), repairs=(Repair("tier", "coalesce({tier}, 'free')", "a missing tier"),),
)  # fmt: skip


@pytest.fixture
def sealed(target_database: str, tmp_path: Path) -> SealedTarget:
    """Four rows, one of each class but untouched."""
    sealed = SealedTarget(target_database, Plan("tiny", "Tiny", "One table.", (_TABLE,)), tmp_path / "store")
    sealed.execute(
        "CREATE TABLE links (token text, n int, tier text, PRIMARY KEY (n, token))",
        "INSERT INTO links SELECT 'hidden' || i, i FROM generate_series(1, 4) i",
    )
    sealed.back_up()
    sealed.migrate()
    sealed.options = sealed.origin
    sealed.execute(
        "UPDATE links SET tier = 'gold' WHERE n < 3",
        "DELETE FROM links WHERE n = 3",
        "INSERT INTO links VALUES ('hidden5', 5)",
    )
    return sealed


def test_no_sample_tells_a_secret_key(sealed: SealedTarget) -> None:
    samples = sealed.preview()["samples"]["links"]
    assert [(each["class"], each["key"]) for each in samples] == [
        ("edited", []), ("edited", []), ("created", []), ("deleted", []), ("migrated", []),
    ]  # fmt: skip
    assert samples[0]["columns"] == [
        {"name": "tier", "before": None, "migrated": "free", "now": "gold", "secret": False}
    ]
    assert "hidden" not in json.dumps(samples)


def test_no_row_of_it_is_settled_by_itself(sealed: SealedTarget) -> None:
    before = sealed.dump()
    with pytest.raises(Refused, match=r"Rows of links are told apart by what is secret \(n, token\)") as caught:
        sealed.roll_back(mode="keep", settled={"links": [{"key": ["1", "hidden1"], "how": "restore"}]})
    assert "hidden" not in caught.value.message
    assert "rules" in str(caught.value.remedy)
    assert sealed.dump() == before
    sealed.roll_back(mode="keep", rules={"edited": "restore", "created": "delete", "deleted": "bring_back"})
    assert sealed.query("SELECT n, tier FROM links ORDER BY n") == [(n, None) for n in range(1, 5)]
