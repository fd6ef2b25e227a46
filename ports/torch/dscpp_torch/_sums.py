# SPDX-License-Identifier: Apache-2.0
"""What is computed of voxels, with slopes by hand where they take fewer passes."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual


def power(x: Tensor, exponent: float) -> Tensor:
    """`x ** exponent` for x from 0 on, with a finite slope at 0."""
    if exponent == 1:
        return x
    if exponent > 1:
        return x.pow(exponent)
    return x.clamp(min=1e-30).pow(exponent) * (x > 0)


def over_voxels(x: Tensor, w: Tensor | None = None) -> Tensor:
    """Sum over the spatial axes, (N, C), weighted by voxel where `w` is given."""
    return (x if w is None else x * w).flatten(2).sum(2)


def across_ranks(x: Tensor) -> Tensor:
    """Sum over the processes of the default group, where there are several.

    Its slope is that of the sum of their losses. DistributedDataParallel then takes the
    mean of the gradients: that of one process with the whole batch.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return x
    from torch.distributed.nn.functional import all_reduce

    total: Tensor = all_reduce(x)
    return total


def log_rest(logs: Tensor) -> Tensor:
    """log(1 - p) of logarithms of p: of the sum of the others, precise near 1 too."""
    if logs.shape[1] == 2:
        return logs.flip(1)
    p = logs.exp().unbind(1)
    before, after, last = [torch.zeros_like(p[0])], [torch.zeros_like(p[0])], len(p) - 1
    for c in range(last):
        before.append(before[c] + p[c])
        after.append(after[c] + p[last - c])
    others = [before[c] + after[last - c] for c in range(last + 1)]
    return torch.stack(others, 1).add_(1e-37).log()


Weights = tuple[float, float, float, float]
Settings = tuple[bool, float, float, float]  # of the overlap: hard, gamma, alpha, beta


class Voxels(NamedTuple):
    """What a loss is computed from."""

    scores: Tensor  # the input of all classes, (N, C, *spatial)
    y: Tensor  # labels in [0, 1] of the classes that count, of the type of the scores
    w: Tensor | None  # weight of each voxel, (N, 1, *spatial); None is 1
    kind: str  # of the labels, as `overlap` takes it


def overlap(
    p: Tensor, v: Voxels, gamma: float, alpha: float, beta: float
) -> tuple[Tensor, Tensor]:
    """Sum hits and errors of each image and class, (N, C) each.

    | kind | hits | false positives | misses |
    |---|---|---|---|
    | "formula" | y p | (1 - y) p | y (1 - p) |
    | "soft" | min(y, p) | (p - y)+ | (y - p)+ |
    | "hard", labels are 0 or 1 | both are the same | | |

    `alpha` weighs false positives, `beta` misses; errors are to the power of `gamma`.
    """
    if not torch.jit.is_scripting():
        counts = _overlap_by_hand(p, v, (v.kind != "soft", gamma, alpha, beta))
        if counts is not None:
            return counts
    return _plain_overlap(p, v.y, v.w, (v.kind != "soft", gamma, alpha, beta))


class _SoftLabels(Exception):
    """Some label is neither 0 nor 1, so `_Overlap` does not hold."""


def _overlap_by_hand(p: Tensor, v: Voxels, settings: Settings) -> Any:
    """Compute `_Overlap`; None where its conditions do not hold."""
    if settings[1] not in (1, 2) or not _by_hand(v):
        return None
    try:
        return _Overlap.apply(p, v.y, v.w, settings, v.kind == "formula")
    except _SoftLabels:
        return None


@torch.jit.unused
def transformed() -> bool:
    """Whether the code is traced, compiled or under a transform of `torch.func`."""
    functorch = torch._C._are_functorch_transforms_active()
    return bool(functorch or torch.jit.is_tracing() or torch.compiler.is_compiling())


def _by_hand(v: Voxels) -> bool:
    """Whether slopes by the scores alone are asked for, and nobody traces."""
    if transformed():
        return False
    tensors = [x for x in v[:3] if x is not None]
    forward = any(unpack_dual(x).tangent is not None for x in tensors)
    return not (forward or any(x.requires_grad for x in tensors[1:]))


def in_parts(function: Callable[..., Tensor], v: Voxels, how: tuple[Any, ...]) -> Any:
    """`function(scores, y, w, *how)`, sums over voxels, with little memory."""
    if _by_hand(v):
        return _InParts.apply(function, *v[:3], how)
    return function(*v[:3], *how)


