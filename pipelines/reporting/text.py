"""The readable table, for the terminal and for the README."""

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data_io.errors import InputError
from pipelines.measure import histograms, metrics
from pipelines.reporting import calibration, costs, highlights, observers, temperatures
from pipelines.reporting.markdown import table
from pipelines.reporting.published import (
    Cell,
    paper_folder,
    printed_p,
    published_thresholds,
)
from pipelines.reporting.study import STANDARD_GAMMA, Study, Variant, groups
from pipelines.reporting.tables import comparison_rows, estimate, study_of
from pipelines.run import TRUTH, write_atomically

__all__ = [
    "TOPICS",
    "format_table",
    "markdown_table",
    "replace_marked",
    "update_readme",
]

_HEADINGS = {
    "nll_published": "NLL published",
    "nll": "NLL",
    "brier": "Brier",
    "dice": "Dice",
    "jaccard": "Jaccard",
}
TOPICS: Mapping[str, Callable[[Study], str]] = {
    "temperature": temperatures.markdown,
    "calibration": calibration.markdown,
    "observers": observers.markdown,
}
"""What is said of one study besides its table: name of the marker, and who writes."""

_PAIR = (Variant("DSC++", STANDARD_GAMMA), Variant("DSC"))


@dataclass(frozen=True)
class _Block:
    """What a readable table says, before it is laid out."""

    headline: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def format_table(folder: Path) -> str:
    """Lay out the runs of one folder as plain text.

    Args:
        folder: `results/<dataset>/<preset>`.

    Returns:
        Several lines, without a final newline: what it is, a row for each loss with
        mean and standard error, the paper's values under ours, and p values.

    Raises:
        InputError: see `study.open_study`.
    """
    blocks = _blocks(Path(folder))
    return "\n\n".join(_plain(block) for block in blocks)


def markdown_table(folder: Path) -> str:
    """Lay out the runs of one folder as Markdown; content as in `format_table`."""
    return "\n\n".join(_markdown(block) for block in _blocks(Path(folder)))


def update_readme(readme: Path, results: Path) -> list[str]:
    """Put the present tables between the markers of a Markdown file.

    Markers are `<!-- <dataset>-<preset>:begin -->` and `<!-- <dataset>-<preset>:end
    -->`, such as `drive-reduced`; of what `TOPICS` names, `drive-reduced-temperature`;
    `claims` has the numbers over all, `counts` how many they are. Tables without
    markers are left out, and so are markers without runs.

    Args:
        readme: the file; written only if it changes.
        results: the folder of all results.

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
    new, names = text, []
    for name, content in _parts(results):
        if f"<!-- {name}:begin -->" in new:
            new = replace_marked(readme, new, name, content())
            names.append(name)
    if new != text:
        write_atomically(readme, lambda aside: aside.write_text(new, "utf-8"))
    return names


def _parts(results: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """The name of every marker and what makes the text between."""
    for folder in groups(results):
        name = f"{folder.parent.name}-{folder.name}"
        yield name, partial(markdown_table, folder)
        for topic, write in TOPICS.items():
            yield f"{name}-{topic}", partial(_on_topic, folder, write)
    yield highlights.COUNTS, partial(highlights.counts, results)
    yield highlights.MARKER, partial(highlights.markdown, results)


def _on_topic(folder: Path, write: Callable[[Study], str]) -> str:
    return write(study_of(folder)[0])


def replace_marked(path: Path, text: str, name: str, content: str) -> str:
    """Replace what stands between `<!-- name:begin -->` and `<!-- name:end -->`.

    Args:
        path: the file that the text is from, for the message.
        text: the whole of it.
        name: of the markers.
        content: what is put between them.

    Returns:
        The new text.

    Raises:
        InputError: no such markers, or one that begins and does not end.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise InputError(
            f"{path}: expected {end} after {begin}, found none; add it where the "
            "generated part ends"
        )
    part = f"{begin}\n{content}\n{end}"
    return pattern.sub(lambda _: part, text)


