"""Why a run failed, as the summary of many says it."""

from __future__ import annotations

import shutil
import sys

import pytest
from test_odd_names import call

from data_io.errors import Problems
from pipelines import cli
from pipelines.workflow import logs, reproduce

BAR = "\rdsc-s0:  25%|██▌       | 5/20 [00:01<00:03,  4.10step/s, loss 0.4]"
KNOCK = "Traceback (most recent call last):\n  File 'a.py', line 3\n    run()\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{BAR}\ndscpp: the loss became nan\n", "dscpp: the loss became nan"),
        (f"dscpp: set: 2 problems.\n  1. a\n  2. b\n{BAR}\n",
         "dscpp: set: 2 problems.\n  1. a\n  2. b"),
        (f"dscpp: of the first\n{BAR}\ndscpp: of the last", "dscpp: of the last"),
        (f"{KNOCK}ValueError: one\nand two\n{BAR}", "ValueError: one\nand two"),
        (f"{KNOCK}KeyError: 3\n\nDuring it:\n\n{KNOCK}OSError: 4\n", "OSError: 4"),
        (f"{KNOCK}OSError: 4\ndscpp: ended by signal KILL.",
         "dscpp: ended by signal KILL."),
        (f"sh: no such command\n{BAR}{BAR}", "sh: no such command"),
        (f"{BAR}{BAR}\n", "it ended without a message"),
        ("scale:  3case [00:01,  2.05case/s]\n", "it ended without a message"),
        ("scale:  3case [1:01:40,  1234.0s/case]\n", "it ended without a message"),
        ("dsc-s0: epoch 3 of at most 20, loss 0.4, at most about 9 min left",
         "it ended without a message"),
        ("", ""),
    ],
)  # fmt: skip
def test_reason_is_the_complete_last_message(tmp_path, text, expected):
    log = tmp_path / "log"
    log.write_text(text)
    assert logs.reason(log) == expected


def test_reason_ignores_earlier_attempts(tmp_path):
    log = tmp_path / "log"
    assert (logs.size(log), logs.reason(log)) == (0, "")
    log.write_text("dscpp: the first\n")
    before = logs.size(log)
    assert logs.reason(log, before) == ""
    with log.open("a") as file:
        file.write(BAR)
    assert logs.reason(log, before) == "it ended without a message"


def test_full_disk_is_named_when_the_log_has_no_message(tmp_path, monkeypatch):
    log = tmp_path / "log"
    log.write_text(f"{BAR}{BAR}")
    little = shutil.disk_usage(tmp_path)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: little)
    assert logs.reason(log).endswith("this disk is full")


@pytest.mark.parametrize(
    "error", [Problems("set", ["a", "b"]), OSError(28, "full", "x"), KeyError(3)]
)
def test_error_starts_on_a_new_line(tmp_path, monkeypatch, capsys, error):
    from tqdm import tqdm

    bars = []

    def run(options):
        bars.append(tqdm(total=10, desc="dsc-s0", unit="step", mininterval=0))
        bars[0].update(3)
        raise error

    monkeypatch.setattr("data_io.datasets.by_name", run)
    arguments = ["fetch", "drive"]
    if isinstance(error, KeyError):  # Python will say what it was
        with pytest.raises(KeyError):
            cli.main(arguments)
    else:
        assert cli.main(arguments) == 2
    bars[0].refresh()  # as when the process ends
    bar, _, message = capsys.readouterr().err.rpartition(" 3/10 ")[2].partition("\n")
    assert bar.startswith("[00:00<")
    assert message[:7] == ("" if isinstance(error, KeyError) else "dscpp: ")


DSCPP = """#!/bin/sh
exec {python} -c '
import os, signal, sys
sys.stderr.write("\\r  5%|x | 1/20 [00:01<00:03, 4.10step/s]")
sys.stderr.flush()
os.kill(os.getpid(), signal.SIGKILL)
'
"""


def test_killed_run_is_reported_with_its_signal(tmp_path, monkeypatch, capsys):
    command = tmp_path / "dscpp"
    command.write_text(DSCPP.format(python=sys.executable))
    command.chmod(0o755)
    monkeypatch.setattr(reproduce, "dscpp", lambda: [str(command)])
    one = call(tmp_path)
    failed = one._make(one.planned)
    ((_, reason),) = failed
    assert reason.startswith("dscpp: ended by signal KILL")
    one._report(failed)
    error = capsys.readouterr().err
    assert "memory" in error
    assert str(one.planned[0].log) in error
    assert "step/s" not in error