class _InParts(torch.autograd.Function):
    """Sums part by part, which are made again for the slope: none is held."""

    @staticmethod
    def forward(
        function: Callable[..., Tensor], x: Tensor, y: Tensor, w: Any, how: Any
    ) -> Tensor:
        return torch.stack([function(*part, *how) for part in _parts(x, y, w)]).sum(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.function, *tensors, ctx.how = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, y, w = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is asked for
            sums = ctx.function(x, y, w, *ctx.how)
            (gradient,) = torch.autograd.grad(sums, x, slope, create_graph=True)
            return None, gradient, None, None, None
        gradient = torch.empty_like(x)
        for part, *others, out in _parts(x, y, w, gradient):
            with torch.enable_grad():
                leaf = part.detach().requires_grad_()
                sums = ctx.function(leaf, *others, *ctx.how)
            out.copy_(torch.autograd.grad(sums, leaf, slope)[0])
        return None, gradient, None, None, None


PART = 2**19  # values for each thread: what stays in a processor's cache


def _parts(*tensors: Tensor | None) -> Iterator[list[Any]]:
    """Split along the first spatial axis, on a CPU into parts that its cache holds."""
    first = next(x for x in tensors if x is not None)
    size = PART * torch.get_num_threads() if first.is_cpu else first.numel()
    step = max(1, first.shape[2] * size // max(1, first.numel()))
    for start in range(0, max(1, first.shape[2]), step):
        part = slice(start, start + step)
        yield [None if x is None else x[:, :, part] for x in tensors]


def _plain_overlap(
    p: Tensor, y: Tensor, w: Tensor | None, settings: Settings
) -> tuple[Tensor, Tensor]:
    """`overlap` as it is written, with the slopes of PyTorch."""
    hard, gamma, alpha, beta = settings
    # y - y p and p - y p are y (1 - p) and (1 - y) p.
    both = y * p if hard else torch.minimum(y, p)
    fn = over_voxels(power(y - both, gamma), w)
    fp = over_voxels(power(p - both, gamma), w)
    return over_voxels(both, w), alpha * fp + beta * fn


class _Overlap(torch.autograd.Function):
    """`overlap` of hard or soft labels at gamma 1 or 2.

    Then an error is |y - p|, weighted by `beta` where p is below y, else by `alpha`.
    `settings` are whether labels are hard, gamma, alpha and beta; `check_labels` is
    whether labels that should be hard may be others: then `_SoftLabels` is raised.
    """

    @staticmethod
    def forward(
        p: Tensor, y: Tensor, w: Tensor | None, settings: Settings, check_labels: bool
    ) -> tuple[Tensor, Tensor]:
        parts = _parts(p, y, w)
        sums = [_hits_and_errors(settings, check_labels, *part) for part in parts]
        hits, errors = zip(*sums, strict=True)
        return sum(hits[1:], hits[0]), sum(errors[1:], errors[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.how, _ = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, hits: Tensor, errors: Tensor) -> tuple[Tensor | None, ...]:
        p, y, w = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is asked for
            counts = _plain_overlap(p, y, w, ctx.how)
            slopes = torch.autograd.grad(counts, p, (hits, errors), create_graph=True)
            return *slopes, None, None, None, None
        shape = [*hits.shape, *[1] * (p.dim() - 2)]
        hits, errors = hits.view(shape), ctx.how[1] * errors.view(shape)
        slope = torch.empty_like(p)
        for part in _parts(p, y, w, slope):
            _write_slope(ctx.how, hits, errors, *part)
        return slope, None, None, None, None


def _hits_and_errors(
    settings: Settings, check_labels: bool, p: Tensor, y: Tensor, w: Tensor | None
) -> tuple[Tensor, Tensor]:
    hard, gamma = settings[:2]
    terms = torch.empty_like(p)  # one buffer for all terms, so that it stays in a cache
    if check_labels and not _are_hard(y, terms):
        raise _SoftLabels
    hits = over_voxels((torch.mul if hard else torch.minimum)(y, p, out=terms), w)
    torch.sub(p, y, out=terms)
    errors = terms.abs_() if gamma == 1 else terms.mul_(terms)
    return hits, over_voxels(_weigh(errors, p, y, settings), w)


def _are_hard(y: Tensor, buffer: Tensor) -> bool:
    """Whether all labels are 0 or 1; waits for a GPU, and is False in its capture."""
    if y.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return bool(torch.addcmul(y, y, y, value=-1, out=buffer).sum() == 0)


def _write_slope(settings: Settings, hits: Tensor, errors: Tensor, *part: Any) -> None:
    """Write the slope of a part, `p, y, w`, into its last tensor."""
    hard, gamma, alpha, beta = settings
    p, y, w, slope = part
    if gamma == 2 and alpha == beta == 1 and hard:  # DSC++: in two passes
        torch.mul(p, errors, out=slope).addcmul_(y, hits - errors)
    else:
        torch.sub(p, y, out=slope)
        _weigh((slope.sign_() if gamma == 1 else slope).mul_(errors), p, y, settings)
        slope.addcmul_(_below(p, y, hard), hits)
    if w is not None:
        slope.mul_(w)


def _below(p: Tensor, y: Tensor, hard: bool) -> Tensor:
    """1 where p is below y, else 0: a hard label itself, as p is in (0, 1)."""
    return y if hard else (p < y).to(p)


def _weigh(x: Tensor, p: Tensor, y: Tensor, settings: Settings) -> Tensor:
    """Weigh each voxel, in place: by `beta` where p is below y, else by `alpha`."""
    hard, _, alpha, beta = settings
    if alpha == beta:
        return x if alpha == 1 else x.mul_(alpha)
    return x.mul_(_below(p, y, hard).mul(beta - alpha).add_(alpha))
