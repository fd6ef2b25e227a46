"""Benchmarks: what they compute, not how fast it is."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import planted
import pytest

import losses
from benchmarks import epoch as epoch_benchmark
from benchmarks import growth, page, samples, seams, soak, timing
from benchmarks import losses as loss_benchmark
from benchmarks import step as step_benchmark
from data_io.prepare import patches
from data_io.prepare.batches import Batches
from pipelines.environment import provenance
from pipelines.reporting.frame import open_study
from pipelines.runs import run as runs
from pipelines.training import unet
from pipelines.training.protocol import Protocol


def test_functions_are_called_in_turn_and_warm_up_is_not_timed() -> None:
    called: list[str] = []
    functions = {name: lambda name=name: called.append(name) for name in "ab"}
    seconds = timing.alternate(functions, draws=3, warm_up=1)
    assert called == list("abababab")
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}
    assert all((values > 0).all() for values in seconds.values())


def test_a_row_is_a_ratio_of_medians_with_the_spread_of_the_draws() -> None:
    ours, theirs = np.array([0.001, 0.002, 0.009]), np.array([0.01, 0.04, 0.03])
    peer = "step", theirs
    row = timing.compare(
        "losses", "DSC", (1, 2, 3), ours, peer, ("numpy",), target=0.05
    )
    assert (row.ours, row.peer_median, row.shape) == ("2", "30", "1x2x3")
    assert (row.ours_mean, row.peer_mean, row.unit) == ("4", "26.67", "ms")
    assert row.ratio == "0.0667"  # 2 / 30
    # Draw by draw: 0.1, 0.05, 0.3; quartiles 0.075 and 0.2.
    assert row.spread == "0.12"
    assert (row.target, row.met, row.n) == ("0.05", "no", 3)
    assert row.versions == f"numpy {np.__version__}"
    assert (
        timing.compare("losses", "DSC", (1,), ours, peer, ("numpy",), target=0.07).met
        == "yes"
    )
    assert timing.compare("losses", "DSC", (1,), ours, peer, ("numpy",)).met == ""


def test_newer_row_replaces_the_older_one(tmp_path: Path) -> None:
    def row(what: str, milliseconds: float) -> timing.Row:
        seconds = np.array([milliseconds / 1000])
        return timing.compare(
            "losses", what, (1,), seconds, ("step", seconds), ("numpy",)
        )

    path = tmp_path / "rows.csv"
    timing.write([row("DSC", 4), row("CE", 3)], path)
    timing.write([row("DSC", 5)], path)
    found = timing.read(path)
    assert [(row.what, row.ours, row.n) for row in found] == [
        ("CE", "3", 1),
        ("DSC", "5", 1),
    ]


def test_means_where_the_draws_are_of_several_kinds() -> None:
    ours, theirs = np.array([1.0, 1.0, 7.0]), np.array([2.0, 2.0, 2.0])
    row = timing.compare(
        "samples", "a", (1,), ours, ("b", theirs), (), 0.5, by="mean", unit="s"
    )
    assert (row.ratio, row.ours, row.ours_mean, row.met) == ("1.5", "1", "3", "no")


def test_without_a_peer_the_ratio_is_the_time_itself() -> None:
    row = timing.compare("start", "a", (1,), np.array([0.5]), None, (), 1.0, unit="s")
    assert (row.ratio, row.ours, row.peer, row.met) == ("0.5", "0.5", "", "yes")
    row = timing.compare("start", "a", (1,), np.array([0.5]), None, (), 400.0)
    assert (row.ratio, row.ours, row.met) == ("500", "500", "no")


@pytest.mark.backend
def test_value_and_gradient_are_those_of_the_loss() -> None:
    y_true = np.array([[[1.0, 0], [0, 1]]], dtype="float32")
    y_pred = np.array([[[0.75, 0.25], [0.5, 0.5]]], dtype="float32")
    squares = lambda y_true, y_pred: keras.ops.sum((y_true - y_pred) ** 2)  # noqa: E731
    value, gradient = loss_benchmark.value_and_gradient(squares, y_true, y_pred)()
    assert float(value) == pytest.approx(0.625)
    gradient = keras.ops.convert_to_numpy(gradient)
    np.testing.assert_allclose(gradient, 2 * (y_pred - y_true))


@pytest.mark.slow
def test_losses_are_timed_beside_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses.titles, "FAMILY", ("CE", "DSC++"))
    rows = loss_benchmark.in_a_step(draws=1, image=(1, 16, 32), filters=2, depth=1)
    assert [row.what for row in rows] == ["CE", "DSC++"]
    for row in rows:
        assert row.peer == "training step, U-Net, 2 filters"
        assert (row.shape, row.target) == ("1x16x32x2", "0.05")
        assert row.backend == keras.backend.backend()


@pytest.mark.peers
def test_losses_are_timed_beside_monai(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("monai")
    monkeypatch.setattr(loss_benchmark, "SHAPES", [(1, 3, 4, 5)])
    rows = loss_benchmark.against_monai(draws=1)
    assert [(row.what, row.peer) for row in rows[::2]] == [
        ("DSC (probabilities, one-hot)", "MONAI DiceLoss"),
        ("DSC (logits, indices)", "MONAI DiceLoss"),
        ("Tversky (probabilities, one-hot)", "MONAI TverskyLoss"),
        ("Tversky (logits, indices)", "MONAI TverskyLoss"),
    ]


@pytest.mark.ports
def test_the_port_is_timed_and_weighed_beside_monai(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("monai")
    monkeypatch.setattr(loss_benchmark, "PORT_SHAPES", [(1, 3, 40, 50)])
    names = ["CE", "DSC++", "Tversky"]
    rows = loss_benchmark.port_against_monai(1, names, compiled=())
    assert [(row.what, row.peer, row.target) for row in rows if row.unit == "MB"] == [
        ("CE (eager, cpu), memory", "MONAI DiceCELoss", ""),
        ("DSC++ (eager, cpu), memory", "MONAI DiceLoss", "1.2"),
        ("Tversky (eager, cpu), memory", "MONAI TverskyLoss", ""),
        ("DSC++ (eager, one-hot, cpu), memory", "MONAI DiceLoss", "1.2"),
        ("DSC++ (eager, regions, cpu), memory", "MONAI DiceLoss", "1.2"),
    ]
    assert {row.met for row in rows if row.target and row.unit == "MB"} == {"yes"}
    assert {row.shape for row in rows} == {"1x3x40x50"}
    # At least a prediction, a label and a gradient, of 24,000 bytes each.
    assert all(float(row.ours) >= 0.072 for row in rows if row.unit == "MB")


def test_loss_that_compiles_too_slowly_is_reported_and_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loss_benchmark, "COMPILE_LIMIT", 0.01)
    assert loss_benchmark._compiles("CE", lambda: None)
    assert not loss_benchmark._compiles("DSC++", lambda: time.sleep(10))
    assert capsys.readouterr().out == "port: DSC++ was not compiled within 0.01 s\n"


@pytest.mark.parametrize("augment", [True, False])
def test_both_generators_draw_the_same_samples(augment: bool, tmp_path: Path) -> None:
    kind = ((24, 40, 32), (8, 16, 16), 1, 3)
    cache, source = samples.simulated(tmp_path, *kind)
    generator = samples.miscnn_generator(cache, source, augment)
    batches = Batches(cache, cache.cases, classes=3, augment=augment)
    # MIScnn's takes the cases in turn, whatever index it is asked for.
    for epoch, index in ((0, 0), (3, 1), (5, 2)):
        samples.seed_miscnn(epoch, index)
        expected = generator[0]
        found = batches.draw(epoch, index)
        np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=1e-4)
        np.testing.assert_array_equal(found[1], expected[1])
    # What MIScnn writes on the way lies with the rest, not where it was called.
    assert len(list((tmp_path / "batches").glob("*.pickle"))) == len(cache.cases)


def test_samples_are_timed_beside_miscnn() -> None:
    images = ((16, 32), (16, 32), 3, 2)
    row = samples.beside_miscnn(images, augment=True, draws=2)
    assert (row.what, row.shape) == ("image, augmented, one core", "16x32x3")
    assert (row.peer, row.target, row.by) == ("MIScnn DataGenerator", "0.5", "mean")


@pytest.mark.slow
def test_epochs_are_timed_beside_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"training": 2, "validation": 1, "test": 1}
    monkeypatch.setattr(epoch_benchmark, "COUNTS", counts)
    monkeypatch.setattr(epoch_benchmark, "BLOCK", 2)
    row, waiting = epoch_benchmark.epochs_beside_steps(
        "demo", epochs=5, size=(16, 32), depth=1, filters=2
    )
    assert (row.what, row.peer) == ("epoch of 2 + 1 images, demo", "its steps alone")
    assert (row.n, row.target, row.shape) == (2, "1.05", "1x16x32x3")
    assert float(row.ratio) > 0.5  # an epoch has all of its steps in it
    assert (waiting.peer, waiting.target) == ("the epoch", "")
    assert 0 < float(waiting.ratio) < 1  # a share of the epoch, and all of its samples


@pytest.mark.slow
def test_memory_row_compares_late_and_early_epochs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = {"training": 2, "validation": 1, "test": 1}
    monkeypatch.setattr(epoch_benchmark, "COUNTS", counts)
    row = epoch_benchmark.memory_over_epochs(32, epochs=3, early=2, depth=1, filters=2)
    assert (row.what, row.peer) == ("peak memory after 3 epochs", "after 2")
    assert (row.shape, row.unit) == ("1x32x32x3", "MB")
    assert float(row.ratio) >= 1


def test_table_has_the_targets_and_the_slowest_loss() -> None:
    def row(part: str, what: str, ours: float, target: float | None) -> timing.Row:
        peer = "peer", np.array([1.0, 1.0])
        seconds = np.array([ours, ours])
        made = timing.compare(part, what, (2, 3), seconds, peer, (), target)
        return dataclasses.replace(made, device="CPU", machine="m")

    rows = [
        row("losses", "CE", 0.01, 0.05),
        row("losses", "DSC", 0.02, 0.05),
        row("evaluation", "a volume", 3, 1),
        row("samples", "image", 0.4, 0.5),
        row("samples", "nothing wanted", 0.4, None),
    ]
    backend = keras.backend.backend()
    assert page.table(rows).splitlines()[2:5] == [
        f"| image | {backend} | 2x3 | 400 ms | 1000 ms | peer | 0.4 | 0.5 | yes |",
        f"| loss DSC | {backend} | 2x3 | 20 ms | 1000 ms | peer | 2 % | 5 % | yes |",
        f"| a volume | {backend} | 2x3 | 3000 ms | 1000 ms | peer | 3 | 1 | no |",
    ]
    # Another machine's row is marked.
    rows[2] = dataclasses.replace(rows[2], machine="another")
    lines = page.table(rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == [
        "| image", "| loss DSC", r"| a volume\*",
    ]  # fmt: skip
    assert lines[-1].startswith(r"Machine: m; \* another. ")
    # So is another device's, which has a slowest loss of its own.
    rows[2:3] = [dataclasses.replace(rows[0], device="H100")]
    lines = page.table(rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == [
        "| image", "| loss DSC", r"| loss CE\*",
    ]  # fmt: skip
    assert lines[-1].startswith(r"Machine: m; \* H100, m. ")


@pytest.mark.parametrize(
    ("shape", "channels", "classes"),
    [
        pytest.param((16, 32), 3, 2, marks=pytest.mark.backend),
        ((8, 4, 12), 1, 3),
    ],
)
@pytest.mark.slow
def test_peer_steps_compute_the_same_as_ours(
    shape: tuple[int, ...], channels: int, classes: int
) -> None:
    protocol = Protocol(shape, filters=2, depth=1)
    made = step_benchmark.sides(protocol, channels, classes)
    ours, *others = made.values()
    assert next(iter(made)) == step_benchmark.OURS
    one = keras.backend.backend() == "jax" or not unet.computes_channels_first()
    assert len(others) == (1 if one else 2)
    # Three steps: equal weights, loss, gradients and optimisers.
    for _ in range(3):
        loss = ours()
        for other in others:
            assert loss == pytest.approx(other(), rel=1e-4)


@pytest.mark.backend
@pytest.mark.slow
def test_a_step_is_timed_beside_its_peers() -> None:
    steps = step_benchmark.beside_peers((16, 32), draws=1, filters=2, depth=1)
    backend = keras.backend.backend()
    expected = {
        "torch": ["plain PyTorch, same U-Net", "our U-Net, channels-last"],
        "tensorflow": ["MIScnn, same U-Net", "our U-Net, channels-first"],
        "jax": ["our U-Net, channels-first"],
    }
    if not unet.computes_channels_first():
        expected[backend].remove("our U-Net, channels-first")
    assert [row.peer for row in steps] == expected[backend]
    targets = {name: "1" if name[:3] == "our" else "1.05" for name in expected[backend]}
    assert [row.target for row in steps] == list(targets.values())
    for row in steps:
        assert (row.part, row.what) == ("step", "training step, U-Net, 2 filters")
        assert (row.shape, row.unit) == ("1x16x32x3", "ms")
        assert row.device == provenance.device()
        assert len({row.ours for row in steps}) == 1  # measured once, beside all


@pytest.mark.backend
def test_weights_of_another_shape_are_refused() -> None:
    plain_torch = pytest.importorskip("benchmarks.plain_torch", exc_type=ImportError)
    network = plain_torch.PlainUNet(2, 3, 2, filters=2, depth=1)
    weights = [np.zeros(tuple(p.shape), "float32") for p in network.parameters()]
    with pytest.raises(ValueError, match="expected a weight of shape"):
        network.take(weights)


def test_the_page_has_the_table_of_the_results(tmp_path: Path) -> None:
    committed = page.PAGE.read_text("utf-8")
    copy = tmp_path / "README.md"
    copy.write_text(committed, "utf-8")
    page.update(copy)
    assert copy.read_text("utf-8") == committed


def test_seams_by_hand() -> None:
    """Patches of 8 at steps of 4 on 12 voxels begin or end at 4 and 8."""
    grid = patches.Grid((12, 8), (8, 8), (4, 4))
    smooth = np.broadcast_to(np.linspace(0, 1, 12)[:, np.newaxis], (12, 8))
    np.testing.assert_allclose(seams.jumps(smooth, grid), [1 / 11, 1 / 11])
    stepped = smooth + 0.5 * (np.arange(12) >= 4)[:, np.newaxis]
    np.testing.assert_allclose(seams.jumps(stepped, grid), [1 / 11 + 0.25, 1 / 11])
    np.testing.assert_allclose(
        seams.jumps(smooth + (np.arange(12) >= 5)[:, None], grid),
        [1 / 11, 1 / 11 + 0.25],
    )
    assert np.isnan(seams.jumps(smooth[:8], patches.Grid((8, 8), (8, 8), (4, 4)))).all()


def test_fingerprint_ignores_times(tmp_path: Path) -> None:
    run = runs.Run.create(tmp_path / "a", {"seed": 1, "times": {"train_s": 1.0}})
    runs.write_csv(run.path("costs.csv"), ("seed", *soak.COSTS), [{"train_s": 3}])
    before = soak.fingerprint(tmp_path)
    assert list(before) == ["a/costs.csv", "a/run.json"]
    run.update(times={"train_s": 2.0}, peak_memory_mb=7.0)
    runs.write_csv(run.path("costs.csv"), ("seed", *soak.COSTS), [{"train_s": 4}])
    assert soak.fingerprint(tmp_path) == before
    run.update(seed=2)
    changed = soak.fingerprint(tmp_path)
    assert [name for name in before if changed[name] != before[name]] == ["a/run.json"]
    assert list(soak.fingerprint(tmp_path, ["a/run.json"])) == ["a/costs.csv"]


def test_growth_benchmark_makes_valid_runs(tmp_path: Path) -> None:
    folder = tmp_path / "20 cases"  # a folder with a space
    growth.simulate(folder, 20)
    growth.measure(growth.OF_CASES["evaluation"], folder)
    assert runs.Run.open(folder / "run").state == "evaluated"
    growth.copies(tmp_path / "runs", 5)
    study = open_study(tmp_path / "runs" / "drive" / "reduced")
    found = {variant.loss: study.seeds(variant) for variant in study.runs}
    assert found == {"DSC": (0, 1, 2), "DSC++": (0, 1)}


STATED = """
import json, sys, time
from pathlib import Path
import numpy as np
words = [word for word in sys.argv[1:] if word != "--quiet"]
def put(path, write):
    with path.with_suffix(".aside").open("wb") as file:
        write(file)
    path.with_suffix(".aside").replace(path)
    time.sleep(0.05)
