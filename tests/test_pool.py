"""Work in several processes: the same results whatever their number."""

import json
from pathlib import Path

import numpy as np
import pytest
from crashing import square
from PIL import Image

from data_io import pool, verify
from data_io.datasets import phantom


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_crash_costs_its_own_item_alone(jobs):
    results = dict(pool.each(square, list(range(12)), jobs))
    crashed = results.pop(3)
    assert isinstance(crashed, pool.Crash)
    assert results == {number: number**2 for number in range(12) if number != 3}


def test_in_this_process():
    assert list(pool.each(square, [2, 5], 0)) == [(0, 4), (1, 25)]
    assert list(pool.each(square, [], 2)) == []


def test_what_is_found_does_not_depend_on_the_number_of_processes(tmp_path):
    settings = phantom.Settings(training=3, validation=2, test=2, size=32)
    root = phantom.generate(settings, tmp_path / "set")
    first, second, third = (
        phantom.roles(root, f"phantom-{number:03d}") for number in (1, 3, 5)
    )
    first["image"].write_bytes(b"")
    Image.fromarray(np.zeros((30, 32), np.uint8)).save(second["observer1"])
    third["posterior"].write_bytes(b"\x93NUMPY cut")
    found = [
        verify.audit(phantom, root, progress=False, jobs=jobs).as_dict()
        for jobs in (0, 1, 3)
    ]
    assert found[0] == found[1] == found[2]
    assert json.loads(json.dumps(found[0])) == found[0]
    problems = found[0]["problems"]
    assert [(each["kind"], each["case"], each["role"]) for each in problems] == [
        ("unreadable", "phantom-001", "image"),
        ("unreadable", "phantom-005", "posterior"),
        ("shape", "phantom-003", "observer1"),
    ]


def test_a_decoder_that_crashes_is_a_problem_of_its_file(tmp_path, monkeypatch):
    settings = phantom.Settings(training=1, validation=1, test=1, size=32)
    root = phantom.generate(settings, tmp_path / "set")
    bad = Path(phantom.roles(root, "phantom-002")["image"])

    def crash(function, items, jobs):
        for index, item in enumerate(items):
            yield index, pool.Crash() if item[0] == bad else function(item)

    monkeypatch.setattr(pool, "each", crash)
    report = verify.audit(phantom, root, progress=False)
    assert [(p.kind, p.file) for p in report.problems] == [
        ("unreadable", "images/phantom-002_image.png")
    ]
    assert "makes the decoder crash" in report.problems[0].message
    assert report.decoded == 8
