"""Pictures with images in them, of runs whose probabilities are here.

A picture beside each run and, as the paper's figures, of all losses together. They may
show patients, so git ignores them (see `results/README.md`); the curves are in
`reporting.figures`, which reads no image and needs no backend. Which case a figure
shows is decided by a rule, never by eye: the test case whose Dice with DSC++ is the
median.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_io import datasets, native
from data_io.datasets import nifti
from data_io.datasets.dataset import Dataset
from data_io.errors import InputError
from pipelines import loss_names, provenance, stages, stored, written
from pipelines import run as runs
from pipelines.reporting.estimates import mean_of
from pipelines.reporting.figures import curves, panels, style
from pipelines.reporting.figures.panels import Panel, Window
from pipelines.reporting.frame import Study, studies
from pipelines.reporting.published import Paper, Variant, paper_folder

__all__ = [
    "FOLDER", "THRESHOLDS", "Example", "View", "compare", "example", "median_case",
    "picture", "view", "write_pictures",
]  # fmt: skip

FOLDER = "pictures"
THRESHOLDS = (0.2, 0.4, 0.6, 0.8)
"""Softmax thresholds of the overlays (Fig. 5, bottom)."""

_COMPARED = ("CE", "DSC", "DSC++")
_DETAIL = 128  # pixels: what a fine vessel needs to be seen
_FORMATS = ("pdf", "png")
_PLAIN, _PLUS = Variant("DSC"), Variant.standard("DSC++")
_IN_A_ROW = 4
_TOGETHER = "figure3-losses"

_Array = npt.NDArray[Any]


def picture(run: runs.Run, root: Path) -> Path:
    """Draw a run's first test case: image, truth, softmax heat map with colour bar.

    Of a volume the slice of axis 0 with most foreground is drawn.

    Args:
        run: a predicted run with its probabilities.
        root: the data set's folder.

    Returns:
        The PNG file, `pictures/<case>.png` of the run.
    """
    case = run.record["split"]["test"][0]
    path = run.path(FOLDER) / f"{case}.png"
    return _draw({run.record["loss"]: run}, root, case, path)


def compare(group: Path, root: Path) -> Path | None:
    """Draw CE, DSC and DSC++ side by side on the first test case (as Fig. 1).

    Args:
        group: `results/<dataset>/<preset>`.
        root: the data set's folder.

    Returns:
        The PNG file, or None where DSC and DSC++ have no probabilities here. Runs are
        those of this process's backend; of several seeds the lowest is shown.
    """
    found: dict[str, runs.Run] = {}
    for run in sorted(runs.find(group), key=lambda run: int(run.record["seed"])):
        if run.path(stored.PROBABILITIES).is_dir() and run.name == _name(run):
            found.setdefault(run.record["loss"], run)
    chosen = {loss: found[loss] for loss in _COMPARED if loss in found}
    if not {"DSC", "DSC++"} <= chosen.keys():
        return None
    case = chosen["DSC"].record["split"]["test"][0]
    return _draw(chosen, root, case, group / FOLDER / "compare.png")


def _name(run: runs.Run) -> str:
    """What the run would be called here with the loss's default exponent."""
    loss, seed = run.record["loss"], run.record["seed"]
    default = loss_names.default_gamma(loss)
    return runs.folder_name(loss, default, seed, provenance.backend())


def _draw(shown: Mapping[str, runs.Run], root: Path, case: str, path: Path) -> Path:
    written.require_figure(path)
    first = next(iter(shown.values()))
    found = view(shown, root, case)
    maps = {loss: _foreground(softmax) for loss, softmax in found.softmax.items()}
    truth = found.label > 0
    return panels.compare(
        found.image, truth, maps, path, _title(first, case), _detail(truth.shape)
    )


@dataclass(frozen=True, eq=False)
class View:
    """What a picture shows of a case: an image, or one slice of a volume.

    Attributes:
        image: (rows, columns[, channels]); of a CT what the network sees of it.
        label: class numbers, (rows, columns), of the first observer.
        softmax: softmax values by the name of the run, (rows, columns, C).
        index: of the slice, along axis 0; None of an image.
    """

    image: _Array
    label: _Array
    softmax: dict[str, _Array]
    index: int | None = None


