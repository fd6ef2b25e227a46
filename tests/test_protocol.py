"""The protocol: the paper's numbers, presets, overrides."""

from __future__ import annotations

import dataclasses

import pytest

from data_io import datasets
from data_io.errors import InputError
from pipelines import loss_names
from pipelines.training import protocol

DRIVE = datasets.by_name("drive").RECORD


def test_the_paper_preset_is_section_2_7_and_the_released_code():
    values = protocol.preset("paper", DRIVE)
    assert values.input_shape == (512, 512)
    assert (values.filters, values.depth, values.batch_size) == (32, 4, 1)
    assert (values.learning_rate, values.momentum, values.nesterov) == (0.1, 0.9, True)
    assert (values.plateau_factor, values.plateau_patience) == (0.1, 25)
    assert (values.plateau_cooldown, values.min_learning_rate) == (1, 1e-4)
    assert (values.stopping_patience, values.min_delta) == (50, 1e-7)
    assert values.epochs == 1000


def test_the_reduced_preset():
    values = protocol.preset("reduced", DRIVE)
    assert values.input_shape == (256, 256)
    assert (values.filters, values.epochs) == (16, 100)


@pytest.mark.parametrize("name", ["paper", "reduced", "demo"])
def test_own_volumes_are_joined_by_gaussian_weights(name):
    def join(record):
        return protocol.preset(name, record).as_dict().get("join")

    own = datasets.by_name("own").RECORD
    volumes = {"name": "own-ct", "input_shape": (32, 32, 32)}
    assert join(dataclasses.replace(own, **volumes)) == "gaussian"
    assert join(own) is None  # images are predicted whole
    for other in ("kits19", "hippocampus"):
        assert join(datasets.by_name(other).RECORD) == "miscnn"


def test_overrides_list_only_what_differs():
    values, changed = protocol.override(
        protocol.preset("paper", DRIVE),
        protocol.parse_overrides(["epochs=3", "filters=32", "input_shape=[64, 96]"]),
    )
    assert changed == {"epochs": 3, "input_shape": [64, 96]}
    assert (values.epochs, values.input_shape) == (3, (64, 96))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch=3", "did you mean epochs"),
        ("filters", "expected key=value"),
        ("filters=many", "filters: expected a valid integer, found 'many'"),
        ("filters=0", "filters"),
        ("filters=1.5", "filters"),
        ("filters=true", "filters"),
        ("learning_rate=-0.1", "learning_rate"),
        ("learning_rate=NaN", "learning_rate"),
        ("nesterov=1", "nesterov"),
        ("input_shape=[64]", "input_shape: expected 2 whole numbers, received"),
        ("input_shape=5", "input_shape: expected a valid array, found 5"),
        ("augment=0", "augment: expected a valid boolean"),
        ("plateau_patience=2.5", "plateau_patience: expected a valid integer"),
        ("min_learning_rate=null", "min_learning_rate: expected a valid number"),
        ("input_shape=[64, 70]", "multiples of 16"),
        ("batch_size=2", "batch_size: expected less than or equal to 1, found 2"),
        ("batch_size=true", "batch_size: expected a valid integer, found True"),
        ("momentum=1.5", "momentum: expected less than or equal to 0.999999"),
        ("plateau_factor=1", "plateau_factor.*to 0.999999, found 1"),
        ("learning_rate=1e400", "learning_rate"),
        ("learning_rate=0", "learning_rate: expected greater than.*, found 0"),
        ("learning_rate=1e300", "learning_rate: expected less than.*, found 1e.300"),
        ("filters=100000", "filters.*than or equal to 4096, found 100000"),
        ("filters=4096", "filters x 16 .depth.: expected 4096 filters at most"),
        ("depth=100000000000", "depth.*than or equal to 10, found 100000000000"),
        (
            "input_shape=[16, 1000000000]",
            "input_shape.1: .*to 16777216, found 1",
        ),
        ("input_shape=[16384, 16384]", "expected 16777216 voxels at most"),
        ("epochs=100000000000000000000", "epochs.*than or equal to 1000000, found"),
        ("min_delta=-1", "min_delta.*greater than or equal to 0, found -1"),
        ("mirror_axes=[2]", "mirror_axes: expected axes from 0 to 1 in order"),
        ("mirror_axes=[true]", "mirror_axes.0: expected a valid integer"),
        ("mirror_axes=0", "mirror_axes: expected 'all'"),
        ("mirror_axes=[1, 0]", "axes from 0 to 1 in order"),
    ],
)
def test_invalid_overrides_are_refused(text, message):
    with pytest.raises(InputError, match=message):
        protocol.override(
            protocol.preset("paper", DRIVE), protocol.parse_overrides([text])
        )


