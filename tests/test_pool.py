"""Work in several processes: the same results whatever their number."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from crashing import square
from PIL import Image

from data_io import pool
from data_io.datasets import phantom
from data_io.verification import verify


@pytest.mark.parametrize("jobs", [1, 2])
def test_crash_loses_only_its_own_item(jobs):
    results = dict(pool.each(square, list(range(12)), jobs))
    crashed = results.pop(3)
    assert isinstance(crashed, pool.Crash)
    assert results == {number: number**2 for number in range(12) if number != 3}


def test_work_without_processes():
    assert list(pool.each(square, [2, 5], 0)) == [(0, 4), (1, 25)]
    assert list(pool.each(square, [], 2)) == []


def test_verification_does_not_depend_on_the_number_of_processes(tmp_path):
    settings = phantom.Settings(training=3, validation=2, test=2, size=32)
    root = phantom.generate(settings, tmp_path / "set")
    first, second, third = (
        phantom.vessels.roles(root, f"phantom-{number:03d}") for number in (1, 3, 5)
    )
    first["image"].write_bytes(b"")
    Image.fromarray(np.zeros((30, 32), np.uint8)).save(second["observer1"])
    third["posterior"].write_bytes(b"\x93NUMPY cut")
    found = [
        verify.audit(phantom.vessels, root, jobs=jobs).as_dict() for jobs in (0, 1, 3)
    ]
    assert found[0] == found[1] == found[2]
    assert json.loads(json.dumps(found[0])) == found[0]
    problems = found[0]["problems"]
    assert [(each["kind"], each["case"], each["role"]) for each in problems] == [
        ("unreadable", "phantom-001", "image"),
        ("unreadable", "phantom-005", "posterior"),
        ("shape", "phantom-003", "observer1"),
    ]


def test_crash_of_a_decoder_is_reported_for_its_file(tmp_path, monkeypatch):
    settings = phantom.Settings(training=1, validation=1, test=1, size=32)
    root = phantom.generate(settings, tmp_path / "set")
    bad = Path(phantom.vessels.roles(root, "phantom-002")["image"])

    def crash(function, items, jobs):
        for index, item in enumerate(items):
            yield index, pool.Crash() if item[1] == bad else function(item)

    monkeypatch.setattr(pool, "each", crash)
    report = verify.audit(phantom.vessels, root)
    assert [(p.kind, p.file) for p in report.problems] == [
        ("unreadable", "images/phantom-002_image.png")
    ]
    assert "makes the decoder crash" in report.problems[0].message
    assert report.decoded == 8


# Steps as of a training: arrays are made, used and given up. Prints the pages that a
# step asks the system for, and the highest memory in the first and last step.
STEPS = """
import resource, sys
import numpy as np
from data_io import pool

def step():
    arrays = [np.ones(5_000_000, np.float32) for _ in range(4)]
    return [array + array for array in arrays]

def used():
    return resource.getrusage(resource.RUSAGE_SELF)

if sys.argv[1] == "keep":
    pool.keep_memory()
step()
before, first = used().ru_minflt, used().ru_maxrss
for _ in range(10):
    step()
print((used().ru_minflt - before) // 10, first, used().ru_maxrss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_allocated_memory_is_reused_and_does_not_grow(project):
    def run(kind: str) -> list[int]:
        command = [sys.executable, "-c", STEPS, kind]
        printed = subprocess.run(command, cwd=project, capture_output=True, check=True)
        return [int(word) for word in printed.stdout.split()]

    (pages_before, _, peak_before), (pages, first, last) = run("leave"), run("keep")
    assert 10 * pages < pages_before
    assert last < 1.02 * first
    assert last < 1.05 * peak_before


def test_memory_settings_are_skipped_without_glibc(monkeypatch):
    monkeypatch.setattr(pool.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(pool.ctypes, "CDLL", lambda name: pytest.fail("called"))
    pool.keep_memory()
