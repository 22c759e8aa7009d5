"""One row by hand: shown with validation's verdict, checked as typed, and corrected or refused."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from briefly_admin.domain.corrections import Input, RowField, ShownRow
from briefly_admin.domain.errors import BrieflyError, Busy, InvalidRequest, NotFound, Refused, Unavailable
from briefly_admin.engine import fence, sampledata
from briefly_admin.engine.correcting import check_row, correct_row, left_over, read_row, records, writing
from briefly_admin.engine.correcting.place import find_place
from briefly_admin.engine.correcting.verdict import faults, some_rows
from briefly_admin.engine.target import Target
from briefly_admin.engine.validate import blocked_rows
from briefly_admin.plans.unified import UNIFIED
from tests.engine.hand_made import (
    COUNT,
    PLAN,
    SECRET,
    THINGS,
    WHOLE,
    Session,
    add,
    deed,
    filled,
    target_of,
    trigger,
)

Call = Callable[[], object]


@pytest.fixture(scope="module")
def target_template(module_databases: Callable[[str], str]) -> str:
    """The tables of `create`, made once."""
    return filled(module_databases(""))


@pytest.fixture
def connection(target_database: str) -> Iterator[Session]:
    with Target(target_database).session() as session:
        yield session


@pytest.fixture
def things(connection: Session) -> Session:
    connection.execute("SET search_path TO public")
    return connection


@pytest.fixture(scope="module")
def kept(module_databases: Callable[[str], str], target_template: str) -> Iterator[Session]:
    """The same for all tests that change nothing."""
    with Target(module_databases(target_template)).session() as session:
        yield session


def _read(connection: Session, *key: str, table: str = THINGS) -> ShownRow:
    return read_row(connection, PLAN, table, key)


def _check(connection: Session, *key: str, **changes: str | None) -> ShownRow:
    return check_row(connection, PLAN, THINGS, key, changes)


def _correct(connection: Session, row: ShownRow, **changes: str | None) -> ShownRow:
    return correct_row(
        target_of(connection), PLAN, row.table, row.key, version=row.version, changes=changes, deed=deed()
    )


def _field(row: ShownRow, name: str) -> RowField:
    return next(field for field in row.fields if field.name == name)


def _faults(row: ShownRow) -> dict[str, tuple[str, ...]]:
    return {field.name: field.faults for field in row.fields if field.faults}


def _values(connection: Session, *key: Any) -> dict[str, Any]:
    query = sql.SQL("SELECT to_jsonb(o) FROM {} AS o WHERE place = {} AND number = {}")
    row = connection.execute(query.format(sql.Identifier(THINGS), *map(sql.Literal, key))).fetchone()
    assert row
    return dict(row[0])


def test_each_column_has_its_input(kept: Session) -> None:
    row = _read(kept, "a", "1")
    assert (row.key, row.blocks, row.version) == (("a", "1"), False, row.version)
    kinds = {field.name: field.input for field in row.fields}
    assert kinds == {
        "place": Input.FIXED, "number": Input.FIXED, "mail": Input.TEXT, "secret": Input.LONG_TEXT,
        "tier": Input.CHOICE, "parent": Input.NUMBER, COUNT: Input.NUMBER, "word": Input.TEXT, "facts": Input.JSON,
        "whole": Input.TRUTH, "price": Input.NUMBER, "seen": Input.MOMENT, "short": Input.TEXT, "doubled": Input.FIXED,
        "vector": Input.FIXED, "mood": Input.CHOICE, "bytes": Input.FIXED, "positive": Input.NUMBER, "ref": Input.TEXT,
        "list": Input.TEXT, "stranger": Input.FIXED,
    }  # fmt: skip
    assert list(kinds)[-1] == "stranger"  # the table's own order
    assert _field(row, "tier").choices == ("free", "it's 100%")
    assert _field(row, "mood").choices == ("sad", "glad")
    assert _field(row, "vector").value == "3 numbers"
    assert _field(row, "bytes").value == "2 bytes"
    assert _field(row, "stranger").value == "not shown: the plan does not know this column"
    assert (_field(row, "doubled").value, _field(row, "facts").value) == ("2", '{"a": 1}')
    assert (_field(row, "place").key, _field(row, "place").value, _field(row, "secret").secret) == (True, "a", True)
    assert _field(row, "mail").nullable
    assert not _field(row, COUNT).nullable
    assert {"must be at least 0"} < set(_field(row, COUNT).rules)
    assert "must be the id of a row of parents" in _field(row, "parent").rules
    assert "no two rows may have the same together with tier" in _field(row, "word").rules
    assert SECRET not in repr(row)


def test_what_blocks_is_said_of_its_field_and_what_is_repaired_is_shown(kept: Session) -> None:
    assert _faults(_read(kept, "b", "2")) == {
        "mail": ("must be an e-mail address",), "tier": ("must be one of: free, it's 100%",), COUNT: ("must be at least 0",),
    }  # fmt: skip
    row = _read(kept, "c", "3")
    assert _faults(row) == {
        "parent": ("no row of parents has this id",), "mail": ("another row has the same value once both are repaired",),
    }  # fmt: skip
    assert (_field(row, "mail").repaired, _field(row, "tier").repaired) == ("a@b.co", "free")
    assert _field(row, "parent").repaired is None
    row = _read(kept, "d", "4")
    assert set(_faults(row)) == {"secret", "word"}  # `word`: marshmallow's word, its pattern is no SQL
    assert _faults(_read(kept, "a", "1")) == {}  # of equals the first stays
    assert SECRET not in repr(row)


def test_the_verdict_on_each_row_is_validations(target_database: str) -> None:
    target = Target(target_database)
    sampledata.create(target, UNIFIED, dirty=30, embeddings=0)
    with target.session() as connection:
        blocked = {(row.table, row.key) for row in blocked_rows(connection, UNIFIED)}
        found = set()
        for table in UNIFIED.tables:
            with connection.transaction():
                place = find_place(connection, UNIFIED, table.name)
                rows = some_rows(
                    connection, place, rows=sql.SQL("SELECT * FROM {}").format(place.here.identifier),
                    scope=sql.SQL("SELECT id FROM {}").format(place.here.identifier),
                )  # fmt: skip
                found |= {(table.name, key) for key, _ in faults(connection, rows, about=None, changed=())}
        assert len(blocked) > 20
        assert found == blocked
        for name, key in sorted(blocked)[::20]:
            assert read_row(connection, UNIFIED, name, key).blocks


@pytest.mark.parametrize(
    ("column", "text", "words"),
    [
        (COUNT, "many", "is not a whole number, or is out of the range of integer"),
        (COUNT, "99999999999", "is not a whole number, or is out of the range of integer"),
        (COUNT, "1.5", "is not a whole number, or is out of the range of integer"),
        ("price", "dear", "is not a number, or is out of the range of numeric(8,2)"),
        ("price", "9999999", "is not a number, or is out of the range of numeric(8,2)"),
        ("whole", "perhaps", "is not true or false"),
        ("seen", "2024-02-30", "is not a moment"),
        ("facts", '{"a": }', "is not JSON: Expecting value at line 1, column 7"),
        ("facts", '{"a": NaN}', "is not JSON that PostgreSQL can hold"),
        ("ref", "abc", "is not a UUID"),
        ("list", "one,two", "is not a list as PostgreSQL writes it, such as {one,two}"),
        ("mood", "mad", "is no value of the type mood"),
        ("positive", "-1", "is not a whole number"),
        ("short", "longer", "is longer than 5 characters"),
        ("word", "a\0b", "has characters that PostgreSQL cannot hold"),
        ("word", "\ud800", "has characters that PostgreSQL cannot hold"),
        ("word", "x" * 100_001, "is longer than 100,000 characters"),
        ("word", "4", "must have the right form"),
        ("secret", "x" * 21, "must have a length of at most 20"),
        ("tier", "gold", "must be one of: free, it's 100%"),
        (COUNT, None, "must not be missing"),
        (COUNT, "-1", "must be at least 0"),
        ("parent", "3", "no row of parents has this id"),
        ("mail", "D@B.CO", "another row has the same value once both are repaired"),
        ("mail", "someone", "must be an e-mail address"),
    ],
)
def test_wrong_values_are_said_in_plain_words_when_checked_and_when_saved(
    kept: Session, column: str, text: str | None, words: str
) -> None:
    before, row = _values(kept, "a", 1), _read(kept, "a", "1")
    typed = _check(kept, "a", "1", **{column: text})
    assert typed.version == ""
    assert len(_field(typed, column).faults) == 1
    assert words in _field(typed, column).faults[0]
    assert _field(typed, column).value == (None if column == "secret" else text)
    with pytest.raises(InvalidRequest) as raised:
        _correct(kept, row, **{column: text})
    assert list(raised.value.details) == [column]
    assert words in raised.value.details[column][0]
    assert _values(kept, "a", 1) == before
    assert not left_over(kept)


def test_a_check_sees_all_rules_over_the_row_as_typed_and_writes_nothing(things: Session) -> None:
    trigger(things, "RAISE EXCEPTION 'fired';", when="BEFORE UPDATE OR INSERT")
    before = _values(things, "a", 1)
    row = _check(things, "b", "2", mail="x@y.co", tier=None, parent="2")
    assert _faults(row) == {COUNT: ("must be at least 0",)}
    row = _check(things, "d", "4", tier="free", word="one")
    assert row.faults == ("tier, word: another row has the same value once both are repaired",)
    assert _field(row, "word").value == "one"
    assert _values(things, "a", 1) == before
    # A word is the first of its equals; by typing it, it becomes a second.
    assert not _check(things, "a", "1", whole="true").blocks
    assert _check(things, "a", "1", mail="a@b.co").blocks


def test_a_relation_is_judged_as_typed(things: Session) -> None:
    key = str(uuid4())
    things.execute("INSERT INTO owned VALUES (%s, 1, 10)", (key,))
    assert not _read(things, key, table="owned").blocks
    words = ("rows of somebody else than their parent's owner",)
    assert _faults(check_row(things, PLAN, "owned", (key,), {"parent": "2"})) == {"owner": words}
    assert not check_row(things, PLAN, "owned", (key,), {"parent": "2", "owner": "20"}).blocks
    row = _read(things, key.upper(), table="owned")
    assert row.key == (key,)  # as PostgreSQL writes it
    with pytest.raises(InvalidRequest) as raised:
        _correct(things, row, parent="2")
    assert raised.value.details == {"parent": list(words)}
    assert _correct(things, row, parent="2", owner="20").key == (key,)


def test_a_schema_that_looks_at_whole_rows(connection: Session) -> None:
    connection.execute("CREATE TABLE public.ranges (id int PRIMARY KEY, low int, high int)")
    connection.execute("INSERT INTO public.ranges VALUES (1, 5, 3), (2, 1, 2)")
    assert _faults(read_row(connection, WHOLE, "ranges", ("1",))) == {"high": ("must not be below low",)}
    assert not read_row(connection, WHOLE, "ranges", ("2",)).blocks
    assert not check_row(connection, WHOLE, "ranges", ("1",), {"high": "7"}).blocks
    typed = check_row(connection, WHOLE, "ranges", ("2",), {"low": "-1"})
    assert _faults(typed) == {"low": ("Must be greater than or equal to 0.",)}

    def correct(key: str, **changes: str) -> ShownRow:
        row = read_row(connection, WHOLE, "ranges", (key,))
        return correct_row(
            target_of(connection), WHOLE, "ranges", (key,), version=row.version, changes=changes, deed=deed()
        )  # fmt: skip

    with pytest.raises(InvalidRequest) as raised:  # though it is told of a field that was not changed
        correct("2", low="9")
    assert raised.value.details == {"high": ["must not be below low"]}
    assert correct("1", low="4").blocks  # as before: a step towards a cure
    assert not correct("1", low="2").blocks


def test_a_correction_changes_what_was_named_and_records_it(things: Session) -> None:
    row = _read(things, "b", "2")
    done = _correct(things, row, mail="x@y.co", tier="it's 100%", facts='{"b":2}', secret="canary-new", price="1.255")
    assert _faults(done) == {COUNT: ("must be at least 0",)}  # faults of other columns may stay
    assert done == _read(things, "b", "2")
    assert done.version != row.version
    (made,) = left_over(things)
    ((record,),) = records(things, made.id)
    assert (made.by, made.role, made.via, made.address, made.cause) == (
        "olga@example.com", "operator", "page", "127.0.0.1", None
    )  # fmt: skip
    assert (record.table, record.key, record.secrets) == (THINGS, ("b", "2"), ("secret",))
    assert record.values == {
        "mail": ("nobody", "x@y.co"), "tier": ("gold", "it's 100%"), "facts": (None, '{"b": 2}'), "price": (None, "1.26"),
    }  # fmt: skip
    outbox = things.execute("SELECT c::text FROM briefly_migration.correction AS c").fetchall()
    assert "canary" not in repr(outbox)


def test_only_the_row_that_was_shown_is_changed(things: Session) -> None:
    row = _read(things, "a", "1")
    things.execute(sql.SQL("UPDATE {} SET word = 'else' WHERE number = 1").format(sql.Identifier(THINGS)))
    with pytest.raises(Refused, match="changed meanwhile by somebody else"):
        _correct(things, row, mail="x@y.co")
    assert _values(things, "a", 1)["mail"] == "a@b.co"
    with pytest.raises(Refused, match="changed meanwhile"):
        _correct(things, ShownRow(row.table, row.key, "", ()), mail="x@y.co")


def test_of_two_at_once_exactly_one_wins(things: Session) -> None:
    row = _read(things, "a", "1")
    ended: list[str] = []

    def correct(word: str) -> None:
        try:
            _correct(things, row, word=word)
            ended.append(word)
        except Refused as error:
            ended.append(error.message)

    threads = [threading.Thread(target=correct, args=(word,)) for word in ("left", "right")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [word for word in ended if word in {"left", "right"}]
    assert len(ended) == 2
    assert _values(things, "a", 1)["word"] == winner
    assert len(left_over(things)) == 1


def test_nothing_to_change_is_said(things: Session) -> None:
    row = _read(things, "a", "1")
    with pytest.raises(InvalidRequest, match="has these values already"):
        _correct(things, row, mail="a@b.co", facts='{"a":1}', parent="01")
    with pytest.raises(InvalidRequest, match="no value is given"):
        _correct(things, row)
    # Of a secret nobody is told whether a guess is right.
    assert _correct(things, row, secret=SECRET).version != row.version


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ("place", "it is of the key"), ("doubled", "the database generates it"), ("stranger", "the plan does not know it"),
        ("vector", "no form can show its type real[]"), ("bytes", "no form can show its type bytea"),
        ('nobody"; --', "the table has no such column"),
    ],
)  # fmt: skip
def test_columns_that_nobody_changes_by_hand(kept: Session, column: str, why: str) -> None:
    calls: list[Call] = [
        lambda: _check(kept, "a", "1", **{column: "1"}),
        lambda: _correct(kept, _read(kept, "a", "1"), **{column: "1"}),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest) as raised:
            call()
        assert raised.value.details == {column: [f"cannot be changed here, because {why}"]}


def test_a_value_too_long_for_a_form_is_not_cut_and_written_back(things: Session) -> None:
    add(things, place="l", number=7, tier="free", word="x" * 100_001, **{COUNT: 1})
    row = _read(things, "l", "7")
    assert (_field(row, "word").input, _field(row, "word").value) == (Input.FIXED, "100,001 characters")
    assert "too long for a form" in _field(_check(things, "l", "7", word="y"), "word").faults[0]
    with pytest.raises(InvalidRequest, match="too long for a form"):
        _correct(things, row, word="y")
    assert _field(_correct(things, row, mail="l@b.co"), "mail").value == "l@b.co"
    add(things, place="m", number=8, tier="free", word="many " * 40, **{COUNT: 1})
    assert _field(_read(things, "m", "8"), "word").input is Input.LONG_TEXT


@pytest.mark.parametrize(
    "key",
    [("a",), ("a", "1", "2"), ("z", "1"), ("a", "one"), ("a", "1\0"), ("a", "9" * 40), ("z" * 9999, "1"), (), "a1"],
)
def test_keys_that_name_no_row(kept: Session, key: Any) -> None:
    calls: list[Call] = [
        lambda: read_row(kept, PLAN, THINGS, key),
        lambda: check_row(kept, PLAN, THINGS, key, {"word": "x"}),
        lambda: _correct(kept, ShownRow(THINGS, key, "1:(0,1)", ()), word="x"),
    ]
    for call in calls:
        with pytest.raises((NotFound, InvalidRequest)) as raised:
            call()
        assert isinstance(raised.value, NotFound) == (len(key) == 2 and key != "a1")
        assert len(str(raised.value)) < 300


def test_a_key_that_is_no_uuid_and_a_table_that_is_not_of_the_plan(kept: Session) -> None:
    for table, key in (("owned", "abc"), ("pg_class", "1"), ("owned; --", "1")):
        with pytest.raises(NotFound):
            read_row(kept, PLAN, table, (key,))


def test_a_row_that_went_away(things: Session) -> None:
    row = _read(things, "a", "1")
    things.execute(sql.SQL("DELETE FROM {} WHERE number = 1").format(sql.Identifier(THINGS)))
    with pytest.raises(NotFound):
        _correct(things, row, word="x")


@pytest.mark.parametrize(
    ("ddl", "changes", "fields", "words"),
    [
        ("CREATE UNIQUE INDEX own ON {} (short)", {"short": "same", "whole": "t"}, {"short"}, "another row has this value"),
        ("ALTER TABLE {} ADD CONSTRAINT own CHECK (price < 10)", {"price": "11", "whole": "t"}, {"price"},
         "is against a rule of the table"),
        ("ALTER TABLE {} ADD CONSTRAINT own FOREIGN KEY (positive) REFERENCES parents DEFERRABLE INITIALLY DEFERRED",
         {"positive": "7", "whole": "t"}, {"positive"}, "there is no row that it refers to"),
    ],
)  # fmt: skip
def test_the_databases_own_constraints(
    things: Session, ddl: str, changes: dict[str, str], fields: set[str], words: str
) -> None:
    things.execute(sql.SQL("UPDATE {} SET short = 'same' WHERE number = 2").format(sql.Identifier(THINGS)))
    things.execute(sql.SQL(ddl).format(sql.Identifier(THINGS)))
    before = _values(things, "a", 1)
    with pytest.raises(InvalidRequest) as raised:
        _correct(things, _read(things, "a", "1"), **changes)
    assert set(raised.value.details) == fields
    assert f"{words}" in str(raised.value.details)
    assert "(constraint own)" in str(raised.value.details)
    assert "DETAIL" not in str(raised.value)
    assert _values(things, "a", 1) == before


@pytest.mark.parametrize(
    ("body", "when", "words"),
    [
        ("RAISE EXCEPTION 'canary-4711';", "BEFORE UPDATE", "The database refuses it"),
        ("RETURN NULL;", "BEFORE UPDATE", "a trigger or a rule of the table keeps the row as it is"),
        ("NEW.word := OLD.word; RETURN NEW;", "BEFORE UPDATE", "A trigger of the table undid the change of word"),
        ("EXECUTE format('DELETE FROM %I WHERE number = 1', TG_TABLE_NAME); RETURN NULL;", "AFTER UPDATE", "undid the change"),
        ("NEW.mail := 'no mail'; NEW.word := '4'; RETURN NEW;", "BEFORE UPDATE", "word: must have the right form"),
    ],
)  # fmt: skip
def test_triggers_that_stand_in_the_way(things: Session, body: str, when: str, words: str) -> None:
    trigger(things, body, when=when)
    before, row = _values(things, "a", 1), _read(things, "a", "1")
    with pytest.raises((Refused, InvalidRequest), match=words) as raised:
        _correct(things, row, word="other")
    assert "canary" not in str(raised.value)
    assert _values(things, "a", 1) == before
    assert not left_over(things)


def test_what_a_trigger_changes_beside_is_recorded(things: Session) -> None:
    trigger(things, "NEW.seen := '2024-01-01 00:00:00+00'; NEW.word := upper(NEW.word); RETURN NEW;")
    row = _correct(things, _read(things, "a", "1"), word="other")
    assert (_field(row, "word").value, row.blocks) == ("OTHER", False)
    ((record,),) = records(things, left_over(things)[0].id)
    assert record.values == {"word": ("one", "OTHER"), "seen": (None, "2024-01-01 00:00:00+00")}


def test_a_row_that_somebody_holds(things: Session) -> None:
    row = _read(things, "a", "1")
    with psycopg.connect(things.info.dsn, password=things.info.password) as other:
        other.execute(sql.SQL("SELECT FROM {} WHERE number = 1 FOR UPDATE").format(sql.Identifier(THINGS)))
        with pytest.raises(Refused, match="Somebody else holds the row"):
            _correct(things, row, word="x")
    assert _field(_correct(things, row, word="x"), "word").value == "x"


def test_beside_a_leader_no_row_is_corrected(things: Session, target_database: str) -> None:
    row = _read(things, "a", "1")
    lead = fence.take_over(Target(target_database), uuid4(), 1)
    with pytest.raises(Busy, match="not corrected beside it"):
        _correct(things, row, word="x")
    lead.release()
    assert _field(_correct(things, row, word="x"), "word").value == "x"


def test_a_role_that_may_not(things: Session, target_database: str, superuser_database: Any) -> None:
    role, url = f"reader_{uuid4().hex[:8]}", superuser_database(target_database)
    with psycopg.connect(url, autocommit=True) as superuser:
        superuser.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x'").format(sql.Identifier(role)))
        superuser.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {}").format(sql.Identifier(role)))
        target = Target(make_conninfo(url, user=role, password="x"))
        row = _read(things, "a", "1")

        def correct() -> ShownRow:
            return correct_row(
                target, PLAN, THINGS, row.key, version=row.version, changes={"word": "x"}, deed=deed()
            )  # fmt: skip

        try:
            with target.session() as connection:
                assert read_row(connection, PLAN, THINGS, ("a", "1")).key == ("a", "1")
            with pytest.raises(Refused, match="may not create the schema briefly_migration"):
                correct()
            _correct(things, _read(things, "b", "2"), tier="free")  # makes the schema
            with pytest.raises(BrieflyError, match="may not"):
                correct()
        finally:
            superuser.execute(sql.SQL("DROP OWNED BY {r}; DROP ROLE {r}").format(r=sql.Identifier(role)))


class _Cut:
    """A session that is gone when it should answer to COMMIT; with `made` the server had heard it."""

    def __init__(self, connection: Session, *, made: bool) -> None:
        self._connection = connection
        self._made = made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, query: Any, *given: Any) -> Any:
        if query != "COMMIT":
            return self._connection.execute(query, *given)
        if self._made:
            self._connection.execute(query)
        self._connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")


@pytest.mark.parametrize("made", [True, False])
def test_a_lost_answer_to_the_commit_is_looked_up(things: Session, monkeypatch: pytest.MonkeyPatch, made: bool) -> None:
    row, real = _read(things, "a", "1"), writing.deed_of

    def cut(target: Target, connection: Any, deed: Any) -> Any:
        return real(target, cast("Session", _Cut(connection, made=made)), deed)

    monkeypatch.setattr(writing, "deed_of", cut)
    if made:
        assert _field(_correct(things, row, word="other"), "word").value == "other"
    else:
        with pytest.raises(Unavailable, match="was lost"):
            _correct(things, row, word="other")
    assert (_values(things, "a", 1)["word"], len(left_over(things))) == (("other", 1) if made else ("one", 0))
