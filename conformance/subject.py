# SPDX-License-Identifier: Apache-2.0
"""One implementation under one precision, beside the reference, as checks get it.

A check returns nothing when it passes, and raises `Failed` or `Skipped` otherwise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from . import inputs
from .adapters import Adapter
from .inputs import Sample
from .reference import Member, Terms, member, reference

__all__ = ["Failed", "Skipped", "Subject", "expect_close", "expect_finite"]

Array = npt.NDArray[np.float64]

TOLERANCES: Mapping[str, float] = {"float32": 1e-5, "float64": 1e-10}
"""Of the sum of the terms' absolute values."""


class Failed(Exception):
    """A check failed: what was expected, and what was received."""


class Skipped(Exception):
    """A check cannot be made: the reason."""


@dataclass(frozen=True)
class Subject:
    """An implementation that claims to be a member of the family.

    Attributes:
        adapter: the implementation.
        member: what it claims to be.
        precision: "float32" or "float64".
        fixed: hyperparameters that differ from Table 2's in all checks; given to the
            implementation where it takes them, and taken as built in where not.
    """

    adapter: Adapter
    member: Member
    precision: str
    fixed: Mapping[str, float] = field(default_factory=dict)

    @property
    def tolerance(self) -> float:
        """Return the tolerance, relative to the sum of the terms' absolute values."""
        return TOLERANCES[self.precision]

    def sample(self, *args: Any, **options: Any) -> Sample:
        """`inputs.sample`, rounded to what the precision can hold."""
        return self.rounded(inputs.sample(*args, **options))

    def rounded(self, sample: Sample, dtype: str | None = None) -> Sample:
        """Return the sample rounded to the implementation's numbers."""
        dtype = dtype or self.precision
        y, p = (inputs.representable(x, dtype) for x in sample[1:])
        return Sample(sample.title, y, p)

    @cached_property
    def per_image(self) -> bool:
        """Return whether the loss has a value per image, not a mean of all."""
        return self.raw_values(self.sample()).ndim == 1

    def values(self, sample: Sample, dtype: str | None = None, **options: Any) -> Array:
        """Return the loss of each image, (N,), image by image if it returns a mean."""
        if self.per_image:
            return self.raw_values(sample, dtype, **options)
        each = [self.raw_values(x, dtype, **o) for x, o in _images(sample, options)]
        return np.array(each)

    def raw_values(
        self, sample: Sample, dtype: str | None = None, **options: Any
    ) -> Array:
        """Return the implementation's result: (N,), or () for a mean of images."""
        values = self._given(self.adapter.values, sample, dtype, options)
        if values.shape not in ((), (len(sample.y_true),)):
            raise Failed(
                f"{sample.title}: expected one value per image, shape "
                f"({len(sample.y_true)},), or their mean, shape (), received shape "
                f"{values.shape}"
            )
        return values

    def gradient(
        self, sample: Sample, dtype: str | None = None, **options: Any
    ) -> Array:
        """Return the derivative of each image's loss by p, (N, *spatial, C)."""
        if not self.adapter.has_gradient:
            raise Skipped(f"{self.adapter.framework} has no gradients")
        parts = [(sample, options)] if self.per_image else _images(sample, options)
        gradient = self.adapter.gradient
        return np.concatenate([self._given(gradient, x, dtype, o) for x, o in parts])

    def reference(self, sample: Sample, **options: Any) -> Terms:
        """Return value and scale of each image, (N,)."""
        _, y, p = sample
        if self.adapter.from_logits:
            p = p / p.sum(axis=-1, keepdims=True)
        return reference(self.member.name, y, p, **{**self.fixed, **options})

    def plain(self) -> "Subject":
        """Return the same implementation as a subject of the plain form."""
        fixed = {k: v for k, v in self.fixed.items() if k != "gamma"}
        return replace(self, member=member(str(self.member.plain)), fixed=fixed)

    def takes(self, *options: str) -> bool:
        """Return whether all of these can be given to the implementation."""
        return self.adapter.options.issuperset(options)

    def expect_reference(
        self, sample: Sample, dtype: str | None = None, **options: Any
    ) -> None:
        """Compare with the reference at the same numbers.

        Raises:
            Failed: they differ by more than the tolerance.
        """
        expected = self.reference(sample, **options)
        received = self.values(sample, dtype, **options)
        allowed = self.tolerance * expected.scale
        expect_close(_with(sample, options), received, expected.value, allowed)

    def _given(
        self,
        method: Callable[..., Array],
        sample: Sample,
        dtype: str | None,
        options: Mapping[str, Any],
    ) -> Array:
        """Call the adapter with all that it takes of what differs from Table 2."""
        fixed = {k: v for k, v in self.fixed.items() if self.takes(k)}
        arguments = {**fixed, **options}
        return method(
            sample.y_true, sample.y_pred, dtype or self.precision, **arguments
        )


def expect_close(
    what: str, received: Array, expected: Array, allowed: npt.ArrayLike
) -> None:
    """Compare two arrays of one shape, number by number.

    Raises:
        Failed: a number is NaN, or further off than `allowed`; with the worst of them.
    """
    allowed = np.broadcast_to(allowed, expected.shape)
    if received.shape != expected.shape:
        raise Failed(
            f"{what}: expected shape {expected.shape}, received {received.shape}"
        )
    off = np.abs(received - expected)
    wrong = ~(off <= allowed)
    if wrong.any():
        excess = np.where(np.isnan(off), np.inf, off - allowed)
        worst = tuple(map(int, np.unravel_index(np.argmax(excess), excess.shape)))
        raise Failed(
            f"{what}: expected {expected[worst]:.9g} within {allowed[worst]:.2g}, "
            f"received {received[worst]:.9g} at {worst}; {np.sum(wrong)} of "
            f"{wrong.size} are off"
        )


def expect_finite(what: str, received: Array) -> None:
    """Look for NaN and infinity.

    Raises:
        Failed: there are some.
    """
    bad = ~np.isfinite(received)
    if bad.any():
        raise Failed(
            f"{what}: expected finite numbers, received {received[bad][0]} and in all "
            f"{np.sum(bad)} of {bad.size} that are not"
        )


def _images(
    sample: Sample, options: Mapping[str, Any]
) -> list[tuple[Sample, dict[str, Any]]]:
    """Each image as a batch of one, and the options for it: of a weight its part."""
    parts = []
    for i in range(len(sample.y_true)):
        image_options = {
            k: v[i : i + 1] if k == "weight" else v for k, v in options.items()
        }
        parts.append((sample.image(i), image_options))
    return parts


def _with(sample: Sample, options: Mapping[str, Any]) -> str:
    shown = [f"{k}={v:g}" for k, v in options.items() if k != "weight"]
    shown += ["a weight of voxels"] if "weight" in options else []
    return ", ".join([sample.title, *shown])