def view(
    shown: Mapping[str, runs.Run], root: Path, case: str, target: int | None = None
) -> View:
    """Read a case with the probabilities of some runs.

    Args:
        shown: runs of one data set with their probabilities, by a name for each.
        root: the data set's folder.
        case: the case's id.
        target: of a volume, the class whose largest slice is taken (the first of
            several); None, or one that the case has nothing of: all foreground.

    Raises:
        InputError: probabilities or images are not there, or do not fit.
    """
    record = next(iter(shown.values())).record
    module = datasets.by_name(record["dataset"])
    if module.record(root).is_3d:
        return _slice(shown, module, root, case, target)
    return _image(shown, module, root, case)


def _image(
    shown: Mapping[str, runs.Run], module: Dataset, root: Path, case: str
) -> View:
    label = module.references(root, case)["observer1"]
    softmax = {
        name: stored.probabilities(run, case, label.shape)
        for name, run in shown.items()
    }
    return View(module.picture(root, case), label, softmax)


def _slice(
    shown: Mapping[str, runs.Run],
    module: Dataset,
    root: Path,
    case: str,
    target: int | None,
) -> View:
    label = module.references(root, case)["observer1"]
    sizes = [np.count_nonzero(plane == target) for plane in label] if target else [0]
    if not any(sizes):
        sizes = [np.count_nonzero(plane) for plane in label]
    index = int(np.argmax(sizes))
    part, where = slice(index, index + 1), (module, root, case)
    softmax = {
        name: native.slab(stored.volume(run, *where)[0], label.shape, part)[0]
        for name, run in shown.items()
    }
    image = nifti.read_slice(module.roles(root, case)["image"], index)
    window = module.record(root).clip
    # What the network sees of a CT: beyond it lie bone and air.
    image = image if window is None else np.clip(image, *window)
    return View(image, label[index], softmax, index)


def _detail(shape: Sequence[int]) -> int | None:
    """Side of the square to show enlarged; None where the image is small itself."""
    return _DETAIL if min(shape) > 2 * _DETAIL else None


def _foreground(softmax: _Array) -> _Array:
    """Softmax value of all classes but the background, (rows, columns)."""
    return np.asarray(np.clip(1 - softmax[..., 0], 0, 1))


def _title(run: runs.Run, case: str) -> str:
    record = run.record
    simulated = " (simulated)" if record["simulated"] else ""
    number = case.removeprefix("case_")
    return f"{record['title']}{simulated}, case {number}, preset {record['preset']}"


