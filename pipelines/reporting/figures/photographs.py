"""Pictures with images, of runs whose probabilities are on this machine.

One picture beside each run, and the paper's figures of all losses together. They may
show patients, so git ignores them (see `results/README.md`). A rule chooses the case
that a figure shows: the test case with the median Dice of DSC++.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special

from data_io import datasets
from data_io.datasets.dataset import Dataset
from data_io.datasets.phantom import Phantom
from data_io.errors import InputError
from data_io.files import nifti
from data_io.prepare import native_grid
from pipelines.reporting.figures import curves, panels, style
from pipelines.reporting.figures.panels import Panel, Row, Sheet, Window
from pipelines.reporting.frame import Study, by_dice, in_words, studies
from pipelines.reporting.published import Variant
from pipelines.runs import predictions, written
from pipelines.runs import run as runs
from pipelines.runs.run import Run

_FOLDER = "pictures"
_THRESHOLDS = (0.2, 0.4, 0.6, 0.8)  # of the overlays (Fig. 5, bottom)
_DETAIL = 128  # pixels: what a fine vessel needs to be seen
_PLAIN, _PLUS = Variant("DSC"), Variant.standard("DSC++")
_COMPARED = (Variant("CE"), _PLAIN, _PLUS)
_EQUAL = 0.999  # sizes from this share of the largest count as equal (`Plane.of`)
_ALONG = {"L": 0, "R": 0, "P": 1, "A": 1, "I": 2, "S": 2}
_ON_THE_PAGE = "LPI"  # directions in which columns and rows run

_Array = npt.NDArray[Any]
Locate = Callable[[Run], Path]
"""Finds the folder of the images that a run was trained on, or raises InputError."""


@dataclass(frozen=True)
class Plane:
    """A plane of a volume, in the usual orientation for readers.

    The head is at the top, or else the front; the patient's right is on the left, or
    else the front. Where the header has no orientation, rows and columns are those of
    the array.

    Attributes:
        axis: axis of the array that the plane cuts.
        index: index of the plane along this axis.
        aspect: height over width of a pixel, from the voxel size in mm.
        turned: whether rows and columns of the array are exchanged.
        flipped: axes on the page, 0 rows and 1 columns, that run against the array's.
    """

    axis: int
    index: int
    aspect: float
    turned: bool = False
    flipped: tuple[int, ...] = ()

    @classmethod
    def of(cls, geometry: nifti.Geometry, target: npt.ArrayLike) -> Plane:
        """Choose the plane of highest resolution with the most of a target.

        It is cut across the axis with the largest voxels; of equal axes, the first.

        Args:
            geometry: geometry of the volume.
            target: (*shape); not 0 where the target is. Without any target the middle
                plane is taken; of several equal planes the first.
        """
        sizes = np.array(geometry.spacing_mm)
        axis = int(np.argmax(sizes >= _EQUAL * sizes.max()))
        rest = [side for side in range(3) if side != axis]
        number = np.count_nonzero(target, axis=tuple(rest))
        index = int(number.argmax()) if number.any() else len(number) // 2
        code = geometry.directions or "IPL"
        along = [_ALONG[code[side]] for side in rest]
        turned = bool(geometry.directions) and along[0] < along[1]
        rows, columns = rest[::-1] if turned else rest
        flipped = [
            page
            for page, side in enumerate((rows, columns))
            if geometry.directions and code[side] not in _ON_THE_PAGE
        ]
        aspect = float(sizes[rows] / sizes[columns])
        return cls(axis, index, aspect, turned, tuple(flipped))

    def shown(self, array: _Array) -> _Array:
        """Orient a plane of the array, (two axes[, channels]), for the page."""
        turned = np.swapaxes(array, 0, 1) if self.turned else array
        return np.flip(turned, self.flipped)

    def cut(self, volume: _Array) -> _Array:
        """Cut the plane out of a volume, (*shape[, channels]), oriented."""
        return self.shown(np.take(volume, self.index, self.axis))

    def __str__(self) -> str:
        return f"Slice {self.index} of axis {self.axis}"


@dataclass(frozen=True, eq=False)
class Example:
    """One test case (of a volume one slice) with its softmax values.

    Attributes:
        runs: the run shown for each variant, with its probabilities; of one data set.
        case: the case's id.
        targets: the classes; of a volume the slice with most of the last one is shown
            (the first of several such slices).
        rule: why this case is shown, in words.
        image: (rows, columns[, channels]); of a CT the intensities that the network
            sees.
        label: class numbers, (rows, columns), of the first observer.
        softmax: softmax values by variant, (rows, columns, C).
        plane: the plane of a volume; None for an image.
    """

    runs: dict[Variant, Run]
    case: str
    targets: tuple[str, ...]
    rule: str
    image: _Array
    label: _Array
    softmax: dict[Variant, _Array]
    plane: Plane | None = None

    @classmethod
    def read(
        cls,
        shown: dict[Variant, Run],
        root: Path,
        case: str,
        targets: tuple[str, ...],
        rule: str = "",
        whole: bool = False,
    ) -> Example:
        """Read image, label and softmax values; `root` is the data set's folder.

        Of a volume, `whole` takes the slice with most foreground of any class.

        Raises:
            InputError: probabilities or images are missing, or do not fit.
        """
        module = datasets.by_name(next(iter(shown.values())).record["dataset"])
        label = module.references(root, case)["observer1"]
        softmax = [
            predictions.as_kept(run, module, root, case) for run in shown.values()
        ]
        target = label == len(targets)
        if whole or not target.any():
            target = label > 0
        geometry = module.geometry(root, case)
        plane = Plane.of(geometry, target) if geometry else None
        image, label, *softmax = seen(module, root, case, plane, label, softmax)
        values = dict(zip(shown, softmax, strict=True))
        return cls(shown, case, targets, rule, image, label, values, plane)

    @property
    def record(self) -> Mapping[str, Any]:
        """Return `run.json` of the first run, for what all runs share."""
        return next(iter(self.runs.values())).record

    @property
    def truth(self) -> _Array:
        """Return where there is any foreground, (rows, columns)."""
        return np.asarray(self.label > 0)

    @cached_property
    def window(self) -> Window | None:
        """Return the part that is shown enlarged; None where the image is small."""
        if min(self.truth.shape) <= 2 * _DETAIL:
            return None
        if self.plane is None:
            from skimage.morphology import skeletonize

            # Centre lines, since all losses find the thickest vessels.
            interest = skeletonize(self.truth)
        else:
            # Most of the last class; where all of it is inside, most of the others.
            last = self.label == len(self.targets)
            interest = np.where(last, _DETAIL**2 + 1, self.truth)
        return panels.busiest_window(interest, _DETAIL)

    def probability(self, variant: Variant) -> _Array:
        """Return the sum of softmax over foreground classes, (rows, columns)."""
        return np.asarray(np.clip(1 - self.softmax[variant][..., 0], 0, 1))

    def heat(self, variant: Variant, title: str = "") -> Panel:
        """Make a heat map of all foreground; the default title is the variant."""
        return self.fitted(Panel(self.probability(variant), title or variant.label))

    def wrong(self, positive: _Array, title: str) -> Panel:
        """Make a panel of a prediction's errors in the enlarged part."""
        drawn = panels.errors(self.image, self.truth, positive, title)
        return self.fitted(drawn).cut(self.window)

    def beside(self) -> list[Panel]:
        """Return panels of the image and of the truth."""
        drawn = panels.photo(self.image), panels.truth_of(self.truth)
        return list(map(self.fitted, drawn))

    def by_class(self) -> list[Row]:
        """Return a row for each class: image, truth, a heat map for each variant."""
        image, rows = self.beside()[0], list[Row]()
        for number in range(1, len(self.targets) + 1):
            drawn = [panels.truth_of(self.label == number)]
            items = self.softmax.items()
            drawn += [
                Panel(values[..., number], variant.label) for variant, values in items
            ]
            beside = image.cut(self.window) if rows else self.framed(image)
            cut = (self.fitted(panel).cut(self.window) for panel in drawn)
            rows.append([beside, *cut])
        return rows

    def fitted(self, panel: Panel) -> Panel:
        """Return a panel with the aspect of the volume's voxels."""
        return replace(panel, aspect=self.plane.aspect) if self.plane else panel

    def framed(self, panel: Panel) -> Panel:
        """Return a panel of the whole image with a frame around the enlarged part."""
        return replace(panel, frame=self.window)

    @property
    def available(self) -> str:
        """Return the names of its variants."""
        return f"here are those of {', '.join(variant.label for variant in self.runs)}"

    def title(self, what: str, shown: Iterable[Variant]) -> str:
        """Return what a figure shows, and of which data, seeds and case."""
        return (
            f"{what}: {curves.name_of(self.record)}, preset {self.record['preset']}, "
            f"{self.seeds(shown)}, case {self.case.removeprefix('case_')}"
        )

    def seeds(self, shown: Iterable[Variant]) -> str:
        """Return the seeds, such as "seed 0"."""
        return in_words({self.runs[variant].record["seed"] for variant in shown})

    def note(self, more: str = "", enlarged: bool = True, together: bool = True) -> str:
        """Return why this case and this part of it are shown, and more.

        `together`: the classes are shown as one foreground.
        """
        parts, target = [f"{self.rule}."], self.targets[-1]
        most = f"longest centre lines of the {target}"
        if self.plane is not None:
            parts.append(f"{self.plane}: the one with most {target}.")
            most = "most of it"
        if self.window and enlarged:
            parts.append(f"Enlarged: the {_DETAIL} x {_DETAIL} pixels with {most}.")
        if together and len(self.targets) > 1:
            parts.append(f"All of {', '.join(self.targets)} together.")
        return " ".join([*parts, more]).strip()


