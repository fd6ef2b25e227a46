"""What `run.json` holds: the types of its values.

`results/README.md` says what each key means.
"""

from typing import Any, Literal

from typing_extensions import TypedDict

FORMAT = 1
STATES = ("training", "trained", "predicted", "evaluated")


class Posthoc(TypedDict, total=False):
    """Of a run that was made from others: which, and what was fitted."""

    run: str
    trained: str
    members: dict[str, str]
    mean: Literal["probabilities", "logits"]
    model: str
    temperature: float
    maps: list[list[float]]
    nll_before: float
    nll_after: float
    cases: int
    n_voxels: int
    probabilities: str


class Record(TypedDict, total=False):
    """The values of `run.json`; older runs lack some keys."""

    format: int
    state: Literal["training", "trained", "predicted", "evaluated"]
    dataset: str
    title: str
    simulated: bool
    classes: list[str]
    preset: str
    loss: str
    gamma: float | None
    seed: int | None
    replicate: int
    split_seed: int | None
    method: str
    posthoc: Posthoc
    decision: dict[str, Any]
    initial: dict[str, str]
    fold: list[int]
    folds: int
    backend: str
    overrides: dict[str, Any]
    settings: dict[str, Any]
    preprocessing: dict[str, Any]
    split: dict[str, list[str]]
    data_hash: str
    commit: str
    versions: dict[str, str]
    machine: str
    device: str
    threads: int
    variables: dict[str, str]
    environment_changes: list[dict[str, Any]]
    best_val_loss: float | None
    times: dict[str, float]
    peak_memory_mb: float | None
    temperature_at_bound: str
    files: dict[str, str]
    sha256: str


class MeasuredSet(TypedDict, total=False):
    """What is read back of `set.json`, which describes the measures of another set."""

    data_hash: str
    model: str
    files: dict[str, str]
