"""A step shared among a leader and helpers: each partition once, whoever fails, stops or falls silent."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from briefly_admin.domain.errors import Fenced, RunFailed, Stopped, Unavailable
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionState
from briefly_admin.domain.runs import Phase
from briefly_admin.engine import sharing
from briefly_admin.engine.context import RunContext
from briefly_admin.engine.sharing import Note, PartitionWorker, Step, help_out, share
from tests.engine.journal_memory import MemoryJournal
from tests.engine.writing_bench import Bench

PARTS = [Partition("t", number, {"n": number}) for number in range(6)]
Do = Callable[[RunContext, Claimed, Note], tuple[Count, Mapping[str, Any]]]


def step(do: Do, opened: list[str] | None = None) -> Step:
    @contextmanager
    def open_(context: RunContext, shared: Mapping[str, Any]) -> Iterator[PartitionWorker]:
        if opened is not None:
            opened.append(f"{context.journal.partitions.worker} {shared['what']}")
        yield lambda claimed, note: do(context, claimed, note)

    return Step("test", Phase.MIGRATE, open_)


def doing(context: RunContext, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
    note(Count(1))
    return Count(2, 1), {"by": context.journal.partitions.worker, "n": claimed.partition.range["n"]}


def helper(bench: Bench, context: RunContext, name: str, **extra: Any) -> RunContext:
    return replace(context, journal=MemoryJournal(bench.record, context.attempt, worker=name), **extra)


def shared_by(context: RunContext, what: Step) -> list[Mapping[str, Any]]:
    return [view.result for view in share(context, what, PARTS, {"what": "this"}, show=lambda _: None)]


@pytest.fixture
def bench() -> Bench:
    return Bench("postgresql://nowhere")


def test_one_worker_alone_finishes(bench: Bench) -> None:
    shown: list[int] = []
    context = bench.context()
    views = share(context, step(doing), PARTS, {"what": 1}, show=lambda seen: shown.append(len(seen)))
    assert [view.partition for view in views] == PARTS
    assert [view.result["n"] for view in views] == list(range(6))
    assert {view.count for view in views} == {Count(2, 1)}
    assert set(shown) == {6}
    assert shared_by(context, step(doing)) == [{"by": "test:1", "n": n} for n in range(6)]


def test_helpers_take_their_share(bench: Bench) -> None:
    meeting = threading.Barrier(3, timeout=10)

    def together(context: RunContext, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        if claimed.partition.number < 3:
            meeting.wait()  # passes only if three work at once
        return doing(context, claimed, note)

    context, opened, done = bench.context(), list[str](), list[int]()
    what = step(together, opened)
    threads = [
        threading.Thread(target=lambda name=name: done.append(help_out(helper(bench, context, name), {"test": what})))
        for name in ("test:2", "test:3")
    ]
    for thread in threads:
        thread.start()
    results = shared_by(context, what)
    for thread in threads:
        thread.join()
    assert [result["n"] for result in results] == list(range(6))
    assert {result["by"] for result in results} == {"test:1", "test:2", "test:3"}
    assert sum(done) == 6 - sum(result["by"] == "test:1" for result in results)
    assert sorted(opened) == ["test:1 this", "test:2 this", "test:3 this"]  # once each, for all partitions


def test_what_a_silent_helper_held_is_done_by_another(bench: Bench) -> None:
    context = bench.context()
    silent = helper(bench, context, "test:2")
    silent.journal.partitions.lay_out("test", PARTS, {"what": 0})
    context.journal.partitions.lay_out("test", PARTS, {"what": 0})
    held: list[Claimed] = []

    def once(context: RunContext, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        if not held:
            held.append(silent.journal.partitions.claim() or pytest.fail("none left"))
            bench.record.partitions.expire("test:2")
        return doing(context, claimed, note)

    assert {result["by"] for result in shared_by(context, step(once))} == {"test:1"}
    with pytest.raises(Fenced):
        silent.journal.partitions.finish(held[0], Count(), {})


def test_a_failed_partition_of_a_helper_fails_the_step(bench: Bench) -> None:
    context, began = bench.context(), threading.Event()

    def failing(context: RunContext, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        if context.journal.partitions.worker == "test:2":
            began.set()
            raise RunFailed("Row 5 of t cannot be changed.", remedy="Correct it.")
        began.wait(10)
        return doing(context, claimed, note)

    what = step(failing)

    def assist() -> None:
        with pytest.raises(Unavailable, match="Row 5 of t"):
            help_out(helper(bench, context, "test:2"), {"test": what})

    thread = threading.Thread(target=assist)
    thread.start()
    with pytest.raises(RunFailed, match="Row 5 of t") as caught:
        shared_by(context, what)
    thread.join()
    assert caught.value.remedy == "Correct it."


def test_what_a_helper_cannot_do_is_left_to_others(bench: Bench) -> None:
    context, tried = bench.context(), threading.Event()

    def unseen(context: RunContext, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        if context.journal.partitions.worker == "test:2":
            tried.set()
            raise Unavailable("This worker does not see the store.")
        tried.wait(10)
        return doing(context, claimed, note)

    what = step(unseen)
    said: list[str] = []

    def assist() -> None:
        with pytest.raises(Unavailable) as caught:
            help_out(helper(bench, context, "test:2"), {"test": what})
        said.append(caught.value.message)

    thread = threading.Thread(target=assist)
    thread.start()
    assert [result["by"] for result in shared_by(context, what)] == ["test:1"] * 6
    thread.join()
    assert said == ["test:2 leaves t to others: This worker does not see the store."]


def test_a_step_of_another_version_is_left_to_others(bench: Bench) -> None:
    context = bench.context()
    context.journal.partitions.lay_out("newer", PARTS, {})
    with pytest.raises(Unavailable, match="the step newer is another version's"):
        help_out(helper(bench, context, "test:2"), {"test": step(doing)})
    assert {view.state for view in context.journal.partitions.survey("newer")} == {PartitionState.WAITING}


def test_the_leaders_own_failure_gives_its_partition_back(bench: Bench) -> None:
    context = bench.context()

    def lost(context: RunContext, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        raise Unavailable("The database does not answer.")

    with pytest.raises(Unavailable):
        shared_by(context, step(lost))
    assert {view.state for view in context.journal.partitions.survey("test")} == {PartitionState.WAITING}


def test_a_pause_waits_for_the_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    context = bench.context(should_stop=lambda: asked[0] if asked else None)
    other = helper(bench, context, "test:2", should_stop=lambda: None)
    let_go = threading.Event()

    def stopping(context: RunContext, claimed: Claimed, note: Note) -> tuple[Count, Mapping[str, Any]]:
        held = other.journal.partitions.claim()
        assert held is not None
        asked.append("pause")

        def end() -> None:
            let_go.set()
            other.journal.partitions.give_back(held)

        threading.Timer(0.4, end).start()
        context.check_stop()
        return Count(), {}

    with pytest.raises(Stopped):
        shared_by(context, step(stopping))
    assert let_go.is_set()
    assert {view.state for view in context.journal.partitions.survey("test")} == {PartitionState.WAITING}


def test_helpers_are_asked_for_while_there_is_work(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "_ASK_EVERY", 0.0)
    calls: list[int] = []
    shared_by(bench.context(ask_help=lambda: calls.append(1)), step(doing))
    assert len(calls) >= len(PARTS)


def test_an_old_attempts_helper_is_fenced_off(bench: Bench) -> None:
    context = bench.context()
    old = helper(bench, context, "test:2")
    bench.context()
    with pytest.raises(Fenced):
        help_out(old, {"test": step(doing)})


def test_a_helper_without_work_leaves(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "IDLE", 0.4)
    assert help_out(helper(bench, bench.context(), "test:2"), {}) == 0
