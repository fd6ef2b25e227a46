"""MIScnn imports beside today's packages, and leaves no trace of how."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_io.prepare import miscnn_compat
from data_io.prepare.miscnn_compat import (
    Data_Augmentation,
    Preprocessor,
    Resampling,
    Resize,
    Sample,
)

# Hides packages from the import, also where they are installed, then trains.
HIDE = """
import importlib.abc, importlib.util, json, random, sys
hidden = set(json.loads(sys.argv[1]))
class Hider(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hider())
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in hidden else find_spec(name, package))
import keras, matplotlib.pyplot, nibabel, pandas, skimage.transform
random.seed(5)
state = random.getstate()
import data_io.prepare.miscnn_compat
same = random.getstate() == state
def importable(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True
names = ["SimpleITK", "pydicom", "tensorflow_addons", "tensorflow"]
loaded = [n for n in sys.modules if n.partition(".")[0] in hidden]
from pathlib import Path
import tiny_dataset
from data_io.prepare.batches import Batches
from data_io.prepare.cache import prepare
from data_io.prepare.preprocessing import Settings
folder = Path(sys.argv[2])
cache = prepare(
    tiny_dataset.write(folder / "raw"), folder / "raw", tiny_dataset.CASES,
    Settings(tiny_dataset.INPUT, probability=1.0), folder / "cache")
model = keras.Sequential([keras.layers.Conv2D(2, 1, activation="softmax")])
model.compile("sgd", "categorical_crossentropy")
items = Batches(cache, cache.cases, augment=True)
losses = model.fit(items, shuffle=False, verbose=0).history["loss"]
print(json.dumps({
    "importable": {n: importable(n) for n in names}, "losses": losses,
    "left behind": loaded, "random untouched": same}))
"""


def train_without(hidden: list[str], project: Path, folder: Path) -> dict:
    ended = subprocess.run(
        [sys.executable, "-c", HIDE, json.dumps(hidden), str(folder)],
        cwd=project,
        env={**os.environ, "PYTHONPATH": f"{project}{os.pathsep}{project / 'tests'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.slow
def test_training_works_without_simpleitk_pydicom_and_addons(project, tmp_path):
    hidden = ["SimpleITK", "pydicom", "tensorflow_addons"]
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        hidden.append("tensorflow")
    found = train_without(hidden, project, tmp_path)
    assert not any(found["importable"][name] for name in hidden)
    assert found["left behind"] == []
    assert found["random untouched"]
    assert len(found["losses"]) == 1
    assert 0 < found["losses"][0] < 10


@pytest.mark.backend
def test_keras_is_not_registered_twice():
    assert [name for name in sys.modules if name.startswith("tensorflow.keras")] == []


def test_only_one_module_imports_miscnn(project):
    packages = ("losses", "data_io", "pipelines")
    sources = [path for name in packages for path in project.glob(f"{name}/**/*.py")]
    importing = [
        path.name
        for path in sources
        if any(
            line.strip().startswith(("import miscnn", "from miscnn"))
            for line in path.read_text(encoding="utf-8").splitlines()
        )
    ]
    assert importing == ["miscnn_compat.py"]


def test_placeholder_names_the_missing_package():
    absent = miscnn_compat._Absent("SimpleITK")
    assert not hasattr(absent, "ImageSeriesReader")
    with pytest.raises(AttributeError, match=r"SimpleITK\.ReadImage.*not available"):
        _ = absent.ReadImage


def test_resize_works_and_makes_no_new_label():
    label = np.zeros((6, 8), np.uint8)
    label[2:4, 3:6] = 2
    sample = Sample("a", np.zeros((6, 8, 3), np.uint8), 3, 3, {})
    sample.add_segmentation(label)
    Resize((9, 5)).preprocessing(sample, training=True)
    assert sample.img_data.shape == (9, 5, 3)
    assert sample.img_data.dtype == np.uint8
    assert sample.seg_data.shape == (9, 5, 1)
    assert set(np.unique(sample.seg_data)) == {0, 2}


def test_resize_brings_labels_back():
    sample = Sample("a", np.zeros((6, 8, 1), np.uint8), 1, 2, {})
    step = Resize((12, 16))
    step.preprocessing(sample, training=False)
    prediction = np.zeros((12, 16), np.uint8)
    prediction[:, 8:] = 1
    native = step.postprocessing(sample, prediction)
    assert native.shape == (6, 8)
    assert (native == (np.arange(8) >= 4)).all()


def test_resampling_works():
    # 6 x 8 pixels of 1 x 2 mm on a grid of 2 x 1 mm: 3 x 16.
    details = {"spacing": np.array([1.0, 2.0])}
    sample = Sample("a", np.ones((6, 8, 1), np.float32), 1, 2, details)
    sample.add_segmentation(np.ones((6, 8), np.uint8))
    Resampling((2, 1)).preprocessing(sample, training=True)
    assert sample.img_data.shape == (3, 16, 1)
    assert (sample.seg_data == 1).all()


def test_only_unsupported_arguments_are_dropped():
    def takes_it(value, cval=0):
        return value, cval

    def takes_it_not(value):
        return value

    assert miscnn_compat._without(takes_it, "cval")(1, cval=3) == (1, 3)
    assert miscnn_compat._without(takes_it_not, "cval")(1, cval=3) == 1


def test_preprocessors_share_no_state():
    first, second = (
        Preprocessor(None, 1, analysis="fullimage"),
        Preprocessor(None, 1, analysis="fullimage"),
    )
    first.cache["a"] = 1
    first.img_queue.append(1)
    assert second.cache == {}
    assert second.img_queue == []
    assert first.thread_lock is not second.thread_lock


def test_augmentation_is_off_unless_asked_for():
    assert Preprocessor(None, 1, analysis="fullimage").data_augmentation is None
    asked = Preprocessor(None, 1, Data_Augmentation(), analysis="fullimage")
    assert asked.data_augmentation is not None
