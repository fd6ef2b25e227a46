"""Benchmarks: what they compute, not how fast it is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

import losses
from benchmarks import epoch as epoch_benchmark
from benchmarks import losses as loss_benchmark
from benchmarks import page, samples, timing
from benchmarks import step as step_benchmark
from data_io.prepare.batches import Batches
from pipelines import provenance
from pipelines.reporting.markdown import replace_marked
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


def test_a_newer_row_takes_the_place_of_its_older_one(tmp_path: Path) -> None:
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


@pytest.mark.backend
def test_losses_are_timed_beside_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "names", lambda: ["CE", "DSC++"])
    rows = loss_benchmark.in_a_step(draws=1, image=(1, 16, 32), filters=2)
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
    rows = loss_benchmark.port_against_monai(1, names, compiled=False)
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


def test_scipys_calls_are_those_of_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, _ = samples.simulated(tmp_path, (16, 32), (16, 32), 3, 2)
    batches = Batches(cache, cache.cases, classes=2, augment=True)
    drawn: list[tuple[int, int]] = []
    monkeypatch.setattr(batches, "draw", lambda *place: drawn.append(place))
    timed: list[int] = []

    def seconds(work: list, cores: int, rounds: int) -> dict[str, np.ndarray]:
        timed.append(len(work))
        return {"one": np.array([1.0, 2.0]), "all": np.array([0.5, 0.25])}

    monkeypatch.setattr(samples, "_one_and_all", seconds)
    found = samples._calls_alone(batches, draws=5, kept=2, cores=2, rounds=2)
    # Two at a time, each once; the seconds of the three parts together.
    assert drawn == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 0)]
    assert timed == [2, 2, 1]
    assert found["one"].tolist() == [3, 6]
    assert found["all"].tolist() == [1.5, 0.75]


def test_samples_are_timed_beside_miscnn() -> None:
    images = ((16, 32), (16, 32), 3, 2)
    row = samples.against_miscnn(images, augment=True, draws=2)
    assert (row.peer, row.target, row.by) == ("MIScnn DataGenerator", "0.5", "mean")
    row, calls = samples.cores_against_one(images, rounds=1, cores=2, draws=20)
    assert (row.shape, row.target) == ("16x32x3", "0.588")  # 1 / (0.85 * 2)
    assert calls.what == f"SciPy's calls in {row.what}"
    assert float(calls.ours) > 0
    assert calls.target == ""
    row = samples.cores_against_miscnn(images, augment=True, rounds=1, cores=2, draws=5)
    assert (row.what, row.n) == ("image, augmented, 2 cores", 1)
    assert (row.peer, row.target) == ("MIScnn DataGenerator, as many threads", "")
    row = samples.scipys_share(images, draws=20)
    assert 0 < float(row.ratio) < 1


@pytest.mark.backend
def test_epochs_are_timed_beside_their_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"training": 2, "validation": 1, "test": 1}
    monkeypatch.setattr(epoch_benchmark, "COUNTS", counts)
    monkeypatch.setattr(epoch_benchmark, "BLOCK", 2)
    row, rate, waiting, drawing, *rest = epoch_benchmark.epochs_beside_steps(
        "demo", epochs=5, shape=(16, 32), depth=1, filters=2
    )
    assert (row.n, row.target, row.shape) == (2, "1.05", "1x16x32x3")
    assert float(row.ratio) > 0.5  # an epoch has all of its steps in it
    assert (rate.unit, rate.peer, rate.target) == ("1/s", "its steps alone", "")
    assert 0 < float(waiting.ratio) < 1  # a share of the epoch, and all of its samples
    assert (drawing.n, drawing.target) == (2, "")
    if row.device != "CPU":
        assert [found.what for found in rest] == [f"GPU memory, {row.what}"]
    elif keras.backend.backend() == "jax":
        assert rest == []  # a step goes on after its call
    else:
        (inside,) = rest
        assert (inside.what, inside.target) == (f"in its steps, {row.what}", "")
        assert 0 < float(inside.ours) < float(row.ours)
    plain, rate, _, copying = epoch_benchmark.epochs_beside_steps(
        "demo", epochs=3, shape=(32, 32), augment=False, depth=1, filters=2
    )[:4]
    assert plain.what == f"{row.what}, not augmented"
    assert (plain.target, plain.shape, plain.n) == ("", "1x32x32x3", 1)
    # Two of training and one of validation.
    assert float(rate.ours) == pytest.approx(3 / float(plain.ours), rel=0.01)
    assert copying.what == f"{drawing.what}, not augmented"
    row = epoch_benchmark.memory_over_epochs(32, epochs=3, early=2, depth=1, filters=2)
    assert (row.what, row.peer) == ("peak memory after 3 epochs", "after 2")
    assert row.shape == "1x32x32x3"
    assert float(row.ratio) >= 1


@pytest.mark.backend
def test_epochs_of_volumes_are_timed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"training": 3, "validation": 1, "test": 1}
    monkeypatch.setattr(epoch_benchmark, "COUNTS", counts)
    monkeypatch.setattr(epoch_benchmark, "BLOCK", 1)
    row, rate, *_ = epoch_benchmark.epochs_beside_steps(
        "reduced", epochs=3, shape=(4, 8, 16), depth=1, filters=2
    )
    assert row.what == "epoch of 3 + 1 patches, reduced"
    assert (row.shape, row.target, row.n) == ("1x4x8x16x1", "1.05", 2)
    assert rate.what == "steps a second, epoch of 3 + 1 patches, reduced"


def test_a_second_start_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = {"training": 1, "validation": 1, "test": 1}
    monkeypatch.setattr(epoch_benchmark, "COUNTS", counts)
    row = epoch_benchmark.second_start(None, draws=2, size=32)
    assert (row.what, row.unit) == ("a second start's look at 3 images of phantom", "s")


def test_the_table_has_what_was_wanted_and_of_losses_the_slowest() -> None:
    def row(part: str, what: str, ours: float, target: float | None) -> timing.Row:
        peer = "peer", np.array([1.0, 1.0])
        seconds = np.array([ours, ours])
        made = timing.compare(part, what, (2, 3), seconds, peer, (), target)
        return dataclasses.replace(made, device="CPU", machine="m")

    rows = [
        row("losses", "CE", 0.01, 0.05),
        row("losses", "DSC", 0.02, 0.05),
        row("start", "second start", 3, 1),
        row("samples", "image", 0.4, 0.5),
        row("samples", "nothing wanted", 0.4, None),
    ]
    backend = keras.backend.backend()
    assert page.table(rows).splitlines()[2:5] == [
        f"| image | {backend} | 2x3 | 400 ms | 1000 ms | peer | 0.4 | 0.5 | yes |",
        f"| loss DSC | {backend} | 2x3 | 20 ms | 1000 ms | peer | 2 % | 5 % | yes |",
        f"| second start | {backend} | 2x3 | 3000 ms | 1000 ms | peer | 3 | 1 | no |",
    ]
    # Another machine's row is marked.
    rows[2] = dataclasses.replace(rows[2], machine="another")
    lines = page.table(rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == [
        "| image", "| loss DSC", r"| second start\*",
    ]  # fmt: skip
    assert lines[-1].startswith(r"Machine: m; \* another. ")
    # So is another device's, which has a slowest loss of its own.
    rows[2:3] = [dataclasses.replace(rows[0], device="H100")]
    lines = page.table(rows).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == [
        "| image", "| loss DSC", r"| loss CE\*",
    ]  # fmt: skip
    assert lines[-1].startswith(r"Machine: m; \* H100, m. ")


@pytest.mark.backend
@pytest.mark.parametrize(
    ("shape", "channels", "classes"), [((16, 32), 3, 2), ((8, 4, 12), 1, 3)]
)
def test_the_peers_steps_are_ours(
    shape: tuple[int, ...], channels: int, classes: int
) -> None:
    protocol = Protocol(shape, filters=2, depth=1)
    made = step_benchmark.sides(protocol, channels, classes)
    ours, *others = (make() for make in made.values())
    assert next(iter(made)) == step_benchmark.OURS
    one = keras.backend.backend() == "jax" or not unet.computes_channels_first()
    assert len(others) == (1 if one else 2)
    # Three steps: equal weights, loss, gradients and optimisers.
    for _ in range(3):
        loss = ours()
        for other in others:
            assert loss == pytest.approx(other(), rel=1e-4)


@pytest.mark.backend
def test_a_step_is_timed_beside_its_peers() -> None:
    rows = step_benchmark.beside_peers((16, 32), draws=1, filters=2, depth=1)
    backend = keras.backend.backend()
    expected = {
        "torch": ["plain PyTorch, same U-Net", "our U-Net, channels-last"],
        "tensorflow": ["MIScnn, same U-Net", "our U-Net, channels-first"],
        "jax": ["our U-Net, channels-first"],
    }
    if not unet.computes_channels_first():
        expected[backend].remove("our U-Net, channels-first")
    steps = rows[: len(expected[backend])]
    assert [row.peer for row in steps] == expected[backend]
    targets = {name: "1" if name[:3] == "our" else "1.05" for name in expected[backend]}
    assert [row.target for row in steps] == list(targets.values())
    for row in steps:
        assert (row.part, row.what) == ("step", "training step, U-Net, 2 filters")
        assert (row.shape, row.unit) == ("1x16x32x3", "ms")
        assert row.device == provenance.device()
        assert len({row.ours for row in steps}) == 1  # measured once, beside all
    # Of a GPU its memory too.
    memory = rows[len(steps) :]
    assert bool(memory) == (provenance.device() != "CPU")
    for row in memory:
        assert row.what == "memory of a step, U-Net, 2 filters"
        assert (row.unit, row.target) == ("MB", "")


@pytest.mark.backend
def test_memory_of_a_step_is_looked_at_one_network_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alive: list[str] = []
    looked: list[list[str]] = []

    class Step:
        def __init__(self, name: str) -> None:
            self.name = name
            alive.append(name)

        def __call__(self) -> float:
            return 0.0

        def __del__(self) -> None:
            alive.remove(self.name)

    def peak() -> float:
        looked.append(list(alive))
        return 5.0

    monkeypatch.setattr(step_benchmark, "forget_peak", lambda: None)
    monkeypatch.setattr(step_benchmark, "peak_mb", peak)
    names = [step_benchmark.OURS, "peer"]
    made = {name: lambda name=name: Step(name) for name in names}
    found = step_benchmark._peaks(made)
    # JAX can't begin anew to look for it.
    names = names[:1] if keras.backend.backend() == "jax" else names
    assert looked == [[name] for name in names]
    assert {name: list(x) for name, x in found.items()} == {key: [5.0] for key in names}


@pytest.mark.backend
def test_a_network_of_another_shape_is_no_peer() -> None:
    plain_torch = pytest.importorskip("benchmarks.plain_torch", exc_type=ImportError)
    network = plain_torch.PlainUNet(2, 3, 2, filters=2, depth=1)
    weights = [np.zeros(tuple(p.shape), "float32") for p in network.parameters()]
    with pytest.raises(ValueError, match="expected a weight of shape"):
        network.take(weights)


def test_the_readme_has_the_table_of_the_results(project: Path) -> None:
    text = (project / "README.md").read_text("utf-8")
    content = page.table(timing.read())
    assert replace_marked(project / "README.md", text, page.MARKER, content) == text
