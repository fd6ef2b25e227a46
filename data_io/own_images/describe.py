"""A user's own images: which belongs to which label map, and what is in them.

`describe` looks at every file, says all that is wrong at once, and writes what
`data_io.datasets.folder` then offers as a data set like any other.
"""

import itertools
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_io.datasets import folder, is_own
from data_io.datasets.record import Record
from data_io.errors import InputError, Problems, is_text, not_text
from data_io.files.names import unfit
from data_io.files.schema import digest, sealed
from data_io.files.writing import write_json
from data_io.own_images import channels
from data_io.own_images import grids as own_grids
from data_io.prepare.native_grid import by_axis
from data_io.verification.verify import examine, finding_maker, judge

ENDINGS = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".gif", ".nii", ".nii.gz")
MULTIPLE = 16  # what a U-Net of depth 4 can halve
LARGEST, LARGEST_3D = 512, (80, 160)  # sides of the study's largest inputs (Table 1)
MOST_DERIVED, MOST_CLASSES = 32, 256  # classes without names, and with
SHOWN = 20  # problems of one kind
Facts = dict[str, Any]
_ByCase = Mapping[str, Mapping[str, Facts]]
_Pairs = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Description:
    """Own images, looked at and found good.

    Attributes:
        root: folder of the description, the `root` of `data_io.datasets.folder`.
        lines: what was found, for the user to see.
    """

    root: Path
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)


def describe(
    images: Path,
    masks: Path | None,
    work: Path,
    name: str = "own",
    classes: Sequence[str] = (),
    like: Record | None = None,
) -> Description:
    """Look at own images and label maps, and write their description.

    Args:
        images: a folder of images or NIfTI volumes, or one file. Those named as
            `case_0000`, `case_0001`, ... are the channels of a case, see
            `data_io.own_images.channels`.
        masks: the folder of their label maps, or one file; None where there are none.
            A label map has its image's name, or that with an ending such as `_mask`.
        work: where descriptions are kept; a file looked at before and unchanged since
            is not decoded again.
        name: of the data set, as in `results/<name>`.
        classes: their names, background first; () to derive them: two where there is
            one value besides 0, else one for each of 0, 1, 2, ...
        like: record of the data a network was trained on, whose channels, classes and
            order of axes these images must have; None to derive them.

    Raises:
        InputError: one message with all problems: no images, images without label map
            and the reverse, cases that lack a channel or have it on another grid, files
            that can't be decoded, label maps of another size or with values that are no
            classes, volumes whose axes are in another order.
    """
    _check(name, images, masks)
    problems: list[str] = []
    pairs, numbers = _pairs(Path(images), masks and Path(masks), like, problems)
    root = work / "own" / f"{name}-{_key(pairs, classes, like)[:12]}"
    files = [(c, role, Path(p)) for c, r in pairs.items() for role, p in r.items()]
    examined = examine(files, folder.own_images.look, work / "verify" / f"{name}.json")
    origin = " from the original download"  # own images have none
    problems += _first([text.replace(origin, "") for *_, text in examined.faults])
    facts = examined.facts
    title = f"own data {name!r}: {images}" + (f" with {masks}" if masks else "")
    usual = own_grids.usual(facts)
    grid = {key: getattr(like, key) for key in usual} if like else usual
    expected = {**grid, "axes": grid["axes"] or usual["axes"]}
    trained = bool(like and like.axes)
    whose = "The network was trained on" if trained else "Most volumes here have"
    record = replace(folder.own_images.RECORD, **expected)
    problems += _judged(record, files, facts, f"{whose} the expected order.")
    reading = _reading(facts, classes, like, problems)
    if problems:
        raise Problems(title, problems)
    shapes = [roles["image"]["shape"] for roles in facts.values()]
    about = {
        "format": 1,
        "name": name,
        "title": name,
        "classes": reading["classes"],
        "input_shape": list(like.input_shape if like else _input_shape(shapes)),
        **grid,
        "cases": pairs,
        "modalities": numbers,
    }
    kept = {key: reading[key] for key in ("channels", "values")}
    write_json(root / folder.ABOUT, sealed(about))
    # Not sealed: its bytes are a part of the data, whose hash runs have.
    write_json(root / folder.READING, kept)
    return Description(root, tuple(_lines(title, about, reading, facts, bool(like))))


