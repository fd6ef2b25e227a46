"""Which commit of the code made a run, and whether it is one that anybody can get."""

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_io.errors import InputError

VARIABLE = "DSCPP_COMMIT"
"""The environment variable that names the commit of a tree without git."""


def commit() -> str:
    """Return the code's commit, with "+" if code differs from it; "" if unknown.

    What runs and tables write (`results`, the README, `docs`) is not code, nor is what
    git does not track. Without git the environment variable `VARIABLE` says it, or the
    file that `git archive` writes it into (`commit.txt`).

    Raises:
        InputError: the environment variable holds something else.
    """
    # A repository around an installed or unpacked tree is not this code's.
    name = _git("ls-files", "--error-unmatch", __file__) and _git("rev-parse", "HEAD")
    if not name:
        return _from_variable() or _archived()
    written = (f":(top,exclude){path}" for path in ("results", "README.md", "docs"))
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *written)
    return name if changed == "" else name + "+"


def is_clean(name: object) -> bool:
    """Return whether a commit, from `commit`, is known and without changes."""
    return isinstance(name, str) and bool(re.fullmatch("[0-9a-f]{40,64}", name))


def from_clean_commit(record: Mapping[str, Any]) -> bool:
    """Return whether all code that made a run is of known, unchanged commits.

    Args:
        record: a run's `run.json`: its `commit`, and where other stages or a resumed
            training were of other commits, those in `environment_changes`.
    """
    return all(map(is_clean, _commits_of_run(record)))


def unclean_commit(record: Mapping[str, Any]) -> str:
    """Return the first commit of a run that is unknown or changed, for a message."""
    name = next(
        (commit for commit in _commits_of_run(record) if not is_clean(commit)), ""
    )
    return f"{name!r}" if name else "none"


def _commits_of_run(record: Mapping[str, Any]) -> list[object]:
    """Return every commit whose code made a run; None for one not named."""
    changes = record.get("environment_changes", [])
    later = [change["commit"] for change in changes if "commit" in change]
    return [record.get("commit"), *later]


def _from_variable() -> str:
    name = os.environ.get(VARIABLE, "").strip()
    if name and not is_clean(name.removesuffix("+")):
        raise InputError(
            f"{VARIABLE}: expected 40 hexadecimal digits, as `git rev-parse HEAD` "
            f"gives them, with + behind where files were changed; received {name!r}"
        )
    return name


def _archived() -> str:
    """Return the commit that `git archive` wrote; a checkout has a placeholder."""
    try:
        name = Path(__file__).with_name("commit.txt").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return name if is_clean(name) else ""


def _git(*arguments: str) -> str | None:
    """Return the output of git; None where git is missing or fails."""
    folder = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return result.stdout.strip() if result.returncode == 0 else None