def seen(
    module: Dataset,
    root: Path,
    case: str,
    plane: Plane | None,
    label: _Array,
    softmax: Sequence[_Array],
) -> list[_Array]:
    """Return what is shown of a case: image, label and softmax values, in this order.

    Of a volume a plane, of softmax values on the network's grid; of a CT what the
    network sees: beyond lie bone and air.
    """
    geometry = module.geometry(root, case)
    if plane is None or geometry is None:
        return [module.picture(root, case), label, *softmax]
    path, window = module.roles(root, case)["image"], module.record(root).clip
    image = plane.shown(nifti.read_slice(path, plane.index, plane.axis))
    cuts = (
        native_grid.plane(values, geometry.shape, plane.index, plane.axis)
        for values in softmax
    )
    image = image if window is None else np.clip(image, *window)
    return [image, plane.cut(label), *map(plane.shown, cuts)]


def predicted(
    module: Dataset,
    root: Path,
    case: str,
    softmax: _Array,
    label: _Array,
    classes: Sequence[str],
) -> Sheet:
    """Make a picture of a prediction: image, label, a map of each class, entropy.

    Of a volume, the slice with most predicted foreground is shown.

    Args:
        module: the data set.
        root: its folder.
        case: the case's id.
        softmax: (*spatial, C) float32; of a volume on the network's grid.
        label: the prediction at native resolution, class numbers.
        classes: their names, background first.
    """
    geometry = module.geometry(root, case)
    plane = Plane.of(geometry, label) if geometry else None
    image, label, softmax = seen(module, root, case, plane, label, [softmax])
    note = "Entropy is 1 where all classes are equally probable."
    if plane:
        note = f"{plane}: the one with most foreground. {note}"
    heats = zip(np.moveaxis(softmax, -1, 0)[1:], classes[1:], strict=True)
    drawn = [
        panels.photo(image),
        panels.overlay(image, label, "prediction"),
        *(Panel(values, f"p({name})") for values, name in heats),
        Panel(entropy(softmax), "entropy"),
    ]
    few = len(classes) <= len(panels.CLASSES) + 1
    return Sheet(
        panels.in_rows(
            [replace(panel, aspect=plane.aspect if plane else 1.0) for panel in drawn]
        ),
        f"Prediction, case {case.removeprefix('case_')}",
        note,
        key=dict(zip(classes[1:], panels.CLASSES, strict=False)) if few else {},
        scale="probability, entropy",
    )


