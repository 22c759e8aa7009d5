"""The command, in a process that a trial hurts from within: `python -m tests.faults.hurt worker`.

What is done to it stands in the environment, so that it holds for all processes of a field:

- FAULTS_STREAM_BYTES: about so many bytes of a table a stream, so that small tables have many; likewise for proofs.
- FAULTS_BLOW, "put:3:middle": SIGKILL of this process and of its worker at the third put (or replace) that any
  process of the field makes, before it, in the middle of its bytes, or when it is done; with "full", the file
  FAULTS_BALLAST is made to take all room that is left on its file system, once, in the middle of the put's bytes.
  FAULTS_COUNT names the file that counts.
- FAULTS_FILE_BYTES: no file may grow beyond it.
- FAULTS_STATEMENTS: blows at the statements of a restore, see tests/faults/statements.py.
- FAULTS_STORE_SECONDS: how long a bucket is waited for, instead of its usual limits.
"""

import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from briefly_admin.engine import backup
from briefly_admin.vault import stores
from briefly_admin.vault.stores import opening
from tests.faults import statements

STAGES = ("before", "middle", "after")
FULL = "full"


@dataclass(frozen=True)
class Blow:
    """Where a process is to die, or its disk to be full; `deed` is 'put' or 'replace', `number` is counted from 1 over all processes."""

    deed: str
    number: int
    stage: str

    def __str__(self) -> str:
        return f"{self.deed}:{self.number}:{self.stage}"

    @classmethod
    def parse(cls, text: str) -> "Blow":
        deed, number, stage = text.split(":")
        return cls(deed, int(number), stage)


def settings(
    logs: Path,
    *,
    blow: Blow | None = None,
    stream_bytes: int = 0,
    file_bytes: int = 0,
    ballast: Path = Path(os.devnull),
    store_seconds: float = 0,
) -> dict[str, str]:
    """The environment of hurt processes; `logs` is where they count."""
    return {
        "FAULTS_COUNT": str(logs / f"deeds-{blow}"), "FAULTS_BLOW": str(blow or ""),
        "FAULTS_STREAM_BYTES": str(stream_bytes), "FAULTS_FILE_BYTES": str(file_bytes), "FAULTS_BALLAST": str(ballast),
        "FAULTS_STORE_SECONDS": str(store_seconds),
    }  # fmt: skip


def struck(logs: Path, blow: Blow) -> bool:
    """Whether the blow has fallen."""
    path = logs / f"deeds-{blow}"
    return path.exists() and path.stat().st_size >= blow.number


class DeadlyStore:
    """A store whose process dies at one of its deeds."""

    def __init__(self, store: Any, blow: Blow, count: Path) -> None:
        self._store = store
        self._blow = blow
        self._count = count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        stage = self._stage("put")
        if stage == "before":
            _die()
        if stage in {"middle", FULL}:
            chunks = _between(chunks, _die if stage == "middle" else _fill)
        size: int = self._store.put(key, chunks)
        if stage == "after":
            _die()
        return size

    def replace(self, key: str, data: bytes) -> None:
        stage = self._stage("replace")
        if stage in {"before", "middle"}:  # bytes of its own
            _die()
        self._store.replace(key, data)
        if stage:
            _die()

    def _stage(self, deed: str) -> str:
        """Where this very deed is to die, '' for nowhere."""
        if deed != self._blow.deed:
            return ""
        descriptor = os.open(self._count, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, b".")
            number = os.lseek(descriptor, 0, os.SEEK_CUR)
        finally:
            os.close(descriptor)
        return self._blow.stage if number == self._blow.number else ""


def _between(chunks: Iterable[bytes], happens: Callable[[], object]) -> Iterator[bytes]:
    """The chunks, and behind the first of them what happens."""
    for number, chunk in enumerate(chunks):
        if number == 1:
            happens()
        yield chunk
    happens()


def _fill() -> None:
    with Path(os.environ["FAULTS_BALLAST"]).open("ab", buffering=0) as ballast, suppress(OSError):
        for size in (1 << 16, 1 << 10, 1):
            with suppress(OSError):
                while ballast.write(bytes(size)):
                    pass


def _die() -> NoReturn:
    """As where the whole worker is killed: what leads the session that the field started, and the horse itself."""
    os.kill(os.getsid(0), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody outlives SIGKILL")


def _arm() -> None:
    stream_bytes, file_bytes = (int(os.environ.get(f"FAULTS_{name}_BYTES") or 0) for name in ("STREAM", "FILE"))
    if stream_bytes:
        sizes = backup.run.__kwdefaults__ or {}
        assert sizes.keys() == {"stream_bytes", "proof_bytes"}
        sizes.update(stream_bytes=stream_bytes, proof_bytes=stream_bytes)
    if file_bytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    statements.arm()
    seconds = float(os.environ.get("FAULTS_STORE_SECONDS") or 0)
    if seconds:
        limits = opening.Limits(request=seconds, connect=seconds, patience=seconds, retries=2)
        opening.open_bucket.__defaults__ = (limits,)
    if os.environ.get("FAULTS_BLOW"):
        blow, count, opened = Blow.parse(os.environ["FAULTS_BLOW"]), Path(os.environ["FAULTS_COUNT"]), stores.open_store

        def open_store(url: str, **more: Any) -> Any:
            return DeadlyStore(opened(url, **more), blow, count)

        stores.open_store = open_store


if __name__ == "__main__":
    _arm()
    from briefly_admin.cli import main  # it imports the wiring, which takes the store's name as it is then

    main()
