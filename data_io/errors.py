"""The exceptions for what a user can mend."""

from collections.abc import Sequence

__all__ = ["InputError", "Problems"]


class InputError(ValueError):
    """Bad input: a file, a folder, an argument, a run.

    The message says which, what was expected, what was found and what to do. The
    command line prints it without a traceback and ends with exit code 2.
    """


class Problems(InputError):
    """Several things that are wrong, said at once: a title, then a line for each.

    Args:
        title: what was looked at.
        problems: one line each.
    """

    def __init__(self, title: str, problems: Sequence[str]) -> None:
        self.title = title
        self.problems = tuple(problems)
        count = f"{len(self.problems)} problem" + "s" * (len(self.problems) > 1)
        lines = [f"  {number}. {text}" for number, text in enumerate(problems, 1)]
        super().__init__("\n".join([f"{title}: {count}.", *lines]))

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        """Let it come whole out of another process."""
        return type(self), (self.title, self.problems)