def entropy(softmax: _Array) -> _Array:
    """Return the entropy of probabilities over its maximum, ln C; in [0, 1].

    Args:
        softmax: (..., C), in [0, 1]; 0 ln 0 is 0.

    Returns:
        (...), float32.
    """
    total = scipy.special.entr(np.clip(softmax, 0, 1)).sum(axis=-1)
    return np.asarray(total / np.log(softmax.shape[-1]), np.float32)


def picture(run: Run, root: Path) -> Path:
    """Draw a run's first test case, a row for each class.

    `root` is the data set's folder. Returns the run's `pictures/<case>.png`.
    """
    case = str(run.record["split"]["test"][0])
    path = run.path(_FOLDER) / f"{case}.png"
    return _side_by_side({Variant(run.record["loss"]): run}, root, case, path)


def compare(group: Path, root: Path, backend: str) -> Path | None:
    """Draw CE, DSC and DSC++ side by side on the first test case (as Fig. 1).

    Takes the runs in `results/<dataset>/<preset>` of one backend; of several seeds the
    lowest. None where DSC or DSC++ has no probabilities here.
    """
    available = [
        r for r in runs.find(group) if r.path(predictions.PROBABILITIES).is_dir()
    ]
    chosen = {}
    for variant in _COMPARED:
        names = partial(runs.folder_name, variant.loss, None, backend=backend)
        matching = [
            run for run in available if run.name == names(seed=run.record["seed"])
        ]
        if matching:
            chosen[variant] = min(matching, key=lambda run: int(run.record["seed"]))
    if not {_PLAIN, _PLUS} <= chosen.keys():
        return None
    case = str(chosen[_PLAIN].record["split"]["test"][0])
    return _side_by_side(chosen, root, case, group / _FOLDER / "compare.png")


