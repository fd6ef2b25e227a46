# SPDX-License-Identifier: Apache-2.0
"""Sums over voxels: true positives, false negatives and false positives, softly."""

from typing import Any

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
    """Sum over the processes of the default group, where there are several."""
    several = dist.is_available() and dist.is_initialized()
    return _AcrossRanks.apply(x) if several else x


class _AcrossRanks(torch.autograd.Function):
    """The sum over all processes; its slope is that of the sum of their losses.

    DistributedDataParallel then takes the mean of the gradients: that of one process
    with the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    backward = forward


def overlap(
    p: Tensor,
    y: Tensor,
    w: Tensor | None,
    kind: str,
    gamma: float,
    alpha: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Count hits and errors of each image and class.

    | kind | hits | false positives | misses |
    |---|---|---|---|
    | "formula" | y p | (1 - y) p | y (1 - p) |
    | "soft" | min(y, p) | (p - y)+ | (y - p)+ |
    | "hard", labels are 0 or 1 | both are the same | | |

    Args:
        p: probabilities in (0, 1), (N, C, *spatial).
        y: labels in [0, 1], (N, C, *spatial).
        w: weight of each voxel, (N, 1, *spatial); None for 1.
        kind: see above.
        gamma: exponent of the errors, above 0.
        alpha: weight of the false positives.
        beta: weight of the misses.

    Returns:
        The sum of the hits, and that of the weighted powers of errors, (N, C) each.
    """
    if not torch.jit.is_scripting():
        learned = y.requires_grad or (w is not None and w.requires_grad)
        traced = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if gamma in (1, 2) and not learned and not traced:
            # Large tensors are slow to allocate: one is written to again and again.
            buffer = torch.empty_like(y)
            hard = kind == "hard" or (kind == "formula" and _are_hard(y, buffer))
            if hard or kind == "soft":
                return _Overlap.apply(p, y, w, buffer, (hard, gamma, alpha, beta))
    return _plain(p, y, w, kind == "soft", gamma, alpha, beta)


def _are_hard(y: Tensor, buffer: Tensor) -> bool:
    """Whether all labels are 0 or 1; `buffer` is overwritten. A GPU is waited for."""
    if y.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return bool(torch.addcmul(y, y, y, value=-1, out=buffer).sum() == 0)


def _plain(
    p: Tensor,
    y: Tensor,
    w: Tensor | None,
    soft: bool,
    gamma: float,
    alpha: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """`overlap` as it is written, with the slopes of PyTorch."""
    # y - y p and p - y p are y (1 - p) and (1 - y) p.
    both = torch.minimum(y, p) if soft else y * p
    fn = over_voxels(power(y - both, gamma), w)
    fp = over_voxels(power(p - both, gamma), w)
    return over_voxels(both, w), alpha * fp + beta * fn


class _Overlap(torch.autograd.Function):
    """`overlap` of hard or soft labels at gamma 1 or 2: few passes, slope by hand.

    Then an error is |y - p|, weighted by `beta` where p is below y, else by `alpha`.
    `how` is whether labels are hard, gamma, alpha and beta.
    """

    @staticmethod
    def forward(
        p: Tensor,
        y: Tensor,
        w: Tensor | None,
        buffer: Tensor,
        how: tuple[bool, float, float, float],
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
            counts = _plain(p, y, w, not hard, gamma, alpha, beta)
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
