"""Every table of the runs at hand: as CSV, in the terminal and in Markdown.

All of it comes from the same frames: each file of a run is read once.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from data_io.errors import InputError
from pipelines.commits import from_clean_commit
from pipelines.measure import metrics
from pipelines.reporting import answers, calibration, claims, tables, topics
from pipelines.reporting.estimates import pm
from pipelines.reporting.evidence import estimated
from pipelines.reporting.frame import Study, in_words, studies
from pipelines.reporting.markdown import replace_marked, table
from pipelines.reporting.published import Cell, Variant, each_cell
from pipelines.run import TRUTH, require_table, write_atomically, writing

__all__ = ["Page", "Report"]

_HEADINGS = {
    "nll_published": "NLL published",
    "nll": "NLL",
    "brier": "Brier",
    "dice": "Dice",
    "jaccard": "Jaccard",
}
_PAIR = (Variant.standard("DSC++"), Variant("DSC"))
_P_ROWS = (
    ("p rank-sum", "rank_sum", "p"),
    ("p signed-rank", "signed_rank", "p"),
    ("p signed-rank, Holm", "signed_rank", "p_holm"),
)
# Only written where they have a row.
_OPTIONAL = (
    tables.EXTRA_TABLE, "observers.csv", "other-sets.csv", "noise.csv",
    "temperature.csv",
)  # fmt: skip


class Report:
    """The tables of every `results/<dataset>/<preset>/` with a finished run.

    A run that is not evaluated yet is left out, and so is one with overrides.

    Raises:
        InputError: no finished run at all; runs that cannot be joined (both are named).
    """

    def __init__(self, results: Path) -> None:
        self.results = Path(results)
        self.pages = [Page(one) for one in studies(self.results)]
        if not self.pages:
            raise InputError(
                f"{results}: expected evaluated runs in <dataset>/<preset>/runs/, "
                "found none; make some with `make demo` or `make reproduce-drive "
                "DATA=...`"
            )
        self.paper = self.pages[0].study.paper

    @cached_property
    def over_all(self) -> dict[str, pd.DataFrame]:
        """What stands in `results` itself, by file name: cells, claims, their numbers.

        Nothing where no study has cells of the paper.
        """
        if not any(len(page.study.cells) for page in self.pages):
            return {}
        made = [(page.study, page.files) for page in self.pages]
        found = tables.over_all(self.paper.cells, made)
        said = claims.decide(self.paper, [page.study for page in self.pages])
        counts = tables.summary(found, said, claims.VERDICTS)
        answered = answers.summary(self.paper, [one for one, _ in made], said)
        found |= {claims.FILE: said, topics.COUNTS: counts}
        return found | {answers.FILE: answered}

    def write(self) -> list[Path]:
        """Write all tables; all are made before any is written. Returns the files."""
        every = [(page.study.folder, page.files) for page in self.pages]
        every.append((self.results, self.over_all))
        made = {folder / name: f for folder, own in every for name, f in own.items()}
        stale = {folder / name for folder, _ in every[:-1] for name in _OPTIONAL}
        for path, frame in made.items():
            require_table(path, list(frame))
        for path in stale - made.keys():
            require_table(path, ("target",))
            with writing(path):
                path.unlink(missing_ok=True)
        return [_write_csv(path, frame) for path, frame in made.items()]

    def counts(self) -> str:
        """How many published cells and claims came out how, in two lines."""
        return topics.counts(self.over_all)

    def update(self, readme: Path) -> list[str]:
        """Put the present tables between the markers of a Markdown file.

        Markers are `<!-- <dataset>-<preset>:begin -->` and `<!-- <dataset>-<preset>:end
        -->`, such as `drive-reduced`; of what `topics` names,
        `drive-reduced-temperature`; `answer-1` to `answer-6` have the questions of
        `answers`, `claims` the numbers over all, `counts` how many they are; those of
        `topics.NUMBERS` are named as topics are. Tables without markers are left out,
        and so are markers without runs.

        Returns:
            The names of the markers whose part was written.

        Raises:
            InputError: no such file, or a marker that begins and does not end.
        """
        try:
            text = readme.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"{readme}: expected a Markdown file, found one that cannot be read "
                f"({error}); give the path of the README"
            ) from error
        parts = self._parts()
        names = [name for name in parts if f"<!-- {name}:begin -->" in text]
        new = text
        for name in names:
            new = replace_marked(readme, new, name, parts[name]())
        if new != text:
            write_atomically(readme, lambda aside: aside.write_text(new, "utf-8"))
        return names

    def _parts(self) -> dict[str, Callable[[], str]]:
        """What makes the text between markers, by their name."""
        parts: dict[str, Callable[[], str]] = {"margins": topics.margins}
        for page in self.pages:
            parts[page.name] = page.markdown
            for topic in topics.TOPICS:
                parts[f"{page.name}-{topic}"] = partial(page.topic, topic)
            for name, write in topics.NUMBERS.items():
                parts[f"{page.name}-{name}"] = partial(write, page.study, page.files)
        if self.over_all:
            made = [(page.study, page.files) for page in self.pages]
            parts["claims"] = partial(topics.claimed, made, self.over_all)
            parts["counts"] = self.counts
            answered = self.over_all[answers.FILE]
            for number, question in enumerate(answers.QUESTIONS, start=1):
                made_of = partial(answers.markdown, answered, question)
                parts[f"answer-{number}"] = made_of
        return parts


def _write_csv(path: Path, frame: pd.DataFrame) -> Path:
    """Floats to 6 significant digits: more would differ between machines."""
    style = {"index": False, "float_format": "%.6g", "lineterminator": "\n"}
    return write_atomically(path, lambda aside: frame.to_csv(aside, **style))


class _Block(NamedTuple):
    """What a readable table says, before it is laid out."""

    headline: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


class Page:
    """The tables of one study."""

    def __init__(self, study: Study) -> None:
        self.study = study

    @property
    def name(self) -> str:
        """Such as "drive-reduced"."""
        return f"{self.study.folder.parent.name}-{self.study.folder.name}"

    @cached_property
    def files(self) -> dict[str, pd.DataFrame]:
        """Every table beside `runs/`, by file name."""
        study = self.study
        read = [calibration.Reader(study, variant) for variant in study.runs]
        runs = (run for runs in study.runs.values() for run in runs)
        files = tables.papers(study) | {
            "tests.csv": tables.comparisons(study),
            "thresholds.csv": tables.thresholds(study),
            "calibration.csv": calibration.measures(read),
            "reliability.csv": calibration.diagrams(read),
            "costs.csv": tables.costs(study),
            "observers.csv": calibration.observers(read),
            "other-sets.csv": tables.other_sets(runs),
            "noise.csv": tables.noise(study),
            "temperature.csv": tables.temperatures(study),
        }
        return {
            name: frame
            for name, frame in files.items()
            if len(frame) or name not in _OPTIONAL
        }

    def topic(self, name: str) -> str:
        """What `topics` says of the study in Markdown: a key of `topics.TOPICS`."""
        file, write = topics.TOPICS[name]
        return write(self.study, self.files.get(file, pd.DataFrame()))

    def text(self) -> str:
        """Lay out the runs as plain text, without a final newline.

        A row for each loss with mean and standard error, the paper's values, then p.
        """
        return "\n\n".join(map(_plain, self._blocks()))

    def markdown(self) -> str:
        """Lay out the runs as Markdown; content as in `text`."""
        return "\n\n".join(map(_markdown, self._blocks()))

    def _blocks(self) -> list[_Block]:
        return [
            _Block(
                _headline(self.study, target),
                ["loss", *_HEADINGS.values(), "hours"],
                [*self._loss_rows(target), *self._p_rows(target)],
                self._notes(target),
            )
            for target in self.study.targets
        ]

    def _loss_rows(self, target: str) -> list[list[str]]:
        """A row of ours for each variant; the paper's under it where there is one."""
        rows, study = [], self.study
        # Table 3 repeats cells of Table 4: whichever comes first is shown, they agree.
        published: dict[tuple[Variant, str], Cell] = {}
        for cell in each_cell(study.cells[study.cells["target"] == target]):
            published.setdefault((cell.variant, cell.metric), cell)
        for variant in _shown(study):
            ours = (estimated(study, variant, target, m) for m in _HEADINGS)
            cells = [pm(one.mean, one.standard_error) for one in ours]
            rows.append([_name(study, variant), *cells, self._hours(variant)])
            columns = (_as_published(study, variant, target, m) for m in _HEADINGS)
            found = [published.get((variant, column)) for column in columns]
            if any(found):
                theirs = [pm(c.value, c.standard_error) if c else "" for c in found]
                rows.append(["  paper", *theirs, ""])
        return rows

    def _hours(self, variant: Variant) -> str:
        """Mean hours that the trainings of a variant took; "" where none is known."""
        runs = self.study.runs[variant]
        found = [run.record.get("times", {}).get("train_s") for run in runs]
        known = [seconds for seconds in found if seconds is not None]
        return f"{float(np.mean(known)) / 3600:.2f}" if known else ""

    def _p_rows(self, target: str) -> list[list[str]]:
        """P of DSC++ against DSC: both tests, the paired one also after Holm."""
        if not self._has_pair:
            return []
        found = self.files["tests.csv"]
        # In either order.
        labels = {variant.label for variant in _PAIR}
        ours = found["loss_a"].isin(labels) & found["loss_b"].isin(labels)
        found = found[ours & (found["target"] == target)].set_index(["test", "metric"])
        rows = [
            [text, *(_p(found.loc[(test, name), key]) for name in _HEADINGS), ""]
            for text, test, key in _P_ROWS
        ]
        # The paper has the rank-sum test alone: its figures stand under ours.
        paper = self._published_p(target) if len(self.study.cells) else []
        return rows[:1] + ([["  paper", *paper, ""]] if any(paper) else []) + rows[1:]

    @property
    def _has_pair(self) -> bool:
        return set(_PAIR) <= self.study.runs.keys()

    def _published_p(self, target: str) -> list[str]:
        """What the paper prints of p, in the table's columns; "" where none."""
        words = {column: word for word, column in metrics.PAPER_COLUMN.items()}
        columns = (_as_published(self.study, _PAIR[0], target, m) for m in _HEADINGS)
        pair, printed = (_PAIR[0].loss, _PAIR[1].loss), self.study.paper.printed_p
        found = (
            printed(self.study.title, target, words.get(column, ""), pair)
            for column in columns
        )
        return [_p(float(p)) if p else "" for p in found]

    def _notes(self, target: str) -> list[str]:
        study = self.study
        changed, hardware = _of_changed_code(study), _hardware(study)
        truth = any(variant.method == TRUTH for variant in study.runs)
        said = {
            "p: DSC++ against DSC over test images: of the weights at hand, not of the "
            "losses (Student's t over seeds is in claims.csv).": self._has_pair,
            "NLL published is the foreground term alone, as the paper's tables have "
            "it; NLL has both terms. Lower NLL and Brier, higher Dice and Jaccard are "
            "better.": True,
            "Simulated images: no value here says anything about "
            "patients.": study.simulated,
            f"{TRUTH.capitalize()}: the probability that the labels were drawn from. "
            "Nothing is expected to have a lower NLL or Brier "
            "score.": study.simulated and truth,
            f"Preset {study.preset} is not the paper's protocol: compare directions, "
            "not values.": not study.simulated and study.preset != "paper",
            "Of a commit with uncommitted changes, so not to be made again exactly: "
            f"{', '.join(changed)}.": changed,
            "Hours: mean of a training, also where other work ran beside it (costs.csv "
            f"has every run). Hardware: {'; '.join(hardware)}.": hardware,
        }
        notes = [note for note, applies in said.items() if applies]
        return notes + (_threshold_notes(study, target) if len(study.cells) else [])


