"""What the documents show is what the code gives."""

from __future__ import annotations

import configparser
import importlib.util
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import losses
from pipelines.reporting import data
from pipelines.reporting.figures import style
from pipelines.runs.record import Record
from pipelines.workflow import plan


@pytest.fixture(scope="module")
def plots() -> types.ModuleType:
    """docs/plot_losses.py, which is in no package."""
    path = Path(__file__).parents[1] / "docs" / "plot_losses.py"
    spec = importlib.util.spec_from_file_location("plot_losses", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_committed_loss_plots_equal_those_of_make_docs(
    plots: types.ModuleType, project: Path, tmp_path: Path
) -> None:
    plots.main(tmp_path)
    committed = project / "docs" / "images" / "losses"
    names = sorted(path.name for path in committed.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        assert (tmp_path / name).read_text() == (committed / name).read_text(), name


def test_a_loss_has_one_colour_in_all_figures(project: Path) -> None:
    """DSC++ was blue in the results, and of another colour in each plot of its own."""
    plots = project / "docs" / "images" / "losses"
    for name, shown in {
        "dsc": ("DSC", "DSC++"),
        "cross_entropy": ("CE", "Focal"),
    }.items():
        drawn = set(
            re.findall(r"stroke: (#[0-9a-f]{6})", (plots / f"{name}.svg").read_text())
        )
        assert drawn >= {style.colour(loss) for loss in shown}
        others = {style.colour(loss) for loss in style.LOSSES if loss not in shown}
        # Black is also the colour of axes.
        assert not drawn & others - {"#000000"}


def test_slopes_of_the_plots_by_hand(plots: types.ModuleType) -> None:
    # CE, two classes: -log p and -log(1 - p) of one voxel, mean over 1000, times 1000.
    (p, value, slope), (q, other, away) = plots.curves("CE")
    np.testing.assert_allclose(value, -np.log(p), atol=1e-4)
    np.testing.assert_allclose(slope, -1 / p, rtol=1e-6)
    np.testing.assert_allclose(other, -np.log1p(-q), atol=1e-4)
    np.testing.assert_allclose(away, 1 / (1 - q), rtol=1e-6)


def test_best_probability_is_the_share_for_ce_and_0_or_1_for_dsc(
    plots: types.ModuleType,
) -> None:
    shares = np.array([0.1, 0.25, 0.6])
    np.testing.assert_allclose(plots.wanted("CE", shares), shares, atol=0.005)
    np.testing.assert_array_equal(plots.wanted("DSC", shares), [0, 0, 1])


def test_every_loss_is_described(project: Path) -> None:
    text = (project / "docs" / "losses.md").read_text("utf-8")
    headings = re.findall(r"^### (.*)$", text, re.M)
    described = [name for line in headings for name in line.split(" and ")]
    assert sorted(described) == sorted(losses.names())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.M)
    kept = [re.sub(r"[^\w\- ]", "", line.lower()) for line in headings]
    return {line.replace(" ", "-") for line in kept}


def test_every_link_between_pages_has_a_target(project: Path) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*.md"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    pages = [project / name for name in tracked.stdout.split()]
    assert project / "README.md" in pages
    for page in pages:
        text = page.read_text("utf-8")
        for link in re.findall(r"\]\(((?!http|mailto)[^)\s]+)\)", text):
            name, _, anchor = link.partition("#")
            to = page.parent / name if name else page
            assert to.exists(), f"{page}: {link}"
            assert not anchor or anchor in anchors(to), f"{page}: {link}"


def test_every_column_and_every_key_of_a_run_is_described(project: Path) -> None:
    named = ["git", "ls-files", "results/*.csv", "benchmarks/*.csv", "docs/*.csv"]
    tables = subprocess.run(
        named, cwd=project, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"results/claims.csv", "docs/errata.csv"} < set(tables)
    for name in tables:
        folder = name.partition("/")[0]
        page = "docs/errata.md" if folder == "docs" else f"{folder}/README.md"
        text = (project / page).read_text("utf-8")
        header = (project / name).read_text("utf-8").partition("\n")[0].strip()
        assert not [one for one in header.split(",") if f"`{one}`" not in text], name
    text = (project / "results" / "README.md").read_text("utf-8")
    assert not [key for key in Record.__annotations__ if f"`{key}`" not in text]
    columns = " ".join(data("columns").values()).split()
    assert not [one for one in columns if f"`{one}`" not in text]


def test_cluster_script_runs_one_file_per_job(project: Path, tmp_path: Path) -> None:
    """Each job of an array makes one run, of a file that `dscpp run` takes."""
    page = (project / "docs" / "cluster.md").read_text("utf-8")
    described, script = re.findall(r"```(?:yaml|sh)\n(.*?)```", page, re.DOTALL)
    (tmp_path / "jobs").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    for number in range(3):
        (tmp_path / "jobs" / f"dscpp-{number}.yaml").write_text(described)
    planned = plan.load(tmp_path / "jobs" / "dscpp-1.yaml")
    assert (planned.task.loss, planned.data) == ("DSC++", Path("/shared/data/DRIVE"))
    found = subprocess.run(
        ["bash", "-ec", 'dscpp() { echo "$@"; }\n' + script],
        cwd=tmp_path,
        env={"SLURM_ARRAY_TASK_ID": "1", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout == "run jobs/dscpp-1.yaml\n"


def test_own_images_and_their_results_are_ignored_by_git(project: Path) -> None:
    """Whoever types the pages' commands in a clone must not commit patients."""
    pages = [project / "README.md", *(project / "docs").glob("*.md")]
    named = {
        "results/own/paper/runs/ce-s0",
        "results/own-a/reduced-epochs=20",
        "tables",
    }
    for page in pages:
        for line in re.findall(r"^dscpp .*", page.read_text("utf-8"), re.M):
            option = r"--(?:images|masks|input|run|model|output|results) (\S+)"
            named |= set(re.findall(option, line))
    assert {"photos", "RUN-temperature", "OUT", "judged"} <= named
    files = {f"{name}/run.json" for name in named}
    found = subprocess.run(
        ["git", "check-ignore", *files],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(found.stdout.split()) == files


def test_example_of_a_new_loss_runs(project: Path) -> None:
    text = (project / "docs" / "losses.md").read_text("utf-8")
    section = text.partition("## Adding a loss\n")[2].partition("\n## ")[0]
    found: dict[str, Any] = {}
    exec(section.partition("```python\n")[2].partition("```")[0], found)
    y = np.array([[[1.0, 0], [1, 0], [0, 1]]])
    p = np.array([[[0.5, 0.5], [1, 0], [0.5, 0.5]]])
    # 1 of 2.5 and .5 of 1.5 are wrong: (0.4 + 2 / 3) / 2.
    assert float(found["Jaccard"]()(y, p)) == pytest.approx(0.5333333, abs=1e-6)
    channels_first = found["Jaccard"](axis=1)(y.swapaxes(1, 2), p.swapaxes(1, 2))
    assert float(channels_first) == pytest.approx(0.5333333, abs=1e-6)
    for line in re.findall(r"^\| `([^`]+\.py)`", section, re.M):
        assert (project / line).exists(), line


# --- "In your project" ---------------------------------------------------------------

INDICES = np.random.default_rng(0).integers(0, 3, (2, 8, 8))
IMAGES = INDICES[..., None].astype("float32") / 2


def code(project: Path, name: str) -> str:
    """What docs/use_losses.md shows for Keras, PyTorch, MONAI, nnU-Net or JAX."""
    text = (project / "docs" / "use_losses.md").read_text("utf-8")
    _, _, rest = text.partition(f"**{name}**")
    found = re.search(r"```(?:python|sh)\n(.*?)```", rest, re.DOTALL)
    assert found, name
    assert len(found[1].replace("\n\n", "\n").splitlines()) <= 5, name
    return found[1]


def executed(source: str, monkeypatch: pytest.MonkeyPatch, **given: Any) -> dict:
    """The names that a piece of code leaves behind; test_wheels.py builds the wheel."""
    monkeypatch.setitem(sys.modules, "dscpp_losses", losses)
    exec(source, given)
    return given


@pytest.mark.ports
def test_readme_examples_of_the_losses_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both pieces of code run as they stand, on a user's own model and tensors."""
    torch = pytest.importorskip("torch")
    import keras

    monkeypatch.syspath_prepend(str(project / "ports" / "torch"))
    text = (project / "README.md").read_text("utf-8")
    of_keras, of_torch = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Softmax()])
    executed(of_keras, monkeypatch, model=model)
    assert model.loss.get_config()["gamma"] == 2
    logits = torch.zeros(2, 3, 8, 8, requires_grad=True)
    labels = torch.from_numpy(INDICES)[:, None]
    executed(of_torch, monkeypatch, logits=logits, labels=labels)
    assert logits.grad.abs().max() > 0


@pytest.mark.backend
def test_keras_example_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(3, 1)]
    model = keras.Sequential(layers)
    before = model.get_weights()[0].copy()
    source = code(project, "Keras")
    executed(source, monkeypatch, model=model, images=IMAGES, labels=INDICES)
    assert np.abs(model.get_weights()[0] - before).max() > 0
    readme = (project / "losses" / "README.md").read_text("utf-8")
    _, _, rest = readme.partition("```python\n")
    found = executed(rest.partition("```")[0], monkeypatch)
    assert found["model"].loss.get_config()["from_indices"]


@pytest.mark.backend
def test_jax_example_runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    if keras.backend.backend() != "jax":
        pytest.skip("KERAS_BACKEND is not jax")
    import jax.numpy as jnp

    given = {"images": jnp.asarray(IMAGES), "labels": INDICES}
    given |= {"weights": jnp.ones((1, 3)), "network": lambda w, x: x @ w}
    found = executed(code(project, "JAX"), monkeypatch, **given)
    assert 0 < float(found["value"]) < 1
    assert float(jnp.abs(found["slopes"]).max()) > 0


@pytest.mark.ports
@pytest.mark.parametrize("name", ["PyTorch", "MONAI"])
def test_pytorch_examples_run(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    torch = pytest.importorskip("torch")
    if name == "MONAI":
        pytest.importorskip("monai")
    given = {
        "network": torch.nn.Conv2d(1, 3, 1),
        "images": torch.from_numpy(IMAGES).movedim(-1, 1),
        "labels": torch.from_numpy(INDICES)[:, None],
    }
    found = executed(code(project, name), monkeypatch, **given)
    slopes = [p.grad.abs().max() for p in found["network"].parameters()]
    assert max(slopes) > 0


@pytest.mark.ports
def test_nnunet_example_names_a_trainer(project: Path) -> None:
    finder = pytest.importorskip("nnunetv2.utilities.find_class_by_name")
    # nnU-Net's own command is run in test_port_nnunet.py; here what it is given.
    shell = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}\n'
    shell += 'nnUNetv2_train() { echo "$nnUNet_extTrainer" "$@"; }\n'
    done = subprocess.run(
        ["bash", "-ec", shell + code(project, "nnU-Net")],
        env={"PYTHONPATH": str(project / "ports" / "torch"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    folder, *_, option, name = done.stdout.split()
    assert option == "-tr"
    found = finder.recursive_find_python_class(folder, name, None, base_folder=folder)
    assert found.loss_name == "DSC++"


def test_citation_file_is_complete(project: Path) -> None:
    cited = yaml.safe_load((project / "CITATION.cff").read_text("utf-8"))
    required = {"cff-version", "message", "title", "type", "authors", "license"}
    assert required <= cited.keys()
    assert cited["cff-version"] == "1.2.0"
    config = configparser.ConfigParser()
    config.read(project / "setup.cfg")
    assert cited["version"] == config["metadata"]["version"]
    assert cited["license"] in config["metadata"]["license_expression"]
    for work in cited["references"]:
        assert work["authors"]
        assert re.fullmatch(r"10\.\d{4,}/\S+", work["doi"])
        for person in work["authors"]:
            assert set(person) == {"family-names", "given-names"}