def _key(pairs: _Pairs, classes: Sequence[str], like: Record | None) -> str:
    """What the description depends on; for a network also on what it takes."""
    depends_on: list[Any] = [pairs, list(classes)]
    if like:
        depends_on += [like.classes, like.channels, like.input_shape]
        depends_on += [like.spacing_mm, like.axes, like.directions, like.modalities]
    return digest(depends_on)


def _check(name: str, images: Path, masks: Path | None) -> None:
    """Refuse a name that can't be used, and one folder as both."""
    if not is_own(name):
        raise InputError(
            f"--name: expected small letters, digits and hyphens, received {name!r}. "
            "It becomes the name of a folder in results/."
        )

    if masks and Path(images).resolve() == Path(masks).resolve():
        raise InputError(
            f"--masks {masks}: expected another folder or file than that of --images, "
            "received the same. Put the label maps into a folder of their own."
        )


def _pairs(
    images: Path, masks: Path | None, like: Record | None, problems: list[str]
) -> tuple[_Pairs, tuple[str, ...] | None]:
    """Files by case and role, and numbers of channels; adds what has no partner."""
    # Images without label maps are those of `dscpp predict`.
    image_files = by_stem(images, problems, "images")
    labels = by_stem(masks, problems, "masks") if masks else {}
    known = like.modalities if like else None
    groups = channels.grouped(image_files, labels if masks else None, known)
    numbers = known if like else channels.usual(groups)
    whose = "the network takes them" if like else "most cases have them"
    whole, wrong = channels.complete(groups, numbers, whose)
    problems += _first(wrong)
    pairs = {
        # The first is the case's image, the others are further channels.
        case: {f"image_{number}" if n else "image": str(path)
               for n, (number, path) in enumerate(files.items())}
        for case, files in whole.items()
    }  # fmt: skip
    if masks is None:
        return pairs, numbers
    partners = match_names(list(groups), list(labels))
    if image_files and labels:
        named = {case: min(files.values()) for case, files in groups.items()}
        problems += _first(
            without_label(named, partners, masks)
            + [
                f"{labels[stem]}: expected an image of this name, found none. Take the "
                "label map out."
                for stem in sorted(set(labels) - set(partners.values()))
            ]
        )
    for case in pairs.keys() & partners.keys():
        pairs[case]["observer1"] = str(labels[partners[case]])
    return {case: pairs[case] for case in partners if case in pairs}, numbers


def by_stem(
    source: Path,
    problems: list[str],
    option: str = "",
    endings: tuple[str, ...] = ENDINGS,
) -> dict[str, Path]:
    """Find the files of a folder, or one file, by name without ending.

    Args:
        source: the folder or file.
        problems: what is wrong is added to them: no such place, no files, names that
            cannot be used, two files of one name.
        option: that named the place, such as "images"; "" for none.
        endings: of the files, in small letters; others are left out.

    Returns:
        Absolute paths, sorted by file name.
    """
    named = f"--{option} {source}" if option else f"{source}"
    if not source.exists():
        problems.append(f"{named}: expected a folder or file, found none.")
        return {}
    entries = [source] if source.is_file() else sorted(source.iterdir())
    files = [
        path.absolute()
        for path in entries
        if path.is_file()
        and path.name.lower().endswith(endings)
        and not path.name.startswith(".")
    ]
    if not files:
        problems.append(
            f"{named}: expected files ending in {', '.join(endings)}, found "
            f"none among {len(entries)} entries. Folders within are not looked into."
        )
    stems = [_stem(path, endings) for path in files]
    problems += [
        f"{source}: expected a name that can be used on every system, found "
        f"{path.name!a}: {unfit(stem)}. Rename the file."
        for path, stem in zip(files, stems, strict=True)
        if unfit(stem)
    ]
    problems += [
        f"{source}: expected one file named {stem}, found {count}, with other endings "
        "or an accent written otherwise."
        for stem, count in Counter(stems).items()
        if count > 1
    ]
    problems += [not_text(str(path)) for path in files if not is_text(path.name)]
    return dict(zip(stems, files, strict=True))


