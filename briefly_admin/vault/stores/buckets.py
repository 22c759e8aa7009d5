"""Blobs in object storage, through obstore: `s3://`, and untried `gs://` and `az://`.

Credentials, region and endpoint are the library's business: it reads the usual AWS_* variables itself
(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL, AWS_ALLOW_HTTP=true for an
endpoint without TLS), and where none are set it asks the machine (instance, container and web identity roles; not
`~/.aws`). Nothing of them is ever held, shown or logged here.

How a put is atomic and overwrites nothing: what fits into one part is put by one conditional request (If-None-Match).
More is uploaded in parts, a few at a time, under a key of its own beside its key, `<key>.partial-<random>`; a copy
inside the store, itself completed by a conditional request, then makes it visible under its key, and the partial object
goes. AWS promises both conditions since 2024, other stores often do: `free_bytes`, which preflight calls, tries both,
and a store that would overwrite is refused there. That copy is limited to 5 GB an object; streams are some 256 MB.

A put that is killed between upload and copy leaves its partial object: it is listed under the backup's own prefix, so
the next put of the key or the backup's destruction removes it. A put that is killed while it uploads leaves an
unfinished multipart upload: nobody sees it, it costs room, and no interface of the library lists it. Give the bucket a
lifecycle rule that aborts incomplete multipart uploads after a day.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, Final

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

from briefly_admin.domain.errors import Unavailable
from briefly_admin.vault.stores.naming import absent, exists, is_key, require_key, require_prefix
from briefly_admin.vault.stores.pieces import read_in_pieces

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, UpdateVersion
    from obstore.store import ObjectStore

_PART: Final = 5 << 20
"""Bytes of a part: the least that S3 takes."""
_UPLOADS: Final = 3
"""Parts on their way at once."""
_PIECE: Final = 4 << 20
_PROBE: Final = "briefly-probe"
_TRIES: Final = 5
_LOOKS: Final = 20
"""At an object that is replaced all the time, between asking what it is and reading it."""
_SAYS: Final = (
    ("InvalidPath", "it holds an object whose name is none of ours, such as '..' or '//'"),
    ("latest/api/token", "there are no credentials for it"),
    ("NoSuchBucket|NoSuchKey|404 Not Found", "there is no such bucket"),
    ("PermissionDenied|Unauthenticated|status: 40[13]", "it refuses our credentials, or what they may do"),
    ("BadScheme", "its endpoint is without TLS, which AWS_ALLOW_HTTP=true would permit"),
    ("BareRedirect", "it is in another region"),
    ("TimedOut|kind: Timeout", "it did not answer in time"),
    ("kind: Connect", "it cannot be reached"),
    ("IncompleteMessage|kind: (?:Decode|Body|Interrupted)", "the connection broke off"),
)
"""What the library's error says, as a pattern in its text, and what we say; the first that fits."""
_LATER: Final = "Try again later."
_CHANGED: Final = "it was replaced or deleted while it was read"
_STATUS: Final = re.compile(r"status: (\d{3})")
_REMEDIES: Final = (
    ("InvalidPath", "Remove that object, or give the backups a prefix of their own in BACKUP_STORE_URL."),
    ("TimedOut|kind: (?:Timeout|Connect|Decode|Body|Interrupted)|IncompleteMessage|status: 5", _LATER),
)
_NO_CONDITION: Final = "it overwrites objects although it was asked not to"


_process: Final[dict[str, int]] = {}
"""The process whose threads do the library's work: one that is forked from it would wait for them for ever."""


class _ChangedError(Unavailable):
    """What is being read was replaced or deleted."""


