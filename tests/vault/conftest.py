"""Stores of each kind, empty, and what is really in them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from briefly_admin.domain.ports import BlobStore
from briefly_admin.vault.stores import open_store
from tests.object_storage import ObjectStorage, serve_objects

KINDS = ("directory", "s3", "redis")


@dataclass(frozen=True)
class Opened:
    """An empty store: `everything` names all that stands behind it, half-written things too."""

    kind: str
    url: str
    store: BlobStore
    everything: Callable[[], list[str]]


@pytest.fixture(scope="session")
def object_storage() -> Iterator[ObjectStorage]:
    """One server of the S3 protocol a pytest process."""
    with serve_objects() as served:
        yield served


@pytest.fixture
def bucket(object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of the test's own, and the environment that leads there."""
    object_storage.point_to(monkeypatch)
    with object_storage.bucket() as name:
        yield name


@pytest.fixture(params=KINDS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Each store in its turn."""
    url: str
    if request.param == "directory":
        root = tmp_path / "not" / "yet" / "there"
        url = root.as_uri()

        def everything() -> list[str]:
            return [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]

    elif request.param == "s3":
        name, served = request.getfixturevalue("bucket"), request.getfixturevalue("object_storage")
        url = f"s3://{name}/some/prefix"

        def everything() -> list[str]:
            keys = served.keys(name) + [f"{each['Key']} (upload)" for each in served.uploads(name)]
            return [key.removeprefix("some/prefix/") for key in keys]

    else:
        url = request.getfixturevalue("redis_url")

        def everything() -> list[str]:
            with redis.Redis.from_url(url) as client:
                return [name.decode().removeprefix("briefly:backup:") for name in client.keys("*")]

    return Opened(request.param, url, open_store(url), lambda: sorted(everything()))


@pytest.fixture
def store(opened: Opened) -> BlobStore:
    """Each store in its turn."""
    return opened.store
