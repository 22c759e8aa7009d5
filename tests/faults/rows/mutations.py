"""A sealed backup changed in every way that its store could change it: each change is found, nothing else is given out."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from briefly_admin.domain.errors import BackupError
from briefly_admin.vault.vault import Vault
from briefly_admin.vault.verify import verify_objects
from tests.faults.ground import Ground
from tests.faults.rows.row import Facts, Row, most, total
from tests.faults.sealed import SHAPES, MemoryStore, World, world
from tests.vault.sample_backups import KEYS

Changes = Mapping[str, bytes | None]
EACH = 10_000
"""Mutations of one trial."""
_ROOM = 64 << 20
"""Bytes that looking at small damaged backups may add to the process."""


def _flip(place: World, dice: Random) -> Changes:
    """One bit, or a few, anywhere in any object."""
    key = dice.choice(place.new.keys)
    data = bytearray(place.bytes_of(key))
    for _ in range(dice.choice((1, 1, 1, 2, 9))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return {key: bytes(data)}


def _cut(place: World, dice: Random) -> Changes:
    """The end, the beginning or something in the middle is missing; at a chunk's end one time in three."""
    key = dice.choice(place.new.keys)
    data, pieces = place.bytes_of(key), place.new.pieces(key, place.bytes_of(key))
    at = dice.randrange(len(data))
    if dice.random() < 1 / 3:
        at = sum(map(len, pieces[: dice.randrange(len(pieces))]))
    return {key: dice.choice((data[:at], data[:at], data[len(data) - at :], data[:at] + data[at + 1 :]))}


def _swap(place: World, dice: Random) -> Changes:
    """Two chunks, two streams, the same object of two backups, a chunk with the other backup's, or two kinds of object."""
    new, old = place.new, place.old
    way = dice.randrange(5)
    key = dice.choice(new.keys)
    if way == 0:
        pieces = new.pieces(key, place.bytes_of(key))
        first, second = dice.randrange(len(pieces)), dice.randrange(len(pieces))
        pieces[first], pieces[second] = pieces[second], pieces[first]
        return {key: b"".join(pieces)}
    if way == 1 and len(new.streams) > 1:
        one, two = dice.sample(new.streams, 2)
        return {one: place.bytes_of(two), two: place.bytes_of(one)}
    if way == 2:
        pieces = new.pieces(key, place.bytes_of(key))
        others = old.pieces(_other(place, key), place.bytes_of(_other(place, key)))
        at = dice.randrange(len(pieces))
        pieces[at] = others[min(at, len(others) - 1)]
        return {key: b"".join(pieces)}
    if way == 3:
        return {key: place.bytes_of(dice.choice([other for other in new.keys if other != key]))}
    return {key: place.bytes_of(_other(place, key))}


def _drop(place: World, dice: Random) -> Changes:
    """A chunk, a header, an object, several objects, or all bytes of one."""
    key, way = dice.choice(place.new.keys), dice.randrange(4)
    if way == 0:
        return {key: None}
    if way == 1:
        return dict.fromkeys(dice.sample(place.new.keys, dice.randint(1, len(place.new.keys))))
    if way == 2:
        return {key: b""}
    pieces = place.new.pieces(key, place.bytes_of(key))
    del pieces[dice.randrange(len(pieces))]
    return {key: b"".join(pieces)}


def _repeat(place: World, dice: Random) -> Changes:
    """A chunk twice, the last one again, an object twice over, or one stream in the place of another."""
    new, way = place.new, dice.randrange(4)
    key = dice.choice(new.keys)
    pieces = new.pieces(key, place.bytes_of(key))
    at = dice.randrange(len(pieces))
    if way == 0:
        return {key: b"".join([*pieces[: at + 1], *pieces[at:]])}
    if way == 1:
        return {key: b"".join([*pieces, pieces[-1]])}
    if way == 2 and len(new.streams) > 1:
        one, two = dice.sample(new.streams, 2)
        return {one: place.bytes_of(two)}
    return {key: place.bytes_of(key) * dice.randint(2, 3)}


def _splice(place: World, dice: Random) -> Changes:
    """The head of one object and the tail of another: of this backup, of the older one, of an earlier try."""
    new = place.new
    key = dice.choice(new.keys)
    other = dice.choice([*new.keys, *place.old.keys])
    head, tail = place.bytes_of(key), place.bytes_of(other)
    if key in place.earlier and dice.random() < 1 / 3:
        tail = dice.choice(place.earlier[key])
    if dice.random() < 1 / 2:
        heads, tails = new.pieces(key, head), new.pieces(key, tail)
        at = dice.randrange(1, len(heads) + 1)
        return {key: b"".join([*heads[:at], *tails[at:]])}
    at = dice.randrange(len(head) + 1)
    return {key: head[:at] + tail[dice.choice((at, dice.randrange(len(tail) + 1))) :]}