@dataclass(frozen=True, eq=False)
class Example:
    """One test case with the softmax values of all losses at hand.

    Attributes:
        study: the runs of the data set and preset.
        runs: of each variant the run shown: that of the lowest seed here.
        root: the data set's folder.
        case: the case's id.
        rule: why this case, in words.
    """

    study: Study
    runs: dict[Variant, runs.Run]
    root: Path
    case: str
    rule: str

    @cached_property
    def view(self) -> View:
        """Image, label and softmax values, by `Variant.label`."""
        named = {variant.label: run for variant, run in self.runs.items()}
        return view(named, self.root, self.case, target=len(self.study.targets))

    @property
    def name(self) -> str:
        """The data set as the paper prints it; simulated ones are called so."""
        return curves.name_of(self.study)

    @property
    def truth(self) -> np.ndarray:
        """Where there is any foreground, (rows, columns)."""
        return np.asarray(self.view.label > 0)

    @cached_property
    def window(self) -> Window | None:
        """The part that is shown enlarged; None where the image is small itself."""
        side = _detail(self.truth.shape)
        return panels.busiest_window(self._interest(side), side) if side else None

    def _interest(self, side: int) -> np.ndarray:
        """What the enlarged part has most of; see `note`."""
        if self.view.index is None:
            from skimage.morphology import skeletonize

            # Centre lines: else the thickest vessels were shown, which all losses find.
            return np.asarray(skeletonize(self.truth))
        # Most of the last class; where that is all in, most of the others.
        last = self.view.label == len(self.study.targets)
        return np.where(last, side * side + 1, self.truth)

    def probability(self, variant: Variant) -> np.ndarray:
        """Softmax value of all foreground, (rows, columns)."""
        return _foreground(self.view.softmax[variant.label])

    def positive(self, variant: Variant) -> np.ndarray:
        """Where the likeliest class is not the background, (rows, columns)."""
        return np.asarray(self.view.softmax[variant.label].argmax(axis=-1) > 0)

    def framed(self, panel: Panel) -> Panel:
        """A panel of the whole image that shows where the enlarged part is."""
        return replace(panel, frame=self.window)

    def title(self, what: str, shown: Iterable[Variant]) -> str:
        """What a figure shows, and of which data, seeds and case."""
        return (
            f"{what}: {self.name}, preset {self.study.preset}, {self.seeds(shown)}, "
            f"case {_short(self.case)}"
        )

    def seeds(self, shown: Iterable[Variant]) -> str:
        """Such as "seed 0"."""
        seeds = sorted({int(self.runs[variant].record["seed"]) for variant in shown})
        return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"

    def note(self, more: str = "", enlarged: bool = True) -> str:
        """Why this case and this part of it, and what else the figure says.

        Args:
            more: what else.
            enlarged: whether the figure shows the enlarged part.
        """
        parts, target = [f"{self.rule}."], self.study.targets[-1]
        most = f"longest centre lines of the {target}"
        if self.view.index is not None:
            parts.append(f"Slice {self.view.index}: the one with most {target}.")
            most = "most of it"
        if self.window and enlarged:
            side = self.window[0].stop - self.window[0].start
            parts.append(f"Enlarged: the {side} x {side} pixels with {most}.")
        return " ".join([*parts, more]).strip()


@dataclass(frozen=True)
class _Sheet:
    """What `panels.draw` takes."""

    rows: list[list[Panel | None]]
    title: str
    note: str
    labels: tuple[str, ...] = ()
    key: bool = False

    def draw(self, stem: Path) -> list[str]:
        written = panels.draw(
            self.rows, stem, self.title, self.note, self.labels, _FORMATS, self.key
        )
        return [str(path) for path in written]


def write_pictures(
    results: Path, data: Path | None = None, work: Path = runs.WORK
) -> list[str]:
    """Draw Figs. 1 to 5 where probabilities and images are here.

    Args:
        results: the folder of all results.
        data: the folder of a data set, or the one that contains them all; None for
            `data/<NAME>`.
        work: where hashes of the data are remembered.

    Returns:
        A line for each figure: its files, `<dataset>/<preset>/pictures/*` and, of all
        data sets of a preset together, `pictures/*`; or that it was skipped, why, and
        what to do.

    Raises:
        InputError: runs that cannot be joined, a folder that cannot be written.
    """
    lines, by_preset = [], defaultdict(list)
    for study in studies(results, Paper(paper_folder(results))):
        figures = _VOLUMES if _is_3d(study) else _IMAGES
        try:
            found: Example | str = example(study, data, work)
        except InputError as error:
            found = str(error).split("\n", 1)[0]
        by_preset[study.preset].append(found)
        for name, make in figures.items():
            sheet = found if isinstance(found, str) else make(found)
            lines += _drawn_or_not(sheet, study.folder / FOLDER / name)
    for preset, parts in by_preset.items():
        name = f"{_TOGETHER}-{preset}"
        lines += _drawn_or_not(_figure3(preset, parts), results / FOLDER / name)
    return lines


def _drawn_or_not(sheet: _Sheet | str, stem: Path) -> list[str]:
    return [f"skipped: {stem}: {sheet}"] if isinstance(sheet, str) else sheet.draw(stem)


