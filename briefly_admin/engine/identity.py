"""Which database the target is, whatever its address is called today."""

from hashlib import sha256

import psycopg

from briefly_admin.domain.errors import Unavailable
from briefly_admin.engine.target import Target, safe_message


def identify(target: Target) -> str:
    """Hex SHA-256 of the server's system identifier and the database's name: the same through every address of it.

    Where a platform hides the identifier, the address stands for it. Raises Unavailable.
    """
    with target.session() as connection:
        try:
            row = connection.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
            server = row[0] if row else ""
        except psycopg.errors.InsufficientPrivilege:
            server = f"{target.parts['host']}:{target.parts['port']}"
        except psycopg.Error as error:
            raise Unavailable(
                f"The database {target.title} does not say who it is: {safe_message(error)}.",
                remedy="Try again; if it stays so, look at the server's log.",
            ) from None
        return sha256(f"{server}/{connection.info.dbname}".encode()).hexdigest()
