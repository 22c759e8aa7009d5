"""A few of the mutations, and programs that would miss some."""

from collections.abc import Callable
from random import Random

import pytest

from briefly_admin.domain.ports import BlobStore
from briefly_admin.vault import manifest as manifests
from briefly_admin.vault import seal, vault, verify
from tests.faults.ground import Ground
from tests.faults.rows import mutations
from tests.faults.sealed import SHAPES, world
from tests.faults.test_rows import says

Break = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_backup_that_nobody_hurt_is_whole(shape: str) -> None:
    assert mutations.unchanged(world(shape))


def test_every_mutation_is_found(ground: Ground) -> None:
    facts = mutations.trial(ground, 1, 800)
    assert all(facts[kind] == 100 for kind in mutations.KINDS)
    assert "800 mutations (100 flip, 100 cut" in says("mutations", facts)


@pytest.mark.parametrize("kind", list(mutations.KINDS))
def test_a_mutation_changes_the_backup_alone(kind: str) -> None:
    for shape in SHAPES:
        place, dice = world(shape), Random(3)
        before = dict(place.store.objects)
        for _ in range(50):
            changes = mutations.mutation(place, kind, dice)
            assert changes
            assert changes.keys() <= set(place.new.keys)
            assert all(data != before[key] for key, data in changes.items())
        assert place.store.objects == before


def _takes_any_manifest(patch: pytest.MonkeyPatch) -> None:
    """The recorded SHA-256 is not looked at: an older manifest is taken."""

    def fetch(store: BlobStore, backup_id: object, *, expected_sha256: str) -> bytes:
        return manifests.fetch(store, f"{backup_id}/manifest.bma", limit=1 << 20, what="the manifest")

    patch.setattr(vault, "fetch_manifest", fetch)


def _hashes_no_object(patch: pytest.MonkeyPatch) -> None:
    """The SHA-256 of what is sealed is not compared: a stream sealed again is taken, and L0 sees sizes alone."""

    def fault(*_: object) -> str:
        return ""

    patch.setattr(verify._Hashing, "fault", fault)


def _ignores_the_end(patch: pytest.MonkeyPatch) -> None:
    """L1 lists nothing."""
    patch.setattr(vault.BackupReader, "verify", lambda _: [])


@pytest.mark.parametrize("broken", [_takes_any_manifest, _hashes_no_object, _ignores_the_end])
def test_a_broken_program_is_noticed(ground: Ground, monkeypatch: pytest.MonkeyPatch, broken: Break) -> None:
    broken(monkeypatch)
    with pytest.raises(AssertionError, match="missed"):
        mutations.trial(ground, 2, 400)


def test_an_error_that_is_none_of_ours_escapes(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    def decrypt(*_: object) -> bytes:
        raise ValueError("a library's own")

    monkeypatch.setattr(seal, "_decrypt", decrypt)
    with pytest.raises(ValueError, match="a library's own"):
        mutations.missed(world("tiny"), {world("tiny").new.slots: b"{}"}) or mutations.trial(ground, 1, 8)
