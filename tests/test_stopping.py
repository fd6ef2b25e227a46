"""A process that is told to stop saves what it has, and stops at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.environment import stopping

# One call into C that does not come back to Python, and without a handler of its own.
SCRIPT = """
import hashlib, sys
from pathlib import Path
from pipelines.environment import stopping
with stopping.saving(lambda: Path("saved").write_text("x")):
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", int(sys.argv[1]))
"""
LONG, SHORT = "400000000", "100000"


def start(project: Path, folder: Path, rounds: str, **options) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, rounds],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(project)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout.readline() == "busy\n"
    return process


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signal_saves_and_ends_the_process_at_once(project, tmp_path, number, code):
    process = start(project, tmp_path, LONG)
    process.send_signal(number)
    assert process.wait(60) == code
    assert (tmp_path / "saved").read_text() == "x"
    assert "the same command goes on from here" in process.stderr.read()


def test_ignored_hangup_signal_stays_ignored(project, tmp_path):
    process = start(
        project,
        tmp_path,
        SHORT,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0
    assert (tmp_path / "saved").exists()


def test_failed_save_is_reported_and_the_process_ends(tmp_path, capsys, monkeypatch):
    def full():
        raise OSError("no space left")

    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    monkeypatch.setattr(stopping, "_savers", [full])
    stopping.end(143)
    assert codes == [143]
    assert "not saved yet is lost: no space left" in capsys.readouterr().err


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_signal_handlers_and_threads_are_restored(error):
    saved, before = [], signal.getsignal(signal.SIGTERM)
    threads = threading.active_count()
    try:
        with stopping.saving(lambda: saved.append(1)):
            assert signal.getsignal(signal.SIGTERM) is not before
            if error:
                raise error
    except (KeyboardInterrupt, ValueError):
        pass
    assert saved == [1]
    assert signal.getsignal(signal.SIGTERM) is before
    assert threading.active_count() == threads
    assert signal.set_wakeup_fd(-1) == -1
    assert not stopping._savers


def test_other_thread_only_saves():
    saved = []

    def work():
        with stopping.saving(lambda: saved.append(time.time())):
            pass

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(saved) == 1


SLOW = """
import threading, time
from pipelines.environment import stopping
lock, saved = threading.Lock(), []
begun, ordered = threading.Event(), threading.Event()
def save():
    again = begun.is_set()
    if again:
        ordered.set()
    with lock:
        if not saved:
            print("saving", flush=True)
            begun.set()
            ordered.wait()
            saved.append(1)
            print("saved", flush=True)
    if again:
        time.sleep(0.3)  # the main thread is ready to go meanwhile
def parent_ends():
    begun.wait()
    stopping.end(143)
threading.Thread(target=parent_ends, daemon=True).start()
with stopping.saving(save):
    raise KeyboardInterrupt
"""


def test_second_signal_waits_for_the_save(project, tmp_path):
    # Ctrl-C on `reproduce`: its end reaches the run while the run saves.
    done = subprocess.run(
        [sys.executable, "-c", SLOW],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["saving", "saved"]
    assert done.returncode == 143
