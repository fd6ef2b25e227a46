"""How far long work is, where no terminal shows a bar."""

from __future__ import annotations

import io
import sys

import pytest

from data_io import bars
from pipelines.workflow import logs


@pytest.fixture
def clock(monkeypatch):
    """A clock that is turned by hand."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    return now


def test_log_file_gets_one_line_per_minute(capsys, clock):
    for _ in bars.bar(range(10), "dsc-s0 predict", unit="case"):
        clock[0] += 25
    lines = capsys.readouterr().err.split("\n")
    assert lines == [
        "dsc-s0 predict:  30%|###       | 3/10 [01:15<02:55, 25.00s/case]",
        "dsc-s0 predict:  60%|######    | 6/10 [02:30<01:40, 25.00s/case]",
        "dsc-s0 predict:  90%|######### | 9/10 [03:45<00:25, 25.00s/case]",
        "",
    ]
    assert all(logs.BAR.search(line) for line in lines[:-1])


def test_short_or_hidden_work_prints_nothing(capsys, clock):
    with bars.bar(desc="a", total=3) as bar:
        clock[0] += 59
        bar.update()
    for _ in bars.bar(range(3), "b", disable=True):
        clock[0] += 100
    assert capsys.readouterr().err == ""


def test_bytes_and_work_of_unknown_length(capsys, clock):
    one = bars.bar(desc="v", total=4e9, unit="B", unit_scale=True, initial=10**9)
    other = bars.bar(desc="scale", unit="case")
    clock[0] += 60
    one.update(1e9)
    other.update()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "v:  50%|#####     | 2.00G/4.00G [01:00<02:00, 16.7MB/s]",
        "scale: 1case [01:00, 60.00s/case]",
    ]  # fmt: skip
    assert all(logs.BAR.search(line) for line in lines)


def test_a_terminal_gets_a_bar(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(bars.bar(range(3), "verify")) == [0, 1, 2]
    assert "verify: 100%" in terminal.getvalue()
    assert "\r" in terminal.getvalue()


def test_training_prints_one_line_per_epoch(capsys, clock, monkeypatch):
    from pipelines.training import callbacks

    bar = callbacks.ProgressBar(100, 20, 11, "dscpp-s0")
    for epoch in range(11, 15):
        for step in range(20):
            clock[0] += 2.05 if epoch > 11 else 4.1  # the first one compiles
            bar.on_train_batch_end(step, {"loss": 0.5})
        bar.on_epoch_end(epoch, {"loss": 0.25, "val_loss": 0.125})
    bar.on_train_end()
    lines = capsys.readouterr().err.split("\n")
    said = "loss 0.2500, val_loss 0.1250,"
    assert lines == [
        f"dscpp-s0: epoch 12 of at most 100, {said} 82 s an epoch with compiling, "
        "at most about 2.0 h left",
        f"dscpp-s0: epoch 14 of at most 100, {said} 41 s an epoch, "
        "at most about 59 min left",
        "",
    ]
    assert all(logs.BAR.search(line) for line in lines[:-1])
