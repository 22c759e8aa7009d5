"""Failed sign-ins slow down the account and the address that they come from, in all processes alike."""

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from briefly_admin.domain.errors import TooManyRequests
from briefly_admin.store import people
from briefly_admin.store.database import Database
from briefly_admin.store.texts import storable

FREE_ACCOUNT: Final = 5
FREE_ADDRESS: Final = 20
"""Tries in a row before the first wait."""
LONGEST: Final = 15 * 60
"""Seconds of the longest wait: nobody locks an admin out for the day."""
_FORGET: Final = timedelta(hours=24)


class Throttle:
    """Counts each try before its outcome is known, so that tries at once cannot slip through."""

    def __init__(self, database: Database, now: Callable[[], datetime]) -> None:
        self._database = database
        self._now = now

    def count(self, email: str, address: str) -> None:
        """One more try. Raises TooManyRequests while the account or the address waits."""
        account, place = _keys(email, address)
        now = self._now()
        with self._database.begin() as connection:
            try_account = people.count_try(
                connection, account, now=now, free=FREE_ACCOUNT, longest=LONGEST, forget=_FORGET
            )
            if try_account and people.count_try(
                connection, place, now=now, free=FREE_ADDRESS, longest=LONGEST, forget=_FORGET
            ):
                return
            until = people.blocked_until(connection, [account, place])
        seconds = max(1, math.ceil((until - now).total_seconds())) if until else 1
        raise TooManyRequests(
            f"Too many tries. The next one is taken in {seconds} s.",
            retry_after=seconds,
            remedy="Wait, then try again.",
        )

    def forgive(self, email: str, address: str) -> None:
        """The try succeeded."""
        account, place = _keys(email, address)
        with self._database.begin() as connection:
            people.forgive(connection, account=account, address=place)


def _keys(email: str, address: str) -> tuple[str, str]:
    account = sha256(email.strip().lower().encode(errors="replace")).hexdigest()
    return f"account:{account}", f"address:{storable(address)[:100]}"
