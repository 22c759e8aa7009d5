"""Whether everything that a run needs answers, in one word that tells a stranger nothing more."""

from sqlalchemy import text

from briefly_admin.domain.errors import Unavailable
from briefly_admin.services.config import Servers


def unready(servers: Servers) -> str:
    """'app_database', 'target_database', 'redis' or 'worker': the first that is missing; '' where nothing is."""
    try:
        with servers.database.begin() as connection:
            connection.execute(text("SELECT 1"))
    except Unavailable:
        return "app_database"
    try:
        with servers.target.session():
            pass
    except Unavailable:
        return "target_database"
    try:
        return "" if servers.queue is not None and servers.queue.workers() else "worker"
    except Unavailable:
        return "redis"
