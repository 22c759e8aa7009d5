"""Every rule that the plan's tables can break is broken by sample data, by name, and found."""

from collections.abc import Iterator

import pytest

from briefly_admin.engine.sampledata import BLOCKING_FAULTS, NOTICE_FAULTS, REPAIRABLE_FAULTS, Shape, create
from briefly_admin.engine.target import Connection, Target
from briefly_admin.engine.validate.across import set_rules
from briefly_admin.engine.validate.examine import examine, read_catalog
from briefly_admin.engine.validate.record import compile_table
from briefly_admin.plans.unified import UNIFIED

Known = tuple[str, str, str, str]
"""Table, field, rule, class."""

_FAULTS = {"blocking": BLOCKING_FAULTS, "notice": NOTICE_FAULTS, "repairable": REPAIRABLE_FAULTS}
_FILLED = {
    "users": ("subscription_tier", "subscription_status", "usage_documents", "usage_chat_messages", "usage_api_calls", "settings"),
    "file_metadata": ("processing_status", "chunk_count", "embedding_count", "metadata"),
    "conversations": ("message_count",),
    "chat_messages": ("sources",),
    "usage_logs": ("metadata",),
    "user_settings": ("value",),
}  # fmt: skip
IMPOSSIBLE: dict[str, set[Known]] = {
    "a primary key is never NULL": {(table.name, "id", "null", "blocking") for table in UNIFIED.tables},
    "its repair always gives a value": {
        (table, field, "null", "blocking") for table, fields in _FILLED.items() for field in fields
    },
    "its repair fills what is missing, and leaves what is there": {
        ("users", "subscription_tier", "one_of", "repairable"),
        ("users", "subscription_status", "one_of", "repairable"),
        ("users", "usage_documents", "range", "repairable"),
        ("users", "usage_chat_messages", "range", "repairable"),
        ("users", "usage_api_calls", "range", "repairable"),
        ("users", "settings", "type", "repairable"),
        ("file_metadata", "processing_status", "one_of", "repairable"),
        ("file_metadata", "chunk_count", "range", "repairable"),
        ("file_metadata", "embedding_count", "range", "repairable"),
        ("file_metadata", "metadata", "type", "repairable"),
        ("document_chunks", "chunk_index", "range", "repairable"),
        ("chat_messages", "sources", "type", "repairable"),
        ("usage_logs", "metadata", "type", "repairable"),
    },
    "its repair leaves NULL as it is": {("oauth_tokens", "provider", "null", "repairable")},
    "its repair changes no value that the record schema takes": {
        *(
            (table, field, "repair", "repairable")
            for table, fields in _FILLED.items() for field in fields if field != "message_count"
        ),
        ("file_metadata", "storage_path", "repair", "repairable"),
        ("document_chunks", "chunk_index", "repair", "repairable"),
        ("oauth_tokens", "provider", "repair", "repairable"),
    },
    "a number of rows is never negative": {("conversations", "message_count", "range", "blocking")},
    "no row has 2,147,483,648 children": {
        ("file_metadata", "chunk_count", "type_range", "blocking"),
        ("file_metadata", "embedding_count", "type_range", "blocking"),
        ("conversations", "message_count", "type_range", "blocking"),
    },
}  # fmt: skip
"""Why → rules that the plan's own column types compile to, and that nothing in such a column breaks."""


@pytest.fixture
def connection(target_database: str) -> Iterator[Connection]:
    """A session on sample data of the smallest scale, with faults."""
    target = Target(target_database)
    create(target, UNIFIED, dirty=5, embeddings=3)
    with target.session(bulk=True) as session:
        yield session


def _compiled(connection: Connection) -> set[Known]:
    """All that validation asks of the tables as they are."""
    catalog = read_catalog(connection, UNIFIED)
    known: set[Known] = set()
    for table in UNIFIED.tables:
        compiled = compile_table(connection, UNIFIED, table, catalog)
        for check in compiled.fields:
            known |= {(table.name, check.name, c.name, "blocking") for c in check.after if c.test is not None}
            if check.repair_words:
                rules = [c.name for c in check.before if c.test is not None] + ["repair"]
                known |= {(table.name, check.name, rule, "repairable") for rule in rules}
        rules_across = set_rules(UNIFIED, compiled, catalog)
        known |= {(table.name, rule.field, rule.name, str(rule.finding_class)) for rule in rules_across}
    connection.rollback()
    return known


def test_each_rule_of_the_plan_is_seen_but_for_those_that_nothing_breaks(connection: Connection) -> None:
    compiled = _compiled(connection)
    found = {(f.table, f.field, f.rule, str(f.finding_class)): f.count for f in examine(connection, UNIFIED)}
    impossible = set().union(*IMPOSSIBLE.values())
    assert impossible <= compiled
    assert found.keys() == compiled - impossible
    of_blocking = [count for (*_, finding_class), count in found.items() if finding_class == "blocking"]
    assert set(of_blocking) == {1}
    named = {
        (plant.table, *finding, finding_class)
        for finding_class, plants in _FAULTS.items() for plant in plants.values() for finding in plant.findings
    }  # fmt: skip
    assert named == found.keys()


def test_each_planted_row_is_found_as_its_name_says(connection: Connection) -> None:
    keys = {
        (f.table, f.field, f.rule, str(f.finding_class)): {str(sample["key"]) for sample in f.samples}
        for f in examine(connection, UNIFIED)
    }
    shape = Shape()
    for finding_class, plants in _FAULTS.items():
        for name, plant in plants.items():
            for finding in plant.findings:
                found = keys[plant.table, *finding, finding_class]
                assert str(shape.key(plant.table, name)) in found or (finding[1] == "unique" and len(found) == 1), name


def test_names_say_what_is_wrong_in_words() -> None:
    names = [name for plants in _FAULTS.values() for name in plants]
    assert len(names) == len({(c, name) for c, plants in _FAULTS.items() for name in plants})
    for plants in _FAULTS.values():
        for name, plant in plants.items():
            table, field, word = name.split(".")
            assert (plant.table, plant.name) == (table, name)
            assert field in {c.name for c in UNIFIED.table(table).columns}
            assert word
            assert plant.words
