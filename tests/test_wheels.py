"""The four distributions: what each needs and holds, side by side and alone."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import pytest

import losses

ROOT = Path(__file__).resolve().parents[1]
APACHE = {
    "dscpp_losses": "losses",
    "dscpp_conformance": "conformance",
    "dscpp_torch": "ports/torch",
}
PACKAGES = ("conformance", "data_io", "losses", "pipelines")
# Not in the metadata: miscnn pins a TensorFlow that no Python of today has, and of the
# backends there is one. MLflow is an extra. The command says what is missing.
BY_HAND = {"miscnn", "jax", "mlflow", "tensorflow", "torch", "monai"}
PIP = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheels by name, built offline, from copies: setuptools leaves folders."""
    folder = tmp_path_factory.mktemp("wheels")
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for source in APACHE.values():
        shutil.copytree(ROOT / source, folder / source, ignore=skip)
    whole = folder / "dscpp"
    whole.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, whole / name)
    for name in (*PACKAGES, "results/paper"):
        shutil.copytree(ROOT / name, whole / name, ignore=skip)
    sources = [str(folder / source) for source in ("dscpp", *APACHE.values())]
    command = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(folder / "out"), *sources], check=True)
    return {p.name.partition("-")[0]: p for p in (folder / "out").iterdir()}


@pytest.fixture(scope="module")
def target(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which all four are installed."""
    folder = tmp_path_factory.mktemp("side-by-side") / "target"
    command = [*PIP, "install", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*command, *map(str, wheels.values())], check=True)
    return folder


def about(wheel: Path) -> metadata.PackageMetadata:
    (found,) = metadata.distributions(path=[str(wheel)])
    return found.metadata


def needs(wheel: Path) -> set[str]:
    """The distributions that it asks for, without its extras."""
    asked = about(wheel).get_all("Requires-Dist") or []
    return {re.split(r"[^\w-]", each)[0] for each in asked if "extra ==" not in each}


def test_no_file_is_in_two_wheels(wheels: dict[str, Path]) -> None:
    assert set(wheels) == {"dscpp", *APACHE}
    held = [set(zipfile.ZipFile(wheel).namelist()) for wheel in wheels.values()]
    assert len(set.union(*held)) == sum(map(len, held))
    for name in APACHE:
        tops = {n.partition("/")[0] for n in zipfile.ZipFile(wheels[name]).namelist()}
        assert tops == {name, f"{name}-0.1.0.dist-info"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dscpp_losses", {"keras"}),
        ("dscpp_conformance", {"numpy"}),
        ("dscpp_torch", {"torch"}),
    ],
)
def test_requirements_and_licence_of_each_wheel(
    wheels: dict[str, Path], name: str, expected: set[str]
) -> None:
    assert needs(wheels[name]) == expected
    assert about(wheels[name])["License-Expression"] == "Apache-2.0"
    names = zipfile.ZipFile(wheels[name]).namelist()
    assert any(each.endswith("licenses/LICENSE") for each in names)


def test_the_pipeline_declares_what_it_imports(wheels: dict[str, Path]) -> None:
    named = {"PIL": "pillow", "skimage": "scikit-image", "yaml": "pyyaml"}
    named["annotated_types"] = "annotated-types"
    imported = set().union(*(_imports(ROOT / package) for package in PACKAGES))
    outside = imported - set(sys.stdlib_module_names) - set(PACKAGES) - BY_HAND
    assert {"keras", "yaml"} <= outside
    asked = needs(wheels["dscpp"])
    assert {named.get(each, each) for each in outside} <= asked
    assert "miscnn" not in asked
    licences = about(wheels["dscpp"])["License-Expression"]
    assert licences == "GPL-3.0-or-later AND Apache-2.0"


def _imports(folder: Path) -> set[str]:
    """Top-level names that a package's files import, absolutely."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A folder like half of the field's: with modules of the project's names."""
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('another')")
    return tmp_path


def _run(user: Path, target: Path, *command: str, expected: int = 0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=user,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected, done.stderr
    return done.stdout.strip()


def test_losses_work_beside_a_users_folder_of_that_name(
    user: Path, target: Path
) -> None:
    y = np.array([[[1, 0], [1, 0], [0, 1]]], "float32")
    p = np.array([[[0.5, 0.5], [1, 0], [0.5, 0.5]]], "float32")
    model = keras.Sequential([keras.Input((3, 2)), keras.layers.Softmax()])
    model.compile("sgd", loss=losses.by_name("Tversky++", gamma=2.5))
    model.save(user / "model.keras")
    (user / "script.py").write_text(
        "import sys, numpy as np, keras, dscpp_losses\n"
        f"y, p = np.array({y.tolist()}), np.array({p.tolist()}, 'float32')\n"
        "print(float(dscpp_losses.by_name('DSC++')(y, p)))\n"
        "loss = keras.models.load_model('model.keras').loss\n"
        "print(type(loss).__module__, loss.gamma, 'losses' in sys.modules)\n"
    )
    value, loaded = _run(user, target, "script.py").splitlines()[-2:]
    assert float(value) == pytest.approx(float(losses.by_name("DSC++")(y, p)))
    assert loaded == "dscpp_losses.overlap 2.5 False"


def test_installed_command_works_beside_a_users_folder_of_that_name(
    user: Path, target: Path
) -> None:
    command = str(target / "bin" / "dscpp")
    assert "DSC++" in _run(user, target, command, "train", "--help")
    assert "no runs yet" in _run(user, target, command, "runs")


def test_suite_works_beside_a_users_folder_of_that_name(
    user: Path, target: Path
) -> None:
    (user / "mine.py").write_text("def loss(y, p):\n    return p.sum() * 0\n")
    command = ["-m", "dscpp_conformance", "mine:loss", "--loss", "CE"]
    command += ["--framework", "numpy", "--checks", "values_agree"]
    said = _run(user, target, *command, expected=1)
    assert "values_agree  float32  fail  hard labels" in said


@pytest.mark.parametrize("folder", APACHE.values())
def test_each_file_names_its_licence(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert len(files) >= 5
    for path in [*files, ROOT / folder / "pyproject.toml"]:
        first = path.read_text("utf-8").partition("\n")[0]
        assert first == "# SPDX-License-Identifier: Apache-2.0", path
    text = (ROOT / folder / "LICENSE").read_text("utf-8")
    assert text == (ROOT / "losses" / "LICENSE").read_text("utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