def _replay(place: World, dice: Random) -> Changes:
    """The older backup's objects under the new name, all or some; or what was sealed for the same place before."""
    keys, way = place.new.keys, dice.randrange(4)
    if way == 0:
        return {key: place.bytes_of(_other(place, key)) for key in keys}
    if way == 1:
        some = dice.sample(keys, dice.randint(1, len(keys)))
        return {key: place.bytes_of(_other(place, key)) for key in some}
    if way == 2:
        return {place.new.manifest_key: dice.choice(place.earlier[place.new.manifest_key])}
    some = dice.sample(list(place.earlier), dice.randint(1, len(place.earlier)))
    return {key: dice.choice(place.earlier[key]) for key in some}


def _append(place: World, dice: Random) -> Changes:
    """Bytes behind the end: random ones, zeros, white space, a whole object."""
    key = dice.choice(place.new.keys)
    more = dice.choice((
        dice.randbytes(dice.randint(1, 200)), bytes(dice.randint(1, 64)), b" ", b"\n", place.bytes_of(_other(place, key)),
    ))  # fmt: skip
    return {key: place.bytes_of(key) + more}


def _other(place: World, key: str) -> str:
    """The older backup's object of the same name."""
    return key.replace(str(place.new.backup_id), str(place.old.backup_id))


KINDS: Mapping[str, Callable[[World, Random], Changes]] = {
    "flip": _flip, "cut": _cut, "swap": _swap, "drop": _drop, "repeat": _repeat, "splice": _splice, "replay": _replay,
    "append": _append,
}  # fmt: skip


def mutation(place: World, kind: str, dice: Random) -> Changes:
    """One that really changes something."""
    while True:
        changes = KINDS[kind](place, dice)
        real = {key: data for key, data in changes.items() if data != place.bytes_of(key)}
        if real:
            return real


def missed(place: World, changes: Changes) -> str:
    """What is wrong with the answers to a changed backup, '' where it was found out.

    Found: it does not open, or L1 lists damage; no stream is read to its end with other bytes; and L0, from what was
    recorded, sees every object that changed (of slots.json that it is gone). Any error but a BackupError is raised.
    """
    new, store = place.new, MemoryStore(place.store.objects, changes)
    # slots.json may change, when keys are rotated: L0 needs it to be there, and L1 opens it.
    seen = {key for key, data in changes.items() if data is None or key != new.slots}
    if bool(verify_objects(store, new.recorded)) != bool(seen):
        return "L0 does not see it, or sees what is not there"
    try:
        reader = Vault(store, KEYS).open(new.backup_id, new.shred_key, new.sha256)
        damages = reader.verify()
    except BackupError as error:
        return "" if error.message and error.remedy else f"an error that says nothing: {error!r}"
    for stream in reader.manifest.streams:
        try:
            given = b"".join(reader.read_table_stream(stream))
        except BackupError:
            continue
        if given != new.plain[stream.number]:
            return f"the reader gives other bytes of stream {stream.number}"
    return "" if damages else "L1 says that it is whole"


def trial(ground: Ground, seed: int, count: int = EACH) -> Facts:
    """So many mutations of backups of all shapes, kind after kind."""
    dice, found = Random(seed), Counter[str]()
    worlds = {shape: world(shape, seed) for shape in SHAPES}
    for place in worlds.values():
        assert unchanged(place), f"the backup {place.shape} is not whole"
    before = _peak(reset=True)
    wrong = []
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        place = worlds[dice.choice(list(SHAPES))]
        changes = mutation(place, kind, dice)
        if what := missed(place, changes):
            names = ", ".join(key.partition("/")[2] for key in changes)
            wrong.append(f"{kind} of {names} of {place.shape} ({number}): {what}")
        found[kind] += 1
    grown = _peak() - before
    assert not wrong, f"{len(wrong)} of {count} missed: " + "; ".join(wrong[:5])
    assert grown < _ROOM, f"the process has grown by {grown >> 20} MiB"
    return {"count": count, "grown_mb": round(grown / 2**20, 1), **found}


def unchanged(place: World) -> bool:
    """Whether the backup that is hurt is whole as long as nobody hurts it."""
    reader = Vault(place.store, KEYS).open(place.new.backup_id, place.new.shred_key, place.new.sha256)
    streams = {each.number: b"".join(reader.read_table_stream(each)) for each in reader.manifest.streams}
    return not reader.verify() and streams == place.new.plain and not verify_objects(place.store, place.new.recorded)


def _peak(*, reset: bool = False) -> int:
    """The most bytes that the process has had since the last reset; its size now, where it can be reset."""
    if reset and os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def _says(trials: Sequence[Mapping[str, Any]]) -> str:
    parts = ", ".join(f"{total(trials, kind):,} {kind}" for kind in KINDS)
    return (
        f"{total(trials):,} mutations ({parts}) of backups of {len(SHAPES)} shapes, 0 missed, no other error; "
        f"the process grew by {most(trials, 'grown_mb'):.0f} MiB at most"
    )


ROW = Row("mutations", 100_000, "mutations", 2, trial, _says)
