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


def weighted(x: Tensor, w: Tensor | None) -> Tensor:
    """`x` times the weight of each voxel; None is 1 everywhere."""
    return x if w is None else x * w


def over_voxels(x: Tensor) -> Tensor:
    """Sum over the spatial axes, (N, C)."""
    return x.flatten(2).sum(2)


def _are_hard(y: Tensor, buffer: Tensor) -> bool:
    """Whether all labels are 0 or 1; `buffer` is overwritten. A GPU is waited for."""
    if y.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return bool(torch.addcmul(y, y, y, value=-1, out=buffer).sum() == 0)


def across_ranks(x: Tensor) -> Tensor:
    """Sum over the processes of the default group, where there are several."""
    if not (dist.is_available() and dist.is_initialized()):
        return x
    return _AcrossRanks.apply(x)


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

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        slope = slope.clone()
        dist.all_reduce(slope)
        return slope


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
        if not learned and not traced:
            buffer = torch.empty_like(y)
            if kind == "formula" and _are_hard(y, buffer):
                kind = "hard"
            if kind != "formula":
                hard = kind == "hard"
                return _Overlap.apply(p, y, w, buffer, hard, gamma, alpha, beta)
    return _plain(p, y, w, kind == "soft", gamma, alpha, beta)


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
    fn = over_voxels(weighted(power(y - both, gamma), w))
    fp = over_voxels(weighted(power(p - both, gamma), w))
    return over_voxels(weighted(both, w)), alpha * fp + beta * fn


class _Overlap(torch.autograd.Function):
    """`overlap` of hard or soft labels, with few passes and its slope by hand.

    Then an error is |y - p|, weighted by `beta` where p is below y, else by `alpha`.
    """

    @staticmethod
    def forward(
        p: Tensor,
        y: Tensor,
        w: Tensor | None,
        buffer: Tensor,
        hard: bool,
        gamma: float,
        alpha: float,
        beta: float,
    ) -> tuple[Tensor, Tensor]:
        # Large tensors are slow to allocate: one is written to again and again.
        (torch.mul if hard else torch.minimum)(y, p, out=buffer)
        hits = over_voxels(weighted(buffer, w))
        errors = torch.sub(y, p, out=buffer)
        errors = errors if gamma == 2 else errors.abs_()
        errors = errors if gamma == 1 else errors.pow_(gamma)
        if alpha == beta:
            return hits, alpha * over_voxels(weighted(errors, w))
        errors.mul_(_side(_below(p, y, hard), alpha, beta))
        return hits, over_voxels(weighted(errors, w))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:3])
        ctx.hard, ctx.gamma, *ctx.sides = inputs[4:]

    @staticmethod
    def backward(ctx: Any, hits: Tensor, errors: Tensor) -> tuple[Tensor | None, ...]:
        p, y, w = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is asked for
            counts = _plain(p, y, w, not ctx.hard, ctx.gamma, *ctx.sides)
            slopes = torch.autograd.grad(counts, p, (hits, errors), create_graph=True)
            return *slopes, *[None] * 7
        shape = [*hits.shape, *[1] * (p.dim() - 2)]
        hits, errors = hits.view(shape), ctx.gamma * errors.view(shape)
        alpha, beta = ctx.sides
        if ctx.gamma == 2 and alpha == beta and ctx.hard:  # DSC++: in two passes
            slope = (p * (alpha * errors)).addcmul_(y, hits - alpha * errors)
        else:
            below = _below(p, y, ctx.hard)
            slope = _slope(p - y, ctx.gamma).mul_(errors)
            slope.mul_(alpha if alpha == beta else _side(below, alpha, beta))
            slope.addcmul_(below, hits)
        return weighted(slope, w), *[None] * 7


def _below(p: Tensor, y: Tensor, hard: bool) -> Tensor:
    """1 where p is below y, else 0: a hard label itself, as p is in (0, 1)."""
    return y if hard else (p < y).to(p)


def _side(below: Tensor, alpha: float, beta: float) -> Tensor:
    """Weight of each voxel's error."""
    return below.mul(beta - alpha).add_(alpha)


def _slope(x: Tensor, gamma: float) -> Tensor:
    """Slope of `|x| ** gamma / gamma`, in place; 0 where it is infinite."""
    if gamma == 2:
        return x
    if gamma == 1:
        return x.sign_()
    size = x.abs()
    if gamma < 1:
        size.masked_fill_(size <= 1e-30, torch.inf)
    return x.sign_().mul_(size.pow_(gamma - 1))