@pytest.mark.parametrize("text", [
    "precision=mixed_float16", "precision=tf32", "xla=true", "xla=false",
    "mirror_axes=[0]", "mirror_axes=[]",
])  # fmt: skip
def test_precision_and_xla_can_be_set(text):
    key, value = next(iter(protocol.parse_overrides([text]).items()))
    default = protocol.preset("paper", DRIVE)
    values, changed = protocol.override(default, {key: value})
    assert changed == {key: value}
    assert values.as_dict() == {**default.as_dict(), key: value}
    assert protocol.from_dict(values.as_dict()) == values


@pytest.mark.parametrize("key", ["learning_rate", "momentum", "min_delta"])
def test_integer_is_accepted_for_a_float(key):
    """Keras refuses a learning rate that is an int."""
    default = protocol.preset("paper", DRIVE)
    values, changed = protocol.override(default, {key: 1 if key[0] == "l" else 0})
    assert type(getattr(values, key)) is float
    assert values.as_dict()[key] == changed[key]


def test_every_axis_by_number_is_the_default():
    default = protocol.preset("paper", DRIVE)
    assert protocol.override(default, {"mirror_axes": [0, 1]}) == (default, {})
    volumes = protocol.preset("paper", datasets.by_name("kits19").RECORD)
    assert protocol.override(volumes, {"mirror_axes": [0, 1, 2]}) == (volumes, {})
    values, changed = protocol.override(volumes, {"mirror_axes": [0, 1]})
    assert values.mirror_axes == (0, 1) and changed == {"mirror_axes": [0, 1]}


def test_default_precision_xla_and_mirroring_are_not_recorded():
    values = protocol.preset("paper", DRIVE)
    assert not {"precision", "xla", "mirror_axes"} & values.as_dict().keys()
    same = protocol.parse_overrides(
        ["precision=float32", "xla=auto", "mirror_axes=all"]
    )
    assert protocol.override(values, same) == (values, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("precision=float16", "precision: expected 'float32', 'tf32', 'mixed"),
        ("precision=32", "precision: expected 'float32', .*, found 32"),
        ("xla=1", "xla: expected 'auto', found 1"),
        ("xla=yes", "found 'yes'"),
    ],
)
def test_invalid_precision_or_xla_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        protocol.override(
            protocol.preset("paper", DRIVE), protocol.parse_overrides([text])
        )


def test_the_first_unknown_value_in_a_file_is_named():
    unknown = {"filter": 3, **{f"unknown{number}": 0 for number in range(8)}}
    with pytest.raises(InputError, match="received 'filter'; did you mean filters"):
        protocol.override(protocol.preset("paper", DRIVE), unknown)


def test_unknown_preset_is_refused():
    with pytest.raises(InputError, match="paper, reduced, demo"):
        protocol.preset("papr", DRIVE)


def test_default_exponent_of_a_loss():
    assert loss_names.checked("dsc++") == ("DSC++", 2)
    assert loss_names.checked("DSC++", 3) == ("DSC++", 3)
    assert loss_names.checked("DSC", 1) == ("DSC", 1)
    assert loss_names.checked("CE") == ("CE", None)


@pytest.mark.parametrize(
    ("loss", "gamma", "message"),
    [
        ("DSC+", None, r"CE, Focal, DSC, DSC\+\+, .*received 'DSC\+'.*mean DSC"),
        ("dscpp", None, r"Did you mean DSC\+\+"),
        ("hinge", None, r"received 'hinge'$"),
        (None, None, "received None"),
        ("DSC++", 0, "gamma: expected a number above 0, received 0"),
        ("DSC++", "2", "above 0, received '2'"),
        ("DSC++", float("nan"), "above 0, received nan"),
        ("DSC++", True, "above 0, received True"),
        ("DSC", 2, r"plain form, expected 1, received 2.*take DSC\+\+$"),
        ("CE", 2, r"expected none, .* no \+\+ exponent, received 2\. Leave gamma out"),
        ("Focal Tversky", 1.5, r"Tversky\+\+. Its own exponent is focal_gamma"),
    ],
)
def test_invalid_loss_or_exponent_is_refused(loss, gamma, message):
    with pytest.raises(InputError, match=message):
        loss_names.checked(loss, gamma)
