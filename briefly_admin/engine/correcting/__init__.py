"""Changes to rows by hand: a row shown with validation's verdict, corrected, and one fix applied to all of a cause."""

from briefly_admin.engine.correcting.showing import check_row, read_row
from briefly_admin.engine.correcting.writing import correct_row

__all__ = ["check_row", "correct_row", "read_row"]
