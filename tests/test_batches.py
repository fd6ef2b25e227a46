"""Batches and predictions go MIScnn's way, and depend on nothing but their seed."""

import gc
import hashlib
import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import tracemalloc

import keras
import numpy as np
import pytest
import threadpoolctl
import tiny_dataset

from data_io import pool
from data_io.prepare import batches as module
from data_io.prepare import miscnn_compat, shared
from data_io.prepare.batches import Batches, feed, prediction_input, to_native
from data_io.prepare.cache import prepare
from data_io.prepare.interface import RawInterface
from data_io.prepare.miscnn_compat import (
    Data_IO,
    Normalization,
    Preprocessor,
    Resize,
    Sample,
)
from data_io.prepare.preprocessing import Settings, augmentation, subfunctions

# Often enough for every step to have its turn in a few draws.
SETTINGS = Settings(tiny_dataset.INPUT, probability=0.6)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "raw"
    tiny_dataset.write(folder)
    return folder


def ready(raw, folder, settings=SETTINGS):
    dataset = tiny_dataset.module()
    return prepare(dataset, raw, tiny_dataset.CASES, settings, folder, progress=False)


@pytest.fixture(scope="module")
def cache(raw, tmp_path_factory):
    return ready(raw, tmp_path_factory.mktemp("cache"))


def training(cache, seed=4):
    return Batches(cache, cache.cases, seed=seed, augment=True, shuffle=True)


def digest(items):
    text = b"".join(array.tobytes() for item in items for array in item)
    return hashlib.sha256(text).hexdigest()


def test_shapes_and_types(cache):
    items = Batches(cache, cache.cases, augment=True)
    assert len(items) == 3
    for number in range(3):
        image, label = items[number]
        assert image.shape == (1, *tiny_dataset.INPUT, 3)
        assert label.shape == (1, *tiny_dataset.INPUT, 2)
        assert image.dtype == label.dtype == np.float32
        assert image.flags.c_contiguous
        assert image.flags.writeable


def test_without_augmentation_a_batch_is_the_cache(cache):
    items = Batches(cache, ("c", "a"))
    for number, case in enumerate(("c", "a")):
        image, label = items[number]
        assert items.case(number) == case
        assert np.array_equal(image[0], cache.image(case))
        assert np.array_equal(label[0], np.eye(2)[cache.label(case)])


def test_one_hot_label_has_classes_that_a_case_lacks(cache):
    _, label = Batches(cache, cache.cases, classes=3)[0]
    assert label.shape[-1] == 3
    assert not label[..., 2].any()


@pytest.mark.parametrize("augment", [True, False])
def test_equals_miscnns_own_way_from_the_raw_files(raw, cache, augment):
    items = Batches(cache, cache.cases, seed=4, augment=augment)
    items.epoch = 2
    direct = Preprocessor(
        Data_IO(RawInterface(tiny_dataset.module(), raw), str(raw)),
        batch_size=1,
        subfunctions=subfunctions(SETTINGS),
        data_aug=augmentation(SETTINGS),
        analysis="fullimage",
    )
    for number, case in enumerate(cache.cases):
        words = np.random.SeedSequence([4, 2, number]).generate_state(8)
        np.random.seed(words)  # noqa: NPY002 (batchgenerators draws from it)
        expected = direct.run([case], training=True, validation=not augment)[0]
        image, label = items[number]
        assert np.array_equal(image, np.float32(expected[0]))
        assert np.array_equal(label, np.float32(expected[1]))


