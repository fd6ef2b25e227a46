"""A study: an ordered list of runs of several data sets, made beside other work.

`dscpp study FILE` makes what an experiment file lists, in its order and at low
priority, with the `Call` of `dscpp reproduce`: killed at any moment and called again,
it goes on; a run that fails stops no other and is named at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_io import datasets
from data_io.errors import InputError
from pipelines.workflow import reproduce, status
from pipelines.workflow.plan import EXPERIMENTS, Planned, plan, read

if TYPE_CHECKING:  # Names of data sets are wanted where nothing is read.
    from data_io.datasets.dataset import Dataset

STUDY = EXPERIMENTS / "study.yaml"


def command(options: argparse.Namespace) -> int:
    """`dscpp study`: see the module.

    Raises:
        InputError: the file describes no runs; none of its data sets is there; or the
            code has changes and a run at the preset paper is to be made; or a package
            is missing.
    """
    reproduce.take_runner(options)
    options.file = options.file or STUDY
    planned = plan(read(options.file), options.results.absolute())
    if options.status:
        return status.show(planned, options)
    pending = [run for run in planned if not run.done]
    if wrong := reproduce.unclean(pending):
        raise InputError(wrong)
    reproduce.require_installed(pending)
    roots = _locate(pending, options.data)  # the last check: it may draw phantoms
    placed = [
        dataclasses.replace(run, data=roots.get(run.task.dataset))
        if run in pending
        else run
        for run in planned
    ]
    os.nice(19)
    # Two lists of one name are two studies.
    number = zlib.crc32(str(options.file.resolve()).encode())
    subfolder = Path("study") / f"{options.file.stem}-{number:08x}"
    return reproduce.make(placed, subfolder, options)


def _locate(pending: Sequence[Planned], data: Path | None) -> dict[str, Path]:
    """Find each data set; leave out and name runs of one that is missing."""
    roots: dict[str, Path] = {}
    errors: list[InputError] = []
    for name in dict.fromkeys(run.task.dataset for run in pending):
        module = datasets.by_name(name)
        try:
            roots[name] = module.locate(_place(module, data)).absolute()
        except InputError as error:
            errors.append(error)
    if errors and not roots:
        raise errors[0]
    for left_out in errors:
        print(f"Runs left out: {left_out}", file=sys.stderr)
    return roots


def _place(module: Dataset, data: Path | None) -> Path | None:
    """Return where to look for a data set: its usual name in the folder of all."""
    # Images are simulated over nothing; volumes over label maps that may be given.
    if data is None or (module.RECORD.simulated and not module.RECORD.is_3d):
        return None
    name = module.DEFAULT.name or module.RECORD.name
    usual = (data / name, data / f"{name}.zip")
    return next((path for path in usual if path.exists()), data)
