"""Passwords: argon2id with t=2, m=64 MiB, and the same time for accounts that do not exist."""

import threading
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from briefly_admin.domain.errors import InvalidRequest

SHORTEST: Final = 15
LONGEST: Final = 1024
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=64 * 1024, parallelism=1)
_ONE_AT_A_TIME: Final = threading.Lock()
"""64 MiB each: a process never spends them twice at once."""
_DUMMY: Final = (
    "$argon2id$v=19$m=65536,t=2,p=1$h+RsMtb00YDiA/qI0qJv5Q$"  # of random bytes that nobody kept
    "FHrc6nZsvlNShwvo/gWRSAU/8qYZxnwBQmdAfU3muvg"
)


def hash_password(password: str) -> str:
    """The argon2id hash of a password that is good enough. Raises InvalidRequest."""
    fault = fault_of(password)
    if fault:
        raise InvalidRequest(f"The password is not good enough: {fault}", details={"password": [fault]})
    with _ONE_AT_A_TIME:
        return _HASHER.hash(_bytes(password))


def fault_of(password: str) -> str:
    """What is wrong with a new password, or ''."""
    if len(password) < SHORTEST:
        return f"It must have at least {SHORTEST} characters."
    if len(password) > LONGEST:
        return f"It must have at most {LONGEST:,} characters."
    if len(set(password)) < SHORTEST // 3:
        return "It repeats too few different characters."
    return ""


def matches(stored: str | None, password: str) -> bool:
    """Whether the password is the stored one; without a stored one, False after the same work."""
    with _ONE_AT_A_TIME:
        try:
            _HASHER.verify(stored or _DUMMY, _bytes(password[: LONGEST + 1]))
        except (Argon2Error, InvalidHashError):
            return False
    return stored is not None


def _bytes(password: str) -> bytes:
    return password.encode(errors="surrogatepass")


def outdated(stored: str) -> bool:
    """Whether the hash was made with other parameters than ours are now."""
    return _HASHER.check_needs_rehash(stored)