def _of_changed_code(study: Study) -> list[str]:
    """The trainings whose code no commit holds, by the name of their folder."""
    trained = (run for variant in _trained(study) for run in study.runs[variant])
    return [run.name for run in trained if not from_clean_commit(run.record)]


def _hardware(study: Study) -> list[str]:
    """What the study's trainings ran on: device and machine, each once."""
    found = {
        f"{run.record.get('device') or 'unknown device'}, {run.record.get('machine')}"
        for runs in study.runs.values()
        for run in runs
        if "train_s" in run.record.get("times", {})
    }
    return sorted(found)


def _headline(study: Study, target: str) -> str:
    title = "PHANTOM (simulated)" if study.simulated else study.title
    return f"{title}, {target}, {study.about(_trained(study))}, mean ± standard error"


def _shown(study: Study) -> list[Variant]:
    """The variants as they were trained, and of phantoms the truth.

    What follows a training has its own table.
    """
    return [variant for variant in study.runs if variant.method in ("", TRUTH)]


def _trained(study: Study) -> list[Variant]:
    return [variant for variant in study.runs if not variant.method]


def _name(study: Study, variant: Variant) -> str:
    """A variant's label; with its seeds where the headline names others too.

    And with the number of trainings where there are replicates among them.
    """
    seeds, trainings = study.seeds(variant), len(study.runs[variant])
    every = sorted({s for one in _trained(study) for s in study.seeds(one)})
    if variant.method == TRUTH:
        return variant.label
    said = [in_words(seeds)] if list(seeds) != every else []
    said += [f"{trainings} trainings"] if trainings > len(seeds) else []
    return variant.label + (f" ({', '.join(said)})" if said else "")


