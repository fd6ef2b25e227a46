# SPDX-License-Identifier: Apache-2.0
"""`python -m conformance MODULE:CALLABLE --loss "DSC++"`: the checks as a table.

Exit code 0: no check failed; 1: one did; 2: the command could not be understood.
"""

import argparse
import ast
import importlib
import json
import operator
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .adapters import FRAMEWORKS, Adapter
from .checks import CHECKS
from .reference import MEMBERS
from .suite import PRECISIONS, run

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; those of the process by default.

    Returns:
        The exit code, 0 or 1; argparse exits with 2 by itself.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(f"- `{each.name}`: {each.description}" for each in CHECKS))
        return 0
    if not options.target or not options.loss:
        parser.error("expected MODULE:CALLABLE and --loss NAME (or --list)")
    try:
        adapter, hyperparameters = _adapter(options)
    except (ImportError, AttributeError, ValueError) as error:
        parser.error(f"{options.target}: {error}")
    if options.json and not _is_free(Path(options.json)):
        parser.error(
            f"--json {options.json}: expected no file, or an earlier report, found "
            "another, which would be replaced; move it away or name another file"
        )
    report = run(
        adapter,
        options.loss,
        precisions=options.precision,
        checks=options.checks,
        **hyperparameters,
    )
    print(report.text())
    if options.json:
        Path(options.json).write_text(report.json() + "\n", encoding="utf-8")
    return 0 if report.ok else 1


def _is_free(path: Path) -> bool:
    """Whether nothing would be lost by writing a report there."""
    if not os.path.lexists(path):
        return True
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"ok", "loss", "results"} <= content.keys()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description="Check an implementation of a loss of the DSC++ family.",
    )
    add = parser.add_argument
    add("target", nargs="?", metavar="MODULE:CALLABLE", help="a function or a class")
    add("--loss", choices=MEMBERS, metavar="NAME", help="what it claims to be")
    add("--framework", choices=FRAMEWORKS, default="keras", help="default: keras")
    add("--axis", type=int, default=-1, help="where it wants the classes (default -1)")
    add("--gamma", type=float, help="the ++ exponent; short for --set gamma=...")
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a hyperparameter that differs from Table 2's, or any argument that the "
        "callable is to be given; may be repeated",
    )
    add("--weight", metavar="KEYWORD", help="its keyword for a weight of each voxel")
    add("--pred-first", action="store_true", help="called with (y_pred, y_true)")
    add("--from-logits", action="store_true", help="takes logits, applies a softmax")
    add("--hard-labels", action="store_true", help="takes one-hot labels only")
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    add(
        "--checks",
        nargs="+",
        choices=[each.name for each in CHECKS],
        metavar="NAME",
        help="make these alone",
    )
    add("--json", metavar="FILE", help="write the report there as well")
    add("--list", action="store_true", help="say what each check asks for, and stop")
    return parser


def _adapter(options: argparse.Namespace) -> tuple[Adapter, dict[str, float]]:
    """The adapter, and the hyperparameters that differ from the defaults."""
    named = [
        *options.set,
        *([] if options.gamma is None else [f"gamma={options.gamma}"]),
    ]
    settings = dict(_setting(each) for each in named)
    defaults = MEMBERS[options.loss].defaults
    hyperparameters = {k: _number(k, v) for k, v in settings.items() if k in defaults}
    if options.gamma is not None and "gamma" not in defaults:
        raise ValueError(f"{options.loss} has no ++ exponent, received --gamma")
    adapter = FRAMEWORKS[options.framework](
        _imported(options.target),
        name=options.target,
        axis=options.axis,
        settings={k: v for k, v in settings.items() if k not in defaults},
        soft_labels=not options.hard_labels,
        weight=options.weight,
        pred_first=options.pred_first,
        from_logits=options.from_logits,
    )
    return adapter, hyperparameters


def _setting(text: str) -> tuple[str, Any]:
    """`name=value`, the value a number, True, False, None or text."""
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError(f"--set: expected NAME=VALUE, received {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name}: expected a number, received {value!r}")
    return value


def _imported(target: str) -> Callable[..., Any]:
    module, separator, name = target.partition(":")
    if not separator:
        raise ValueError('expected MODULE:CALLABLE, such as "my_package.losses:dice"')
    loss = operator.attrgetter(name)(importlib.import_module(module))
    if not callable(loss):
        raise ValueError("expected something that can be called")
    return loss


if __name__ == "__main__":
    sys.exit(main())
