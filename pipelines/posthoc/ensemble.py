"""Deep ensembles: runs of several seeds in, one run with their mean out.

The networks differ in their seed alone (Lakshminarayanan et al., 2017). With p_m what
the m-th of M networks says:

    probabilities   p = (p_1 + ... + p_M) / M
    logits          p = softmax of the mean logits: the product of p_m^(1/M), divided by
                    its sum over the classes

log p_m is the logits of a network less a number that all classes of a voxel share,
which the softmax takes out. So the probabilities that runs keep are enough. They are
those at native size (of volumes on the network's grid), also for the mean of logits.

In each voxel the NLL (Eq. 1), before p is clipped, is at most the networks' mean NLL.

The ensemble lies beside its members, `<first>-ensemble-<M>[-logits]`. It has the seed
of the first and keeps no probabilities: `pipelines.runs.predictions` averages those of
the members where they are read.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path

from data_io import datasets
from data_io.errors import InputError
from data_io.files import schema
from pipelines.posthoc import scaling
from pipelines.runs import predictions
from pipelines.runs import run as runs

MEANS = ("probabilities", "logits")

_FREE = {"seed", "replicate", "split_seed", "method"}  # the split itself is compared
_ALIKE = [key for key in runs.IDENTITY if key not in _FREE]


def method_of(number: int, mean: str) -> str:
    """Return the method of an ensemble, such as "ensemble-3"; its size is a part."""
    return f"ensemble-{number}" + "-logits" * (mean == "logits")


def model_of(members: Sequence[runs.Run]) -> str:
    """Return one hash over the weights of all members."""
    return schema.digest([scaling.model_of(member) for member in members])


def checked(members: Sequence[runs.Run]) -> list[runs.Run]:
    """Return the members in the order of their seeds.

    Raises:
        InputError: fewer than two, one that is not as it was trained or of a
            cross-validation, members in several folders, two of one seed, or two that
            differ in more than the seed.
    """
    if len(members) < 2:
        raise InputError(
            f"ensemble: expected two runs or more, received {len(members)}; name each "
            "run, as `dscpp ensemble RUN OTHER-RUN`"
        )
    for member in members:
        member.require_network()
        if member.record.get("fold"):
            raise InputError(
                f"{member.folder}: expected a run without --folds, found one of a "
                "cross-validation, whose ensembles are not pooled"
            )
        _require_alike(members[0], member)
    ordered = sorted(members, key=lambda member: int(member.record["seed"]))
    for one, other in itertools.pairwise(ordered):
        if one.record["seed"] == other.record["seed"]:
            raise InputError(
                f"{other.folder}: expected another seed than that of {one.folder}, "
                f"found {other.record['seed']} in both; leave one of them out"
            )
    return ordered


def _require_alike(first: runs.Run, other: runs.Run) -> None:
    if first.folder.resolve().parent != other.folder.resolve().parent:
        raise InputError(
            f"{other.folder}: expected a run beside {first.folder}, found one in "
            "another folder; an ensemble is of runs of one folder"
        )
    for key in _ALIKE:
        ours, theirs = first.record.get(key), other.record.get(key)
        if ours != theirs:
            if isinstance(ours, dict) and isinstance(theirs, dict):
                sides = ((ours, theirs), (theirs, ours))
                ours, theirs = (
                    {k: v for k, v in a.items() if b.get(k) != v} for a, b in sides
                )
            raise InputError(
                f"{other.folder}: expected the {key} of {first.name}, "
                f"{runs.short(ours, theirs)}, found {runs.short(theirs, ours)}; an "
                "ensemble is of runs that differ in their seed alone"
            )


def require_disjoint(output: Path, method: str, names: Sequence[str]) -> None:
    """Refuse a second ensemble of a method that shares members with one beside it."""
    for path in sorted(output.parent.glob(f"*-{method}")):
        other = None if path == output else runs.readable(path)
        if shared := sorted({*names} & {*(other.members if other else ())}):
            raise InputError(
                f"{output}: expected an ensemble without a member of {path}, as tables "
                f"take them as independent, found {', '.join(shared)} in both; give "
                "other runs, or move that one away"
            )


def make(members: Sequence[runs.Run], root: Path, output: Path, mean: str) -> runs.Run:
    """Write an ensemble, which keeps no probabilities.

    Args:
        members: as `checked` returns them, predicted, with their probabilities.
        root: the data set's folder.
        output: the new run's folder, held by the caller.
        mean: one of `MEANS`.

    Returns:
        The new run, in state "predicted": its record is that of the first member, with
        `method`, and under `posthoc` its members and the SHA-256 of the list of each
        one's probabilities.

    Raises:
        InputError: probabilities of a member that cannot be read.
    """
    start = time.perf_counter()
    module = datasets.by_name(members[0].record["dataset"])
    for member in members:  # All are looked at before anything is written.
        for _, case in predictions.cases(member):
            predictions.as_kept(member, module, root, case)
    origin = {
        "run": members[0].name,
        "model": model_of(members),
        "members": {one.name: predictions.listed(one) for one in members},
        "mean": mean,
    }
    method = method_of(len(members), mean)
    return scaling.write(members[0], output, method, origin, start)
