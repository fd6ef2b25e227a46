"""Which cases train, which choose the model, which are measured: decided once, by seed.

A data set with a split of its own (DRIVE) keeps it. Any other is split 80/20 into
development and test, then the development part 80/20 into training and validation
(section 2.1 of the paper), with the sizes of Table 1 where the number of cases is the
paper's; or by whole groups, where the data set's record says so. The seed of the split
is not the seed of the training: all losses and all training seeds share one split. A
split can also be read from files.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_io.datasets.dataset import Dataset
from data_io.errors import InputError
from data_io.files import hashing, names, schema

PARTS = ("training", "validation", "test")
Split = dict[str, tuple[str, ...]]
Fold = tuple[int, int]
"""Which fold, from 1 on, of how many."""


def cases(dataset: Dataset, root: Path) -> tuple[str, ...]:
    """All cases of a data set, whether or not its split is fixed.

    Raises:
        InputError: a case whose name can't be that of a file.
    """
    return tuple(names.plain(case, root, "case") for case in dataset.cases(root))


def of(
    dataset: Dataset,
    root: Path,
    seed: int | None,
    files: Sequence[Path] = (),
    folder: Path | None = None,
    fold: Fold | None = None,
) -> Split:
    """Return the split of a data set; for leaks see `data_io.verification.leaks`.

    Args:
        dataset: the data set.
        root: the data set's folder.
        seed: of a split that is not fixed; not used where there are `files`.
        files: a split to be read instead, see `read`.
        folder: the cache, where hashes of files are remembered; None: nowhere.
        fold: of a cross-validation, see `folded`; None for the one random split.

    Returns:
        ids of the cases by `training`, `validation` and `test`, none twice.

    Raises:
        InputError: too few cases, a file that is no split of these cases, or a copy
            that does not say its fixed split or its groups. A seeded split keeps
            identical images together.
    """
    record, known = dataset.record(root), cases(dataset, root)
    if fold and (files or dataset.split(root) is not None):
        raise InputError(
            f"{record.title}: folds: expected a split that is drawn by seed, found one "
            f"that is {'read from files' if files else 'fixed'}. Leave out the folds"
        )
    if files:
        return read(files, known, record.title)
    fixed = dataset.split(root)
    if fixed is not None:
        return _fixed(fixed, root, record.title)
    seed = 0 if seed is None else seed
    images = hashing.image_hashes(dataset, root, known, folder)
    groups = {case: case for case in known}
    if record.split_by:
        groups = _groups(dataset, root, record.title)
    if fold:
        return folded(groups, images, fold, seed, record.title)
    counts = sizes(len(known), record.counts, record.title)
    if record.split_by:
        return grouped(groups, images, counts, seed, record.title)
    return seeded(images, counts, seed, record.title)


def _fixed(split: Split, root: Path, name: str) -> Split:
    """The split that the data set comes with."""
    if not split:
        raise InputError(
            f"{name}: expected names that say which cases are for training and which "
            f"for the test, found others in {root}. Give the lists that came with this "
            "copy: --split sample_list.json testing.json"
        )
    return split


def _groups(dataset: Dataset, root: Path, name: str) -> dict[str, str]:
    """The group of each case."""
    groups = dataset.groups(root)
    if not groups:
        raise InputError(
            f"{name}: expected names that say which {dataset.record(root).split_by} a "
            f"case is of, found others in {root}. Use the data set as distributed, or "
            "give a split that keeps them together: --split FILE"
        )
    return groups


def sizes(number: int, counts: Mapping[str, int], name: str) -> dict[str, int]:
    """Return how many cases each part gets.

    Returns:
        `counts`, Table 1's, where they are of as many cases; else a fifth for `test`,
        rounded up, and a fifth of the rest for `validation`, rounded up (as
        scikit-learn rounds; no rounding gives all of Table 1).

    Raises:
        InputError: fewer than three cases.
    """
    if sum(counts.values()) == number and all(counts.values()):
        return {part: counts[part] for part in PARTS}
    if number < 3:
        raise InputError(
            f"{name}: expected 3 cases or more, so that training, validation and test "
            f"have one each, found {number}. Add cases."
        )
    test = -(-number // 5)
    validation = -(-(number - test) // 5)
    return {
        "training": number - test - validation,
        "validation": validation,
        "test": test,
    }


def seeded(
    images: Mapping[str, str], counts: Mapping[str, int], seed: int, name: str
) -> Split:
    """Split cases at random.

    The sorted ids are permuted by `numpy.random.default_rng(seed)`; the first are the
    test cases, the next those of validation, the rest of training. Then identical
    images are brought together: where copies lie in two parts, all move to the part of
    the first (where it is too small: to training), in exchange for that part's last
    cases without a copy.

    Args:
        images: the hash of each case's image, by case.
        counts: size of each part.
        seed: of the permutation.
        name: of the data set, for the message.

    Returns:
        ids by part, each part sorted.

    Raises:
        InputError: there are too many identical images for parts of these sizes.
    """
    order = sorted(images)
    order = [order[k] for k in np.random.default_rng(seed).permutation(len(order))]
    parts = (part for part in reversed(PARTS) for _ in range(counts[part]))
    part_of = dict(zip(order, parts, strict=True))
    for copies in _copies(images, order):
        _bring_together(copies, part_of, images, name)
    return {
        part: tuple(sorted(case for case in order if part_of[case] == part))
        for part in PARTS
    }


def grouped(
    groups: Mapping[str, str],
    images: Mapping[str, str],
    counts: Mapping[str, int],
    seed: int,
    name: str,
) -> Split:
    """Split cases at random, whole groups at a time.

    The groups, in order of their first case, are permuted by
    `numpy.random.default_rng(seed)`. The first are the test cases, the next those of
    validation, as many groups as come nearest to the size of the part; the rest is for
    training. Groups that share identical images count as one.

    Takes the group of each case, by case, and what `seeded` takes; the sizes are those
    wanted.

    Returns:
        ids by part, each part sorted.

    Raises:
        InputError: fewer than three groups of different images.
    """
    rest = _permuted(groups, images, seed)
    if len(rest) < len(PARTS):
        raise InputError(
            f"{name}: expected 3 groups of cases or more, so that training, validation "
            f"and test have one each, found {len(rest)}. Identical images are one "
            "group. Add cases."
        )
    parts: dict[str, list[list[str]]] = {}
    for others, part in ((2, "test"), (1, "validation")):
        number = _nearest(rest[: len(rest) - others], counts[part])
        parts[part], rest = rest[:number], rest[number:]
    return _split(rest, parts["validation"], parts["test"])


def folded(
    groups: Mapping[str, str],
    images: Mapping[str, str],
    fold: Fold,
    seed: int,
    name: str,
) -> Split:
    """Split cases for one fold of a cross-validation, whole groups at a time.

    The groups are permuted as in `grouped` and dealt out to the folds in turn. The
    fold's own are the test cases, so that over all folds each case is in the test once.
    Of the others, the first groups that have together nearest to a fifth of the cases
    are those of validation.

    Takes what `grouped` takes, but for the fold; the group of a case alone is itself.

    Returns:
        ids by part, each part sorted.

    Raises:
        InputError: a fold that there is not; too few groups for so many folds.
    """
    number, folds = fold
    order = _permuted(groups, images, seed)
    if not (1 <= number <= folds and 2 <= folds <= len(order) and len(order) > 2):
        raise InputError(
            f"{name}: expected 2 or more folds, of {len(order)} groups of cases or "
            f"different images at most so many, received fold {number} of {folds}"
        )
    dealt = [order[start::folds] for start in range(folds)]
    test = dealt.pop(number - 1)
    rest = [group for groups in dealt for group in groups]
    size = _nearest(rest[: len(rest) - 1], -(-sum(map(len, rest)) // 5))
    return _split(rest[size:], rest[:size], test)


def _split(*parts: Sequence[Sequence[str]]) -> Split:
    """The cases of the groups of each of the `PARTS`, sorted."""
    cases_of = (tuple(sorted(c for group in part for c in group)) for part in parts)
    return dict(zip(PARTS, cases_of, strict=True))


def _permuted(
    groups: Mapping[str, str], images: Mapping[str, str], seed: int
) -> list[list[str]]:
    """The cases of each group, at random; groups that share an image are one."""
    group_of = dict(groups)
    for copies in _copies(images, sorted(images)):
        shared, first = {group_of[case] for case in copies}, group_of[copies[0]]
        group_of = {c: first if g in shared else g for c, g in group_of.items()}
    members: dict[str, list[str]] = {}
    for case in sorted(group_of):
        members.setdefault(group_of[case], []).append(case)
    order = np.random.default_rng(seed).permutation(len(members))
    listed = list(members.values())
    return [listed[k] for k in order]


def _nearest(groups: Sequence[Sequence[str]], wanted: int) -> int:
    """How many of the groups, from the first on, have together nearest to `wanted`."""
    totals = np.cumsum([len(group) for group in groups])
    return int(np.argmin(np.abs(totals - wanted))) + 1


def _copies(images: Mapping[str, str], order: Iterable[str]) -> list[list[str]]:
    """Groups of two or more cases with the same image, in order."""
    groups: dict[str, list[str]] = {}
    for case in order:
        groups.setdefault(images[case], []).append(case)
    return [group for group in groups.values() if len(group) > 1]


def _bring_together(
    copies: Sequence[str],
    part_of: dict[str, str],
    images: Mapping[str, str],
    name: str,
) -> None:
    """Move copies into one part, each in exchange for a case without a copy."""
    number = Counter(images.values())
    for part in (part_of[copies[0]], *PARTS):
        free = [c for c, p in part_of.items() if p == part and number[images[c]] == 1]
        moving = [case for case in copies if part_of[case] != part]
        if len(moving) <= len(free):
            break
    else:
        raise InputError(
            f"{name}: expected different images, found so many identical ones that no "
            "split keeps them together; one group has the image of case "
            f"{copies[0]}. Take out the copies."
        )
    for case, other in zip(moving, reversed(free), strict=False):
        part_of[other], part_of[case] = part_of[case], part


def read(files: Sequence[Path], known: Sequence[str], name: str) -> Split:
    """Read a split from JSON.

    Args:
        files: the authors' two files: first `sample_list.json` with lists "TRAINING"
            and "VALIDATION", then `testing.json` with the test cases under
            "VALIDATION" (its "TRAINING" is ignored). Or one file with lists
            "training", "validation" and "test", such as a run's `run.json`.
        known: the cases there are; those that no list names are left out.
        name: of the data set, for messages.

    Raises:
        InputError: not such files, an empty part, a name that is no case, or one that
            is there twice.
    """
    # A list may come from a system that writes an accent as a character of its own.
    spelt = {unicodedata.normalize("NFC", case): case for case in known}
    split = {
        part: tuple(spelt.get(unicodedata.normalize("NFC", case), case) for case in ids)
        for part, ids in _lists([Path(path) for path in files]).items()
    }
    where = " and ".join(str(path) for path in files)
    for part, ids in split.items():
        if not ids:
            raise InputError(f"{where}: expected cases for {part}, found none.")
    named = Counter(case for ids in split.values() for case in ids)
    _refuse_unknown(where, list(named), known, name)
    twice = [case for case, number in named.items() if number > 1]
    if twice:
        raise InputError(
            f"{where}: expected each case once, found {_some(twice)} more than once. "
            "A case in two parts would leak from one to the other."
        )
    return split


def _lists(files: Sequence[Path]) -> Split:
    if len(files) not in (1, 2):
        raise InputError(f"--split: expected one or two files, received {len(files)}.")
    contents = [_json(path) for path in files]
    first, second = files[0], files[-1]
    if len(files) == 1:
        if "TRAINING" in contents[0]:
            raise InputError(
                f"{first}: expected also the list of test cases, received training and "
                "validation alone. Give both: --split sample_list.json testing.json"
            )
        lists = contents[0].get("split", contents[0])
        lists = lists if isinstance(lists, dict) else {}
        return {part: _names(first, lists, part) for part in PARTS}
    if "test" in first.name.lower() and "test" not in second.name.lower():
        raise InputError(
            f"--split: expected the list of training and validation first, then that "
            f"of the test cases, received {first.name} before {second.name}. "
            "Give them the other way round."
        )
    return {
        "training": _names(first, contents[0], "TRAINING"),
        "validation": _names(first, contents[0], "VALIDATION"),
        "test": _names(second, contents[1], "VALIDATION"),
    }


def _json(path: Path) -> dict[str, Any]:
    try:
        # The user's own: a key "sha256" is theirs, no hash of ours.
        content: dict[str, Any] = schema.parse(schema.read(path), dict[str, Any])
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected a JSON object with lists of cases, found: {error}."
        ) from error
    return content


def _names(path: Path, lists: Mapping[str, Any], key: str) -> tuple[str, ...]:
    ids = lists.get(key)
    if not isinstance(ids, list) or not all(isinstance(n, str | int) for n in ids):
        raise InputError(
            f'{path}: expected a list of cases under "{key}", found '
            f"{'nothing' if ids is None else 'something else'}. Keys there: "
            f"{', '.join(lists) or 'none'}."
        )
    return tuple(names.plain(str(name), path, "case") for name in ids)


def _refuse_unknown(
    where: str, named: Sequence[str], known: Sequence[str], name: str
) -> None:
    unknown = sorted(set(named) - set(known))
    if not unknown:
        return
    hint = (
        "None fits: the authors renamed and renumbered their files, so their lists go "
        "with their own copy alone. Write the names of this copy"
        if len(unknown) == len(set(named))
        else "Correct these names"
    )
    raise InputError(
        f"{where}: expected names of {name}'s {len(known)} cases, such as "
        f"{_some(known)}; found {len(unknown)} that are none: {_some(unknown)}. "
        f"{hint}, or leave out --split."
    )


def _some(names: Sequence[str]) -> str:
    """The first few names; hashes shortened."""
    shown = [n if len(n) <= 24 else n[:12] + "..." for n in names[:3]]
    return ", ".join(shown) + (", ..." if len(names) > 3 else "")
