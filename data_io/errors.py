"""The one exception for what a user can mend."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input: a file, a folder, an argument, a run.

    The message says which, what was expected, what was found and what to do. The
    command line prints it without a traceback and ends with exit code 2.
    """