def _side_by_side(shown: dict[Variant, Run], root: Path, case: str, path: Path) -> Path:
    """Draw a row of image, truth and heat maps, and the enlarged part below."""
    written.require_figure(path)
    record = next(iter(shown.values())).record
    module = datasets.by_name(record["dataset"])
    names = record.get("classes") or module.RECORD.classes
    sample = Example.read(shown, root, case, tuple(names[1:]), whole=True)
    rows, labels = sample.by_class(), sample.targets
    if len(labels) == 1:
        row = sample.beside()
        if isinstance(module, Phantom):
            row.append(Panel(module.posterior(root, case), "true probability"))
        row += [sample.heat(variant, variant.loss) for variant in sample.runs]
        rows, labels = [list(map(sample.framed, row))], ("", "detail")
        if sample.window:
            rows.append([replace(panel.cut(sample.window), title="") for panel in row])
    simulated = " (simulated)" if record["simulated"] else ""
    title = f"{record['title']}{simulated}, case {case.removeprefix('case_')}"
    sheet = Sheet(rows, f"{title}, preset {record['preset']}", "", labels)
    return sheet.draw(path.with_suffix(""), ["png"])[0]


def write_pictures(results: Path, locate: Locate) -> tuple[list[Path], str]:
    """Draw Figs. 1 to 5 where probabilities and images (`locate`) are here.

    Returns:
        The files drawn, `<dataset>/<preset>/pictures/*` and `pictures/*` (all data sets
        of a preset together); and a text: how many figures were skipped, why, and what
        to do; "" where none was.

    Raises:
        InputError: runs that cannot be joined; a folder that cannot be written.
    """
    sheets: dict[Path, Sheet | str] = {}
    by_preset = defaultdict(list)
    for study in studies(results):
        try:
            drawn: Example | str = example(study, locate)
        except InputError as error:
            drawn = str(error).split("\n", 1)[0]
        by_preset[study.preset].append(drawn)
        for name, make in _FIGURES.items():
            if name == _OF_VOLUMES and style.elements(study.record) != "voxels":
                continue
            sheet = drawn if isinstance(drawn, str) else make(drawn)
            sheets[study.folder / _FOLDER / name] = sheet
    for preset, parts in by_preset.items():
        stem = results / _FOLDER / f"figure3-losses-{preset}"
        sheets[stem] = _figure3(preset, parts)
    places, files = defaultdict(list), []
    for stem, sheet in sheets.items():
        if isinstance(sheet, str):
            places[sheet].append(str(stem.parent))
        else:
            files += sheet.draw(stem)
    skipped = [
        f"  {len(all_)} of {', '.join(dict.fromkeys(all_))}: {reason}"
        for reason, all_ in places.items()
    ]
    number = sum(map(len, places.values()))
    return files, "\n".join(
        [f"Pictures skipped: {number}", *skipped] if skipped else []
    )


def example(study: Study, locate: Locate) -> Example:
    """Choose the case to show, and read it; `locate` finds a run's images.

    It is the test case with the median Dice (for an even number the lower one of the
    two in the middle), with DSC++ or else the first loss whose probabilities are here;
    Dice of several classes is averaged.

    Raises:
        InputError: no probabilities or no images here; images other than the runs'.
    """
    likeliest = dict.fromkeys([_PLUS, *study.main])
    choices = [run for variant in likeliest for run in study.runs.get(variant, [])]
    first = next((run for run in choices if _has(run, median_case(study, run))), None)
    if first is None:
        raise InputError(
            "no probabilities here (git has none); where the weights are, run `dscpp "
            "predict --again --run RUN --data DIR`, else delete the run's folder and "
            "train it again"
        )
    case = median_case(study, first)
    shown: dict[Variant, Run] = {}
    for variant in study.main:
        available = [run for run in study.runs[variant] if _has(run, case)]
        shown |= {variant: available[0]} if available else {}
    rule = (
        f"Case {case.removeprefix('case_')} has the median Dice of the "
        f"{len(study.cases)} test cases with {first.record['loss']} "
        f"(seed {first.record['seed']})"
    )
    return Example.read(shown, locate(first), case, study.targets, rule)


def _has(run: Run, case: str) -> bool:
    """Return whether a run's probabilities of a case are here."""
    return predictions.path(run, case).is_file()


