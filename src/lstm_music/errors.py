"""The one exception that a command turns into a line `error: …`."""


class UserError(Exception):
    """Something the user can put right.

    The message says in one line what is wrong and what to do next; commands print it after
    `error: ` and exit with status 2.
    """
