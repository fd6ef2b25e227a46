"""`dscpp verify`: a data set looked at whole, and the split it would be trained by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_io import datasets, splits
from data_io.errors import Problems
from data_io.verification import leaks, verify
from data_io.verification.report import Finding, Report
from pipelines import run as runs
from pipelines import written

__all__ = ["check", "failed", "require_free", "write"]


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


def failed(dataset: str, error: Problems) -> Report:
    """The report of images that could not be made a data set."""
    found = [Finding("own", text) for text in error.problems]
    return Report(error.title, Path(), {}, name=dataset, problems=found)


def require_free(path: Path | None) -> None:
    """Refuse a file for the report that is there and is no earlier report.

    Raises:
        InputError: see `written.require_report`.
    """
    if path is not None:
        written.require_report(path, Report("", Path(), {}).as_dict())


def write(report: Report, path: Path | None) -> None:
    """Write the report as JSON, atomically, where a file is named."""
    if path is not None:
        runs.write_json(path, report.as_dict())