def test_miscnn_prepares_and_its_settings_decide(raw, tmp_path, monkeypatch):
    """Each of MIScnn's steps is taken, and leaves its mark in what comes out."""
    called = []

    def mark(owner, name, change):
        original = getattr(owner, name)

        def spy(self, *args, **kwargs):
            called.append(f"{owner.__name__}.{name}")
            return change(self, original(self, *args, **kwargs), *args)

        monkeypatch.setattr(owner, name, spy)

    def resized(_, __, sample, *___):
        sample.img_data = np.full_like(sample.img_data, 64)
        sample.img_data[0, 0, 0] += 8

    def normalised(_, __, sample, *___):
        sample.img_data = sample.img_data * 10

    mark(Data_IO, "sample_loader", lambda _, sample, *__: sample)
    mark(Resize, "preprocessing", resized)
    mark(Normalization, "preprocessing", normalised)
    cache = ready(raw, tmp_path, Settings(tiny_dataset.INPUT, probability=0.0))
    assert called == [
        "Data_IO.sample_loader",
        "Resize.preprocessing",
        "Normalization.preprocessing",
    ] * len(cache.cases)
    items = Batches(cache, cache.cases, augment=True)
    items.augmentation.config_p_per_sample = 1.0
    items.augmentation.config_brightness_range = (3.0, 3.0)
    items.augmentation.elastic_deform = items.augmentation.rotations = False
    items.augmentation.scaling = False
    image, _ = items[0]
    # One pixel of n is 8 above the rest: mean m + 8/n, deviation 8 sqrt(n - 1) / n.
    n = image.size
    low = (-8 / n + 1e-6) / (8 * np.sqrt(n - 1) / n + 1e-6)
    np.testing.assert_allclose(np.median(image), low * 10 * 3, rtol=1e-5)


def test_prediction_goes_through_miscnn_too(cache, monkeypatch):
    called = []
    for owner, name in [
        (Data_IO, "sample_loader"),
        (Preprocessor, "run"),
        (Preprocessor, "postprocessing"),
        (Resize, "postprocessing"),
        (Normalization, "postprocessing"),
    ]:
        original = getattr(owner, name)

        def spy(*args, _original=original, _name=f"{owner.__name__}.{name}", **kwargs):
            called.append(_name)
            return _original(*args, **kwargs)

        monkeypatch.setattr(owner, name, spy)
    prediction_input(cache, "a")
    assert called == ["Preprocessor.run", "Data_IO.sample_loader"]
    called.clear()
    to_native(cache, "a", np.full((*tiny_dataset.INPUT, 2), 0.5, np.float32))
    assert called == [
        "Data_IO.sample_loader",
        "Preprocessor.postprocessing",
        "Normalization.postprocessing",
        "Resize.postprocessing",
    ]


def test_same_seed_epoch_and_index_give_the_same_bytes(cache):
    first, second = training(cache), training(cache)
    first.epoch = second.epoch = 3
    forwards = [first[number] for number in range(3)]
    backwards = [second[number] for number in reversed(range(3))][::-1]
    assert digest(forwards) == digest(backwards)
    assert digest([first[number] for number in range(3)]) == digest(forwards)


PROCESS = """
import hashlib, json, sys
from pathlib import Path
import numpy as np
import tiny_dataset
from data_io.prepare.batches import Batches
from data_io.prepare.cache import prepare
from data_io.prepare.preprocessing import Settings
raw, folder = map(Path, sys.argv[1:])
settings = Settings(tiny_dataset.INPUT, probability=0.6)
cache = prepare(tiny_dataset.module(), raw, tiny_dataset.CASES, settings, folder)
np.random.seed(99)
items = Batches(cache, cache.cases, seed=4, augment=True, shuffle=True)
items.epoch = 5
drawn = {n: items[n] for n in (2, 0, 1, 0)}
text = b"".join(array.tobytes() for n in range(3) for array in drawn[n])
print(json.dumps([hashlib.sha256(text).hexdigest(), items.order()]))
"""