def stages():
    if words[0] == "tables":
        folder = Path(words[-1])
        folder.mkdir(exist_ok=True)
        return put(folder / "table.csv", lambda file: file.write(b"1"))
    run = Path(json.loads(Path(words[1]).read_text())["folder"])
    run.mkdir(exist_ok=True)
    record, order = run / "run.json", ["training", "trained", "predicted", "evaluated"]
    found = json.loads(record.read_text()) if record.exists() else {"state": order[0]}
    found["starts"] = found.get("starts", 0) + COUNTED
    for state in order[order.index(found["state"]):]:
        found["state"] = state
        put(record, lambda file: file.write(json.dumps(found).encode()))
        if state == "training":
            put(run / "state.npz", lambda file: np.savez(file, progress="{}"))
try:
    stages()
except OSError:
    sys.exit(2)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="sets limits of other processes")
@pytest.mark.parametrize("counted", [0, 1])
def test_soak_detects_whether_a_run_resumes_exactly(
    counted: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that counts its starts does not."""
    script = tmp_path / "dscpp.py"
    script.write_text(STATED.replace("COUNTED", str(counted)))
    monkeypatch.setattr(soak, "dscpp", lambda: [sys.executable, str(script)])
    rows = list(soak.soak(tmp_path, kills=6, full=2, seed=0, epochs=1))
    assert [row["kill"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert sum(row["disk"] == "full" for row in rows) == 2
    assert {row["ended"] for row in rows if not row["disk"]} == {"SIGKILL"}
    assert ("no" in {row["same"] for row in rows}) == bool(counted)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="sets limits of other processes")
def test_stopped_soak_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, output = tmp_path / "dscpp.py", tmp_path / "soak.csv"
    script.write_text(STATED.replace("COUNTED", "0"))
    monkeypatch.setattr(soak, "dscpp", lambda: [sys.executable, str(script)])
    row = dict.fromkeys(soak.COLUMNS, "yes") | {"kill": "1", "run": "7"}
    runs.write_csv(output, soak.COLUMNS, [row])
    asked = ["--kills=3", "--full=0", f"--output={output}"]
    monkeypatch.setattr(sys, "argv", ["soak", *asked])
    soak.main()
    rows = pd.read_csv(output)
    assert list(rows["kill"]) == [1, 2, 3]
    assert rows["run"].tolist()[:2] == [7, 8]
    assert set(rows["same"]) == {"yes"}


@pytest.mark.slow
def test_soak_ends_when_no_kill_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command that is to be killed has ended by then."""
    script = tmp_path / "dscpp.py"
    script.write_text(STATED.replace("COUNTED", "0"))
    monkeypatch.setattr(soak, "dscpp", lambda: [sys.executable, str(script)])
    monkeypatch.setattr(soak, "disturb", lambda *_: None)
    with pytest.raises(SystemExit, match="3 runs ended before each kill"):
        list(soak.soak(tmp_path, kills=3, full=0, seed=0, epochs=1))


@pytest.mark.parametrize("asked", ["--full=5", "--full=-1", "--kills=0", "--epochs=0"])
def test_invalid_soak_arguments_are_refused(
    asked: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["soak", "--kills=3", asked])
    with pytest.raises(SystemExit, match="2"):
        soak.main()
    assert "full from 0 to kills" in capsys.readouterr().err


@pytest.mark.parametrize("fault", planted.FAULTS, ids=lambda fault: fault.what)
def test_every_planted_fault_still_applies(fault: planted.Fault) -> None:
    assert (planted.ROOT / fault.file).read_text("utf-8").count(fault.old) == 1
    file, _, name = fault.tests.partition("::")
    found = (planted.ROOT / "tests" / file).read_text("utf-8")
    assert name in re.findall(r"^def (test_\w+)", found, re.MULTILINE) or not name
