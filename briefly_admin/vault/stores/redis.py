"""Blobs in Redis or Valkey: the "cache storage", for small data, on a server that forgets nothing.

An object is one string. It is appended under a name of its own that expires soon, and renamed in one transaction when
it is whole, if its key is free; so a process or a server that dies leaves nothing that lasts. Objects expire after the
store's lifetime unless `keep` says otherwise. All names start with `briefly:backup:`, so that the server may be the
queue's too. A server that may evict is refused (`maxmemory-policy` must be `noeviction`), and so is an object with
which all of ours would take more than they may together. How durable an object is, is the server's own setting.
"""

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from redis import Redis, exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from briefly_admin.domain.errors import BrieflyError, Refused, Unavailable
from briefly_admin.vault.stores.naming import absent, exists, is_key, require_key, require_prefix
from briefly_admin.vault.stores.pieces import read_in_pieces

if TYPE_CHECKING:
    from redis.client import Pipeline

_OURS: Final = "briefly:backup:"
_PARTIAL: Final = f"{_OURS}partial:"
"""What is being written; ':' is in no key, so no list shows it."""
_PIECE: Final = 1 << 20
_SCAN: Final = 1000
_POLICY: Final = "noeviction"
_SAYS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (exceptions.OutOfMemoryError, "its memory is full"),
    (exceptions.AuthenticationError, "it refuses our user or password"),
    (exceptions.NoPermissionError, "it does not permit us what is needed"),
    (exceptions.ReadOnlyError, "it is a replica and takes no writes"),
    (exceptions.BusyLoadingError, "it is still loading its data"),
    (exceptions.TimeoutError, "it did not answer in time"),
    (exceptions.ConnectionError, "it cannot be reached, or the connection was lost"),
)


