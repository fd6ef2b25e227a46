"""The PyTorch port: its values, its options, and what PyTorch and MONAI ask of it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import conformance

torch = pytest.importorskip("torch")
import dscpp_torch as port  # noqa: E402

pytestmark = [
    pytest.mark.ports,
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning"),
]
NAMES = list(conformance.FAMILY)
RAW = {"softmax": True, "to_onehot_y": True}


def ours(name: str, **options: Any) -> conformance.Adapter:
    """One of the port's losses, with all that the suite can ask it for."""
    smooth = "epsilon" in conformance.MEMBERS[name].defaults

    def made(
        ignore_background: bool = False, soft_labels: bool = False, **given: float
    ) -> Any:
        epsilon = given.pop("epsilon", 1e-7)
        if smooth:
            given |= {"smooth_nr": epsilon, "smooth_dr": epsilon}
        loss = port.by_name(
            name,
            reduction="none",
            include_background=not ignore_background,
            **given,
            **{"soft_label": soft_labels, **options},
        )
        return lambda p, y, mask=None: loss(p, y, mask).flatten(1).mean(1)

    return conformance.TorchAdapter(
        made,
        name=f"dscpp_torch.by_name({name!r})",
        axis=1,
        options=[
            *conformance.MEMBERS[name].defaults,
            "ignore_background",
            "soft_labels",
        ],
        weight="mask",
        factory=True,
        pred_first=True,
        soft_labels=not options.get("soft_label", False),
        from_logits=options.get("softmax", False),
    )


@pytest.mark.parametrize("name", NAMES)
def test_port_conforms(name: str) -> None:
    report = conformance.run(ours(name), name)
    assert report.ok, report.text()
    skipped = {each.check for each in report.results if each.outcome == "skip"}
    none = {"values_agree_with_other_hyperparameters"}  # CE has no hyperparameter
    assert skipped == (none if name == "CE" else set())