def example(study: Study, data: Path | None, work: Path = runs.WORK) -> Example:
    """Choose the case that is shown, and read it.

    Args:
        study: the runs of a data set and preset.
        data: as for `write_pictures`, as is the next.
        work: where hashes of the data are remembered.

    Returns:
        The test case whose Dice is the median (of an even number the lower one of the
        two in the middle), with DSC++ or else the first loss whose probabilities are
        here; Dice of several classes is averaged.

    Raises:
        InputError: no probabilities or no images here; other images than the runs'.
    """
    choices = _first_choices(study)
    first = next((run for run in choices if _has(run, median_case(study, run))), None)
    if first is None:
        raise InputError(
            "no probabilities here (git has none); where the weights are, run `dscpp "
            f"predict --again --run {study.folder / 'runs'}/RUN --data DIR`, else "
            "delete the run's folder and train it again"
        )
    case = median_case(study, first)
    root = stages.located(first, data, work)
    rule = (
        f"Case {_short(case)} has the median Dice of the {len(study.cases)} test cases "
        f"with {first.record['loss']} (seed {first.record['seed']})"
    )
    shown: dict[Variant, runs.Run] = {}
    for variant in study.main:
        here = [run for run in study.runs[variant] if _has(run, case)]
        shown |= {variant: here[0]} if here else {}
    found = Example(study, shown, root, case, rule)
    _ = found.view  # what cannot be read is said here
    return found


def _first_choices(study: Study) -> Iterator[runs.Run]:
    """The runs that decide which case is shown, likeliest first."""
    others = (variant for variant in study.main if variant != _PLUS)
    for variant in (_PLUS, *others):
        yield from study.runs.get(variant, [])


def _has(run: runs.Run, case: str) -> bool:
    """Whether a run's probabilities of a case are here."""
    return stored.path(run, case).is_file()


