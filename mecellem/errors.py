"""The one exception that means: the input is wrong, and here is what to do."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, told in one sentence that names the file, the line or the flag and what to do about it.

    The command prints the sentence without a traceback and exits with code 2. Our own bugs are `assert`s instead.
    """