FEW = [
    "values_agree",
    "a_mask_is_as_if_voxels_were_absent",
    "background_can_be_ignored",
    "gradients_agree",
    "finite_at_p_at_0_and_1",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("option", ["softmax", "soft_label"])
def test_the_port_conforms_from_logits_and_on_soft_labels(
    name: str, option: str
) -> None:
    adapter = ours(name, **{option: True})
    report = conformance.run(adapter, name, precisions=["float32"], checks=FEW)
    assert report.ok, report.text()
    assert {each.outcome for each in report.results} == {"pass"}


def batch(*shape: int, seed: int = 0) -> tuple[Any, Any]:
    """Logits that want a gradient, and class indices, (N, 1, *spatial)."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=random)
    spatial = (shape[0], 1, *shape[2:])
    labels = torch.randint(0, shape[1], spatial, generator=random)
    return logits.requires_grad_(), labels


def slope(value: Any, by: Any) -> Any:
    return torch.autograd.grad(value.sum(), by)[0]


@pytest.mark.parametrize("name", NAMES)
def test_keras_has_the_same_values_and_gradients(name: str) -> None:
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "torch":
        pytest.skip("needs KERAS_BACKEND=torch")
    import losses

    theirs = losses.by_name(name, axis=1, from_logits=True, from_indices=True)
    for shape in ((2, 3, 5, 7), (1, 2, 3, 4, 5)):
        logits, labels = batch(*shape)
        expected, value = (
            theirs(labels, logits),
            port.by_name(name, **RAW)(logits, labels),
        )
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            slope(value, logits), slope(expected, logits), rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize("name", NAMES)
def test_class_indices_are_one_hot_labels(name: str) -> None:
    # They take another way through the sums: fewer passes, slopes by hand.
    for gamma in (0.5, 1.0, 1.5, 2.0):
        own = {"gamma": gamma} if name.endswith("++") else {}
        logits, labels = batch(2, 3, 5, 7)
        hot = torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1)
        mask = torch.rand(2, 1, 5, 7)
        fast = port.by_name(name, **RAW, **own)(logits, labels, mask)
        plain = port.by_name(name, softmax=True, **own)(logits, hot, mask)
        torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            slope(fast, logits), slope(plain, logits), rtol=1e-4, atol=1e-7
        )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [RAW, {"sigmoid": True, "soft_label": True}])
def test_result_does_not_depend_on_the_part_size(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a CPU large images are summed part by part.
    logits, labels = batch(2, 3, 7, 4, 5)
    target = labels if "to_onehot_y" in options else torch.rand(2, 3, 7, 4, 5)
    mask = torch.rand(2, 1, 7, 4, 5)
    loss = port.by_name(name, **options)
    whole = loss(logits, target, mask)
    expected = slope(whole, logits)
    monkeypatch.setattr("dscpp_torch._sums.PART", 0)
    value = loss(logits, target, mask)
    torch.testing.assert_close(value, whole, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(slope(value, logits), expected, rtol=1e-4, atol=1e-8)


# --- soft labels ---------------------------------------------------------------------

# Not the asymmetric Unified Focal losses, whose foreground has a plain cross entropy.
REACH = [name for name in NAMES if not name.startswith("Unified")]
unit = st.floats(0, 1, width=32)


@pytest.mark.parametrize("name", REACH)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_loss_is_lowest_where_p_equals_the_soft_label(
    name: str, data: st.DataObject
) -> None:
    def draw() -> Any:
        rows = data.draw(st.lists(unit, min_size=6, max_size=6))
        p = torch.tensor(rows, dtype=torch.float64).reshape(1, 1, 6)
        return torch.cat([1 - p, p], 1)

    loss = port.by_name(name, soft_label=True)
    y, p = draw(), draw()
    assert loss(y, y) <= loss(p, y) + 1e-6
    nearer = (p + y) / 2
    if name in ("DSC", "DSC++", "Tversky", "Tversky++"):
        assert loss(nearer, y) <= loss(p, y) + 1e-9


@pytest.mark.parametrize("name", ["DSC++", "Tversky++", "Focal Tversky++"])
def test_minimum_with_soft_labels_is_0_with_zero_gradient(name: str) -> None:
    y = torch.tensor([[[0.25, 0.5, 1.0, 0.0]]], dtype=torch.float64)
    p = y.clone().requires_grad_()
    value = port.by_name(name, soft_label=True)(p, y)
    assert value.item() < 1e-9
    assert slope(value, p).abs().max() < 1e-3
    # As the formula says, without soft_label, it is not the least.
    assert port.by_name(name)(p, y) > 0.05


def test_soft_dice_by_hand() -> None:
    y = torch.tensor([[[0.5, 1.0, 0.0]]], dtype=torch.float64)
    p = torch.tensor([[[0.25, 0.75, 0.5]]], dtype=torch.float64)
    # Hits 0.25 + 0.75 + 0; misses 0.25² + 0.25², false positives 0.5².
    value = port.DicePlusPlus(soft_label=True)(p, y)
    assert value.item() == pytest.approx(0.375 / 2.375)
    # alpha weighs the false positive, beta the misses.
    value = port.TverskyPlusPlus(soft_label=True)(p, y)
    assert value.item() == pytest.approx(0.1625 / 1.1625)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("alpha", [0.3, 0.5])
def test_analytic_gradients_equal_finite_differences(
    gamma: float, alpha: float
) -> None:
    random = torch.Generator().manual_seed(0)
    p, y = torch.rand(2, 2, 3, 4, 5, generator=random, dtype=torch.float64)
    loss = port.TverskyPlusPlus(
        gamma=gamma, alpha=alpha, beta=1 - alpha, soft_label=True
    )
    mask = torch.rand(2, 1, 4, 5, generator=random, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda q: loss(q, y, mask), p.requires_grad_())


def test_one_soft_voxel_among_hard_labels_counts_as_soft() -> None:
    # Labels of 0 and 1 take fewer passes, also when they are not known to be hard.
    random = torch.Generator().manual_seed(0)
    p, y = torch.rand(2, 1, 2, 9, 9, generator=random, dtype=torch.float64)
    y = (y > 0.5).double()
    hard = port.DicePlusPlus()(p, y)
    y[0, 0, 4, 4] = 0.5
    fn, fp = (y * (1 - p)) ** 2, ((1 - y) * p) ** 2
    errors = (fn + fp).sum((2, 3))
    expected = (errors / (2 * (y * p).sum((2, 3)) + errors)).mean()
    value = port.DicePlusPlus()(p, y)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    assert abs(value - hard) > 1e-4


@pytest.mark.parametrize("name", ["CE", "DSC++", "Focal Tversky++", "Combo"])
@pytest.mark.parametrize("soft_label", [False, True])
def test_targets_and_masks_may_require_gradients(name: str, soft_label: bool) -> None:
    loss = port.by_name(name, soft_label=soft_label)
    random = torch.Generator().manual_seed(0)
    p, y = torch.rand(2, 1, 2, 2, 3, generator=random, dtype=torch.float64)
    mask = torch.rand(1, 1, 2, 3, generator=random, dtype=torch.float64)
    tensors = [each.requires_grad_() for each in (p, y, mask)]
    assert torch.autograd.gradcheck(loss, tensors)


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives(name: str) -> None:
    logits, labels = batch(1, 3, 2, 3)
    logits = logits.detach().double().requires_grad_()
    hot = torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1).double()
    indices = port.by_name(name, **RAW)
    assert torch.autograd.gradgradcheck(lambda x: indices(x, labels), logits)
    for soft in (False, True):
        loss, y = port.by_name(name, softmax=True, soft_label=soft), hot * 0.9
        assert torch.autograd.gradgradcheck(lambda x: loss(x, y), logits)  # noqa: B023


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_agrees_with_the_gradient(name: str, soft: bool) -> None:
    logits, labels = batch(2, 3, 4, 5)
    logits = logits.detach().double().requires_grad_()
    loss = port.by_name(name, **RAW, soft_label=soft)
    slope = torch.autograd.grad(loss(logits, labels), logits)[0]
    way = torch.linspace(-1, 1, logits.numel()).double().view_as(logits)
    along = torch.func.jvp(lambda x: loss(x, labels), (logits.detach(),), (way,))[1]
    torch.testing.assert_close(along, (slope * way).sum())


@pytest.mark.parametrize("options", [RAW, {"softmax": True}])
@pytest.mark.parametrize("name", NAMES)
def test_vmap_is_a_loop(name: str, options: dict[str, Any]) -> None:
    logits, labels = batch(6, 3, 4, 5)
    if "to_onehot_y" not in options:
        labels = torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1).float()
    pairs = logits.detach().unflatten(0, (3, 2)), labels.unflatten(0, (3, 2))
    loss = port.by_name(name, **options, ignore_index=255, weight=[1, 2, 3])
    for function in (loss, torch.func.grad(loss)):
        expected = torch.stack([function(*pair) for pair in zip(*pairs, strict=True)])
        torch.testing.assert_close(torch.func.vmap(function)(*pairs), expected)


# --- options -------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_ignored_voxels_are_as_if_they_were_absent(name: str) -> None:
    logits, labels = batch(2, 3, 4, 6)
    labels[:, :, 3] = 255
    loss = port.by_name(name, **RAW, ignore_index=255)
    value = loss(logits, labels)
    cut = port.by_name(name, **RAW)(logits[:, :, :3], labels[:, :, :3])
    torch.testing.assert_close(value, cut, rtol=1e-5, atol=1e-6)
    assert (slope(value, logits)[:, :, 3] == 0).all()
    torch.testing.assert_close(loss(logits, labels[:, 0]), value)
    everything = loss(logits, torch.full_like(labels, 255))
    assert everything.isfinite() and slope(everything, logits).abs().max() == 0
    # A binary label of one channel, 255 where unknown.
    one = port.by_name(name, sigmoid=True, ignore_index=255)
    binary = torch.where(labels == 255, labels, labels.clamp(max=1)).float()
    value = one(logits[:, :1], binary)
    cut = port.by_name(name, sigmoid=True)(logits[:, :1, :3], binary[:, :, :3])
    torch.testing.assert_close(value, cut, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_regions_are_losses_of_their_own(name: str) -> None:
    logits, _ = batch(2, 3, 4, 6)
    inner = torch.rand(2, 1, 4, 6) < 0.3
    outer = inner | (torch.rand(2, 1, 4, 6) < 0.4)  # overlapping
    regions = torch.cat([outer, inner, ~inner], 1)
    loss = port.by_name(name, sigmoid=True, reduction="none")
    together = loss(logits, regions)
    assert together.shape == (2, 3, 1, 1)
    for c in range(3):
        one = loss(logits[:, c : c + 1], regions[:, c : c + 1])
        torch.testing.assert_close(one, together[:, c : c + 1])
    # More right is less lost, on both sides of the label.
    right = torch.where(regions, 4.0, -4.0)
    half_right = torch.where(regions, 4.0, 4.0)
    assert (loss(right, regions) < loss(half_right, regions)).all()
    assert (loss(right, regions) < loss(-half_right, regions)).all()


def test_the_cross_entropy_of_regions_is_binary() -> None:
    logits, _ = batch(2, 3, 4, 6)
    regions = (torch.rand(2, 3, 4, 6) < 0.4).float()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, regions)
    value = port.CrossEntropy(sigmoid=True)(logits, regions)
    torch.testing.assert_close(value, expected)
    focal = port.Focal(sigmoid=True, alpha=1, focal_gamma=0)(logits, regions)
    torch.testing.assert_close(focal, expected)


def test_the_focal_factor_of_soft_regions_by_hand() -> None:
    logits = torch.tensor([[[0.0, 2.0, -3.0]]], dtype=torch.float64)
    y, p = torch.tensor([[[0.25, 0.9, 0.5]]], dtype=torch.float64), logits.sigmoid()
    entropy = -(y * p.log() + (1 - y) * (1 - p).log())
    value = port.Focal(sigmoid=True, soft_label=True, alpha=1)(logits, y)
    torch.testing.assert_close(value, (entropy * (y - p) ** 2).mean())


def test_combo_of_several_classes_is_exact_where_p_is_near_1() -> None:
    # In float32 1 - p is 0 there: it is the sum of the other classes.
    logits, labels = batch(2, 4, 20, 30)
    logits = (8 * logits.detach()).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    rest = [exact[:, [k for k in range(4) if k != c]] for c in range(4)]
    odds = exact - torch.stack([each.logsumexp(1) for each in rest], 1)
    hot = torch.nn.functional.one_hot(labels[:, 0], 4).movedim(-1, 1).double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(odds, hot) / 2
    value = port.Combo(**RAW, alpha=1)(logits, labels)
    torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=0)
    slopes, wanted = slope(value, logits).double(), slope(expected, exact)
    torch.testing.assert_close(slopes, wanted, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_batch_option_joins_the_images(name: str) -> None:
    logits, labels = batch(2, 3, 4, 6)
    value = port.by_name(name, **RAW, batch=True)(logits, labels)
    joined = torch.cat(list(logits), 1)[None], torch.cat(list(labels), 1)[None]
    expected = port.by_name(name, **RAW)(*joined)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    none = port.by_name(name, **RAW, batch=True, reduction="none")(logits, labels)
    assert none.shape == (1, 3, 1, 1)
    torch.testing.assert_close(none.mean(), value)


@pytest.mark.parametrize("name", NAMES)
def test_reductions_and_class_weights(name: str) -> None:
    logits, labels = batch(2, 3, 4, 6)
    values = port.by_name(name, **RAW, reduction="none")(logits, labels)
    assert values.shape == (2, 3, 1, 1)
    torch.testing.assert_close(port.by_name(name, **RAW)(logits, labels), values.mean())
    total = port.by_name(name, **RAW, reduction="sum")(logits, labels)
    torch.testing.assert_close(total, values.sum())
    weight = torch.tensor([0.0, 1.0, 3.0]).reshape(1, 3, 1, 1)
    weighed = port.by_name(name, **RAW, weight=[0, 1, 3])(logits, labels)
    torch.testing.assert_close(weighed, (weight * values).mean())
    without = port.by_name(name, **RAW, include_background=False, reduction="none")
    assert without(logits, labels).shape == (2, 2, 1, 1)


def test_smoothing_by_hand() -> None:
    y, p = torch.zeros(1, 1, 4), torch.full((1, 1, 4), 0.5)
    # FP 4 / 4, and an absent class: (1 + 2 - 1) / (1 + 2).
    value = port.DicePlusPlus(smooth_nr=1, smooth_dr=2)(p, y)
    assert value.item() == pytest.approx(2 / 3)
    # A larger numerator leaves nothing to take a root of.
    value = port.FocalTverskyPlusPlus(smooth_nr=9, smooth_dr=1)(p, y)
    assert value.item() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"softmax": True, "sigmoid": True},
            "sigmoid, softmax, other_act: expected one",
        ),
        ({"other_act": 3}, "other_act: expected a function, found 3"),
        ({"reduction": "avg"}, r"reduction: expected one of .*, found 'avg'"),
        ({"gamma": 0}, "gamma: expected a number above 0, found 0"),
        ({"gamma": float("nan")}, "gamma: expected a number above 0, found nan"),
        ({"smooth_dr": 0}, "smooth_dr: expected a number above 0"),
        ({"smooth_nr": -1}, "smooth_nr: expected a number of at least 0"),
        ({"weight": [1, -1]}, "weight: expected 0 or more each"),
        ({"ignore_index": 1}, "ignore_index: expected neither 0 nor 1"),
        ({"ddp": True}, "batch: expected True with ddp=True, found False"),
    ],
)
def test_invalid_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        port.DicePlusPlus(**arguments)


def test_invalid_names_and_hyperparameters_are_named() -> None:
    assert isinstance(port.by_name("dsc++", gamma=3), port.DicePlusPlus)
    with pytest.raises(ValueError, match=r"expected one of CE, .*found 'dice'"):
        port.by_name("dice")
    with pytest.raises(TypeError, match="smoth"):
        port.by_name("DSC++", smoth=3)
    with pytest.raises(TypeError, match="gamma"):
        port.Dice(gamma=2)
    for name, own in (
        ("Tversky", {"alpha": 2}),
        ("Focal", {"focal_gamma": -1}),
        ("Unified Focal", {"focal_gamma": 1}),
    ):
        with pytest.raises(ValueError, match=f"{next(iter(own))}: expected a number"):
            port.by_name(name, **own)


@pytest.mark.parametrize("channels", [1, 3])
def test_wrong_number_of_class_weights_is_refused(channels: int) -> None:
    logits, _ = batch(2, channels, 4, 6)
    regions = (logits.detach() > 0).float()
    expected = f"one for each of the {channels} classes that count, found 2"
    with pytest.raises(ValueError, match=expected):
        port.DicePlusPlus(sigmoid=True, weight=[1, 2])(logits, regions)
    with pytest.raises(ValueError, match="in one row"):
        port.DicePlusPlus(sigmoid=True, weight=[[1, 2]])
    double = port.DicePlusPlus(sigmoid=True, weight=2)(logits, regions)
    torch.testing.assert_close(
        double, 2 * port.DicePlusPlus(sigmoid=True)(logits, regions)
    )


def test_invalid_types_and_shapes_are_named() -> None:
    logits, labels = batch(2, 3, 4, 6)
    with pytest.raises(TypeError, match="input: expected a tensor, found list"):
        port.DicePlusPlus(**RAW)([logits], labels)
    with pytest.raises(TypeError, match="target: expected a tensor, found ndarray"):
        port.DicePlusPlus(**RAW)(logits, labels.numpy())
    with pytest.raises(ValueError, match=r"input: expected \(N, C, .* \[2, 3\]"):
        port.DicePlusPlus(**RAW)(logits[:, :, 0, 0], labels[:, :, 0, 0])
    with pytest.raises(ValueError, match=r"\[2, 3, 4, 6\], found \[2, 1, .*hot"):
        port.DicePlusPlus(softmax=True)(logits, labels)
    with pytest.raises(ValueError, match=r"target: expected shape \[2, 1, 4, 6\]"):
        port.DicePlusPlus(**RAW)(logits, labels[:, :, 1:])
    with pytest.raises(ValueError, match=r"mask: expected shape \[2, 1, 4, 6\]"):
        port.DicePlusPlus(**RAW)(logits, labels, torch.ones(2, 3, 4, 6))
    for wrong in ({"softmax": True}, {"include_background": False}):
        with pytest.raises(ValueError, match="expected two channels or more"):
            port.DicePlusPlus(**wrong)(logits[:, :1], labels)


# --- what PyTorch can do with a module -----------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_torchscript_gives_the_same_result(name: str, tmp_path: Path) -> None:
    logits, labels = batch(2, 3, 4, 6)
    for options in (RAW, {"sigmoid": True, "to_onehot_y": True, "soft_label": True}):
        loss = port.by_name(name, **options, ignore_index=2, weight=[1, 2, 3])
        torch.jit.save(torch.jit.script(loss), tmp_path / "loss.pt")
        scripted, mask = torch.jit.load(tmp_path / "loss.pt"), torch.rand(2, 1, 4, 6)
        for tensors in ((logits, labels), (logits, labels, mask)):
            expected, value = loss(*tensors), scripted(*tensors)
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(
                slope(value, logits), slope(expected, logits), rtol=1e-4, atol=1e-6
            )


@pytest.mark.parametrize("name", ["CE", "DSC++", "Tversky", "Unified Focal++"])
def test_compiled_in_one_graph(name: str) -> None:
    logits, labels = batch(2, 3, 4, 6)
    for options in (RAW, {**RAW, "ignore_index": 2, "soft_label": True}):
        loss = port.by_name(name, **options)
        compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        expected, value = loss(logits, labels), compiled(logits, labels)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            slope(value, logits), slope(expected, logits), rtol=1e-4, atol=1e-6
        )
        torch._dynamo.reset()


@pytest.mark.parametrize("options", [RAW, {"softmax": True}])
def test_exported_and_with_functional_gradients(options: dict[str, Any]) -> None:
    logits, labels = batch(2, 3, 4, 6)
    if "to_onehot_y" not in options:
        labels = torch.nn.functional.one_hot(labels[:, 0], 3).movedim(-1, 1)
    loss = port.DicePlusPlus(**options)
    expected = loss(logits, labels)
    program = torch.export.export(loss, (logits, labels))
    torch.testing.assert_close(program.module()(logits, labels), expected)
    slopes = torch.func.grad(loss)(logits.detach(), labels)
    torch.testing.assert_close(slopes, slope(expected, logits))


@pytest.mark.parametrize("memory", ["channels_last", "channels_last_3d"])
def test_channels_last_memory_gives_the_same_result(memory: str) -> None:
    logits, labels = batch(2, 3, *[4, 6, 5][: 2 + memory.endswith("3d")])
    last = logits.contiguous(memory_format=getattr(torch, memory))
    for name in NAMES:
        loss = port.by_name(name, **RAW)
        expected, value = loss(logits, labels), loss(last, labels)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(slope(value, last), slope(expected, logits))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_autocast_computes_in_float32(name: str, dtype: str) -> None:
    logits, labels = batch(2, 3, 40, 60)
    low = logits.detach().to(getattr(torch, dtype)).requires_grad_()
    loss = port.by_name(name, **RAW)
    with torch.autocast("cpu", dtype=getattr(torch, dtype)):
        value = loss(low, labels)
    assert value.dtype == torch.float32
    exact = low.detach().double().requires_grad_()
    expected = loss(exact, labels)
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    assert slope(value, low).isfinite().all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_an_activation_in_half_precision(name: str, dtype: str) -> None:
    """As a layer under autocast returns it; 160,000 hits are too many for float16."""
    logits, labels = batch(1, 3, 400, 400)

    def act(x: torch.Tensor) -> torch.Tensor:
        return x.softmax(1).to(getattr(torch, dtype))

    loss = port.by_name(name, **{**RAW, "softmax": False}, other_act=act)
    value = loss(logits, labels)
    assert value.dtype == logits.dtype
    expected = port.by_name(name, **{**RAW, "softmax": False})(
        act(logits).to(logits), labels
    )
    torch.testing.assert_close(value, expected)


def test_input_is_not_modified() -> None:
    p = torch.tensor([[[0.0, 1.0]], [[1.0, 0.0]]])
    for options in ({}, {"other_act": lambda x: x}):
        port.DicePlusPlus(**options)(p, torch.zeros_like(p))
        assert p.unique().tolist() == [0, 1]
    identity = port.DicePlusPlus(other_act=torch.sigmoid)(p, torch.zeros_like(p))
    same = port.DicePlusPlus(sigmoid=True)(p, torch.zeros_like(p))
    torch.testing.assert_close(identity, same)


def test_state_dict_and_deepcopy() -> None:
    loss = port.DicePlusPlus(**RAW, weight=[1.0, 2.0, 3.0])
    assert loss.double().class_weight.dtype == torch.float64
    assert list(loss.state_dict()) == ["class_weight"]


ROOT = Path(__file__).resolve().parents[1]
RANKS = """
import sys, torch, dscpp_torch
import torch.distributed as dist
rank = int(sys.argv[1])
dist.init_process_group(
    "gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2
)
torch.manual_seed(0)
inputs, labels = torch.randn(4, 1, 6, 5), torch.randint(0, 3, (4, 1, 6, 5))
labels[0] = 255  # the ranks do not count the same number of voxels
for name in dscpp_torch.NAMES:
    options = {"softmax": True, "to_onehot_y": True, "ignore_index": 255, "batch": True}
    whole = torch.nn.Conv2d(1, 3, 3, padding=1)
    model = torch.nn.parallel.DistributedDataParallel(whole)
    part = slice(rank, None, 2)
    loss = dscpp_torch.by_name(name, ddp=True, **options)
    value = loss(model(inputs[part]), labels[part])
    value.backward()
    received = [p.grad.clone() for p in whole.parameters()]
    whole.zero_grad()
    expected = dscpp_torch.by_name(name, **options)(whole(inputs), labels)
    expected.backward()
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    for grad, p in zip(received, whole.parameters()):
        torch.testing.assert_close(grad, p.grad, rtol=1e-3, atol=1e-5)
dist.destroy_process_group()
"""


def test_two_processes_equal_one_with_the_whole_batch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RANKS]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")],
            env={"PYTHONPATH": str(ROOT / "ports" / "torch"), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in started:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors[-2000:]


# --- MONAI ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        RAW,
        {**RAW, "batch": True, "include_background": False},
        {**RAW, "reduction": "none"},
        {**RAW, "reduction": "sum", "weight": [1.0, 2.0, 3.0]},
        {"sigmoid": True, "to_onehot_y": True},
        {**RAW, "smooth_nr": 0.0, "smooth_dr": 1e-6},
    ],
)
def test_dice_and_tversky_are_monais(options: dict[str, Any]) -> None:
    monai = pytest.importorskip("monai")
    options = {"smooth_nr": 1e-5, "smooth_dr": 1e-5, **options}
    for shape in ((2, 3, 5, 7), (2, 3, 4, 5, 6)):
        logits, labels = batch(*shape)
        pairs = [(port.Dice(**options), monai.losses.DiceLoss(**options))]
        if "weight" not in options:
            own = {**options, "alpha": 0.3, "beta": 0.7}
            pairs.append((port.Tversky(**own), monai.losses.TverskyLoss(**own)))
        for loss, theirs in pairs:
            value = loss(logits, labels)
            expected = theirs(logits, labels).reshape(value.shape)
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_works_in_monais_deep_supervision() -> None:
    monai = pytest.importorskip("monai")
    (logits, labels), (small, _) = batch(2, 3, 8, 8), batch(2, 3, 4, 4, seed=1)
    loss = port.DicePlusPlus(**RAW)
    labels = labels.float()  # MONAI resizes no integers
    value = monai.losses.DeepSupervisionLoss(loss, "exp")([logits, small], labels)
    size = {"size": (4, 4), "mode": "nearest-exact"}
    coarse = torch.nn.functional.interpolate(labels, **size)
    expected = loss(logits, labels) + loss(small, coarse) / 2
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("name", NAMES)
def test_monai_meta_tensor_is_accepted(name: str) -> None:
    data = pytest.importorskip("monai.data")
    logits, labels = batch(2, 3, 5, 7)
    loss = port.by_name(name, **RAW)
    meta = data.MetaTensor(logits.detach()).requires_grad_()
    value = loss(meta, data.MetaTensor(labels))
    torch.testing.assert_close(value, loss(logits, labels))
    assert slope(value, meta).as_subclass(torch.Tensor).isfinite().all()


# --- the distribution ----------------------------------------------------------------


@pytest.fixture
def wheel(tmp_path: Path) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from a copy: setuptools leaves a build folder behind."""
    import shutil

    shutil.copytree(ROOT / "ports" / "torch", tmp_path / "torch")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps"]
    command += ["--no-build-isolation", "-w", str(tmp_path), str(tmp_path / "torch")]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(path) as file:
        yield file


def test_the_wheel_holds_the_package_and_its_licence(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"dscpp_torch", "dscpp_torch-0.1.0.dist-info"}
    assert "dscpp_torch/nnunet/dscpp_trainers.py" in names
    assert "dscpp_torch/py.typed" in names
    text = wheel.read("dscpp_torch-0.1.0.dist-info/METADATA").decode()
    assert "Name: dscpp-torch\n" in text
    assert "License-Expression: Apache-2.0\n" in text
    needs = [line for line in text.splitlines() if line.startswith("Requires-Dist")]
    assert [need.split()[1].partition(">")[0] for need in needs] == ["torch"]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_each_file_names_its_licence() -> None:
    files = sorted((ROOT / "ports" / "torch").rglob("*.py"))
    assert len(files) >= 5
    for path in files:
        first = path.read_text().partition("\n")[0]
        assert first == "# SPDX-License-Identifier: Apache-2.0", path


# --- functions and the README --------------------------------------------------------


def test_each_loss_is_a_function() -> None:
    logits, labels = batch(2, 3, 4, 6)
    for loss in port.NAMES.values():
        words = "".join(f"_{c.lower()}" if c.isupper() else c for c in loss.__name__)
        function = getattr(port.functional, words.strip("_"))
        value = function(logits, labels, **RAW, weight=[1, 2, 3])
        assert value == loss(**RAW, weight=[1, 2, 3])(logits, labels)


README = ROOT / "ports" / "torch" / "README.md"


@pytest.mark.parametrize("number", range(3), ids=["PyTorch", "MONAI", "nnU-Net"])
def test_the_readmes_examples_run(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    code = README.read_text().split("```python\n")[1:][number].partition("```")[0]
    if "monai" in code:
        pytest.importorskip("monai")
    found: dict[str, Any] = {}
    exec(code, found)
    if number == 0:
        assert found["logits"].grad.abs().max() > 0
    if number == 1:
        logits = found["network"](found["images"])
        after = found["loss_function"](logits, found["labels"])
        assert 0 < after < 0.8 * float(capsys.readouterr().out.split()[3])


def test_the_readme_names_every_argument_and_default() -> None:
    import inspect

    text = README.read_text()
    arguments = inspect.signature(port.losses.Loss.__init__).parameters
    for name in set(arguments) - {"self", "hyperparameters"}:
        assert f"`{name}`" in text or f"`{name}=" in text, name
    for name, loss in port.NAMES.items():
        assert name in text
        assert f"`{loss.__name__}`" in text
        for own, default in conformance.MEMBERS[name].defaults.items():
            if own != "epsilon":
                value = "4/3" if default == 4 / 3 else f"{default:g}"
                assert f"`{own}={value}`" in text, own
