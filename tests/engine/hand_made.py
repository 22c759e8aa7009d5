"""Tables with hostile names and every kind of column, for corrections by hand."""

from typing import Any
from uuid import uuid4

import psycopg
from marshmallow import Schema, ValidationError, fields, validate, validates_schema
from psycopg import sql
from psycopg.conninfo import make_conninfo

from briefly_admin.domain.corrections import Cause, Deed
from briefly_admin.engine.target import Target
from briefly_admin.plans.base import Column, ForeignKey, Plan, Relation, Repair, Table, Unique

Session = psycopg.Connection[Any]
THINGS = 'things % {a} "b"'
COUNT = '100% "true" {x}; --'
SECRET = "canary-4711"

Thing = Schema.from_dict({
    "place": fields.String(required=True),
    "number": fields.Integer(required=True, strict=True),
    "mail": fields.Email(allow_none=True),
    "secret": fields.String(allow_none=True, validate=validate.Length(max=20)),
    "tier": fields.String(required=True, validate=validate.OneOf(["free", "it's 100%"])),
    "parent": fields.Integer(allow_none=True, strict=True),
    COUNT: fields.Integer(strict=True, validate=validate.Range(min=0)),
    "word": fields.String(allow_none=True, validate=validate.Regexp(r"(?i)[a-zé]+\Z")),
    "facts": fields.Dict(allow_none=True),
})  # fmt: skip
PLAN = Plan("things", "Things", "", (
    Table("parents", Schema.from_dict({"id": fields.Integer(required=True), "owner": fields.Integer(allow_none=True)}),
          (Column("id", "integer"), Column("owner", "integer"))),
    Table(
        THINGS, Thing,
        (Column("place", "text"), Column("number", "integer"), Column("mail", "text"),
         Column("secret", "text", secret=True), Column("tier", "text"), Column("parent", "integer"),
         Column(COUNT, "integer"), Column("word", "text"), Column("facts", "jsonb"), Column("whole", "boolean"),
         Column("price", "numeric"), Column("seen", "timestamptz"), Column("short", "varchar(5)"),
         Column("doubled", "integer"), Column("vector", "real[]"), Column("mood", "mood"), Column("bytes", "bytea"),
         Column("positive", "positive"), Column("ref", "uuid"), Column("list", "text[]")),
        key=("place", "number"),
        repairs=(Repair("tier", "coalesce({tier}, 'free')", "an empty tier becomes 'free'"),
                 Repair("mail", "lower({mail})", "e-mails become lower case")),
        foreign_keys=(ForeignKey("parent", "parents"),),
        uniques=(Unique(("mail",)), Unique(("tier", "word"))),
    ),
    Table(
        "owned", Schema.from_dict({"id": fields.UUID(required=True), "parent": fields.Integer(required=True),
                                   "owner": fields.Integer(required=True)}),
        (Column("id", "uuid"), Column("parent", "integer"), Column("owner", "integer")),
        relations=(Relation("owner", "owner", "blocking", "rows of somebody else than their parent's owner",
                            {"o": "owned", "p": "parents"},
                            "SELECT o.id AS key FROM {o} AS o JOIN {p} AS p ON p.id = o.parent"
                            " WHERE p.owner <> o.owner", (("parent", ()), ("owner", ()))),),
    ),
))  # fmt: skip

_DDL = """
SET search_path TO public;
CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TABLE parents (id int PRIMARY KEY, owner int);
CREATE TABLE owned (id uuid PRIMARY KEY, parent int, owner int);
INSERT INTO parents VALUES (1, 10), (2, 20);
"""
"""What a plain session finds: ours looks into pg_catalog first."""


class Whole(Schema):
    """Looks at rows as a whole."""

    id = fields.Integer(required=True)
    low = fields.Integer(allow_none=True, validate=validate.Range(min=0))
    high = fields.Integer(allow_none=True)

    @validates_schema
    def order(self, data: dict[str, Any], **_: Any) -> None:
        """`low` is not above `high`."""
        if (data.get("low") or 0) > (data.get("high") or 0):
            raise ValidationError("must not be below low", "high")


WHOLE = Plan("whole", "Whole", "", (
    Table("ranges", Whole, (Column("id", "integer"), Column("low", "integer"), Column("high", "integer"))),
))  # fmt: skip


def create(connection: Session) -> None:
    """The tables, and five rows: (a, 1) is right, (b, 2) to (e, 5) each have a fault or more."""
    connection.execute(_DDL)
    connection.execute(
        sql.SQL(
            "CREATE TABLE {} (place text, number int, mail text, secret text, tier text, parent int, {} int, word text,"
            " facts jsonb, whole boolean, price numeric(8,2), seen timestamptz, short varchar(5),"
            " doubled int GENERATED ALWAYS AS (number * 2) STORED, vector real[], mood mood, bytes bytea,"
            " positive positive, ref uuid, list text[], stranger text DEFAULT 'canary-4711', PRIMARY KEY (place, number))"
        ).format(sql.Identifier(THINGS), sql.Identifier(COUNT))
    )
    add(connection, place="a", number=1, mail="a@b.co", secret=SECRET, tier="free", word="one", facts='{"a": 1}',
        vector="{1,2,3}", bytes=r"\x0102", parent=1, **{COUNT: 0})  # fmt: skip
    add(connection, place="b", number=2, mail="nobody", tier="gold", **{COUNT: -1})
    add(connection, place="c", number=3, mail="A@B.co", tier=None, word="two", parent=9, **{COUNT: 3})
    add(connection, place="d", number=4, mail="d@b.co", secret=SECRET * 3, tier="free", word="4", **{COUNT: 3})
    add(connection, place="e", number=5, mail="e@b.co", tier="free", word="five", **{COUNT: None})


def add(connection: Session, **values: Any) -> None:
    """One more thing."""
    names = sql.SQL(", ").join(map(sql.Identifier, values))
    texts = sql.SQL(", ").join(map(sql.Literal, values.values()))
    connection.execute(sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(sql.Identifier(THINGS), names, texts))


def deed(cause: Cause | None = None) -> Deed:
    """Of an operator."""
    return Deed(uuid4(), "olga@example.com", "operator", "page", "127.0.0.1", cause)


def trigger(connection: Session, body: str, *, table: str = THINGS, when: str = "BEFORE UPDATE") -> None:
    """A trigger of the table with this PL/pgSQL body."""
    connection.execute(
        sql.SQL("CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS {}").format(sql.Literal(f"BEGIN {body} END"))
    )
    connection.execute(
        sql.SQL("CREATE TRIGGER act " + when + " ON {} FOR EACH ROW EXECUTE FUNCTION act()").format(
            sql.Identifier(table)
        )
    )


def filled(url: str) -> str:
    """The address, once the tables of `create` are made there."""
    with Target(url).session() as session:
        create(session)
    return url


def target_of(connection: Session) -> Target:
    """The target that the session is of, for what opens sessions of its own."""
    return Target(make_conninfo(connection.info.dsn, password=connection.info.password))
