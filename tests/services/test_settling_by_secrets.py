"""Rows that a secret tells apart are not settled one by one: a request that names one is not stored."""

import pytest
from marshmallow import Schema

from briefly_admin.domain.errors import InvalidRequest
from briefly_admin.plans.base import Column, Plan, Table
from briefly_admin.services.settling import checked_settled

_LINKS = Table("links", Schema, (Column("token", "text", secret=True), Column("n", "int")), key=("n", "token"))
_USERS = Table("users", Schema, (Column("id", "int"), Column("token", "text", secret=True)))
PLAN = Plan("tiny", "Tiny", "Two tables.", (_LINKS, _USERS))


def test_a_secret_key_is_refused_and_not_repeated() -> None:
    row = {"key": ["1", "hidden"], "how": "keep"}
    with pytest.raises(InvalidRequest, match="links, row 1: token of its key is secret: the rules decide") as caught:
        checked_settled({"links": [row]}, PLAN, ["links", "users"])
    assert "hidden" not in f"{caught.value.message} {caught.value.details}"
    rows = [{"key": ["1"], "how": "keep"}]
    assert checked_settled({"users": rows}, PLAN, ["users"]) == {"users": [rows[0] | {"values": {}}]}
