"""Phantoms of lesions, skin, polyps and nuclei: each with its truth, none mixed up."""

import json
from pathlib import Path

import numpy as np
import pytest
from imitations import verify
from PIL import Image
from scipy import ndimage, stats

from data_io import datasets
from data_io.datasets import phantom
from data_io.errors import InputError
from data_io.simulation import phantoms
from pipelines.workflow import plan, reproduce

NEW = ("phantom-lesion", "phantom-skin", "phantom-polyp", "phantom-nuclei")
# Of D, from the documented formulas: channel, Gaussian, middle and width.
TRUTH = {
    "phantom-lesion": ((0, -1, 0), 2, 30, 6),
    "phantom-skin": ((0, -1, 0), 1.5, 24, 6),
    "phantom-polyp": ((1, -1, 0), 2, 13, 3.5),
    "phantom-nuclei": ((0, 1, 0), 1, 22, 5),
}


@pytest.fixture(scope="module", params=NEW)
def made(request, tmp_path_factory):
    """A data set's module and a set of 20 images."""
    folder = tmp_path_factory.mktemp("phantoms") / "set"
    settings = phantom.Settings(training=8, validation=4, test=8, size=64, seed=3)
    kind = phantoms.KINDS[request.param]
    module = datasets.by_name(request.param)
    return module, module.locate(phantom.generate(settings, folder, kind))


def cases(module, root: Path) -> list[str]:
    return [case for part in module.split(root).values() for case in part]


def truth(module, root: Path) -> np.ndarray:
    found = [module.posterior(root, case) for case in cases(module, root)]
    return np.stack(found).astype(np.float64)


def test_the_posterior_is_the_documented_function_of_the_visible_image(made) -> None:
    module, root = made
    weights, sigma, middle, width = TRUTH[module.RECORD.name]
    formula = json.loads((root / "dataset.json").read_text())["formula"]
    assert f"exp(-(D - {middle}) / {width})" in formula and f"G_{sigma}" in formula
    for case in cases(module, root):
        with Image.open(module.roles(root, case)["image"]) as image:
            pixels = np.asarray(image).astype(float)
        channel = sum(w * pixels[..., k] for k, w in enumerate(weights))
        contrast = ndimage.gaussian_filter(channel, sigma) - channel.mean()
        expected = 0.002 + 0.996 / (1 + np.exp(-(contrast - middle) / width))
        found = module.posterior(root, case)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_labels_follow_the_posterior(made) -> None:
    module, root = made
    p = truth(module, root)
    y = np.stack([module.references(root, c)["observer1"] for c in cases(module, root)])
    edges = np.linspace(0, 1, 16)
    which = np.digitize(p, edges[1:-1]).ravel()
    gap = np.bincount(which, (y - p).ravel(), 15)
    error = np.sqrt(np.bincount(which, (p * (1 - p)).ravel(), 15))
    z = gap / error
    assert np.abs(z).max() < 4
    assert 1e-4 < stats.chi2.sf((z**2).sum(), len(z)) < 1 - 1e-4
    # The check can fail: a truth a little too sure of itself would be noticed.
    odds = (p / (1 - p)) ** 1.2
    wrong = odds / (1 + odds)
    gap = np.bincount(which, (y - wrong).ravel(), 15)
    error = np.sqrt(np.bincount(which, (wrong * (1 - wrong)).ravel(), 15))
    assert stats.chi2.sf(((gap / error) ** 2).sum(), 15) < 1e-6
    # Neighbours are independent given the image.
    rest = (y - p) / np.sqrt(p * (1 - p))
    assert abs((rest[:, :, 1:] * rest[:, :, :-1]).mean()) < 4 / np.sqrt(rest.size)


def test_posteriors_have_certain_and_uncertain_voxels(made) -> None:
    module, root = made
    p = truth(module, root)
    assert 0.08 < p.mean() < 0.25
    assert (p < 0.02).mean() > 0.5 and (p > 0.95).mean() > 0.03
    assert ((p > 0.2) & (p < 0.8)).mean() > 0.04
    number = np.mean([ndimage.label(case > 0.5)[1] for case in p])
    assert number > 6 if module.RECORD.name == "phantom-nuclei" else number < 6


def test_each_is_a_data_set_of_its_own(made, tmp_path, monkeypatch) -> None:
    module, root = made
    record = module.record(root)
    assert record.name == module.RECORD.name == record.title.replace(" ", "-")
    assert record.simulated and all("phantom" in name for name in record.classes[1:])
    report = verify(module, root)
    assert report.decoded == 60 and report.warnings == []
    for case in cases(module, root):
        for path in module.files(root, case):
            assert path.name.startswith("phantom-")
        for role in ("image", "observer1"):
            with Image.open(module.roles(root, case)[role]) as image:
                assert "phantom" in image.info["Description"]
    about = json.loads((root / "dataset.json").read_text("utf-8"))
    assert about["dataset"] == record.name and about["simulated"] is True
    for other in {*phantoms.KINDS} - {record.name}:
        with pytest.raises(
            InputError, match=rf"the data set {other}, found {record.name}"
        ):
            datasets.by_name(other).locate(root)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(phantom, "PHANTOM", phantom.Settings(1, 1, 1, 32))
    place = module.locate(None)
    assert place.parent == Path(".work") / record.name
    assert verify(module, place).decoded == 9


def test_same_seed_same_bytes_and_no_kind_takes_anothers_place(tmp_path) -> None:
    settings, made = phantom.Settings(1, 1, 1, 32), []
    for name, kind in phantoms.KINDS.items():
        folders = [tmp_path / f"{name}-{n}" for n in range(2)]
        for folder in folders:
            phantom.generate(settings, folder, kind)
        first, again = (
            [path.read_bytes() for path in sorted(folder.rglob("*.*"))]
            for folder in folders
        )
        assert first == again and first not in made
        made.append(first)
    # Asked for in the place of another kind, the other kind is replaced.
    place = tmp_path / "phantom-0"
    phantom.generate(settings, place, phantoms.SKIN)
    assert phantom._about(place)["dataset"] == "phantom-skin"


def test_phantom_keys_are_unchanged() -> None:
    assert phantom.key(phantom.PHANTOM) == "dc1e824015ec"
    keys = {phantom.key(phantom.PHANTOM, kind) for kind in phantoms.KINDS.values()}
    assert len(keys) == 5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("drive", "phantom"),
        ("bus2017", "phantom-lesion"),
        ("dsb2018", "phantom-nuclei"),
        ("isic2018", "phantom-skin"),
        ("cvc-clinicdb", "phantom-polyp"),
        ("cvc-clinicdb-sequence", "phantom-polyp"),
        ("kits19", "kits19-simulated"),
        *((name, name) for name in phantoms.KINDS),
    ],
)
def test_phantom_kind_for_each_data_set(name: str, expected: str) -> None:
    assert datasets.simulated(name) == expected
    (experiment,) = plan.of_dataset(reproduce.PAPER, expected)
    assert [loss for loss, _ in experiment.losses] == ["CE", "DSC", "DSC++"]


def test_a_data_set_without_phantoms_of_its_kind_is_refused() -> None:
    with pytest.raises(InputError, match=r"kits19.*received 'hippocampus'"):
        datasets.simulated("hippocampus")
