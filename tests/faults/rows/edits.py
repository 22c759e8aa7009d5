"""Random edits after a migration: what a preview counts, and what both rollbacks leave, against brute force."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql

from briefly_admin.domain.errors import Refused
from briefly_admin.domain.runs import Phase, RunKind
from briefly_admin.embedded import EmbeddedServers
from briefly_admin.engine import rollback
from briefly_admin.engine.context import RunContext
from tests.engine.journal_memory import RunRecord
from tests.faults import outsiders, three_ways
from tests.faults.aftermath import GENERATED, SEQUENCE, Copy, Migrated, migrated
from tests.faults.editing import Editor
from tests.faults.ground import Ground
from tests.faults.moving import Mover
from tests.faults.oracle import TABLES
from tests.faults.reasons import State, Verdict, Wish, judge
from tests.faults.rows.row import Facts, Row, total
from tests.faults.three_ways import Choice, Rows, Settled, ThreeWays

EACH = 50
"""Rounds of one trial."""
_OF_A_COPY = (2, 4, 6, 8)
"""Rounds that one copy of the migrated database may see."""
_SAMPLES = {"edited": 100}
_FEW = 20
_PHASES = (Phase.STAGE, Phase.PREVIEW, Phase.RESTORE, Phase.VERIFY)
_ALLOWED = tuple(
    frozenset(f"public.{table}" for table in tables)
    for tables in (outsiders.TABLES, outsiders.TABLES, (), ("out_cascade", "out_deep", "out_null"), ("out_default",))
)
_EDITS: Mapping[str, Sequence[tuple[str, str, str | None]]] = {
    "users": (("usage_documents", "int4", "7"), ("stripe_customer_id", "text", None)),
    "file_metadata": (("chunk_count", "int4", "99"), ("metadata", "jsonb", '{"a": 1.00}')),
    "document_chunks": (("embedding_id", "text", "it's % \\ {1}"), ("chunk_index", "int4", "12")),
    "conversations": (("title", "text", ""), ("message_count", "int4", "0")),
    "chat_messages": (("sources", "jsonb", '["é"]'), ("role", "text", "user")),
    "oauth_tokens": (("provider", "text", "google"), ("expires_at", "timestamptz", "2030-01-01 00:00:00.5+00")),
    "usage_logs": (("metadata", "jsonb", '{"cost": 1.00}'), ("resource_id", "text", None)),
    "user_settings": (("value", "jsonb", "[1.0]"), ("updated_at", "timestamptz", "2030-01-01 00:00:00+00")),
}
"""Table → what a conflict is edited to: column, its type, the value as text."""


class Round:
    """One copy of the migrated database, the edits made to it, and the runs that look at it."""

    def __init__(self, place: Migrated, servers: EmbeddedServers, dice: Random) -> None:
        self._place, self._copy, self._dice = place, Copy(place, servers), dice
        self._witness = psycopg.connect(place.url, autocommit=True, prepare_threshold=None)
        self.facts: Counter[str] = Counter()

    def turns(self, most: int) -> int:
        """How many rounds this copy sees."""
        return min(most, self._dice.choice(_OF_A_COPY))

    def close(self) -> None:
        """Nobody looks at it any more."""
        self._witness.close()

    def _state(self) -> State:
        return State.read(self._witness, self._place.default)

    def edit(self, *, again: bool) -> None:
        """Edits of this copy; `again`: after a rollback, there is something to be taken back once more."""
        with psycopg.connect(self._place.url, autocommit=True) as connection:
            editor = Editor(connection, self._dice)
            if again:
                editor.migrate_again()
            editor.edit(self._dice.choice((0, 1, 3, 8, 20)))
        self.facts["edits"] += editor.done.total()

    def take(self) -> None:
        """A rollback, often of a confirmed preview, and others that move rows whenever they can."""
        dice, place = self._dice, self._place
        tables = (
            TABLES if dice.random() < 0.2 else tuple(sorted(dice.sample(TABLES, dice.randint(1, 3)), key=TABLES.index))
        )
        wish = Wish(dice.choice(("exact", "keep")), tables, allow=dice.choice(_ALLOWED))
        options: dict[str, Any] = {
            "mode": wish.mode, "tables": None if tables == TABLES else list(tables), "allow": sorted(wish.allow),
        }  # fmt: skip
        state = self._state()
        if wish.mode == "keep":
            wish, more = self._choose(wish, judge(place, state, wish).ways)
            options |= more
        if dice.random() < 0.35:
            wish, more = self._confirm(wish, state)
            options |= more
        self._roll_back(wish, options)

    def _confirm(self, wish: Wish, state: State) -> tuple[Wish, dict[str, Any]]:
        """After a preview, which is what the rollback must find again, about; perhaps it is not."""
        record, seen = RunRecord(), replace(wish, tables=self._dice.choice((wish.tables, TABLES)))
        context = self._copy.context(RunKind.PREVIEW, record, mode="exact", tables=list(seen.tables))
        preview = [rollback.run_phase(context, phase) for phase in _PHASES[:2]][1]
        require_true(preview, self._place, state, seen)
        if self._dice.random() < 0.6:
            with psycopg.connect(self._place.url, autocommit=True) as connection:
                some = ("create", "create", "remove", "remove", "change", "back", "outside")
                Editor(connection, self._dice).some(self._dice.choice((1, 2, 3)), some, wish.tables)
        self.facts["previews"] += 1
        allowance = self._dice.choice((0, 0, 1, 2, 10**6))
        counts, outside = preview["tables" if wish.mode == "exact" else "classes"], touched(preview)
        fewer = seen.tables != wish.tables
        return replace(wish, confirmed=counts, outside=outside, allowance=allowance, fewer=fewer), {
            "preview_id": str(record.run_id), "expected": preview["tables"], "expected_classes": preview["classes"],
            "expected_outside": outside, "allowance": allowance,
        }  # fmt: skip

    def _roll_back(self, wish: Wish, options: Mapping[str, Any]) -> None:
        """Through all phases, or to where it must be refused; a later one takes this one's schema changes back, too."""
        place, record = self._place, RunRecord()
        with closing(Mover(place.url, self._dice, wish.tables)) as mover:
            held: list[State] = []

            def wait(_: float) -> None:
                mover.wait()
                held.append(self._state())

            context = replace(self._copy.context(RunKind.ROLLBACK, record, **options), sleep=wait)
            mover.open()
            rollback.run_phase(context, Phase.STAGE)
            state = self._state()
            early = judge(place, state, wish).early
            with self._refused(state, early):
                preview = rollback.run_phase(context, Phase.PREVIEW)
            if early:
                return
            require_true(preview, place, state, wish)
            mover.move()
            self.facts["moves"] += len(mover.done)
            held[:] = [self._state()]
            try:
                done = self._restore(context, wish, held)
            except AssertionError as error:
                error.add_note(f"moved by {', '.join(mover.done)}")
                raise
            if done is not None:
                context.journal.phase_finished(Phase.RESTORE, done)
                rollback.run_phase(context, Phase.VERIFY)
                self._copy.others[record.run_id] = record

    def _restore(self, context: RunContext, wish: Wish, held: Sequence[State]) -> dict[str, Any] | None:
        """The result, as the oracle has it; None where it was refused, and had to be. `held`: what others left, newest
        last.
        """
        place = self._place
        try:
            done = rollback.run_phase(context, Phase.RESTORE)
        except Refused as error:
            self._rightly(error, held[-1], judge(place, held[-1], wish).reasons)
            return None
        verdict = judge(place, held[-1], wish)
        assert not verdict.reasons, f"not refused, though {'; '.join(verdict.reasons)}"
        require_left(verdict, held[-1], self._state(), wish)
        require_done(verdict, done, wish)
        self.facts.update({wish.mode: 1, **{
            name: sum(each[name] for each in verdict.ways.counts().values()) for name in three_ways.CLASSES
        }})  # fmt: skip
        return done

    def _rightly(self, error: Refused, state: State, why: Sequence[str]) -> None:
        if not why:
            raise AssertionError(f"refused without a reason: {error.message}")
        require_same(state, self._state())
        self.facts["refused"] += 1

    @contextmanager
    def _refused(self, state: State, why: Sequence[str]) -> Iterator[None]:
        """What is done within must be refused for these reasons, and change nothing; without a reason, it must not."""
        try:
            yield
        except Refused as error:
            self._rightly(error, state, why)
        else:
            assert not why, f"not refused, though {'; '.join(why)}"

    def _choose(self, wish: Wish, ways: ThreeWays) -> tuple[Wish, dict[str, Any]]:
        """Random rules and settlements, for the oracle and as the run's options."""
        dice = self._dice
        edited, created = dice.choice(("keep", "restore")), dice.choice(("keep", "delete"))
        deleted = dice.choice(("leave", "bring_back"))
        settled: dict[tuple[str, bytes], Settled] = {}
        asked: dict[str, list[dict[str, Any]]] = {}
        for table, classes in ways.classes.items():
            conflicts = sorted(key for key, what in classes.items() if what == "edited")
            for key in dice.sample(conflicts, min(len(conflicts), dice.choice((0, 1, 3)))):
                how, told = dice.choice(("keep", "restore", "edit")), {}
                if how == "edit":
                    column, type_, value = dice.choice(_EDITS[table])
                    told = {column: value}
                    settled[table, key] = Settled(how, {column: _field(self._witness, type_, value)})
                else:
                    settled[table, key] = Settled(how)
                asked.setdefault(table, []).append({"key": [text_of(key)], "how": how, "values": told})
        rules = {"edited": edited, "created": created, "deleted": deleted}
        choice = Choice(edited, created, deleted, settled)
        return replace(wish, choice=choice), {"rules": rules, "settled": asked}