class BucketStore:
    """A BlobStore in a bucket; `shown` is its URL for people."""

    def __init__(self, objects: "ObjectStore", shown: str) -> None:
        self._objects = objects
        self._shown = shown

    def __repr__(self) -> str:
        return f"BucketStore({self._shown!r})"

    def put(self, key: str, chunks: Iterable[bytes]) -> int:
        """Write a new object; see BlobStore.put."""
        require_key(key)
        source = iter(chunks)
        start = _take(source, _PART)
        if len(start) < _PART:
            self._create(key, start)
            return len(start)
        if self._meta(key) is not None:
            raise exists(key)
        beside = f"{_partials(key)}{secrets.token_hex(8)}"
        try:
            size = self._upload(beside, key, chain([start], source))
            self._publish(beside, key)
        except BaseException:
            with suppress(Unavailable):  # the backup's destruction removes it
                self.delete(beside)
            raise
        with suppress(Unavailable):
            for left in self.list(_partials(key)):
                self.delete(left)
        return size

    def replace(self, key: str, data: bytes) -> None:
        """Put a small object in the place of the one there; see BlobStore.replace."""
        require_key(key)
        for _ in range(_TRIES):
            meta = self._meta(key)
            if meta is None:
                raise absent(key)
            found: UpdateVersion = {"e_tag": meta["e_tag"]}
            if meta["version"] is not None:
                found["version"] = meta["version"]
            with self._failures(key), suppress(PreconditionError):  # another one replaced it meanwhile: look again
                obstore.put(self._objects, key, data, mode=found)
                return
        raise self._unavailable(key, "others replace it all the time")

    def keep(self, prefix: str, seconds: float | None) -> None:
        """Nothing: objects stay until they are deleted."""

    def open(self, key: str) -> BinaryIO:
        """A stream over the object as it is now, in pieces of 4 MiB. Raises NotFound."""
        require_key(key)
        for _ in range(_LOOKS):
            meta = self._meta(key)
            if meta is None:
                raise absent(key)
            with suppress(_ChangedError):  # replaced meanwhile: look again
                first = self._read(key, meta, 0, min(_PIECE, meta["size"]))
                return read_in_pieces(meta["size"], first, partial(self._read, key, meta), piece=_PIECE)
        raise _ChangedError(self._message(key, _CHANGED), remedy=_LATER)

    def size(self, key: str) -> int:
        """Bytes of the object. Raises NotFound."""
        meta = self._meta(require_key(key))
        if meta is None:
            raise absent(key)
        return meta["size"]

    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys that start with `prefix`, sorted; objects with other names are not ours."""
        folder = require_prefix(prefix).rpartition("/")[0]
        with self._failures(prefix or "its keys"):
            found = [meta["path"] for batch in obstore.list(self._objects, folder or None) for meta in batch]
        return iter(sorted(key for key in found if key.startswith(prefix) and is_key(key) and key != _PROBE))

    def delete(self, key: str) -> None:
        """Remove the object; nothing happens if there is none."""
        require_key(key)
        with self._failures(key):
            try:
                obstore.delete(self._objects, key)
            except FileNotFoundError:
                self._require_bucket()

    def free_bytes(self) -> None:
        """A bucket has no known limit; this tries whether it takes objects, and twice the same key only once.

        Raises Unavailable.
        """
        with self._failures("new backups"):
            try:
                obstore.put(self._objects, _PROBE, b"briefly")
                self._require_refusal(lambda: obstore.put(self._objects, _PROBE, b"other", mode="create"))
                self._require_refusal(lambda: obstore.copy(self._objects, _PROBE, _PROBE, overwrite=False))
            except FileNotFoundError as error:
                raise self._unavailable("new backups", _reason(error)) from error
        self.delete(_PROBE)

    def _require_refusal(self, write: Callable[[], object]) -> None:
        for _ in range(_TRIES):  # another probe may just have deleted the object
            try:
                write()
            except AlreadyExistsError:
                return
            except FileNotFoundError:
                obstore.put(self._objects, _PROBE, b"briefly")
        raise self._unavailable("new backups", _NO_CONDITION)

    def _read(self, key: str, meta: "ObjectMeta", start: int, length: int) -> bytes:
        """A piece of the very object that `meta` describes. Raises _ChangedError if it is another now, or none."""
        if not length:
            return b""
        options: GetOptions = {"range": (start, start + length)}
        if meta["e_tag"] is not None:
            options["if_match"] = meta["e_tag"]
        with self._failures(key):
            try:
                got = bytes(obstore.get(self._objects, key, options=options).bytes())
            except (PreconditionError, FileNotFoundError) as error:
                raise _ChangedError(self._message(key, _CHANGED), remedy=_LATER) from error
        if len(got) != length:
            raise self._unavailable(key, "it gave less than was asked for")
        return got

    def _create(self, key: str, data: bytes) -> None:
        with self._failures(key):
            try:
                obstore.put(self._objects, key, data, mode="create")
            except AlreadyExistsError as error:
                raise exists(key) from error

    def _upload(self, beside: str, key: str, chunks: Iterable[bytes]) -> int:
        """Upload in parts; the number of bytes. Whatever fails, the unfinished upload is aborted."""
        size = 0
        with self._failures(key):
            writer = obstore.open_writer(self._objects, beside, buffer_size=_PART, max_concurrency=_UPLOADS)
        try:
            for chunk in chunks:  # its own errors stay its own
                with self._failures(key):
                    writer.write(chunk)
                size += len(chunk)
        except BaseException as error:
            with suppress(BaseError, OSError, ValueError):
                if not isinstance(error, Unavailable):
                    writer.flush()  # a part still on its way could outlive the abort
                writer.__exit__(type(error), error, error.__traceback__)
            raise
        with self._failures(key):
            writer.close()
        return size

    def _publish(self, beside: str, key: str) -> None:
        with self._failures(key):
            try:
                obstore.copy(self._objects, beside, key, overwrite=False)
            except AlreadyExistsError as error:
                raise exists(key) from error
            except FileNotFoundError as error:
                if self._meta(key) is not None:  # the one who was first removed what the others had uploaded
                    raise exists(key) from error
                raise

    def _meta(self, key: str) -> "ObjectMeta | None":
        with self._failures(key):
            try:
                return obstore.head(self._objects, key)
            except FileNotFoundError:
                self._require_bucket()
                return None

    def _require_bucket(self) -> None:
        """An answer to HEAD does not say whether it is the bucket that is missing."""
        with self._failures("its keys"):
            next(iter(obstore.list(self._objects, _PROBE)), None)

    @contextmanager
    def _failures(self, key: str) -> Iterator[None]:
        if _process.setdefault("first", os.getpid()) != os.getpid():
            raise self._unavailable(key, "this process was forked from one that had used a bucket")
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            raise self._unavailable(key, _reason(error), _remedy(error)) from error

    def _unavailable(self, key: str, reason: str, remedy: str = "") -> Unavailable:
        check = "Check BACKUP_STORE_URL, the bucket, and the credentials and their permissions."
        return Unavailable(self._message(key, reason), remedy=remedy or check)

    def _message(self, key: str, reason: str) -> str:
        return f"The backup store {self._shown} does not take or give {key}: {reason}."


def _partials(key: str) -> str:
    """What the keys of all uploads of `key` start with; a segment has at most 128 characters."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{name[:96]}.partial-"


def _take(source: Iterator[bytes], size: int) -> bytes:
    """The first pieces of `source` that have `size` bytes together, or all of them."""
    taken = bytearray()
    for chunk in source:
        taken += chunk
        if len(taken) >= size:
            break
    return bytes(taken)


def _reason(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    for pattern, says in _SAYS:
        if re.search(pattern, text):
            return says
    status = _STATUS.search(text)
    return f"it answers {status[1]}" if status else "its answer makes no sense"


def _remedy(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}"
    return next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, text)), "")
