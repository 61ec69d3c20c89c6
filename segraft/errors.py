"""The one error that users are meant to see."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user can mend: the message names the file or field, what was found and what to do.

    The command line prints it without a traceback and exits with 65 (EX_DATAERR).

    Args:
        message: what the user reads.
        keep: names of `Out` parameters that the step wrote and that are to stay although it failed (a report of why).
    """

    def __init__(self, message: str, keep: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.keep = keep