def text_of(key: bytes) -> str:
    """The key as PostgreSQL writes it."""
    return str(UUID(bytes=key))


def _field(connection: psycopg.Connection[Any], type_: str, value: str | None) -> bytes | None:
    query = sql.SQL("SELECT {}::{}").format(sql.Literal(value), sql.Identifier("pg_catalog", type_))
    return three_ways.copied(connection, query)[0][0]


def trial(ground: Ground, seed: int, count: int = EACH) -> Facts:
    """So many rounds over one migrated database."""
    with _unsynced(ground.servers), migrated(ground, seed) as place:
        return rounds(place, ground.servers, seed, count)


@contextmanager
def _unsynced(servers: EmbeddedServers) -> Iterator[None]:
    """Nothing crashes here: no file of the many small tables has to reach the disk."""
    with psycopg.connect(servers.superuser_url(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync TO off")
        connection.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET fsync")
            connection.execute("SELECT pg_reload_conf()")


def rounds(place: Migrated, servers: EmbeddedServers, seed: int, count: int) -> Facts:
    """So many, a few in each copy of the database."""
    found: Counter[str] = Counter(count=count)
    number = 0
    while number < count:
        with closing(Round(place, servers, Random(f"{seed}/{number}"))) as copy:
            for turn in range(copy.turns(count - number)):
                try:
                    copy.edit(again=turn > 0)
                    copy.take()
                except Exception as error:
                    error.add_note(f"round {number} of seed {seed}, turn {turn} of its copy")
                    raise
                number += 1
            found += copy.facts
    return dict(found)


def require_true(preview: Mapping[str, Any], place: Migrated, state: State, wish: Wish) -> None:
    """Raises AssertionError where the preview says something else than what brute force finds."""
    verdict = judge(place, state, replace(wish, mode="exact", confirmed=None))
    require_counts(preview, verdict.ways)
    lost = {f"{each['table']}.{each['column']}": each["rows"] for each in preview["lost"]}
    _require_equal(verdict.ways.lost(), lost, "lost")
    allowed = {name: rows for name, rows in verdict.fate.touched.items() if name not in verdict.blocking}
    found = touched(preview)
    assert allowed == found, f"outside: {found} instead of {allowed}"
    blocking = {entry["table"] for entry in preview["outside"] if entry["blocks"]}
    assert blocking == verdict.blocking, f"{blocking} stand against it, not {verdict.blocking}"


def touched(preview: Mapping[str, Any]) -> dict[str, int]:
    """ "schema.table" → rows outside that would go or change."""
    found: Counter[str] = Counter()
    for entry in preview["outside"]:
        if not entry["blocks"]:
            found[entry["table"]] += entry["rows"]
    return dict(found)


def require_counts(preview: Mapping[str, Any], ways: ThreeWays) -> None:
    """Raises AssertionError where counts or samples are other than those by brute force."""
    _require_equal(ways.exact(), preview["tables"], "tables")
    _require_equal(ways.counts(), preview["classes"], "classes")
    updates = {table: {"update": counts["update"]} for table, counts in ways.written(Choice(), GENERATED).items()}
    _require_equal(updates, preview["keep"], "keep")
    for table, classes in ways.classes.items():
        named = [(sample["class"], UUID(sample["key"][0]).bytes) for sample in preview["samples"].get(table, ())]
        wrong = [f"{key.hex()} is not {what}" for what, key in named if classes.get(key) != what]
        assert not wrong, f"samples of {table}: {'; '.join(wrong[:3])}"
        assert len(set(named)) == len(named), f"samples of {table}: a row twice"
        for what in set(three_ways.CLASSES) - {"untouched"}:
            count, right = Counter(name for name, _ in named)[what], list(classes.values()).count(what)
            most = min(right, _SAMPLES.get(what, _FEW))
            assert count == most, f"samples of {table}: {count} {what} rows instead of {most}"


def require_same(state: State, found: State) -> None:
    """Raises AssertionError where anything changed."""
    require_rows(state.rows, found.rows, {}, "refusing")
    assert state == found, "refused, and something beside the rows changed"


def require_left(verdict: Verdict, before: State, found: State, wish: Wish) -> None:
    """Raises AssertionError where rows, rows outside, columns, triggers or the sequence are not as they must be."""
    require_rows(verdict.rows, found.rows, {} if wish.mode == "exact" else GENERATED, wish.mode)
    assert verdict.fate.refs == found.outsiders.refs, "rows outside are not what their foreign keys make of them"
    going = {(table, name) for table, names in verdict.ways.going.items() for name in names}
    assert before.columns - going == found.columns, f"columns: {sorted(before.columns - going ^ found.columns)}"
    assert before.triggers == found.triggers, f"triggers were {before.triggers}, and are {found.triggers}"
    right = max(before.sequence, (SEQUENCE, True))
    assert right == found.sequence, f"the sequence stands at {found.sequence} instead of {right}"


def require_done(verdict: Verdict, done: Mapping[str, Any], wish: Wish) -> None:
    """Raises AssertionError where a restore says that it did something else."""
    if wish.mode == "exact":
        _require_equal(verdict.ways.exact(), done["tables"], "written by exact")
    else:
        require_written(verdict.ways.written(wish.choice, GENERATED), done, wish.choice)
    assert done["outside"] == verdict.fate.touched, f"outside: {done['outside']} instead of {verdict.fate.touched}"


def _require_equal(right: Mapping[str, Any], found: Mapping[str, Any], what: str) -> None:
    wrong = [f"{name}: {found.get(name)} instead of {right[name]}" for name in right if right[name] != found.get(name)]
    assert not wrong, f"{what}: {'; '.join(wrong)}"


def require_written(right: Mapping[str, Mapping[str, int]], done: Mapping[str, Any], choice: Choice) -> None:
    """Raises AssertionError where `keep` says that it wrote other rows than it had to.

    A derived column that is counted anew is told for itself; an edit is told that changes nothing.
    """
    wrong = []
    for table, counts in right.items():
        told, recomputed = done["tables"][table], done["recomputed"].get(table, 0)
        edits = sum(each.how == "edit" for (name, _), each in choice.settled.items() if name == table)
        fits = counts["update"] - recomputed <= told["update"] <= counts["update"] + edits
        if not fits or any(told[what] != counts[what] for what in ("insert", "delete")):
            wrong.append(f"{table}: {told} and {recomputed} counted anew instead of {counts}")
    assert not wrong, f"written by keep: {'; '.join(wrong)}"


def require_rows(right: Rows, found: Rows, but: Mapping[str, frozenset[str]], what: str) -> None:
    wrong = three_ways.differences(right, found, but)
    assert not wrong, f"{what} leaves {len(wrong)} rows otherwise: {'; '.join(wrong[:5])}"


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    classes = ", ".join(f"{total(trials, name):,} {name}" for name in three_ways.CLASSES)
    return (
        f"{total(trials):,} rounds with {total(trials, 'edits'):,} edits, and {total(trials, 'moves'):,} between preview and "
        f"restore: every count as by brute force over {classes} rows; {total(trials, 'keep'):,} times `keep` as the oracle, "
        f"{total(trials, 'exact'):,} times `exact` equal byte for byte, {total(trials, 'refused'):,} times refused, as it had "
        "to be, and nothing changed"
    )


ROW = Row("edits", 1_000, "rounds", 25, trial, _says)
