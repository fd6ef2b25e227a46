"""Standard output and error that are closed, full, or nobody reads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")
WRONG = ["verify", "--dataset", "none"]  # says why, and ends with exit code 2


def dscpp(folder: Path, *arguments: str, unbuffered: str = "", **options):
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PYTHONUNBUFFERED": unbuffered,
        },
        cwd=folder,
        text=True,
        check=False,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_closed_output_pipe_gives_no_traceback(tmp_path, unbuffered):
    """`dscpp ... | head -1` ended with a traceback."""
    ours, theirs = os.pipe()
    os.close(ours)
    given = {"stdout": theirs, "stderr": subprocess.PIPE, "unbuffered": unbuffered}
    result = dscpp(tmp_path, "runs", **given)
    os.close(theirs)
    assert (result.returncode, result.stderr) == (141, "")


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("asked", "unbuffered"), [("runs", ""), ("runs", "1"), ("-h", ""), ("-h", "1")]
)
def test_full_disk_is_reported_once(tmp_path, asked, unbuffered):
    with FULL.open("w") as full:
        given = {"stdout": full, "stderr": subprocess.PIPE, "unbuffered": unbuffered}
        result = dscpp(tmp_path, asked, **given)
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("dscpp: standard output: expected a place that can be used")


def test_a_message_that_cannot_be_shown_keeps_its_exit_code(tmp_path):
    """It was written to standard output where standard error was closed: `2>&-`."""
    closed = dscpp(
        tmp_path, *WRONG, stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2)
    )
    assert (closed.returncode, closed.stdout) == (2, "")
    if FULL.exists():
        with FULL.open("w") as full:
            assert dscpp(tmp_path, *WRONG, stderr=full).returncode == 2
