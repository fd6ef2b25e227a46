"""The split: seeded, of the right sizes, without copies across parts, or from files."""

import json
import types
from pathlib import Path

import numpy as np
import pytest

from data_io import splits
from data_io.datasets.dataset import Dataset
from data_io.errors import InputError, Problems
from data_io.verification import leaks
from data_io.verification.report import Report

TABLE_1 = {
    "2018DSB": {"training": 428, "validation": 108, "test": 134},
    "ISIC2018": {"training": 1661, "validation": 415, "test": 518},
}


def dataset(root: Path, contents: dict[str, bytes], counts=None, split=None):
    """Writes a data set of one file a case, and returns it."""
    root.mkdir(exist_ok=True)
    for case, content in contents.items():
        (root / f"{case}.png").write_bytes(content)
    record = types.SimpleNamespace(
        name="tiny", title="Tiny", counts=counts or {}, split_by="", classes=()
    )
    module = Dataset()
    module.RECORD = record
    module.roles = lambda root, case: {"image": root / f"{case}.png"}
    module.cases = lambda root: tuple(contents)
    module.split = lambda root: split
    return module


def leak(module, root: Path, files=()) -> str:
    """The leak for which a training with this split is refused."""
    report = Report("Tiny", root, {})
    leaks.audit(module, root, report, 0, files)
    with pytest.raises(Problems) as caught:
        leaks.require(report)
    (problem,) = caught.value.problems
    return problem.partition("found ")[2].partition(".")[0]


def numbered(count: int) -> dict[str, bytes]:
    return {f"c{k:02d}": str(k).encode() for k in range(count)}


def lengths(split):
    return {part: len(ids) for part, ids in split.items()}


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (664, (424, 107, 133)),  # 664/5 = 132.8; 531/5 = 106.2
        (163, (104, 26, 33)),  # Table 1's BUS2017, by the rule alone
        (204, (130, 33, 41)),  # Table 1's KiTS19, by the rule alone
        (10, (6, 2, 2)),
        (3, (1, 1, 1)),
    ],
)
def test_sizes_are_fifths_rounded_up(number, expected):
    sizes = splits.sizes(number, {}, "any")
    assert tuple(sizes.values()) == expected
    assert list(sizes) == list(splits.PARTS)


@pytest.mark.parametrize("name", TABLE_1)
def test_sizes_are_table_1s_where_the_number_of_cases_is(name):
    counts = TABLE_1[name]
    assert splits.sizes(sum(counts.values()), counts, name) == counts
    other = splits.sizes(sum(counts.values()) - 1, counts, name)
    assert sum(other.values()) == sum(counts.values()) - 1


def test_two_cases_cannot_be_split():
    with pytest.raises(InputError, match=r"Tiny: expected 3 cases or more.*found 2"):
        splits.sizes(2, {}, "Tiny")


def test_a_split_is_numpys_permutation(tmp_path):
    module = dataset(tmp_path, numbered(10))
    split = splits.of(module, tmp_path, seed=7)
    order = np.random.default_rng(7).permutation(10)
    names = [sorted(f"c{k:02d}" for k in part) for part in np.split(order, [2, 4])]
    found = [list(split[part]) for part in ("test", "validation", "training")]
    assert found == names
    assert split == splits.of(module, tmp_path, seed=7)
    assert split != splits.of(module, tmp_path, seed=8)


@pytest.mark.parametrize("seed", range(20))
def test_copies_of_an_image_stay_together(tmp_path, seed):
    contents = numbered(12)
    contents["c03"] = contents["c07"] = contents["c11"] = b"three times"
    contents["c00"] = contents["c09"] = b"twice"
    split = splits.of(dataset(tmp_path, contents), tmp_path, seed=seed)
    assert lengths(split) == {"training": 7, "validation": 2, "test": 3}
    parts = [set(ids) for ids in split.values()]
    assert set.union(*parts) == set(contents)
    for group in ({"c03", "c07", "c11"}, {"c00", "c09"}):
        assert sum(bool(group & part) for part in parts) == 1


