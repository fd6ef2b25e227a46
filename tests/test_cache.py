"""The cache holds what MIScnn makes of the raw files, whatever happens to it."""

import ast
import concurrent.futures
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_dataset

from data_io.errors import InputError
from data_io.files import hashing
from data_io.files.hashing import case_hashes
from data_io.prepare import cache as module
from data_io.prepare.cache import prepare
from data_io.prepare.interface import RawInterface
from data_io.prepare.miscnn_compat import Data_IO
from data_io.prepare.preprocessing import Settings, subfunctions

SETTINGS = Settings(tiny_dataset.INPUT)


@pytest.fixture
def raw(tmp_path):
    tiny_dataset.write(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def store(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def preprocessed(monkeypatch):
    """Counts the cases that are really preprocessed."""
    cases = []
    run = module.Cache._preprocess

    def spy(self, case):
        cases.append(case)
        return run(self, case)

    monkeypatch.setattr(module.Cache, "_preprocess", spy)
    return cases


def ready(raw, store, settings=SETTINGS, cases=tiny_dataset.CASES):
    return prepare(tiny_dataset.module(), raw, cases, settings, store, progress=False)


def from_raw(raw, case, settings=SETTINGS):
    """MIScnn's own way, without any cache."""
    sample = Data_IO(RawInterface(tiny_dataset.module(), raw), str(raw)).sample_loader(
        case
    )
    for step in subfunctions(settings):
        step.preprocessing(sample, training=True)
    return sample


def entry(store, case="a") -> Path:
    (folder,) = store.glob(f"tiny/{case}-*")
    return folder


def test_cache_holds_what_miscnn_makes_of_the_raw_files(raw, store):
    cache = ready(raw, store)
    for case in tiny_dataset.CASES:
        expected = from_raw(raw, case)
        image, label = cache.image(case), cache.label(case)
        assert (image.dtype, label.dtype) == (np.float32, np.uint8)
        assert image.shape == (*tiny_dataset.INPUT, 3)
        assert label.shape == tiny_dataset.INPUT
        assert np.array_equal(image, expected.img_data.astype(np.float32))
        assert np.array_equal(label, expected.seg_data[..., 0])
        assert cache.native_shape(case) == tiny_dataset.NATIVE
    assert cache.cases == tiny_dataset.CASES


def test_arrays_are_mapped_and_cannot_be_written(raw, store):
    image = ready(raw, store).image("a")
    assert isinstance(image, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 0


def test_cache_is_made_once_and_shared(raw, store, preprocessed):
    ready(raw, store, cases=("a", "b"))
    assert preprocessed == ["a", "b"]
    cache = ready(raw, store)
    assert preprocessed == ["a", "b", "c"]
    cache.image("a"), cache.label("b")
    assert preprocessed == ["a", "b", "c"]


def test_cache_depends_on_all_settings_but_augmentation(raw, store, preprocessed):
    first = ready(raw, store)
    again = ready(raw, store, Settings(tiny_dataset.INPUT, probability=0.9))
    assert again.key == first.key
    assert len(preprocessed) == 3
    other = ready(raw, store, Settings((8, 8)))
    assert other.key != first.key
    assert other.data_hash == first.data_hash
    assert len(preprocessed) == 6
    assert other.image("a").shape == (8, 8, 3)
    assert first.image("a").shape == (*tiny_dataset.INPUT, 3)


def test_changed_raw_file_is_a_new_entry(raw, store, preprocessed):
    before = ready(raw, store)
    image = np.load(raw / "b-image.npy")
    np.save(raw / "b-image.npy", 255 - image)
    after = ready(raw, store)
    assert preprocessed == ["a", "b", "c", "b"]
    assert after.data_hash != before.data_hash
    assert after.key != before.key
    assert not np.array_equal(after.image("b"), before.image("b"))


def test_new_version_of_a_library_is_a_new_entry(raw, store, monkeypatch):
    before = ready(raw, store).key
    monkeypatch.setattr(module, "_versions", lambda: {"scipy": "0.1"})
    assert ready(raw, store).key != before


def test_data_hash_ignores_path_and_order(raw, store, tmp_path):
    shutil.copytree(raw, tmp_path / "elsewhere")
    first = ready(raw, store, cases=("a", "b"))
    second = ready(tmp_path / "elsewhere", tmp_path / "other", cases=("b", "a"))
    assert first.data_hash == second.data_hash
    assert first.data_hash != ready(raw, store, cases=("a",)).data_hash


def test_raw_files_are_read_once(raw, store, monkeypatch):
    read = []
    file_hash = hashing.file_hash
    monkeypatch.setattr(hashing, "file_hash", lambda p: read.append(p) or file_hash(p))
    first = case_hashes(tiny_dataset.module(), raw, ["a", "b"], store)
    assert len(read) == 4
    assert case_hashes(tiny_dataset.module(), raw, ["a", "b"], store) == first
    assert len(read) == 4
    os.utime(raw / "a-image.npy", ns=(0, 12345))
    assert case_hashes(tiny_dataset.module(), raw, ["a", "b"], store) == first
    assert [path.name for path in read[4:]] == ["a-image.npy"]


def test_file_of_hashes_is_loaded_once(raw, store, monkeypatch):
    """Not again for each case: the cost would grow with the square of the cases."""
    loaded = []
    recall = hashing.schema.recall
    monkeypatch.setattr(
        hashing.schema, "recall", lambda p, kind: loaded.append(p) or recall(p, kind)
    )
    ready(raw, store)
    assert [path.name for path in loaded].count("raw-files.json") == 1


@pytest.mark.parametrize("text", ["", "[]", '{"x": 3}', "{"])
def test_damaged_file_of_hashes_is_ignored(raw, store, text):
    expected = ready(raw, store).data_hash
    (store / "tiny" / "raw-files.json").write_text(text)
    assert ready(raw, store).data_hash == expected


def test_edited_hash_is_not_trusted(raw, store):
    expected = ready(raw, store).data_hash
    path = store / "tiny" / "raw-files.json"
    kept = json.loads(path.read_text())
    next(iter(kept["files"].values()))["found"] = "0" * 64
    path.write_text(json.dumps(kept))
    assert ready(raw, store).data_hash == expected


def cut_image(entry):
    with (entry / "image.npy").open("r+b") as file:
        file.truncate(200)


def lose_label(entry):
    (entry / "label.npy").unlink()


def lose_sheet(entry):
    (entry / "sample.json").unlink()


def cut_sheet(entry):
    (entry / "sample.json").write_text('{"native_shape": [')


def empty_sheet(entry):
    (entry / "sample.json").write_text("{}")


def flip_a_bit(entry):
    content = bytearray((entry / "image.npy").read_bytes())
    content[-1] ^= 1
    (entry / "image.npy").write_bytes(content)


def forget_a_size(entry):
    sheet = json.loads((entry / "sample.json").read_text())
    del sheet["files"]["image.npy"]["size"]
    (entry / "sample.json").write_text(json.dumps(sheet))


def name_a_shape(entry):
    sheet = json.loads((entry / "sample.json").read_text())
    sheet["files"]["label.npy"]["shape"] = "large"
    (entry / "sample.json").write_text(json.dumps(sheet))


def change_a_number(entry):
    sheet = json.loads((entry / "sample.json").read_text())
    sheet["native_shape"][0] += 1
    (entry / "sample.json").write_text(json.dumps(sheet))


DAMAGES = [
    cut_image, lose_label, lose_sheet, cut_sheet, empty_sheet, flip_a_bit,
    forget_a_size, name_a_shape, change_a_number,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("when", ["before the start", "while in use"])
def test_damaged_entries_are_made_again(raw, store, preprocessed, damage, when):
    cache = ready(raw, store)
    damage(entry(store))
    if when == "before the start":
        cache = ready(raw, store)
        assert preprocessed == ["a", "b", "c", "a"]
    expected = from_raw(raw, "a")
    assert np.array_equal(cache.image("a"), expected.img_data.astype(np.float32))
    assert np.array_equal(cache.label("a"), expected.seg_data[..., 0])
    assert preprocessed == ["a", "b", "c", "a"]


def test_copied_cache_is_used(raw, store, tmp_path, preprocessed):
    ready(raw, store)
    shutil.copytree(store, tmp_path / "copy", copy_function=shutil.copyfile)
    ready(raw, tmp_path / "copy").image("a")
    assert len(preprocessed) == 3


def test_deleting_the_cache_while_in_use_is_safe(raw, store):
    cache = ready(raw, store)
    image = cache.image("a")
    expected = image.copy()
    shutil.rmtree(store)
    assert np.array_equal(image, expected)
    assert np.array_equal(cache.image("a"), expected)
    assert cache.native_shape("b") == tiny_dataset.NATIVE
    assert np.array_equal(ready(raw, store).image("a"), expected)


def test_change_of_raw_files_while_in_use_is_refused(raw, store):
    cache = ready(raw, store)
    shutil.rmtree(store)
    np.save(raw / "a-image.npy", np.zeros((*tiny_dataset.NATIVE, 3), np.uint8))
    with pytest.raises(InputError, match="case a: its raw files changed"):
        cache.image("a")


def test_reading_a_sample_does_not_call_the_python_parser(raw, store, monkeypatch):
    """Samples are read in threads, and Python's parser may fail where two use it."""
    cache = ready(raw, store)
    parsed = []
    parse = ast.parse
    monkeypatch.setattr(
        ast, "parse", lambda *a, **k: parsed.append(a) or parse(*a, **k)
    )
    for case in tiny_dataset.CASES:
        cache.image(case), cache.label(case)
    assert not parsed
    np.load(entry(store) / "image.npy")  # as a look at the spy
    assert parsed


def test_many_readers_survive_deletion(raw, store):
    expected = from_raw(raw, "a").img_data.astype(np.float32)

    def use(_):
        cache = ready(raw, store)
        return all(np.array_equal(cache.image("a"), expected) for _ in range(5))

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        uses = [pool.submit(use, number) for number in range(12)]
        for _ in range(3):
            time.sleep(0.02)
            shutil.rmtree(store, ignore_errors=True)
        assert all(used.result() for used in uses)
    assert not list(store.glob("tiny/.making-*"))


def test_half_deleted_entry_is_made_again(raw, store, monkeypatch):
    fill = module._fill
    entry = ready(raw, store)._path("a")
    shutil.rmtree(entry)

    def meets_what_is_left(aside, sample):
        monkeypatch.setattr(module, "_fill", fill)
        fill(aside, sample)
        monkeypatch.setattr(module, "_discard", lambda _: monkeypatch.undo())
        entry.mkdir()
        (entry / "image.npy").write_bytes(b"left over")

    monkeypatch.setattr(module, "_fill", meets_what_is_left)
    assert ready(raw, store).image("a").shape == (*tiny_dataset.INPUT, 3)


def test_first_of_two_writers_wins(raw, store, preprocessed, monkeypatch):
    fill = module._fill

    def overtaken(aside, sample):
        monkeypatch.setattr(module, "_fill", fill)
        ready(raw, store, cases=("a",))
        fill(aside, sample)

    monkeypatch.setattr(module, "_fill", overtaken)
    cache = ready(raw, store, cases=("a",))
    assert preprocessed == ["a", "a"]
    assert cache.image("a").shape == (*tiny_dataset.INPUT, 3)
    assert not list(store.glob("tiny/.making-*"))


def test_leftovers_of_killed_processes_are_deleted(raw, store):
    old, young = store / "tiny" / ".making-old", store / "tiny" / ".making-young"
    old.mkdir(parents=True)
    young.mkdir()
    (old / "image.npy").write_bytes(b"half")
    os.utime(old, (1, 1))
    ready(raw, store)
    assert not old.exists()
    assert young.exists()


def test_unwritable_folder_is_named(raw, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(
        InputError, match=r"file.*: expected a place that can be.*free space"
    ):
        ready(raw, tmp_path / "file" / "cache")


def test_a_full_disk_is_named(raw, store, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.np, "save", full)
    with pytest.raises(InputError, match="No space left on device"):
        ready(raw, store)
    assert not list(store.glob("tiny/.making-*"))


def test_entries_record_the_files_that_make_them_complete(raw, store):
    ready(raw, store)
    sheet = json.loads((entry(store) / "sample.json").read_text())
    assert sheet["native_shape"] == list(tiny_dataset.NATIVE)
    assert set(sheet["files"]) == {"image.npy", "label.npy"}