def _blocks(folder: Path) -> list[_Block]:
    study, cells = study_of(folder)
    return [
        _Block(
            _headline(study, target),
            ["loss", *_HEADINGS.values(), "hours"],
            [*_loss_rows(study, cells, target), *_p_rows(study, cells, target)],
            _notes(study, cells, target),
        )
        for target in study.targets
    ]


def _headline(study: Study, target: str) -> str:
    title = "PHANTOM (simulated)" if study.simulated else study.title
    seeds = _all_seeds(study)
    word = "seed" if len(seeds) == 1 else "seeds"
    images = f"{len(study.cases)} test image" + ("s" if len(study.cases) != 1 else "")
    return (
        f"{title}, {target}, preset {study.preset}, "
        f"{word} {', '.join(map(str, seeds))}, {images}, mean ± standard error"
    )


def _shown(study: Study) -> list[Variant]:
    """The variants as they were trained, and of phantoms the truth.

    What follows a training has its own table.
    """
    return [variant for variant in study.runs if variant.method in ("", TRUTH)]


def _all_seeds(study: Study) -> tuple[int, ...]:
    trained = [variant for variant in _shown(study) if variant.method != TRUTH]
    return tuple(sorted({s for variant in trained for s in study.seeds(variant)}))


def _name(study: Study, variant: Variant) -> str:
    """A variant's label; with its seeds where the headline names others too."""
    seeds = study.seeds(variant)
    if seeds == _all_seeds(study) or variant.method == TRUTH:
        return variant.label
    return f"{variant.label} (seed {', '.join(map(str, seeds))})"


def _loss_rows(study: Study, cells: Sequence[Cell], target: str) -> list[list[str]]:
    """A row of ours for each variant, the paper's row under it where there is one."""
    rows = []
    # Table 3 repeats cells of Table 4: whichever comes first is shown, they agree.
    published: dict[tuple[Variant, str], Cell] = {}
    for cell in cells:
        if cell.target in ("", target):
            published.setdefault((cell.variant, cell.metric), cell)
    for variant in _shown(study):
        ours = (estimate(study.measures(variant, target, name)) for name in _HEADINGS)
        rows.append(
            [
                _name(study, variant),
                *(_pm(one.mean, one.standard_error) for one in ours),
                _hours(study, variant),
            ]
        )
        found = [
            published.get((variant, _as_published(study, variant, target, name)))
            for name in _HEADINGS
        ]
        if any(found):
            rows.append(
                [
                    "  paper",
                    *(_pm(c.value, c.standard_error) if c else "" for c in found),
                    "",
                ]
            )
    return rows


def _as_published(study: Study, variant: Variant, target: str, metric: str) -> str:
    """With two classes the published Brier is the corrected one: one column, then."""
    form = f"{metric}_published"
    if metric != "brier":
        return metric
    ours, theirs = (study.measures(variant, target, name) for name in (metric, form))
    return form if np.array_equal(ours, theirs, equal_nan=True) else metric


def _p_rows(study: Study, cells: Sequence[Cell], target: str) -> list[list[str]]:
    """Lay out p of DSC++ against DSC: both tests, the paired one also after Holm."""
    if not all(variant in study.runs for variant in _PAIR):
        return []
    labels = {variant.label for variant in _PAIR}
    found = {
        (row["test"], row["metric"]): row
        for row in comparison_rows(study)
        if {row["loss_a"], row["loss_b"]} == labels and row["target"] == target
    }
    kinds = {
        "p rank-sum": ("rank_sum", "p"),
        "p signed-rank": ("signed_rank", "p"),
        "p signed-rank, Holm": ("signed_rank", "p_holm"),
    }
    rows = [
        [text, *(_p(found[test, name][key]) for name in _HEADINGS), ""]
        for text, (test, key) in kinds.items()
    ]
    # The paper has the rank-sum test alone: its figures stand under ours.
    paper = _published_p(study, target) if cells else []
    return rows[:1] + ([["  paper", *paper, ""]] if any(paper) else []) + rows[1:]


