"""The processes of many runs: some at a time, all they say kept, none left behind.

A killed `make` must not leave trainings behind that go on and hold their runs. A
process that was started here looks whether the one that started it is still there.
"""

import concurrent.futures
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data_io import bars
from pipelines.environment import stopping
from pipelines.workflow import logs

VARIABLE = "DSCPP_PARENT"
ENDED = 143  # what a shell reports for a process that was terminated
_PATIENCE = 2.0  # seconds for jobs that Ctrl-C has reached too
# Their last words are those of the process itself, or none are needed.
_ASKED = ("SIGHUP", "SIGINT", "SIGTERM")
_KILLED = (
    "KILL is sent where memory runs out: run fewer at a time, or a smaller preset."
)


def environment() -> dict[str, str]:
    """Return the environment of a process that ends with this one; see `follow`."""
    return {**os.environ, VARIABLE: str(os.getpid())}


def follow() -> None:
    """End this process when the one that started it with `environment` ends."""
    if parent := os.environ.get(VARIABLE):
        _end_with(parent)


def follow_make() -> None:
    """End this process when the `make` that started it ends.

    Only under make: a command started by hand goes on when its shell is closed, as
    `nohup` promises.
    """
    if "MAKELEVEL" in os.environ:
        _end_with(str(os.getppid()))


def _end_with(parent: str) -> None:
    if os.name != "posix":  # Windows keeps the number of a parent that is gone
        return

    def wait() -> None:
        while str(os.getppid()) == parent:
            time.sleep(0.2)
        stopping.end(ENDED)

    if str(os.getppid()) != parent:
        os._exit(ENDED)
    threading.Thread(target=wait, name="follow", daemon=True).start()


@dataclass(frozen=True)
class Job:
    """A command to run.

    Attributes:
        command: its program and arguments.
        log: file that all it says is added to.
        title: put before each line on the terminal; "" for nothing.
    """

    command: Sequence[str]
    log: Path
    title: str = ""


def make(jobs: Sequence[Job], number: int, env: Mapping[str, str]) -> list[str]:
    """Run commands, the first ones first; one that fails stops no other.

    `number` run at a time, with the environment `env`. Return why each failed; "" for
    one that did not.
    """
    running = _Running(env)
    with concurrent.futures.ThreadPoolExecutor(number) as workers:
        futures = [workers.submit(running.run, job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            workers.shutdown(wait=False, cancel_futures=True)
            concurrent.futures.wait(futures, _PATIENCE)
            running.terminate()
            raise


class _Running:
    """The running processes, all with one environment."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._processes: set[subprocess.Popen[bytes]] = set()

    def run(self, job: Job) -> str:
        """Run a command; return why it failed, or ""."""
        before = logs.size(job.log)
        try:
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("ab", buffering=0) as log:
                code = self._run(job, log)
        except OSError as error:
            return str(error)
        failed = "it ended without a message"
        return (logs.reason(job.log, before) or failed) if code else ""

    def _run(self, job: Job, log: BinaryIO) -> int:
        line = b"\n"
        with subprocess.Popen(
            job.command,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            self._processes.add(process)
            for line in process.stdout or ():
                _say(line, job, log)
        self._processes.discard(process)
        code = process.returncode
        name = signal.Signals(-code).name if code < 0 else ""
        if name and name not in _ASKED:  # it could not say so itself
            note = f" {_KILLED}" if name == "SIGKILL" else ""
            start = "" if line.endswith(b"\n") else "\n"
            message = (
                f"{start}dscpp: ended by signal {name.removeprefix('SIG')}.{note}\n"
            )
            _say(message.encode(), job, log)
        return code

    def terminate(self) -> None:
        """End what is running; each process saves what it has."""
        for process in list(self._processes):
            process.terminate()


def _say(line: bytes, job: Job, log: BinaryIO) -> None:
    """Write to log and terminal; ignore a full disk and a closed terminal."""
    with contextlib.suppress(OSError):
        log.write(line)
    text = line.decode(errors="backslashreplace")
    with contextlib.suppress(OSError):
        bars.note(f"{job.title}{text}", end="")