@pytest.mark.parametrize("seed", range(20))
def test_a_large_group_of_copies_fills_neither_validation_nor_test(tmp_path, seed):
    contents = numbered(100)
    copies = [f"c{number:02d}" for number in range(30)]
    contents |= dict.fromkeys(copies, b"the same")
    split = splits.of(dataset(tmp_path, contents), tmp_path, seed=seed)
    # The 30 copies fit neither into 16 nor into 20 cases: they are all in training.
    assert lengths(split) == {"training": 64, "validation": 16, "test": 20}
    assert set(copies) <= set(split["training"])


def test_a_split_with_copies_is_that_of_earlier_versions(tmp_path):
    """So that runs begun with an earlier version can be resumed."""
    contents = numbered(10) | dict.fromkeys(("c01", "c08"), b"the same")
    split = splits.of(dataset(tmp_path, contents), tmp_path, seed=1)
    # The order is 8 4 7 0 1 2 5 9 6 3: 1 comes to 8, in exchange for 4.
    assert split["test"] == ("c01", "c08")
    assert split["validation"] == ("c00", "c07")
    assert split["training"] == ("c02", "c03", "c04", "c05", "c06", "c09")


def test_data_of_copies_only_cannot_be_split(tmp_path):
    module = dataset(tmp_path, dict.fromkeys(numbered(5), b"the same"))
    with pytest.raises(InputError, match="Tiny: expected different images"):
        splits.of(module, tmp_path, seed=0)


def test_a_fixed_split_is_kept_and_a_leak_in_it_refused(tmp_path):
    fixed = {"training": ("c00", "c01"), "validation": ("c02",), "test": ("c03",)}
    module = dataset(tmp_path, numbered(4), split=fixed)
    assert splits.of(module, tmp_path, seed=5) == fixed
    (tmp_path / "c03.png").write_bytes(b"1")
    assert leak(module, tmp_path) == r"identical files: c01 (training), c03 (test)"


def authors(tmp_path, sample, testing):
    paths = tmp_path / "sample_list.json", tmp_path / "testing.json"
    for path, lists in zip(paths, (sample, testing), strict=True):
        path.write_text(json.dumps(lists))
    return paths


def test_split_files_of_the_authors_are_read(tmp_path):
    module = dataset(tmp_path / "data", numbered(6))
    sample = {"TRAINING": ["c05", "c01"], "VALIDATION": ["c02"]}
    testing = {"TRAINING": ["c05", "c01", "c02"], "VALIDATION": ["c00", "c04"]}
    files = authors(tmp_path, sample, testing)
    split = splits.of(module, tmp_path / "data", None, files)
    assert split == {
        "training": ("c05", "c01"),
        "validation": ("c02",),
        "test": ("c00", "c04"),
    }
    with pytest.raises(InputError, match="the other way round"):
        splits.of(module, tmp_path / "data", None, files[::-1])
    with pytest.raises(InputError, match="Give both"):
        splits.of(module, tmp_path / "data", None, files[:1])


def test_split_of_a_run_is_read(tmp_path):
    module = dataset(tmp_path / "data", numbered(8))
    split = splits.of(module, tmp_path / "data", seed=3)
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"dataset": "tiny", "split": split}))
    assert splits.of(module, tmp_path / "data", None, [path]) == split
    # A key of the user's own, which is no hash of ours over the others.
    path.write_text(json.dumps({**split, "sha256": "of my images"}))
    assert splits.of(module, tmp_path / "data", None, [path]) == split