class RedisStore:
    """A BlobStore in Redis; `shown` names the server for people. Times in seconds.

    `partial`: how long a half-written object of a killed process stays, and how long the next piece may take;
    `timeout`: for each answer.
    """

    def __init__(
        self,
        url: str,
        shown: str,
        *,
        max_bytes: int,
        lifetime: float,
        partial: float = 300.0,
        timeout: float = 10.0,
    ) -> None:
        self._shown = shown
        self._max_bytes = max_bytes
        self._lifetime = lifetime
        self._partial = partial
        # Never a second try: an APPEND whose answer was lost may have been done.
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 0), "health_check_interval": 30}
        if url.startswith("rediss:"):
            options["ssl_cert_reqs"] = "none"  # platforms hand out self-signed certificates: encrypted, not proven
        self._client = Redis.from_url(url, socket_timeout=timeout, socket_connect_timeout=min(timeout, 5.0), **options)

    def __repr__(self) -> str:
        return f"RedisStore({self._shown!r})"

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """Write a new object; see BlobStore.put. Raises Refused also where it would be too large."""
        name = self._name(key)
        with self._failures(key):
            self._require_lasting()
            if self._client.exists(name):
                raise exists(key)
            room = self._max_bytes - self._used()
        partial = f"{_PARTIAL}{secrets.token_hex(8)}"
        size = 0
        try:
            with self._failures(key):
                self._client.set(partial, b"", px=_milliseconds(self._partial))
            for piece in _pieces(chunks):  # their own errors stay their own
                size += len(piece)
                self._require_room(key, size, room)
                with self._failures(key):
                    self._append(partial, piece, size)
            with self._failures(key):
                self._publish(partial, key, size)
        except BaseException:
            with suppress(exceptions.RedisError, OSError):  # else it expires
                self._client.delete(partial)
            raise
        return size

    def replace(self, key: str, data: bytes) -> None:
        """Put a small object in the place of the one there, which keeps its lifetime; see BlobStore.replace."""
        name = self._name(key)
        with self._failures(key):
            self._require_lasting()
            if not self._client.set(name, data, xx=True, keepttl=True):
                raise absent(key)

    def keep(self, prefix: str, seconds: float | None) -> None:
        """What stands under `prefix` stays for `seconds` from now, None = for ever. Raises Unavailable."""
        with self._failures(prefix or "its keys"):
            pipe = self._client.pipeline(transaction=False)
            for key in self.list(prefix):
                if seconds is None:
                    pipe.persist(self._name(key))
                else:
                    pipe.pexpire(self._name(key), _milliseconds(seconds))
            pipe.execute()

    def open(self, key: str) -> BinaryIO:
        """A stream over the object, in pieces of 1 MiB. Raises NotFound."""
        name = self._name(key)
        with self._failures(key):
            pipe = self._client.pipeline(transaction=True)
            pipe.exists(name)
            pipe.strlen(name)
            pipe.getrange(name, 0, _PIECE - 1)
            there, size, first = pipe.execute()
        if not there:
            raise absent(key)

        def fetch(start: int, length: int) -> bytes:
            with self._failures(key):
                got = cast("bytes", self._client.getrange(name, start, start + length - 1))
            if len(got) != length:
                raise self._unavailable(key, "it was deleted or expired while it was read")
            return got

        return read_in_pieces(size, first, fetch, piece=_PIECE)

    def size(self, key: str) -> int:
        """Bytes of the object. Raises NotFound."""
        name = self._name(key)
        with self._failures(key):
            pipe = self._client.pipeline(transaction=True)
            pipe.exists(name)
            pipe.strlen(name)
            there, size = pipe.execute()
        if not there:
            raise absent(key)
        return int(size)

    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys that start with `prefix`, sorted."""
        start = len(_OURS)
        with self._failures(require_prefix(prefix) or "its keys"):
            found = {name[start:].decode("ascii", "replace") for name in self._scan(f"{_OURS}{prefix}*")}
        return iter(sorted(filter(is_key, found)))

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens if there is none."""
        with self._failures(key):
            self._client.delete(self._name(key))

    def free_bytes(self) -> int:
        """What our objects may still take, or the server's memory if that is less. Raises Unavailable."""
        with self._failures("new backups"):
            try:
                self._require_lasting()
            except Refused as error:
                raise Unavailable(error.message, remedy=error.remedy) from error
            memory = self._client.info("memory")
            room = self._max_bytes - self._used()
        if limit := int(memory.get("maxmemory", 0)):
            room = min(room, limit - int(memory.get("used_memory", 0)))
        return max(room, 0)

    def _name(self, key: str) -> str:
        return _OURS + require_key(key)

    def _scan(self, pattern: str) -> Iterator[bytes]:
        return cast("Iterator[bytes]", self._client.scan_iter(match=pattern, count=_SCAN))

    def _used(self) -> int:
        """Bytes of all our objects, whole or being written."""
        pipe = self._client.pipeline(transaction=False)
        for name in set(self._scan(f"{_OURS}*")):
            pipe.strlen(name)
        return sum(size for size in pipe.execute(raise_on_error=False) if isinstance(size, int))

    def _append(self, partial: str, piece: bytes, size: int) -> None:
        pipe = self._client.pipeline(transaction=True)
        pipe.append(partial, piece)
        pipe.pexpire(partial, _milliseconds(self._partial))
        if pipe.execute()[0] != size:
            raise self._unavailable("it", "the object expired while it was being written")

    def _publish(self, partial: str, key: str, size: int) -> None:
        """In one transaction: whole, within the limit, with its lifetime, under its key if that is free."""
        name = self._name(key)

        def move(pipe: "Pipeline") -> None:
            if pipe.exists(name):
                raise exists(key)
            if pipe.strlen(partial) != size:
                raise self._unavailable(key, "the object expired while it was being written")
            self._require_room(key, self._used(), self._max_bytes)
            pipe.multi()
            pipe.pexpire(partial, _milliseconds(self._lifetime))
            pipe.renamenx(partial, name)

        # Looks again until nobody touched either of the two meanwhile.
        done = cast("list[int]", self._client.transaction(move, name, partial))
        if not done[1]:
            raise exists(key)

    def _require_lasting(self) -> None:
        """Raises Refused unless the server says that it evicts nothing."""
        try:
            answer = cast("dict[str, str]", self._client.config_get("maxmemory-policy"))
        except exceptions.ResponseError:  # platforms forbid CONFIG
            answer = {}
        policy = answer.get("maxmemory-policy") or self._client.info("memory").get("maxmemory_policy", "unknown")
        if policy != _POLICY:
            raise Refused(
                f"The backup store {self._shown} may evict what it holds: its maxmemory-policy is {policy}.",
                remedy=f"Set its maxmemory-policy to {_POLICY}, or set another BACKUP_STORE_URL.",
            )

    def _require_room(self, key: str, size: int, room: int) -> None:
        if size > room:
            raise Refused(
                f"With {key} the backups in {self._shown} would take more than {self._max_bytes / 2**20:,.0f} MB.",
                remedy="Delete backups that nobody needs, raise BACKUP_REDIS_MAX_MB, or set another BACKUP_STORE_URL.",
            )

    @contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        try:
            yield
        except BrieflyError:
            raise
        except (exceptions.RedisError, OSError) as error:
            reason = next((says for kind, says in _SAYS if isinstance(error, kind)), "it answers with an error")
            raise self._unavailable(key, reason) from error

    def _unavailable(self, key: str, reason: str) -> Unavailable:
        return Unavailable(
            f"The backup store {self._shown} does not take or give {key}: {reason}.",
            remedy="Check BACKUP_STORE_URL and the server.",
        )


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), _PIECE):
            yield chunk[start : start + _PIECE]


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