def files_of(
    images: Path, numbers: Sequence[str] | None = None, option: str = "images"
) -> dict[str, Path]:
    """The image files of a folder, or one file, by the names of their cases.

    `numbers` are of the channels that a network takes, see `Record.modalities`.
    Of a case with several files, the first.

    Raises:
        InputError: there are none, or ones whose names cannot be used.
    """
    problems: list[str] = []
    groups = channels.grouped(by_stem(images, problems, option), None, numbers)
    if problems:
        raise Problems(f"{images}", problems)
    return {case: min(files.values()) for case, files in groups.items()}


def class_names(number: int) -> list[str]:
    """What so many classes are called where nobody named them, background first."""
    others = [f"class {k}" for k in range(1, number)]
    return ["background", *(["foreground"] if len(others) == 1 else others)]


def _stem(path: Path, endings: Iterable[str]) -> str:
    """The name without its ending, in NFC: files may come from several systems."""
    ending = next(e for e in endings if path.name.lower().endswith(e))
    return unicodedata.normalize("NFC", path.name[: -len(ending)])


def match_names(images: Sequence[str], labels: Sequence[str]) -> dict[str, str]:
    """The label map of each image that has one: the longest common name decides.

    Either may have an ending, from a sign on that is no letter or digit.
    """
    partners = {stem: stem for stem in images if stem in labels}
    free = set(labels) - set(partners)
    waiting = sorted(set(images) - set(partners), key=len, reverse=True)
    for _, same_length in itertools.groupby(waiting, key=len):
        nearest = {image: _nearest(image, free) for image in same_length}
        number = Counter(nearest.values())
        # Where two fit one label map, none of them is taken.
        sure = {image: label for image, label in nearest.items() if number[label] == 1}
        partners |= {image: label for image, label in sure.items() if label}
        free -= set(sure.values())
    return {stem: partners[stem] for stem in images if stem in partners}


def _nearest(image: str, labels: Iterable[str]) -> str:
    """The longest name that fits an image; "" where none or several do."""
    fitting = []
    for label in labels:
        short, long = sorted((image, label), key=len)
        if long.startswith(short) and not long[len(short)].isalnum():
            fitting.append(label)
    longest = [s for s in fitting if len(s) == max(map(len, fitting))]
    return longest[0] if len(longest) == 1 else ""


def without_label(
    files: Mapping[str, Path], partners: Mapping[str, str], labels: Path
) -> list[str]:
    """A line for each file, by the name of its case, that has not one label map."""
    return [
        f"{path}: expected a label map {case}.* or {case}_*.* in {labels}, found none "
        "or several."
        for case, path in files.items()
        if case not in partners
    ]


def _first(lines: list[str]) -> list[str]:
    more = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"and {more} more of this kind."] if more > 0 else [])


def _judged(
    record: Record,
    files: Sequence[tuple[str, str, Path]],
    facts: dict[str, dict[str, Facts]],
    whose_axes: str,
) -> list[str]:
    """What is wrong with files that can be decoded: the first of each kind.

    `whose_axes` is a sentence for axes in another order. Facts of label maps whose
    values are no class numbers are taken out: it is said.
    """
    found: dict[str, list[str]] = {}
    for case, role, path in files:
        if role in facts.get(case, {}):
            say = finding_maker(Path(), case, role, path)
            for finding in judge(record, role, say, facts[case]):
                whose = f" {whose_axes}" if finding.kind == "axes" else ""
                found.setdefault(finding.kind, []).append(finding.message + whose)
                if finding.kind == "values":
                    facts[case].pop(role)
    return [text for texts in found.values() for text in _first(texts)]


