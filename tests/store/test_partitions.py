"""Partitions in the app database: each in one worker's hands, whatever the others believe."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert, update

from briefly_admin.domain.errors import Fenced
from briefly_admin.domain.partitions import Claimed, Count, Partition, PartitionState
from briefly_admin.store import partitions, tables
from briefly_admin.store.database import Database
from briefly_admin.store.partitions import DatabasePartitions

LEASE = timedelta(seconds=30)
PARTS = [Partition("users", 0, {"to": ["m"]}), Partition("users", 1, {"after": ["m"]}), Partition("files", 0)]
W, D = PartitionState.WAITING, PartitionState.DONE


@pytest.fixture
def database(app_database: str) -> Iterator[Database]:
    made = Database(app_database)
    yield made
    made.close()


@pytest.fixture
def run_id(database: Database) -> UUID:
    run_id = uuid4()
    values = {"id": run_id, "kind": "migration", "state": "running", "plan": "unified", "plan_fingerprint": "f", "target_id": "t",
              "target_title": "t", "config": {}, "created_by": "ana", "attempt": 1}  # fmt: skip
    with database.begin() as connection:
        connection.execute(insert(tables.run).values(values))
    return run_id


def of(
    database: Database, run_id: UUID, worker: str, *, attempt: int = 1, lease: timedelta = LEASE
) -> DatabasePartitions:
    return DatabasePartitions(database, run_id, attempt, worker=worker, lease=lease)


def set_run(database: Database, run_id: UUID, **values: object) -> None:
    with database.begin() as connection:
        connection.execute(update(tables.run).where(tables.run.c.id == run_id).values(**values))


def taken(part: Claimed | None) -> Claimed:
    assert part is not None
    return part


def test_each_partition_is_claimed_once_in_order(database: Database, run_id: UUID) -> None:
    leader, other = of(database, run_id, "a:1"), of(database, run_id, "b:2")
    assert leader.claim() is None
    leader.lay_out("migrate", PARTS, {"what": 1})
    claims = [leader.claim("migrate"), other.claim(), other.claim("migrate")]
    assert [taken(each).partition for each in claims] == PARTS
    assert [taken(each).shared for each in claims] == [{"what": 1}] * 3
    assert leader.claim() is None
    for who, part in zip((leader, other, other), claims, strict=True):
        who.note(taken(part), Count(5))
        who.finish(taken(part), Count(7, 3, 1), {"found": [1]})
    views = leader.survey("migrate", results=True)
    assert leader.survey("migrate")[0].result == {}
    assert [(v.partition, v.state, v.worker, v.count, v.result) for v in views] == [
        (part, D, worker, Count(7, 3, 1), {"found": [1]})
        for part, worker in zip(PARTS, ("a:1", "b:2", "b:2"), strict=True)
    ]


def test_eight_workers_at_once_hold_no_partition_twice(database: Database, run_id: UUID) -> None:
    parts = [Partition("t", number) for number in range(60)]
    of(database, run_id, "leader").lay_out("migrate", parts, {})
    held: list[int] = []

    def work(name: str) -> None:
        mine = of(database, run_id, name)
        while claimed := mine.claim():
            held.append(claimed.partition.number)
            mine.finish(claimed, Count(), {})

    threads = [threading.Thread(target=work, args=(f"w:{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held) == list(range(60))


def test_a_silent_worker_loses_its_partition(database: Database, run_id: UUID) -> None:
    leader, sleeper = of(database, run_id, "a:1"), of(database, run_id, "b:2", lease=timedelta(seconds=-1))
    leader.lay_out("migrate", PARTS[:1], {})
    lost = taken(sleeper.claim())
    again = taken(leader.claim())
    assert (again.partition, again.claim) == (lost.partition, lost.claim + 1)
    with pytest.raises(Fenced, match="Another worker holds partition 0 of users"):
        sleeper.note(lost, Count(1))
    with pytest.raises(Fenced):
        sleeper.finish(lost, Count(1), {})
    with pytest.raises(Fenced):
        sleeper.fail(lost, {})
    sleeper.give_back(lost)
    assert leader.survey("migrate")[0].worker == "a:1"
    leader.finish(again, Count(2), {})
    assert leader.survey("migrate")[0].count == Count(2)


def test_a_living_worker_keeps_its_partition(database: Database, run_id: UUID) -> None:
    leader, helper = of(database, run_id, "a:1"), of(database, run_id, "b:2", lease=timedelta(seconds=-1))
    leader.lay_out("migrate", PARTS[:1], {})
    taken(helper.claim())
    with database.begin() as connection:
        partitions.renew(connection, run_id, "b:2", LEASE)
    assert leader.claim() is None


def test_a_new_layout_replaces_what_was_there(database: Database, run_id: UUID) -> None:
    leader, helper = of(database, run_id, "a:1"), of(database, run_id, "b:2")
    leader.lay_out("backup", PARTS, {"snapshot": "1"})
    old = taken(helper.claim())
    assert leader.lay_out("backup", PARTS[:1], {"snapshot": "2"}) == PARTS[:1]
    with pytest.raises(Fenced):
        helper.finish(old, Count(), {})
    new = taken(helper.claim())
    assert (new.partition, new.shared) == (PARTS[0], {"snapshot": "2"})
    assert new.generation > old.generation


def test_a_kept_layout_goes_on(database: Database, run_id: UUID) -> None:
    leader = of(database, run_id, "a:1")
    leader.lay_out("migrate", PARTS, {})
    leader.finish(taken(leader.claim()), Count(4), {"x": 1})
    taken(leader.claim())
    leader.fail(taken(leader.claim()), {"message": "no"})
    set_run(database, run_id, attempt=2)
    with pytest.raises(Fenced):
        leader.claim()
    with pytest.raises(Fenced):
        leader.survey("migrate")
    with pytest.raises(Fenced):
        leader.lay_out("migrate", [], {})
    later = of(database, run_id, "c:3", attempt=2)
    assert later.claim() is None  # before its own layout nothing of the earlier attempt's is handed out
    assert later.lay_out("migrate", [Partition("other", 9)], {}, keep=True) == PARTS
    assert [(v.state, v.worker, v.count) for v in later.survey("migrate")] == [
        (D, "a:1", Count(4)), (W, "", Count()), (W, "", Count()),
    ]  # fmt: skip
    assert [taken(later.claim()).partition for _ in range(2)] == PARTS[1:]


def test_nothing_is_claimed_of_a_run_that_stops(database: Database, run_id: UUID) -> None:
    leader = of(database, run_id, "a:1")
    leader.lay_out("migrate", PARTS, {})
    set_run(database, run_id, state="pausing")
    assert leader.claim() is None
    assert leader.survey("migrate")[0].state is W


def test_places_beside_the_leader_are_counted(database: Database, run_id: UUID) -> None:
    def join(worker: str, most: int = 2, lease: timedelta = LEASE) -> int | None:
        with database.begin() as connection:
            return partitions.join(connection, run_id, worker, most=most, lease=lease)

    assert [join("a"), join("b"), join("c"), join("c", most=0)] == [1, 2, None, None]
    with database.begin() as connection:
        assert partitions.helping(connection, run_id) == {1: "a", 2: "b"}
        assert partitions.stay(connection, run_id, 1, "a", timedelta(seconds=-1))
        assert not partitions.stay(connection, run_id, 1, "b", LEASE)
    assert join("c") == 1
    with database.begin() as connection:
        partitions.leave(connection, run_id, 1, "a")  # it is c's by now
        assert partitions.helping(connection, run_id) == {1: "c", 2: "b"}
        partitions.leave(connection, run_id, 1, "c")
        assert partitions.helping(connection, run_id) == {2: "b"}
        partitions.forget(connection, run_id)
        assert partitions.helping(connection, run_id) == {}


def test_twenty_that_join_at_once_get_three_places(database: Database, run_id: UUID) -> None:
    places: list[int | None] = []

    def join(worker: str) -> None:
        with database.begin() as connection:
            places.append(partitions.join(connection, run_id, worker, most=3, lease=LEASE))

    threads = [threading.Thread(target=join, args=(f"w:{n}",)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(place for place in places if place) == [1, 2, 3]
    assert places.count(None) == 17
