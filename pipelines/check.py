"""`dscpp verify`: a data set looked at whole, and the split it would be trained by."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from data_io import datasets, splits
from data_io.errors import Problems
from data_io.verification import leaks, verify
from data_io.verification.report import Finding, Report
from pipelines import arguments, written
from pipelines import run as runs


def check(
    dataset: str,
    data: Path | None,
    work: Path,
    seed: int = 0,
    files: Sequence[Path] = (),
    jobs: int | None = None,
) -> Report:
    """Decode every file of a data set, and look for leaks between parts of its split.

    Args:
        dataset: name of the data set.
        data: its folder, as its `locate` takes it.
        work: where what was decoded is remembered.
        seed: of the split where the data set has no fixed one.
        files: a split to be read instead, see `data_io.splits.read`.
        jobs: processes that decode; see `data_io.verification.verify.audit`.

    Returns:
        All that is wrong, and what is there.

    Raises:
        InputError: there is no such data set.
    """
    module = datasets.by_name(dataset)
    root = Path(module.locate(data))
    state = work / "verify" / f"{module.RECORD.name}.json"
    report = verify.audit(module, root, state, jobs=jobs)
    if files or module.split(root) is not None or len(splits.cases(module, root)) > 2:
        leaks.audit(module, root, report, seed, files, work / "cache")
    return report


def command(options: argparse.Namespace) -> Report:
    """`dscpp verify`: its report, written as JSON too where `options.json` says so.

    Raises:
        Problems: all that is wrong; the report is written all the same.
        InputError: in place of the JSON file is another file than a report.
    """
    if options.json:
        written.require_report(options.json, Report("", Path(), {}).as_dict())
    try:
        arguments.take_own(options)
        report = check(
            options.dataset,
            options.data,
            options.work,
            options.split_seed,
            options.split,
            options.jobs,
        )
        failed: Problems | None = None if report.ok else report.error()
    except Problems as error:  # images that could not be made a data set
        found = [Finding("own", text) for text in error.problems]
        name = options.dataset or "own"
        report = Report(error.title, Path(), {}, name=name, problems=found)
        failed = error
    if options.json:
        runs.write_json(options.json, report.as_dict())
    if failed:
        raise failed
    return report
