"""Phantoms: the same seed gives the same bytes, and the truth is the truth."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imitations import verify
from PIL import Image
from scipy.ndimage import label

from data_io.datasets import phantom
from data_io.errors import InputError
from data_io.prepare.interface import RawInterface
from data_io.simulation import phantoms

SMALL = phantom.Settings(training=4, validation=2, test=3, size=48, seed=5)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom.generate(SMALL, tmp_path_factory.mktemp("phantoms") / "small")


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "default"
    return phantom.generate(phantom.PHANTOM, folder)


def cases(root: Path) -> list[str]:
    return [case for part in phantom.vessels.split(root).values() for case in part]


def digest(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_same_seed_same_bytes(small: Path, tmp_path: Path) -> None:
    again = phantom.generate(SMALL, tmp_path / "again")
    assert digest(again) == digest(small)
    other = phantom.generate(
        phantom.Settings(training=4, validation=2, test=3, size=48, seed=6),
        tmp_path / "other",
    )
    changed = digest(other)
    assert changed.keys() == digest(small).keys()
    assert not set(changed.values()) & set(digest(small).values())


def test_split_counts_and_record(small: Path) -> None:
    parts = phantom.vessels.split(small)
    assert {k: len(v) for k, v in parts.items()} == SMALL.counts
    assert len(set(cases(small))) == 9
    record = phantom.vessels.record(small)
    assert record.input_shape == record.raw_shape == (48, 48)
    assert record.counts == {"training": 4, "validation": 2, "test": 3}
    assert record.simulated
    assert record.title == "phantom"


def test_every_file_is_marked_phantom(small: Path) -> None:
    for case in cases(small):
        for path in phantom.vessels.files(small, case):
            assert path.name.startswith("phantom-")
        for role in ("image", "observer1"):
            with Image.open(phantom.vessels.roles(small, case)[role]) as image:
                assert "phantom" in image.info["Description"]
    about = json.loads((small / "dataset.json").read_text("utf-8"))
    assert about["dataset"] == "phantom"
    assert about["simulated"] is True
    assert about["settings"]["seed"] == 5
    assert "exp(-(D - 20) / 4)" in about["formula"]


def smoothed(values: np.ndarray, sigma: float) -> np.ndarray:
    """A Gaussian written out: borders reflected, cut at 4 sigma, slow and plain."""
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        ends = [(radius, radius) if a == axis else (0, 0) for a in (0, 1)]
        wide = np.pad(values, ends, mode="symmetric")
        values = np.apply_along_axis(np.convolve, axis, wide, weights, mode="valid")
    return values


def test_posterior_is_the_documented_function_of_the_visible_image(
    small: Path,
) -> None:
    for case in cases(small):
        with Image.open(phantom.vessels.roles(small, case)["image"]) as image:
            assert image.mode == "RGB"
            green = np.asarray(image)[..., 1].astype(float)
        darker = smoothed(green, 5) - smoothed(green, 1)
        expected = 0.002 + 0.996 / (1 + np.exp(-(darker - 20) / 4))
        found = phantom.vessels.posterior(small, case)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


@given(st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_vessel_probability_ignores_brightness(shift: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 200, (32, 40, 3), dtype=np.uint8)
    found = phantoms.vessel_probability(image)
    assert found.shape == (32, 40)
    assert ((found >= 0.002) & (found <= 0.998)).all()
    brighter = phantoms.vessel_probability(image + np.uint8(shift))
    np.testing.assert_allclose(found, brighter, atol=1e-5)


def test_labels_are_drawn_from_the_posterior(default: Path) -> None:
    chance = np.stack(
        [phantom.vessels.posterior(default, case) for case in cases(default)]
    )
    label = np.stack(
        [phantom.vessels.references(default, c)["observer1"] for c in cases(default)]
    )
    for low, high in ((0, 0.01), (0.01, 0.1), (0.1, 0.4), (0.4, 0.7), (0.7, 1)):
        inside = (chance >= low) & (chance < high)
        error = np.sqrt((chance * (1 - chance))[inside].sum()) / inside.sum()
        gap = label[inside].mean() - chance[inside].mean()
        assert abs(gap) < 4 * error
    # Neighbours are independent given the image: residuals do not correlate.
    rest = (label - chance) / np.sqrt(chance * (1 - chance))
    correlation = (rest[:, :, 1:] * rest[:, :, :-1]).mean()
    assert abs(correlation) < 4 / np.sqrt(rest.size)


def test_the_default_set_is_like_drive_in_what_matters(default: Path) -> None:
    chance = np.stack(
        [phantom.vessels.posterior(default, case) for case in cases(default)]
    )
    assert 0.08 < chance.mean() < 0.16
    assert (chance < 0.02).mean() > 0.6
    assert ((chance > 0.2) & (chance < 0.8)).mean() > 0.05  # weak vessels
    assert (chance > 0.95).mean() > 0.03  # strong ones
    # Vessels, not specks: what is likely foreground hangs together.
    sizes = [
        np.bincount(label(case > 0.5, np.ones((3, 3)))[0].ravel())[1:]
        for case in chance
    ]
    sizes = np.concatenate(sizes)
    assert sizes[sizes >= 30].sum() > 0.85 * sizes.sum()


def test_verify_accepts_phantoms(small: Path) -> None:
    report = verify(phantom.vessels, small)
    assert report.sizes == {(48, 48): 9}
    assert report.values == {"observer1": {0, 255}}
    assert report.decoded == 27
    assert report.warnings == []


def test_references_and_regions(small: Path) -> None:
    label = phantom.vessels.references(small, "phantom-001")
    assert set(label) == {"observer1"}
    assert label["observer1"].dtype == np.uint8
    assert set(np.unique(label["observer1"])) == {0, 1}
    region = phantom.vessels.regions(small, "phantom-001")
    assert set(region) == {"image"}
    assert region["image"].shape == (48, 48)
    assert region["image"].all()


def test_interface(small: Path) -> None:
    raw = RawInterface(phantom.vessels, small)
    assert raw.initialize() == cases(small)
    image, _ = raw.load_image("phantom-002")
    label = raw.load_segmentation("phantom-002")
    assert image.shape == (48, 48, 3)
    assert image.dtype == label.dtype == np.uint8
    np.testing.assert_array_equal(
        label, phantom.vessels.references(small, "phantom-002")["observer1"]
    )


def test_locate_generates_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(phantom, "PHANTOM", SMALL)
    root = phantom.vessels.locate(None)
    assert root.parent == Path(".work/phantom")
    assert phantom.vessels.check(root) == []
    before = (root / "dataset.json").stat().st_mtime_ns
    assert phantom.vessels.locate(None) == root
    assert (root / "dataset.json").stat().st_mtime_ns == before
    assert list(root.parent.iterdir()) == [root]  # nothing is left aside


def test_a_damaged_generated_set_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(phantom, "PHANTOM", SMALL)
    root = phantom.vessels.locate(None)
    phantom.vessels.roles(root, "phantom-003")["image"].unlink()
    assert digest(phantom.vessels.locate(None)) == digest(small)
    (root / "dataset.json").unlink()
    with pytest.raises(InputError, match="found other files"):
        phantom.vessels.locate(None)


def test_two_simultaneous_generations_make_one_complete_set(
    tmp_path: Path, small: Path
) -> None:
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda _: phantom.generate(SMALL, tmp_path / "x"), "ab"))
    assert digest(made[0]) == digest(small)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_locate_a_folder(small: Path, tmp_path: Path) -> None:
    assert phantom.vessels.locate(small) == small
    inside = phantom.generate(SMALL, tmp_path / "phantom")
    assert phantom.vessels.locate(tmp_path) == inside
    with pytest.raises(InputError, match="expected a phantom set"):
        phantom.vessels.locate(tmp_path / "nowhere")


def test_generate_leaves_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="found other files"):
        phantom.generate(SMALL, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_unwritable_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="expected a place that can be written"):
        phantom.generate(SMALL, tmp_path / "file" / "phantoms")


def test_the_description_is_read_once_while_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each case it was parsed anew: the cost grew with the square of the cases."""
    from data_io.files import schema

    folder = phantom.generate(phantom.Settings(2, 1, 1, size=32), tmp_path / "set")
    load, loaded = schema.load, []
    monkeypatch.setattr(schema, "load", lambda *a: loaded.append(a) or load(*a))
    assert [phantom.vessels.record(folder).counts["test"] for _ in range(3)] == [1] * 3
    assert len(loaded) == 1
    about = folder / "dataset.json"
    about.write_text(about.read_text().replace("{", "{ ", 1))
    assert phantom.vessels.record(folder).counts["test"] == 1
    assert len(loaded) == 2


@pytest.mark.parametrize("text", ["", "{}", '{"dataset": "drive", "format": 1}'])
def test_a_damaged_description(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.json: expected the description"):
        phantom.vessels.split(tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 50},
        {"size": 16},
        {"training": 0},
        {"test": -1},
        {"size": 2**20},
        {"training": 10**12},
    ],
)
def test_settings_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected"):
        phantom.Settings(**wrong)
