"""Children end with the process that started them, however that one ends.

A killed `make` must not leave trainings behind that go on and hold their runs. The
leader holds a lock on a file of its own; whoever follows waits for that lock in a
thread, and gets it only when the leader is gone. The kernel releases it whatever
killed the leader, and shells in between do not matter.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from pipelines import stopping

__all__ = ["VARIABLE", "follow", "follow_make", "lead"]

VARIABLE = "DSCPP_LEADER"
ENDED = 143  # what a shell reports for a process that was terminated


@contextlib.contextmanager
def lead(folder: Path) -> Iterator[Path]:
    """Be the leader: hold a new file in `folder` until the end of the context.

    Args:
        folder: where the file is made; the files of former leaders there are deleted.

    Yields:
        The file, to be given to followers in the environment variable `VARIABLE`.
    """
    for old in folder.glob("leader-*"):
        old.unlink(missing_ok=True)
    path = folder / f"leader-{os.getpid()}"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def follow() -> None:
    """End this process when its leader ends; nothing happens without a leader."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:  # the leader was gone before this process started
        os._exit(ENDED)

    def wait() -> None:
        fcntl.flock(file, fcntl.LOCK_SH)
        stopping.end(ENDED)

    threading.Thread(target=wait, name="follow", daemon=True).start()


def follow_make() -> None:
    """End this process when the `make` that started it ends.

    Only under make: a command started by hand goes on when its shell is closed, as
    `nohup` promises.
    """
    if "MAKELEVEL" not in os.environ:
        return
    parent = os.getppid()

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(ENDED)

    threading.Thread(target=wait, name="follow-make", daemon=True).start()
