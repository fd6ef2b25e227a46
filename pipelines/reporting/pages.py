"""Every table of the runs at hand: as CSV, in the terminal and in Markdown.

All of it comes from the same frames: each file of a run is read once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pandas as pd

from data_io.errors import InputError
from pipelines.reporting import (
    answers,
    calibration_tables,
    claims,
    practice,
    shift,
    tables,
    topics,
)
from pipelines.reporting.frame import Study, finished, join, studies
from pipelines.reporting.markdown import fill
from pipelines.reporting.published import Paper, paper_folder
from pipelines.runs.run import Run, require_table, write_atomically, writing

# Only written where they have a row.
_OPTIONAL = ("observers.csv", "other-sets.csv", "shift.csv", "temperature.csv")


class Report:
    """The tables of every `results/<dataset>/<preset>/` with a finished run.

    A run that is not evaluated yet is left out, and so is one with overrides, but for
    own images.

    Args:
        results: the folder of all results.
        named: join these runs alone, wherever they lie; () for all in `results`.
        output: where the tables of `named` are written.

    Raises:
        InputError: no finished run at all; runs that cannot be joined (both are named).
    """

    def __init__(
        self, results: Path, named: Sequence[Run] = (), output: Path = Path("tables")
    ) -> None:
        self.results = Path(results)
        self._named = bool(named)
        joined = [_joined(self.results, named, output)] if named else studies(results)
        self.pages = [Page(study) for study in joined]
        self.paper = self.pages[0].study.paper

    @cached_property
    def over_all(self) -> dict[str, pd.DataFrame]:
        """Make the tables over all data sets, by file name: cells, claims and counts.

        Nothing where no study has cells of the paper, and nothing of named runs.
        """
        of_paper = any(len(page.study.cells) for page in self.pages)
        if self._named or not of_paper:
            return {}
        files = {page.study: page.files for page in self.pages}
        frames = tables.over_all(self.paper.cells, files)
        verdicts = claims.decide(self.paper, list(files))
        counts = tables.summary(frames, verdicts, claims.VERDICTS)
        answered = answers.summary(self.paper, list(files), verdicts)
        frames |= {claims.FILE: verdicts, topics.COUNTS: counts}
        return frames | {answers.FILE: answered}

    def chosen(self, dataset: str | None, preset: str | None) -> list[Page]:
        """Return the pages of a data set and a preset; None takes all.

        Raises:
            InputError: there is none.
        """
        pages = [
            page
            for page in self.pages
            if dataset in (None, page.study.folder.parent.name)
            and preset in (None, page.study.folder.name)
        ]
        if not pages:
            raise InputError(
                f"{self.results}: expected evaluated runs in {dataset or '<dataset>'}/"
                f"{preset or '<preset>'}/runs/, found none; there are "
                f"{', '.join(page.name for page in self.pages)}"
            )
        return pages

    def write(self, pages: Sequence[Page] | None = None) -> list[Path]:
        """Write the tables of `pages`, None for all; each made before any is written.

        What stands over all is written where one of them has cells of the paper.
        Returns the files written.
        """
        pages = self.pages if pages is None else pages
        every = [(page.study.folder, page.files) for page in pages]
        if any(len(page.study.cells) for page in pages):
            every.append((self.results, self.over_all))
        frames = {
            folder / name: f for folder, files in every for name, f in files.items()
        }
        stale = {page.study.folder / name for page in pages for name in _OPTIONAL}
        for path, frame in frames.items():
            require_table(path, list(frame))
        for path in stale - frames.keys():
            require_table(path, ("target",))
            with writing(path):
                path.unlink(missing_ok=True)
        # Floats to 6 significant digits: more would differ between machines.
        style = {"index": False, "float_format": "%.6g", "lineterminator": "\n"}
        return [
            write_atomically(path, partial(frame.to_csv, **style))
            for path, frame in frames.items()
        ]

    def counts(self) -> str:
        """Count verdicts on published cells and claims, in two lines."""
        return topics.counts(self.over_all)

    def update(self, readme: Path) -> list[str]:
        """Put the present tables between the markers of a Markdown file.

        Markers are `<!-- NAME:begin -->` and `<!-- NAME:end -->` with the names of
        `_parts`. Tables without markers are left out, and so are markers without runs.

        Returns:
            The names of the markers whose part was written.

        Raises:
            InputError: no such file, or a marker that begins and does not end.
        """
        return fill(readme, self._parts(), some=True)

    def _parts(self) -> dict[str, Callable[[], str]]:
        """Return the functions that make the text between markers, by their name.

        `drive-reduced` has the table of a study, `drive-reduced-temperature` one of the
        `topics`, `answer-1` to `answer-6` the questions, `questions` a line of each,
        `claims` the numbers over all, `counts` how many they are.
        """
        parts: dict[str, Callable[[], str]] = {"margins": topics.margins}
        for page in self.pages:
            parts[page.name] = page.markdown
            for topic in topics.TOPICS:
                parts[f"{page.name}-{topic}"] = partial(page.topic, topic)
        if self.over_all:
            answered = self.over_all[answers.FILE]
            parts["claims"] = partial(topics.claimed, self.over_all)
            parts["counts"] = self.counts
            parts["questions"] = partial(answers.brief, answered)
            for number, question in enumerate(answers.QUESTIONS, start=1):
                parts[f"answer-{number}"] = partial(
                    answers.markdown, answered, question
                )
        return parts


def _joined(results: Path, named: Sequence[Run], output: Path) -> Study:
    runs = finished(named)
    if not runs:
        names = ", ".join(str(run.folder) for run in named)
        raise InputError(f"expected runs that are evaluated, found none in {names}")
    if all(run.method for run in runs):
        origin = runs[0].trained if runs[0].origin else "one"
        raise InputError(
            f"{runs[0].folder}: expected a run as it was trained beside one after "
            f"{runs[0].method}, found none; name {origin} too"
        )
    return join(output, runs, Paper(paper_folder(results)))


@dataclass(frozen=True, eq=False)
class Page:
    """The tables of one study."""

    study: Study

    @property
    def name(self) -> str:
        """Return a name such as "drive-reduced"."""
        return f"{self.study.folder.parent.name}-{self.study.folder.name}"

    @cached_property
    def files(self) -> dict[str, pd.DataFrame]:
        """Make every table beside `runs/`, by file name."""
        study = self.study
        files = tables.papers(study) | {
            "tests.csv": tables.comparisons(study),
            "thresholds.csv": tables.thresholds(study),
            **calibration_tables.tables(study),
            practice.FILE: practice.table(study),
            "costs.csv": tables.costs(study),
            "other-sets.csv": tables.other_sets(study),
            shift.FILE: shift.table(study),
            "temperature.csv": tables.temperatures(study),
        }
        return {
            name: frame
            for name, frame in files.items()
            if len(frame) or name not in _OPTIONAL
        }

    def topic(self, name: str) -> str:
        """Return a topic of the study in Markdown; `name` is a key of `TOPICS`."""
        return topics.TOPICS[name](self.study, self.files)

    def text(self) -> str:
        """Lay out the runs as plain text, without a final newline.

        A row for each loss with mean and standard error, the paper's values, then p.
        """
        return "\n\n".join(block.plain() for block in self._blocks())

    def markdown(self) -> str:
        """Lay out the runs as Markdown; content as in `text`."""
        return "\n\n".join(block.markdown() for block in self._blocks())

    def _blocks(self) -> list[topics.Block]:
        tests = self.files["tests.csv"]
        return [
            topics.block(self.study, target, tests) for target in self.study.targets
        ]