def _reading(
    facts: _ByCase,
    classes: Sequence[str],
    like: Record | None,
    problems: list[str],
) -> dict[str, Any]:
    """Channels, label values and names of classes; adds to `problems`."""
    problems += _first(_coloured(facts))
    images = [roles["image"] for roles in facts.values() if "image" in roles]
    if len({len(image["shape"]) for image in images}) > 1:
        problems.append("expected images or volumes, found both. Separate them.")
    number = max((len(_images_of(roles)) for roles in facts.values()), default=1)
    most = max((image["channels"] for image in images), default=1)
    if like:
        problems += _unlike(images, like)
        problems += _other_names(classes, like) if classes else []
        classes = classes or like.classes
    read_as = like.channels if like else max(number, most)
    labels = {c: r["observer1"] for c, r in facts.items() if "observer1" in r}
    values = _values(labels, classes, problems) if labels else range(len(classes))
    names = list(classes) or class_names(len(values))
    return {"channels": read_as, "values": list(values), "classes": names}


def _images_of(roles: Mapping[str, Facts]) -> dict[str, Facts]:
    """Facts of the images of a case, of which several are its channels."""
    return {role: image for role, image in roles.items() if role.startswith("image")}


def _coloured(facts: _ByCase) -> list[str]:
    return [
        f"case {case}: expected grey images where several are the channels of a case, "
        f"found RGB ({role})."
        for case, roles in facts.items()
        for role, image in _images_of(roles).items()
        if len(_images_of(roles)) > 1 and image["channels"] > 1
    ]


def _unlike(images: Sequence[Facts], like: Record) -> list[str]:
    """Images that the network can't take."""
    kinds = {2: "images", 3: "volumes"}
    wanted = len(like.input_shape)
    if {len(image["shape"]) for image in images} - {wanted}:
        return [
            f"expected {kinds[wanted]}, as the network takes, found "
            f"{kinds[5 - wanted]}."
        ]
    channels = max((image["channels"] for image in images), default=1)
    if channels > like.channels:
        return [
            f"expected images with {like.channels} channel, as the network takes, "
            f"found {channels}. Convert them to grey."
        ]
    return []


def _other_names(classes: Sequence[str], like: Record) -> list[str]:
    """Refuse some of the network's names and some others: a misunderstanding."""
    wanted, of_network = (
        [n.casefold() for n in names] for names in (classes, like.classes)
    )
    if len(wanted) != len(of_network):
        return [
            f"--classes: expected the network's {len(of_network)} classes, "
            f"received {len(wanted)}."
        ]
    same_background = set(wanted[:1]) & set(of_network[:1])
    if wanted == of_network or not set(wanted) & set(of_network) - same_background:
        return []
    return [
        f"--classes: expected the network's names in their order, "
        f"{', '.join(like.classes)}, or other names for all but the background, "
        f"received {', '.join(classes)}. Leave --classes out for the network's names; "
        "the label values must be numbered in its order."
    ]


def _values(
    labels: Mapping[str, Facts], classes: Sequence[str], problems: list[str]
) -> Sequence[int]:
    """The label value of each class, background first; adds to `problems`."""
    seen = {value for facts in labels.values() for value, _ in facts["values"]}
    other = sorted(seen - {0})
    number = len(classes) or (2 if len(other) <= 1 else max(other) + 1)
    if number == 2 and len(other) == 1:
        return (0, other[0])
    few = number <= (MOST_CLASSES if classes else MOST_DERIVED)
    every = bool(classes) or other == list(range(1, number))
    if other and few and set(other) < set(range(number)) and every:
        return range(number)
    problems.append(_wrong_values(labels, classes, other))
    return range(number)


