# SPDX-License-Identifier: Apache-2.0
"""Run the checks on an implementation, and report."""

import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .adapters import Adapter
from .checks import CHECKS, Check
from .reference import member
from .subject import TOLERANCES, Failed, Skipped, Subject

__all__ = ["PRECISIONS", "Report", "Result", "run"]

PRECISIONS = tuple(TOLERANCES)
"""In which the checks are made: float32 and float64."""


@dataclass(frozen=True)
class Result:
    """What came of one check.

    Attributes:
        check: its name.
        precision: "float32" or "float64".
        outcome: "pass", "fail" or "skip".
        reason: why it failed (input, expected, received, tolerance) or was skipped.
        description: what the check asks for.
        seconds: how long it took.
    """

    check: str
    precision: str
    outcome: str
    reason: str
    description: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """What came of all checks.

    Attributes:
        loss: the member of the family that the implementation was held to be.
        implementation: its name.
        framework: where it runs.
        hyperparameters: those that differ from Table 2's.
        results: in the order of the checks, float32 before float64.
    """

    loss: str
    implementation: str
    framework: str
    hyperparameters: dict[str, float]
    results: tuple[Result, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[Result, ...]:
        """The checks that failed."""
        return tuple(each for each in self.results if each.outcome == "fail")

    def text(self) -> str:
        """A table, check by check."""
        hyperparameters = "".join(
            f", {k}={v:g}" for k, v in self.hyperparameters.items()
        )
        lines = [
            f"{self.loss}{hyperparameters}: {self.implementation} ({self.framework})"
        ]
        width = max((len(each.check) for each in self.results), default=0)
        lines += [
            f"{each.check:{width}}  {each.precision}  {each.outcome:4}  "
            f"{each.reason}".rstrip()
            for each in self.results
        ]
        count = Counter(each.outcome for each in self.results)
        seconds = sum(each.seconds for each in self.results)
        lines.append(
            f"{count['pass']} passed, {count['fail']} failed, {count['skip']} skipped "
            f"in {seconds:.1f} s"
        )
        return "\n".join(lines)

    def json(self) -> str:
        """The same for a program: the attributes of this class, and `ok`."""
        return json.dumps({"ok": self.ok, **asdict(self)}, indent=2)


def run(
    adapter: Adapter,
    loss: str,
    *,
    precisions: Iterable[str] = PRECISIONS,
    checks: Iterable[str] | None = None,
    **hyperparameters: float,
) -> Report:
    """Check an implementation of one loss.

    Args:
        adapter: the implementation; see `conformance.adapters`.
        loss: which member of the family it claims to be, a key of `MEMBERS`.
        precisions: in which the checks are made.
        checks: names of those to make; None for all.
        **hyperparameters: values other than Table 2's, such as `gamma=1.5`; given to
            the implementation if it takes them, taken as built into it if not.

    Returns:
        A report; `report.ok` is False where a check failed.

    Raises:
        ValueError: no such loss, precision, check or hyperparameter.

    Example:
    >>> report = conformance.run(TorchAdapter(my_loss, axis=1), "DSC++", gamma=1.5)
    >>> print(report.text())
    """
    info, precisions = member(loss), tuple(precisions)
    wanted = [each.name for each in CHECKS] if checks is None else list(checks)
    _expect_among("precision", precisions, PRECISIONS)
    _expect_among("check", wanted, [each.name for each in CHECKS])
    _expect_among(f"hyperparameter of {loss}", hyperparameters, info.defaults)
    subjects = [Subject(adapter, info, each, hyperparameters) for each in precisions]
    results = tuple(
        _result(check, subject)
        for subject in subjects
        for check in CHECKS
        if check.name in wanted
        and check.concerns(info)
        and check.name not in info.untrue
        and subject.precision in check.precisions
    )
    return Report(loss, adapter.name, adapter.framework, hyperparameters, results)


def _result(check: Check, subject: Subject) -> Result:
    start = time.perf_counter()
    outcome, reason = "pass", ""
    try:
        if subject.precision not in subject.adapter.dtypes:
            raise Skipped(f"is not meant for {subject.precision}")
        check.run(subject)
    except Skipped as why:
        outcome, reason = "skip", str(why)
    except Failed as why:
        outcome, reason = "fail", str(why)
    except Exception as error:  # whatever the implementation may raise is a finding
        outcome, reason = "fail", f"raised {type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    return Result(
        check.name, subject.precision, outcome, reason, check.description, seconds
    )


def _expect_among(what: str, received: Iterable[str], expected: Iterable[str]) -> None:
    for each in received:
        if each not in expected:
            raise ValueError(
                f"{what}: expected one of {', '.join(expected)}, received {each!r}"
            )