@pytest.mark.parametrize(
    ("testing", "message"),
    [
        (["c00", "c07"], "found 1 that are none: c07. Correct these names"),
        (["c00", "c01"], "found c01 more than once"),
        ([], "expected cases for test, found none"),
        ("c00", 'list of cases under "VALIDATION", found something else'),
        (None, 'list of cases under "VALIDATION", found nothing'),
    ],
)
def test_invalid_split_files_are_refused(tmp_path, testing, message):
    module = dataset(tmp_path / "data", numbered(6))
    sample = {"TRAINING": ["c05", "c01"], "VALIDATION": ["c02"]}
    lists = {} if testing is None else {"VALIDATION": testing}
    files = authors(tmp_path, sample, lists)
    with pytest.raises(InputError, match=message):
        splits.of(module, tmp_path / "data", None, files)


@pytest.mark.parametrize("first", [0, 1])
def test_renumbered_names_of_the_authors_are_refused(tmp_path, first):
    module = dataset(tmp_path / "data", numbered(6))
    names = [f"case_{k + first:05d}" for k in range(6)]
    sample = {"TRAINING": names[:3], "VALIDATION": names[3:4]}
    files = authors(tmp_path, sample, {"VALIDATION": names[4:]})
    with pytest.raises(InputError, match="None fits: the authors renamed") as caught:
        splits.of(module, tmp_path / "data", None, files)
    assert "such as c00, c01, c02" in str(caught.value)


def test_given_split_with_leaks_is_refused(tmp_path):
    contents = {**numbered(5), "copy": b"0"}
    module = dataset(tmp_path / "data", contents)
    path = tmp_path / "split.json"
    parts = {"training": ["c00", "c01"], "validation": ["c02"], "test": ["copy"]}
    path.write_text(json.dumps(parts))
    found = leak(module, tmp_path / "data", [path])
    assert found == "identical files: c00 (training), copy (test)"


def test_hashes_are_remembered(tmp_path):
    module = dataset(tmp_path / "data", numbered(6))
    splits.of(module, tmp_path / "data", 0, folder=tmp_path / "cache")
    memory = json.loads((tmp_path / "cache" / "tiny" / "raw-files.json").read_text())
    assert {Path(name).stem for name in memory["files"]} == set(numbered(6))


# Sizes of groups; "a" is the largest, so that no part comes out exactly.
GROUPS = {"a": 9, "b": 4, "c": 4, "d": 3, "e": 3, "f": 2, "g": 5}


def in_groups() -> dict[str, str]:
    return {f"{g}{k}": g for g, size in GROUPS.items() for k in range(size)}


@pytest.mark.parametrize("seed", range(12))
def test_whole_groups_go_to_one_part(seed):
    groups = in_groups()
    images = {case: case for case in groups}
    counts = {"training": 18, "validation": 5, "test": 7}
    split = splits.grouped(groups, images, counts, seed, "Tiny")
    assert sorted(case for ids in split.values() for case in ids) == sorted(groups)
    parts = [{groups[case] for case in ids} for ids in split.values()]
    assert sum(map(len, parts)) == len(GROUPS) and all(parts)
    # Written out: groups in the permuted order until the next would lead further away.
    order = np.random.default_rng(seed).permutation(sorted(GROUPS))
    taken, total = 1, GROUPS[order[0]]
    while abs(total + GROUPS[order[taken]] - 7) < abs(total - 7):
        total += GROUPS[order[taken]]
        taken += 1
    assert {groups[case] for case in split["test"]} == set(order[:taken])
    assert split == splits.grouped(groups, images, counts, seed, "Tiny")


def test_groups_that_share_an_image_count_as_one():
    groups = in_groups()
    images = {case: case for case in groups} | {"b0": "same", "f1": "same"}
    for seed in range(20):
        counts = {"training": 18, "validation": 6, "test": 6}
        split = splits.grouped(groups, images, counts, seed, "Tiny")
        part_of = {case: part for part, ids in split.items() for case in ids}
        assert part_of["b0"] == part_of["b3"] == part_of["f0"] == part_of["f1"]


