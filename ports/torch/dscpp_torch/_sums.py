# SPDX-License-Identifier: Apache-2.0
"""What is computed of voxels, with slopes by hand where they take fewer passes."""

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


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


def others(x: Tensor) -> Tensor:
    """Sum of the other channels, of each: of p it is 1 - p, precise near 0 too."""
    out, last = torch.zeros_like(x), x.shape[1] - 1
    before, after = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])
    for c in range(last):
        before = before + x[:, c]
        out[:, c + 1] += before
        after = after + x[:, last - c]
        out[:, last - c - 1] += after
    return out


def log_odds(scores: Tensor) -> Tensor:
    """log(p / (1 - p)) of each channel, where p is the softmax of the scores."""
    if scores.shape[1] == 2:
        return scores - scores.flip(1)
    if not torch.jit.is_scripting():
        odds: Tensor = _LogOdds.apply(scores)
        return odds
    return _from_scores(scores)


def _from_scores(scores: Tensor) -> Tensor:
    logs = scores.log_softmax(1)
    return logs - others(logs.exp()).add_(1e-37).log()


class _LogOdds(torch.autograd.Function):
    """`log_odds`, where nothing large is held until its slope is asked for."""

    @staticmethod
    def forward(scores: Tensor) -> Tensor:
        return _from_scores(scores)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        # The slope by another logit j is -p_j / (1 - p).
        p = ctx.saved_tensors[0].softmax(1)
        share = others(slope / others(p).add_(1e-37))
        return torch.addcmul(slope, p, share, value=-1)


class Voxels(NamedTuple):
    """What a loss is computed from; of the classes that count, but for the scores."""

    scores: Tensor  # the input of all classes, (N, C, *spatial)
    p: Tensor  # probabilities in [1e-7, 1 - 1e-7]
    y: Tensor  # labels in [0, 1], of the type of p
    w: Tensor | None  # weight of each voxel, (N, 1, *spatial); None is 1
    kind: str  # of the labels, as `overlap` takes it


def overlap(
    v: Voxels, gamma: float, alpha: float, beta: float
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
        learned = v.y.requires_grad or (v.w is not None and v.w.requires_grad)
        traced = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if gamma in (1, 2) and not learned and not traced:
            # Large tensors are slow to allocate: one is written to again and again.
            buffer, kind = torch.empty_like(v.y), v.kind
            if kind == "formula" and _are_hard(v.y, buffer):
                kind = "hard"
            if kind != "formula":
                how = (kind == "hard", gamma, alpha, beta)
                return _Overlap.apply(v.p, v.y, v.w, buffer, how)
    return _plain_overlap(v.p, v.y, v.w, v.kind == "soft", (gamma, alpha, beta))


def _are_hard(y: Tensor, buffer: Tensor) -> bool:
    """Whether all labels are 0 or 1; `buffer` is overwritten. A GPU is waited for."""
    if y.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return bool(torch.addcmul(y, y, y, value=-1, out=buffer).sum() == 0)


def _plain_overlap(
    p: Tensor, y: Tensor, w: Tensor | None, soft: bool, how: tuple[float, float, float]
) -> tuple[Tensor, Tensor]:
    """`overlap` as it is written, with the slopes of PyTorch."""
    gamma, alpha, beta = how
    # y - y p and p - y p are y (1 - p) and (1 - y) p.
    both = torch.minimum(y, p) if soft else y * p
    fn = over_voxels(power(y - both, gamma), w)
    fp = over_voxels(power(p - both, gamma), w)
    return over_voxels(both, w), alpha * fp + beta * fn


class _Overlap(torch.autograd.Function):
    """`overlap` of hard or soft labels at gamma 1 or 2.

    Then an error is |y - p|, weighted by `beta` where p is below y, else by `alpha`.
    `how` is whether labels are hard, gamma, alpha and beta.
    """

    @staticmethod
    def forward(
        p: Tensor, y: Tensor, w: Tensor | None, buffer: Tensor, how: tuple[Any, ...]
    ) -> tuple[Tensor, Tensor]:
        hard, gamma, alpha, beta = how
        both = torch.mul if hard else torch.minimum
        hits = over_voxels(both(y, p, out=buffer), w)
        if gamma == 1:
            errors = torch.sub(p, y, out=buffer).abs_()
        else:  # the square of the difference in one pass
            errors = torch.ops.aten.mse_loss.out(p, y, 0, out=buffer)
        return hits, over_voxels(_weigh(errors, p, y, hard, alpha, beta), w)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.buffer, ctx.how = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, hits: Tensor, errors: Tensor) -> tuple[Tensor | None, ...]:
        p, y, w = ctx.saved_tensors
        hard, gamma, alpha, beta = ctx.how
        if torch.is_grad_enabled():  # a second derivative is asked for
            counts = _plain_overlap(p, y, w, not hard, ctx.how[1:])
            slopes = torch.autograd.grad(counts, p, (hits, errors), create_graph=True)
            return *slopes, None, None, None, None
        # The buffer becomes the slope, once: a second call has its own.
        buffer, ctx.buffer = ctx.buffer, None
        shape = [*hits.shape, *[1] * (p.dim() - 2)]
        hits, errors = hits.view(shape), gamma * errors.view(shape)
        if gamma == 2 and alpha == beta and hard:  # DSC++: in two passes
            slope = torch.mul(p, alpha * errors, out=buffer)
            slope.addcmul_(y, hits - alpha * errors)
        else:
            slope = torch.sub(p, y, out=buffer)
            slope = (slope.sign_() if gamma == 1 else slope).mul_(errors)
            slope = _weigh(slope, p, y, hard, alpha, beta)
            slope.addcmul_(_below(p, y, hard), hits)
        return slope if w is None else slope.mul_(w), None, None, None, None


def _below(p: Tensor, y: Tensor, hard: bool) -> Tensor:
    """1 where p is below y, else 0: a hard label itself, as p is in (0, 1)."""
    return y if hard else (p < y).to(p)


def _weigh(
    x: Tensor, p: Tensor, y: Tensor, hard: bool, alpha: float, beta: float
) -> Tensor:
    """Weigh each voxel, in place: by `beta` where p is below y, else by `alpha`."""
    if alpha == beta:
        return x if alpha == 1 else x.mul_(alpha)
    return x.mul_(_below(p, y, hard).mul(beta - alpha).add_(alpha))
