"""The program over HTTP, for every test here."""

from tests.serving import app, client_as, own_app, settings, token_as

__all__ = ["app", "client_as", "own_app", "settings", "token_as"]