def median_case(study: Study, run: runs.Run) -> str:
    """The test case whose Dice is the median; see `example`."""
    places = [(target, "image", "observer1") for target in study.targets]
    dice = np.stack([study.of_run(run, place, "dice") for place in places])
    mean = mean_of(dice, axis=0)
    ranked = [index for index in np.argsort(mean, kind="stable") if mean[index] >= 0]
    # Where nothing is defined, any case is as good as another.
    return study.cases[ranked[(len(ranked) - 1) // 2] if ranked else 0]


def _figure1(of: Example) -> _Sheet | str:
    """Image, truth; of DSC and DSC++ heat map, a part enlarged, errors (Fig. 1)."""
    if not {_PLAIN, _PLUS} <= of.runs.keys():
        return f"probabilities of DSC and DSC++ are needed, {_here(of)}"
    rows: list[list[Panel | None]] = []
    beside = (panels.photo(of.view.image), panels.truth_of(of.truth))
    for variant, panel in zip((_PLAIN, _PLUS), beside, strict=True):
        heat = panels.heat(of.probability(variant), variant.label)
        wrong = panels.errors(
            of.view.image, of.truth, of.positive(variant), f"{variant.label}, errors"
        )
        row: list[Panel | None] = [of.framed(panel), of.framed(heat)]
        if of.window:
            row.append(replace(heat.cut(of.window), title=f"{heat.title}, detail"))
        rows.append([*row, wrong.cut(of.window)])
    title = of.title("DSC and DSC++", [_PLAIN, _PLUS])
    return _Sheet(rows, title, of.note("Prediction: the likeliest class."), key=True)


def _figure2(of: Example) -> _Sheet | str:
    """Heat maps of DSC++ with each gamma, DSC as gamma 1 (Fig. 2, top)."""
    shown = [v for v in curves.by_exponent(of.runs) if v.loss in ("DSC", "DSC++")]
    if len(shown) < 2:
        return f"two exponents of DSC++ are needed (DSC is 1), {_here(of)}"
    image, truth = panels.photo(of.view.image), panels.truth_of(of.truth)
    drawn: list[Panel | None] = [of.framed(image), truth.cut(of.window)]
    drawn += [
        panels.heat(of.probability(variant), curves.label(variant)).cut(of.window)
        for variant in shown
    ]
    columns = -(-len(drawn) // -(-len(drawn) // _IN_A_ROW))  # rows of equal length
    drawn += [None] * (-len(drawn) % columns)
    rows = [drawn[i : i + columns] for i in range(0, len(drawn), columns)]
    return _Sheet(rows, of.title("Exponent γ of DSC++", shown), of.note())


def _figure3(preset: str, parts: Sequence[Example | str]) -> _Sheet | str:
    """A row for each data set: image, truth, heat map of each loss (Fig. 3)."""
    shown = [part for part in parts if isinstance(part, Example)]
    if not shown:
        return "no data set of this preset has probabilities and images here"
    every = dict.fromkeys(v for part in shown for v in part.runs)
    losses = [one for one in every if one == Variant.standard(one.loss)]
    rows: list[list[Panel | None]] = []
    for part in shown:
        row: list[Panel | None] = [panels.photo(part.view.image)]
        row.append(panels.truth_of(part.truth))
        row += [
            panels.heat(part.probability(v), v.label) if v in part.runs else None
            for v in losses
        ]
        rows.append(row)
    labels = tuple(part.name for part in shown)
    rules = " ".join(
        f"{part.name}, {part.seeds(part.runs)}: {part.note(enlarged=False)}"
        for part in shown
    )
    return _Sheet(rows, f"Softmax values by loss, preset {preset}", rules, labels)


def _figure4(of: Example) -> _Sheet:
    """A slice of a volume: a row for each class, a heat map for each loss (Fig. 4)."""
    image = panels.photo(of.view.image)
    rows: list[list[Panel | None]] = []
    for number in range(1, len(of.study.targets) + 1):
        truth = panels.truth_of(of.view.label == number)
        beside = image.cut(of.window) if rows else of.framed(image)
        row: list[Panel | None] = [beside, truth.cut(of.window)]
        row += [
            panels.heat(softmax[..., number], loss).cut(of.window)
            for loss, softmax in of.view.softmax.items()
        ]
        rows.append(row)
    title = of.title("Softmax values by class", of.runs)
    return _Sheet(rows, title, of.note(), of.study.targets)


def _figure5(of: Example) -> _Sheet | str:
    """Overlays at softmax thresholds (Fig. 5, bottom)."""
    shown = [variant for variant in (_PLAIN, _PLUS) if variant in of.runs]
    if not shown:
        return f"probabilities of DSC or DSC++ are needed, {_here(of)}"
    rows: list[list[Panel | None]] = []
    beside = (panels.photo(of.view.image), panels.truth_of(of.truth))
    for variant, panel in zip(shown, beside, strict=False):
        row: list[Panel | None] = [panel.cut(of.window)]
        row += [_overlay(of, variant, threshold) for threshold in THRESHOLDS]
        rows.append(row)
    note = of.note("Recall and precision are those of the whole image.")
    labels = tuple(variant.label for variant in shown)
    title = of.title("Thresholds T", shown)
    return _Sheet(rows, title, note, labels, key=True)


def _overlay(of: Example, variant: Variant, threshold: float) -> Panel:
    positive = of.probability(variant) >= threshold
    panel = panels.errors(of.view.image, of.truth, positive, f"T = {threshold}")
    true = np.count_nonzero(positive & of.truth)
    recall, precision = (
        f"{true / size:.2f}" if size else "undefined"
        for size in (np.count_nonzero(of.truth), np.count_nonzero(positive))
    )
    note = f"recall {recall}, precision {precision}"
    return replace(panel.cut(of.window), note=note)


def _here(of: Example) -> str:
    return f"here are those of {', '.join(variant.label for variant in of.runs)}"


def _short(case: str) -> str:
    return case.removeprefix("case_")


def _is_3d(study: Study) -> bool:
    return style.elements(study.record) == "voxels"


_Make = Callable[[Example], _Sheet | str]
_IMAGES: Mapping[str, _Make] = {
    "figure1-heat-maps": _figure1,
    "figure2-gamma": _figure2,
    "figure5-overlays": _figure5,
}
_VOLUMES: Mapping[str, _Make] = {**_IMAGES, "figure4-slice": _figure4}