def test_record_can_require_that_groups_stay_together(tmp_path):
    groups = in_groups()
    module = dataset(tmp_path, {case: case.encode() for case in groups})
    module.RECORD.split_by = "patient"
    module.groups = lambda root: groups
    split = splits.of(module, tmp_path, seed=3)
    parts = [{groups[case] for case in ids} for ids in split.values()]
    assert sum(map(len, parts)) == len(GROUPS)
    module.groups = lambda root: {}
    with pytest.raises(InputError, match=r"which patient a case is of.*--split FILE"):
        splits.of(module, tmp_path, seed=3)


def test_two_groups_cannot_be_split():
    groups = {"a": "1", "b": "1", "c": "2", "d": "2"}
    with pytest.raises(InputError, match=r"3 groups of cases or more.*found 2"):
        splits.grouped(groups, {c: c for c in groups}, splits.sizes(4, {}, ""), 0, "T")


def test_copy_without_its_fixed_split_needs_split_files(tmp_path):
    module = dataset(tmp_path, numbered(6))
    module.split = lambda root: {}
    assert len(splits.cases(module, tmp_path)) == 6
    with pytest.raises(InputError, match=r"--split sample_list.json testing.json"):
        splits.of(module, tmp_path, seed=0)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_endless_split_file_is_refused():
    """`--split /dev/zero` was read until no memory was left."""
    with pytest.raises(InputError, match=r"/dev/zero: .*more than 268435456 bytes"):
        splits.read([Path("/dev/zero")], ["a"], "own")


@pytest.mark.parametrize("number", [3, 11, 23])
def test_each_case_is_in_one_test_fold(tmp_path, number):
    module = dataset(tmp_path / "raw", numbered(number))
    folds = min(number, 5)
    each = [
        splits.of(module, tmp_path / "raw", 7, fold=(k, folds))
        for k in range(1, folds + 1)
    ]
    tested = [case for split in each for case in split["test"]]
    assert sorted(tested) == sorted(numbered(number))
    for split in each:
        assert sorted(c for ids in split.values() for c in ids) == sorted(tested)
        assert abs(len(split["test"]) - number / folds) < 1
        # A fifth of the others, rounded up.
        others = number - len(split["test"])
        assert len(split["validation"]) == -(-others // 5)
    again = splits.of(module, tmp_path / "raw", 7, fold=(1, folds))
    other = splits.of(module, tmp_path / "raw", 8, fold=(1, folds))
    assert again == each[0] and (number == 3 or other != each[0])


def test_folds_keep_copies_and_groups_together(tmp_path):
    contents = numbered(20) | {"copy": b"3"}  # the image of c03
    module = dataset(tmp_path / "raw", contents)
    groups = {case: f"g{k // 3}" for k, case in enumerate(contents)}
    module.groups = lambda root: groups
    for split_by in ("", "patient"):
        module.RECORD.split_by = split_by
        for k in range(1, 5):
            split = splits.of(module, tmp_path / "raw", 0, fold=(k, 4))
            part_of = {case: part for part, ids in split.items() for case in ids}
            assert part_of["copy"] == part_of["c03"]
            if split_by:
                for group in set(groups.values()):
                    members = [case for case in groups if groups[case] == group]
                    assert len({part_of[case] for case in members}) == 1


@pytest.mark.parametrize("fold", [(1, 1), (0, 3), (4, 3), (1, 6)])
def test_invalid_folds_are_refused(tmp_path, fold):
    module = dataset(tmp_path / "raw", numbered(5))
    with pytest.raises(InputError, match=rf"received fold {fold[0]} of {fold[1]}"):
        splits.of(module, tmp_path / "raw", 0, fold=fold)


def test_a_fixed_split_has_no_folds(tmp_path):
    fixed = {"training": ("c00",), "validation": ("c01",), "test": ("c02",)}
    module = dataset(tmp_path / "raw", numbered(3), split=fixed)
    with pytest.raises(InputError, match="drawn by seed, found one that is fixed"):
        splits.of(module, tmp_path / "raw", 0, fold=(1, 3))
    with pytest.raises(InputError, match="found one that is read from files"):
        splits.of(module, tmp_path / "raw", 0, [tmp_path / "a.json"], fold=(1, 3))