@pytest.mark.slow
def test_another_process_draws_the_same_bytes(raw, cache, tmp_path, project):
    ended = subprocess.run(
        [sys.executable, "-c", PROCESS, str(raw), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": f"{project}{os.pathsep}{project / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    items = training(cache)
    items.epoch = 5
    expected = [digest([items[number] for number in range(3)]), items.order()]
    assert json.loads(ended.stdout.splitlines()[-1]) == expected


def test_seed_epoch_and_index_all_matter(cache):
    items = Batches(cache, ("a",) * 8, seed=4, augment=True)
    other = Batches(cache, ("a",) * 8, seed=5, augment=True)
    first = [items[number] for number in range(8)]
    items.epoch = 1
    drawn = {digest([item]) for item in first}
    assert len(drawn) > 4
    assert digest(first) != digest([items[number] for number in range(8)])
    assert digest(first) != digest([other[number] for number in range(8)])


def test_each_epoch_has_an_order_of_its_own(cache):
    items = Batches(cache, [str(n) for n in range(20)], seed=4, shuffle=True)
    orders = []
    for epoch in range(3):
        items.epoch = epoch
        orders.append(items.order())
        assert sorted(orders[-1], key=int) == [str(n) for n in range(20)]
        assert [items.case(n) for n in range(20)] == orders[-1]
    assert orders[0] != orders[1] != orders[2]
    items.epoch = 0
    assert items.order() == orders[0]


def test_order_is_as_given_without_shuffling(cache):
    items = Batches(cache, ("b", "a"), seed=4)
    items.epoch = 7
    assert items.order() == ["b", "a"]


def test_the_end_of_an_epoch_does_not_advance_it(cache):
    items = training(cache)
    items.epoch = 4
    items.on_epoch_begin()
    items.on_epoch_end()
    assert items.epoch == 4


def test_outside_index_ends_an_iteration(cache):
    items = Batches(cache, cache.cases)
    with pytest.raises(IndexError, match="index 3 is outside 0-2"):
        items[3]
    with pytest.raises(IndexError):
        items[-1]
    assert len(list(items)) == 3


def test_global_generators_are_left_as_they_were(cache):
    items = training(cache)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    expected = np.random.random(), random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    items[0]
    assert (np.random.random(), random.random()) == expected  # noqa: NPY002


def test_blas_uses_one_thread_beside_the_workers(cache):
    controller = threadpoolctl.ThreadpoolController().select(internal_api="openblas")
    if not controller.lib_controllers:
        pytest.skip("NumPy has no OpenBLAS here")
    with controller.limit(limits=2):
        training(cache)
        assert {one["num_threads"] for one in controller.info()} == {1}


@pytest.mark.backend
def test_fit_receives_the_items_of_each_epoch(cache):
    items = training(cache)
    fed = feed(items)
    assert len(fed) == len(items)
    for items.epoch in range(3):
        expected = digest([items[number] for number in range(3)])
        given = fed if fed is items else fed.as_numpy_iterator()
        assert digest(list(given)) == expected


def test_tensorflow_autotuning_of_the_input_is_off(cache):
    """Its tuning makes epochs wait for seconds; see `feed`."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends take the batches themselves")
    assert not feed(training(cache)).options().autotune.enabled


def test_the_number_of_workers_changes_nothing(cache):
    found = set()
    for workers in (1, 2, 5, 16):
        items = Batches(
            cache, cache.cases, seed=4, augment=True, shuffle=True, workers=workers
        )
        drawn = []
        for items.epoch in (0, 1, 2):
            drawn += [items[number] for number in range(3)]
        found.add(digest(drawn))
    assert len(found) == 1


def test_next_batches_are_drawn_ahead(cache, monkeypatch):
    drawn, draw = [], Batches.draw

    def spy(self, *place):
        drawn.append(place)
        return draw(self, *place)

    monkeypatch.setattr(Batches, "draw", spy)
    items = Batches(cache, cache.cases, seed=4, augment=True, workers=2)
    ahead = items._ahead
    items[0]
    assert set(ahead._futures) == {(0, 1), (0, 2)}
    items[1]
    assert set(ahead._futures) == {(0, 2), (1, 0)}
    items[2]
    items.epoch = 1
    items[0]
    for future in ahead._futures.values():
        future.result()
    # Each once, however far ahead it was begun.
    assert sorted(drawn) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    items.epoch = 7
    items[1]
    assert set(ahead._futures) == {(7, 2), (8, 0)}


def test_without_redrawing_every_epoch_is_the_first(cache):
    again = training(cache)
    first = Batches(
        cache, cache.cases, seed=4, augment=True, shuffle=True, redraw=False
    )
    expected = digest([again[number] for number in range(3)])
    for first.epoch in (0, 3):
        assert digest([first[number] for number in range(3)]) == expected
        assert first.order() == again.order()


def test_error_in_a_worker_is_raised(cache, monkeypatch):
    items = training(cache)
    items[0]

    def fail(self, epoch, index):
        raise OSError("disk on fire")

    monkeypatch.setattr(Batches, "draw", fail)
    items.epoch = 5
    with pytest.raises(OSError, match="disk on fire"):
        items[0]


def test_no_process_is_started(cache):
    items = training(cache)
    for number in range(3):
        items[number]
    assert multiprocessing.active_children() == []
    assert [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_threads_do_not_mix_their_draws(cache):
    expected = [digest([training(cache)[number]]) for number in range(3)]
    found = {}

    def draw(number):
        items = training(cache)
        found[number] = {digest([items[number]]) for _ in range(10)}

    threads = [threading.Thread(target=draw, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: {expected[number]} for number in range(3)}


def test_the_cache_is_never_changed_by_a_draw(cache):
    before = {case: cache.image(case).copy() for case in cache.cases}
    items = training(cache)
    for number in range(3):
        image, label = items[number]
        image += 1
        label += 1
    assert all(np.array_equal(cache.image(c), before[c]) for c in cache.cases)


def test_memory_stays_the_same_over_epochs(cache):
    items = training(cache)

    def epoch(number):
        items.epoch = number
        for index in range(3):
            items[index]

    epoch(0)
    tracemalloc.start()
    epoch(1)
    # What stays is asked for, not what the collector has not come to yet.
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(2, 12):
        epoch(number)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A batch is 7.7 kB; ten epochs of three that stayed would be 230 kB.
    assert after - before < 60_000


@pytest.mark.backend
def test_keras_draws_every_item_of_the_epoch_it_is_in(cache, monkeypatch):
    drawn = []
    draw = Batches.__getitem__

    def spy(self, index):
        drawn.append((self.epoch, index))
        return draw(self, index)

    items = training(cache)
    monkeypatch.setattr(Batches, "__getitem__", spy)
    inputs = keras.Input((*tiny_dataset.INPUT, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1, activation="softmax")(inputs))
    model.compile("sgd", "categorical_crossentropy")
    begin = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(items, "epoch", epoch)
    )
    model.fit(items, epochs=3, shuffle=False, verbose=0, callbacks=[begin])
    # Keras may look at a few items first, to learn their shapes.
    for epoch in range(3):
        expected = [(epoch, index) for index in range(3)]
        assert [item for item in drawn if item[0] == epoch][-3:] == expected


def test_prediction_input_is_the_prepared_image(raw, cache):
    image = prediction_input(cache, "b")
    assert image.dtype == np.float32
    assert np.array_equal(image[0], cache.image("b"))
    direct = Preprocessor(
        Data_IO(RawInterface(tiny_dataset.module(), raw), str(raw)),
        batch_size=1,
        subfunctions=subfunctions(SETTINGS),
        analysis="fullimage",
    )
    expected = direct.run(["b"], training=False)[0][0]
    assert np.array_equal(image, np.float32(expected))


def test_to_native_equals_miscnns_own_way(raw, cache):
    softmax = np.random.default_rng(0).dirichlet([1, 1], tiny_dataset.INPUT)
    softmax = softmax.astype(np.float32)
    direct = Preprocessor(
        Data_IO(RawInterface(tiny_dataset.module(), raw), str(raw)),
        batch_size=1,
        subfunctions=subfunctions(SETTINGS),
        analysis="fullimage",
    )
    direct.run(["b"], training=False)
    expected = direct.postprocessing(
        direct.cache["b"], softmax[np.newaxis], activation_output=True
    )
    native = to_native(cache, "b", softmax)
    assert native.dtype == np.float32
    assert native.shape == (*tiny_dataset.NATIVE, 2)
    assert np.array_equal(native, expected)
    np.testing.assert_allclose(native.sum(-1), 1, atol=1e-6)


def test_to_native_by_hand(raw, tmp_path):
    # Two columns become 26: column j lies at (j + 0.5) / 13 - 0.5 of the old ones,
    # and outside of 0 to 1 the edge's value goes on.
    cache = ready(raw, tmp_path, Settings((4, 2)))
    softmax = np.zeros((4, 2, 2), np.float32)
    softmax[:, 0, 0] = softmax[:, 1, 1] = 1
    native = to_native(cache, "a", softmax)
    place = np.clip((np.arange(26) + 0.5) / 13 - 0.5, 0, 1)
    np.testing.assert_allclose(native[..., 1], np.tile(place, (20, 1)), atol=1e-6)
    np.testing.assert_allclose(native[..., 0], np.tile(1 - place, (20, 1)), atol=1e-6)


def test_to_native_refuses_another_shape(cache):
    with pytest.raises(ValueError, match=r"softmax: expected shape .*received \(3, 4"):
        to_native(cache, "a", np.zeros((3, 4, 2)))


def test_interface_neither_loads_nor_saves_predictions(cache):
    interface = module.CachedInterface(cache)
    assert not interface.check_file_termination(".npy")
    with pytest.raises(NotImplementedError):
        interface.load_prediction("a", "")
    with pytest.raises(NotImplementedError):
        interface.save_prediction(Sample("a", np.zeros((2, 2, 1)), 1, 2), "")


def test_our_preprocessor_inherits_from_miscnns():
    assert Preprocessor.__mro__[1].__module__ == "miscnn.processing.preprocessor"
    assert miscnn_compat.Preprocessor is Preprocessor


def test_real_drive_equals_miscnns_own_way(drive_root, tmp_path):
    from data_io.datasets.drive import drive

    settings = Settings(drive.RECORD.input_shape)
    cache = prepare(drive, drive_root, ["21", "01"], settings, tmp_path, progress=False)
    items = Batches(cache, cache.cases, seed=1, augment=True)
    direct = Preprocessor(
        Data_IO(RawInterface(drive, drive_root), str(drive_root)),
        batch_size=1,
        subfunctions=subfunctions(settings),
        data_aug=augmentation(settings),
        analysis="fullimage",
    )
    for number, case in enumerate(cache.cases):
        words = np.random.SeedSequence([1, 0, number]).generate_state(8)
        np.random.seed(words)  # noqa: NPY002 (batchgenerators draws from it)
        image, label = direct.run([case], training=True)[0]
        assert np.array_equal(items[number][0], image)
        assert np.array_equal(items[number][1], label)
        assert cache.native_shape(case) == drive.RECORD.raw_shape


def test_as_many_threads_as_processors_or_as_asked_for(monkeypatch):
    monkeypatch.setattr(pool, "processors", lambda: 4)
    for asked, expected in (("", 4), ("2", 2), ("64", 4), ("0", 1), ("all", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert pool.threads() == expected
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert pool.threads() == 4
    # A machine of many cores is no reason to keep as many samples.
    monkeypatch.setattr(pool, "processors", lambda: 96)
    assert pool.threads() == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert pool.threads() == 8


# --- samples that trainings side by side share -----------------------------------


def drawn(batches):
    return digest(batches.draw(epoch, i) for epoch in (0, 1) for i in range(3))


def test_shared_samples_are_drawn_once_and_the_same(cache, tmp_path, monkeypatch):
    alone = drawn(training(cache))
    monkeypatch.setenv(shared.VARIABLE, str(tmp_path / "samples"))
    monkeypatch.setattr(shared, "FREE", 0)  # whatever this machine has
    assert drawn(training(cache)) == alone
    left = sorted((tmp_path / "samples").rglob("*-*"))
    assert 0 < len(left) <= 6  # those that are warped
    times = [path.stat().st_mtime_ns for path in left]

    def never(*_):
        raise AssertionError("drawn again")

    monkeypatch.setattr(module.augment, "_elastic", never)
    monkeypatch.setattr(module.augment, "_rotated", never)
    assert drawn(training(cache)) == alone
    assert [path.stat().st_mtime_ns for path in left] == times
    left[0].write_bytes(left[0].read_bytes()[:50])  # damaged: drawn anew
    monkeypatch.undo()
    monkeypatch.setenv(shared.VARIABLE, str(tmp_path / "samples"))
    assert drawn(training(cache)) == alone
    # Another seed, and other cases, have samples of their own.
    for cases, seed in ((cache.cases, 5), (cache.cases[1:], 4)):
        other = Batches(cache, cases, seed=seed, augment=True, shuffle=True)
        found = digest(other.draw(0, index) for index in range(2))
        monkeypatch.delenv(shared.VARIABLE)
        other = Batches(cache, cases, seed=seed, augment=True, shuffle=True)
        assert digest(other.draw(0, index) for index in range(2)) == found
        monkeypatch.setenv(shared.VARIABLE, str(tmp_path / "samples"))


def test_full_disk_leaves_no_shared_samples(cache, tmp_path, monkeypatch):
    monkeypatch.setenv(shared.VARIABLE, str(tmp_path / "samples"))
    monkeypatch.setattr(shared, "FREE", 2**60)
    alone = drawn(training(cache))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv(shared.VARIABLE, str(file))  # cannot be a folder
    assert drawn(training(cache)) == alone