def _published_p(study: Study, target: str) -> list[str]:
    """What the paper prints of p, in the table's columns; "" where it prints none."""
    pair = (_PAIR[0].loss, _PAIR[1].loss)
    printed = printed_p(paper_folder(study.folder.parents[1]), study.title, pair)
    found = {
        metrics.PAPER_COLUMN[metric]: _p(p)
        for (own, metric), p in printed.items()
        if own == target
    }
    columns = (_as_published(study, _PAIR[0], target, name) for name in _HEADINGS)
    return [found.get(column, "") for column in columns]


def _notes(study: Study, cells: Sequence[Cell], target: str) -> list[str]:
    notes = []
    if all(variant in study.runs for variant in _PAIR):
        notes.append("p: DSC++ against DSC over test images.")
    notes.append(
        "NLL published is the foreground term alone, as the paper's tables have it; "
        "NLL has both terms. Lower NLL and Brier, higher Dice and Jaccard are better."
    )
    if study.simulated:
        notes.append("Simulated images: no value here says anything about patients.")
        if any(variant.method == TRUTH for variant in study.runs):
            notes.append(
                f"{TRUTH.capitalize()}: the probability that the labels were drawn "
                "from. Nothing is expected to have a lower NLL or Brier score."
            )
    elif study.preset != "paper":
        notes.append(
            f"Preset {study.preset} is not the paper's protocol: compare directions, "
            "not values."
        )
    hardware = costs.hardware(study)
    if hardware:
        notes.append(
            "Hours: mean of a training, also where other work ran beside it "
            f"({costs.TABLE} has every run). Hardware: {'; '.join(hardware)}."
        )
    return notes + _threshold_notes(study, cells, target)


def _threshold_notes(study: Study, cells: Sequence[Cell], target: str) -> list[str]:
    """The softmax thresholds whose figures the paper's text prints, ours beside."""
    if not cells:
        return []
    notes = []
    thresholds = [round(float(one), 9) for one in histograms.THRESHOLDS]
    for row in published_thresholds(paper_folder(study.folder.parents[1])):
        loss, plus = row["loss"], row["loss"].endswith("++")
        variant = Variant(loss, STANDARD_GAMMA if plus else None)
        if row["dataset"] != study.title or variant not in study.runs:
            continue
        index = thresholds.index(round(float(row["threshold"]), 9))
        values = study.at_thresholds(variant, target)[row["metric"]][:, :, index]
        ours = estimate(values)
        notes.append(
            f"{loss} at threshold {row['threshold']}: {row['metric']} "
            f"{_pm(ours.mean, ours.standard_error)} (paper {float(row['value']):.3f})."
        )
    return notes


def _hours(study: Study, variant: Variant) -> str:
    hours = costs.hours(study, variant)
    return "" if hours != hours else f"{hours:.2f}"


def _pm(mean: float, error: float) -> str:
    if mean != mean:
        return "undefined"
    return f"{mean:.3f}" + (f" ± {error:.3f}" if error == error else "")


def _p(value: object) -> str:
    p = float(str(value))
    if p != p:
        return "undefined"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}"


def _plain(block: _Block) -> str:
    grid = [block.header, *block.rows]
    widths = [max(len(row[i]) for row in grid) for i in range(len(block.header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in grid
    ]
    rule = "-" * max(len(line) for line in lines)
    notes = [textwrap.fill(note, len(rule)) for note in block.notes]
    return "\n".join([block.headline, rule, lines[0], rule, *lines[1:], rule, *notes])


def _markdown(block: _Block) -> str:
    # Two leading spaces mean "under the row above"; Markdown would drop them.
    body = [[re.sub("^  ", "&ensp;", row[0]), *row[1:]] for row in block.rows]
    rows = table(block.header, body)
    return f"**{block.headline}**\n\n{rows}\n\n{' '.join(block.notes)}"
