# SPDX-License-Identifier: Apache-2.0
"""What the losses of MONAI and Keras do, measured: the table of docs/conformance.md.

`python -m conformance.peers docs/conformance.md` writes it anew between its markers;
without a file it prints it. Needs MONAI, PyTorch and Keras, as `make recipes` installs
them, and KERAS_BACKEND=torch.

They were not written to be members of this family. The table says what to expect when
one is put in the place of another, no more.
"""

import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .adapters import Adapter, KerasAdapter, TorchAdapter
from .suite import Report, run

__all__ = ["PEERS", "Peer", "main", "table"]

BEGIN, END = "<!-- peers:begin -->", "<!-- peers:end -->"


@dataclass(frozen=True)
class Peer:
    """Another library's loss, and the member of the family that is nearest.

    Attributes:
        name: how it is written in its library.
        loss: the member.
        adapter: makes the adapter, and imports the library.
        remark: where it differs, in words.
        hyperparameters: its own values where they are not Table 2's.
    """

    name: str
    loss: str
    adapter: Callable[[], Adapter]
    remark: str
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def report(self) -> Report:
        """Run the suite on it, in float32: nobody trains in float64."""
        adapter = self.adapter()
        return run(adapter, self.loss, precisions=["float32"], **self.hyperparameters)


def main(arguments: Iterable[str] | None = None) -> int:
    """Print the table, or write it into the files that are named.

    Raises:
        ValueError: a file has no markers.
    """
    report = table(PEERS)
    names = list(sys.argv[1:] if arguments is None else arguments)
    if not names:
        print(report)
    for path in map(Path, names):
        before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
        _, end, after = rest.partition(END)
        if not (begin and end):
            raise ValueError(f"{path}: expected the markers {BEGIN} and {END}")
        path.write_text(f"{before}{BEGIN}\n{report}\n{END}{after}", encoding="utf-8")
    return 0


def table(peers: Iterable[Peer]) -> str:
    """Run the suite on each, and say in Markdown what failed."""
    rows = [_row(peer, peer.report()) for peer in peers]
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("monai", "keras", "torch")
    )
    head = [
        "| implementation | held to be | passed | failed | failed checks | because |",
        "|---|---|--:|--:|---|---|",
    ]
    return "\n".join([*head, *rows, "", f"With {versions}."])


def _row(peer: Peer, report: Report) -> str:
    failed = dict.fromkeys(each.check for each in report.failures)
    passed = sum(each.outcome == "pass" for each in report.results)
    values = "".join(f", {k} {v:g}" for k, v in peer.hyperparameters.items())
    names = ", ".join(f"`{name}`" for name in failed) or "none"
    return (
        f"| `{peer.name}` | {peer.loss}{values} | {passed} | {len(report.failures)} | "
        f"{names} | {peer.remark} |"
    )


def _monai(name: str, from_logits: bool = False, **settings: Any) -> Adapter:
    import monai.losses

    return TorchAdapter(
        getattr(monai.losses, name),
        axis=1,
        settings=settings,
        options=[],
        pred_first=True,
        from_logits=from_logits,
    )


def _keras(name: str, **settings: Any) -> Adapter:
    import keras

    loss = getattr(keras.losses, name)
    return KerasAdapter(loss, settings=settings, options=["dtype"])


def _keras_per_class(name: str, **settings: float) -> Adapter:
    """A function of `keras.losses` summed over the spatial axes, mean over classes."""
    import keras

    def loss(y_true: Any, y_pred: Any) -> Any:
        spatial = tuple(range(1, len(y_pred.shape) - 1))
        function = getattr(keras.losses, name)
        return keras.ops.mean(
            function(y_true, y_pred, axis=spatial, **settings), axis=-1
        )

    return KerasAdapter(loss, options=[])


_SMOOTH = {"epsilon": 1e-5}
_DIGITS = "1 minus a ratio, in the type it is given"
_TVERSKY: dict[str, Any] = {"alpha": 0.3, "beta": 0.7}

PEERS = (
    Peer(
        "monai DiceLoss()", "DSC", partial(_monai, "DiceLoss"),
        f"{_DIGITS}: NaN in float16 where a class is absent and not predicted",
        _SMOOTH,
    ),
    Peer(
        "monai DiceLoss(soft_label=True)", "DSC",
        partial(_monai, "DiceLoss", soft_label=True),
        "the same, and another formula for soft labels, which is 0 at p = y",
        _SMOOTH,
    ),
    Peer(
        "monai GeneralizedDiceLoss()", "DSC", partial(_monai, "GeneralizedDiceLoss"),
        "another loss: one ratio over all classes, weighted by 1 / volume²",
        _SMOOTH,
    ),
    Peer(
        "monai TverskyLoss(alpha=0.3, beta=0.7)", "Tversky",
        partial(_monai, "TverskyLoss", **_TVERSKY), "as DiceLoss", _SMOOTH,
    ),
    Peer(
        "monai FocalLoss(alpha=0.5, use_softmax=True)", "Focal",
        partial(_monai, "FocalLoss", True, alpha=0.5, use_softmax=True),
        "mean over classes where Eq. 2 has the sum: 1/C of it",
    ),
    Peer(
        "monai AsymmetricUnifiedFocalLoss(delta=0.6)", "Unified Focal",
        partial(_monai, "AsymmetricUnifiedFocalLoss", delta=0.6),
        "the third class is left out without a word; with two, the focal part is half "
        "of Eq. 19's",
    ),
    Peer(
        "keras Dice()", "DSC", partial(_keras, "Dice"),
        "one ratio over batch and classes (`axis=None`)",
    ),
    Peer(
        "keras dice(axis=spatial)", "DSC", partial(_keras_per_class, "dice"), _DIGITS,
    ),
    Peer(
        "keras tversky(alpha=0.3, beta=0.7, axis=spatial)", "Tversky",
        partial(_keras_per_class, "tversky", **_TVERSKY),
        "alpha is on the false negatives, beta on the false positives",
    ),
    Peer(
        "keras tversky(alpha=0.7, beta=0.3, axis=spatial)", "Tversky",
        partial(_keras_per_class, "tversky", alpha=0.7, beta=0.3),
        f"swapped back it agrees; {_DIGITS}",
    ),
    Peer(
        "keras CategoricalFocalCrossentropy(alpha=0.5)", "Focal",
        partial(_keras, "CategoricalFocalCrossentropy", alpha=0.5),
        "p divided by its sum over the classes first: NaN where that is 0",
    ),
    Peer(
        "keras CategoricalCrossentropy()", "CE",
        partial(_keras, "CategoricalCrossentropy"), "the same",
    ),
)  # fmt: skip
"""In the order of the table."""


if __name__ == "__main__":
    sys.exit(main())
