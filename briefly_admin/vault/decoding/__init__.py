"""From the rows of a sealed stream to text and JSON, without a database.

A row comes as COPY binary has it: its fields in their types' binary send form. What comes out is what PostgreSQL
prints under TimeZone UTC, DateStyle ISO, IntervalStyle postgres, extra_float_digits 1 and bytea_output hex.
"""

from briefly_admin.vault.decoding.codec import UNREADABLE, Codec
from briefly_admin.vault.decoding.types import Types

__all__ = ["UNREADABLE", "Codec", "Types"]