def _as_published(study: Study, variant: Variant, target: str, metric: str) -> str:
    """With two classes the published Brier is the corrected one: one column, then."""
    form = f"{metric}_published"
    if metric != "brier":
        return metric
    ours, theirs = (study.measures(variant, target, name) for name in (metric, form))
    return form if np.array_equal(ours, theirs, equal_nan=True) else metric


def _threshold_notes(study: Study, target: str) -> list[str]:
    """The softmax thresholds whose figures the paper's text prints, ours beside."""
    notes = []
    for row in study.paper.thresholds:
        variant = Variant.standard(row["loss"])
        if row["dataset"] != study.title or variant not in study.runs:
            continue
        at = round(float(row["threshold"]), 9)
        ours = estimated(study, variant, target, row["metric"], at)
        notes.append(
            f"{row['loss']} at threshold {row['threshold']}: {row['metric']} "
            f"{pm(ours.mean, ours.standard_error)} (paper {float(row['value']):.3f})."
        )
    return notes


def _p(p: float) -> str:
    if p != p:
        return "undefined"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def _plain(block: _Block) -> str:
    grid = [block.header, *block.rows]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = []
    for first, *others in grid:
        cells = [cell.rjust(n) for cell, n in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    rule = "-" * max(map(len, lines))
    notes = [textwrap.fill(note, len(rule)) for note in block.notes]
    return "\n".join([block.headline, rule, lines[0], rule, *lines[1:], rule, *notes])


def _markdown(block: _Block) -> str:
    # Two leading spaces mean "under the row above"; Markdown would drop them.
    body = [[re.sub("^  ", "&ensp;", row[0]), *row[1:]] for row in block.rows]
    rows = table(block.header, body)
    return f"**{block.headline}**\n\n{rows}\n\n{' '.join(block.notes)}"