def median_case(study: Study, run: Run) -> str:
    """Return the test case with the median Dice; see `example`."""
    ranked = by_dice(study, run)
    return ranked[(len(ranked) - 1) // 2]


def _figure1(sample: Example) -> Sheet | str:
    """Draw image, truth, and heat map, detail, errors of DSC and DSC++ (Fig. 1)."""
    if not {_PLAIN, _PLUS} <= sample.runs.keys():
        return f"probabilities of DSC and DSC++ are needed, {sample.available}"
    rows: list[Row] = []
    for variant, panel in zip((_PLAIN, _PLUS), sample.beside(), strict=True):
        heat, likeliest = sample.heat(variant), sample.softmax[variant].argmax(axis=-1)
        row: Row = [sample.framed(panel), sample.framed(heat)]
        if sample.window:
            row.append(replace(heat.cut(sample.window), title=f"{heat.title}, detail"))
        rows.append([*row, sample.wrong(likeliest > 0, f"{variant.label}, errors")])
    title, note = sample.title("DSC and DSC++", [_PLAIN, _PLUS]), "the likeliest class."
    return Sheet(rows, title, sample.note(f"Prediction: {note}"), key=panels.KEY)


def _figure2(sample: Example) -> Sheet | str:
    """Draw heat maps of DSC++ at each gamma, with DSC as gamma 1 (Fig. 2, top)."""
    shown = [v for v in curves.by_exponent(sample.runs) if v.loss in ("DSC", "DSC++")]
    if len(shown) < 2:
        return f"two exponents of DSC++ are needed (DSC is 1), {sample.available}"
    image, truth = sample.beside()
    drawn: Row = [sample.framed(image), truth.cut(sample.window)]
    drawn += [sample.heat(v, curves.label(v)).cut(sample.window) for v in shown]
    rows = panels.in_rows(drawn)
    return Sheet(rows, sample.title("Exponent γ of DSC++", shown), sample.note())


def _figure3(preset: str, parts: Sequence[Example | str]) -> Sheet | str:
    """Draw a row for each data set: image, truth, heat map of each loss (Fig. 3)."""
    shown = [part for part in parts if isinstance(part, Example)]
    if not shown:
        # All have the same reason: report it once.
        reasons = {part for part in parts if isinstance(part, str)}
        return reasons.pop() if len(reasons) == 1 else "none of its data sets is here"
    every = dict.fromkeys(v for part in shown for v in part.runs)
    losses = [variant for variant in every if variant == Variant.standard(variant.loss)]
    rows: list[Row] = [
        [*part.beside(), *(part.heat(v) if v in part.runs else None for v in losses)]
        for part in shown
    ]
    names = [curves.name_of(part.record) for part in shown]
    rules = " ".join(
        f"{name}, {part.seeds(part.runs)}: {part.note(enlarged=False)}"
        for name, part in zip(names, shown, strict=True)
    )
    return Sheet(rows, f"Softmax values by loss, preset {preset}", rules, names)


def _figure5(sample: Example) -> Sheet | str:
    """Draw overlays at softmax thresholds (Fig. 5, bottom)."""
    shown = [variant for variant in (_PLAIN, _PLUS) if variant in sample.runs]
    if not shown:
        return f"probabilities of DSC or DSC++ are needed, {sample.available}"
    rows: list[Row] = [
        [panel.cut(sample.window), *(_overlay(sample, variant, t) for t in _THRESHOLDS)]
        for variant, panel in zip(shown, sample.beside(), strict=False)
    ]
    note = sample.note("Recall and precision are those of the whole image.")
    labels = [variant.label for variant in shown]
    return Sheet(
        rows, sample.title("Thresholds T", shown), note, labels, key=panels.KEY
    )


def _overlay(sample: Example, variant: Variant, threshold: float) -> Panel:
    positive = sample.probability(variant) >= threshold
    true = np.count_nonzero(positive & sample.truth)
    recall, precision = (
        f"{true / size:.2f}" if size else "undefined"
        for size in (np.count_nonzero(sample.truth), np.count_nonzero(positive))
    )
    panel = sample.wrong(positive, f"T = {threshold}")
    return replace(panel, note=f"recall {recall}, precision {precision}")


_OF_VOLUMES = "figure4-slice"
_FIGURES: Mapping[str, Callable[[Example], Sheet | str]] = {
    "figure1-heat-maps": _figure1,
    "figure2-gamma": _figure2,
    "figure5-overlays": _figure5,
    _OF_VOLUMES: lambda sample: Sheet(
        sample.by_class(),
        sample.title("Softmax values by class", sample.runs),
        sample.note(together=False),
        sample.targets,
    ),
}
