"""Texts that PostgreSQL can hold, whatever came from outside."""


def storable(text: str) -> str:
    """The same text; NUL and lone surrogates, which UTF-8 in PostgreSQL cannot hold, become U+FFFD or '?'."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()