def _wrong_values(
    labels: Mapping[str, Facts], classes: Sequence[str], other: Sequence[int]
) -> str:
    if not other:
        return "expected a label map with foreground, found 0 in all of them."
    if len(classes) > MOST_CLASSES:
        return f"--classes: expected at most {MOST_CLASSES}, received {len(classes)}."
    expected = (
        f"0 to {len(classes) - 1} for the {len(classes)} classes named"
        if classes
        else "0 and one other, or 0, 1, 2, ... without a gap (name the classes with "
        f"--classes where one is absent, or where there are more than {MOST_DERIVED})"
    )
    message = (
        f"expected label maps with the values {expected}, found {_few([0, *other])}."
    )
    number = Counter(v for facts in labels.values() for v, _ in facts["values"] if v)
    usual = {0, number.most_common(1)[0][0]}
    odd = [c for c, f in labels.items() if {v for v, _ in f["values"]} - usual]
    which = [f"{case} ({_few([v for v, _ in labels[case]['values']])})" for case in odd]
    if odd:
        message += (
            f" {len(odd)} of {len(labels)} have others than {_few(sorted(usual))}, "
            f"such as {'; '.join(which[:3])}."
        )
    blurred = any(facts.get("jpeg") for facts in labels.values())
    return message + (" JPEG blurs labels: save them as PNG." if blurred else "")


def _few(values: Sequence[int]) -> str:
    return ", ".join(str(v) for v in values[:6]) + (", ..." if len(values) > 6 else "")


def _input_shape(shapes: Sequence[Sequence[int]] | np.ndarray) -> list[int]:
    """The multiple of 16 nearest to the median of shapes, at most the study's."""
    median = np.median(shapes, axis=0)
    largest = np.full(len(median), LARGEST)
    smallest = 2 * MULTIPLE
    if len(median) == 3:
        largest[:] = LARGEST_3D[1]
        largest[int(np.argmin(median))] = LARGEST_3D[0]
        smallest = MULTIPLE
    nearest = MULTIPLE * np.floor(median / MULTIPLE + 0.5)
    return [int(side) for side in np.clip(nearest, smallest, largest)]


def _lines(
    title: str,
    about: dict[str, Any],
    reading: dict[str, Any],
    facts: _ByCase,
    for_network: bool,
) -> list[str]:
    """What was found, in words."""
    sizes = Counter(by_axis(roles["image"]["shape"]) for roles in facts.values())
    shown = ", ".join(f"{n} of {size}" for size, n in sizes.most_common(4))
    others = len(facts) - sum(n for _, n in sizes.most_common(4))
    more = f" and {others} of other sizes" if others else ""
    kinds = {1: "1 channel (grey)", 3: "3 channels (RGB)"}
    numbers = about["modalities"] or ()
    if len(numbers) > 1:
        kinds[len(numbers)] = f"{len(numbers)} channels ({channels.shown(numbers)})"
    pairs = zip(about["classes"], reading["values"], strict=True)
    lines = [
        title,
        f"  images   {len(facts)}: {shown}{more}",
        f"  channels {kinds[reading['channels']]}",
        f"  classes  {', '.join(f'{name} ({value})' for name, value in pairs)}",
    ]
    mixed = {roles["image"]["channels"] for roles in facts.values()}
    if len(mixed) > 1:
        lines.append("  note     grey and RGB images: grey ones become RGB")
    whose = "the network's" if for_network else "the median"
    lines += own_grids.lines(about, facts, whose)
    if not for_network:
        lines.append(
            f"  input    {by_axis(about['input_shape'])} before the preset: multiples "
            f"of {MULTIPLE} nearest to the median size, at most the study's largest"
        )
    return lines
