"""`dscpp`: reads the command line, runs a command, says what is wrong.

`commands.yaml` has the commands. Heavy imports live inside the functions.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from data_io import bars, datasets
from data_io.errors import InputError, NotFinite, escaped, is_text, not_text
from pipelines import arguments, loss_names
from pipelines.environment import backend, installed, streams

_NO_READER = 141  # exit code, as where SIGPIPE ends a process


def main(typed: Sequence[str] | None = None) -> int:
    """Run a command.

    `typed` are the arguments; None for those of this process.

    Returns:
        0 on success, 1 when a run failed, 2 on bad input (message on stderr).
    """
    from pipelines.workflow import processes

    # Started by `dscpp reproduce`, a command ends when that one is killed.
    processes.follow()
    # TensorFlow's own notes would bury ours; its errors still come through.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # The default is TensorFlow, whatever a keras.json in the home folder says.
    os.environ["KERAS_BACKEND"] = os.environ.get("KERAS_BACKEND") or "tensorflow"
    with streams.named():
        return _result(typed)


def _result(typed: Sequence[str] | None) -> int:
    """Run a command; print what is wrong where it fails."""
    try:
        with _bars_closed_first():
            try:
                options = _parser().parse_args(typed)
            finally:
                sys.stdout.flush()  # argparse itself does not mind a full disk
            _require_text(sys.argv[1:] if typed is None else typed)
            with bars.quiet_if(options.quiet):
                backend.clear_environment()
                code = _done(options)
        sys.stdout.flush()
        return code
    except InputError as error:
        streams.say(escaped(str(error)))
        return 2
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if not name or installed.is_here(name):
            raise  # Of a package that is here: no command would bring it.
        streams.say(str(installed.missing(name)))
        return 2
    except OSError as error:
        if error.filename is None:
            raise  # Of no file: permissions or disk space would not help.
        if isinstance(error, BrokenPipeError):
            return _NO_READER  # such as `head`, which has seen enough
        streams.say(
            f"{escaped(str(error.filename))}: expected a place that can be used, "
            f"found: {error.strerror}. Fix its permissions, free space, or name "
            "another."
        )
        return 2
    except KeyboardInterrupt:
        streams.say("stopped; the same command goes on from here")
        return 130
    except NotFinite as error:
        streams.say(str(error))
        return 1


def _done(options: argparse.Namespace) -> int:
    """Run a command; print what it returns, unless it is an exit code."""
    result = pkgutil.resolve_name(options.run)(options)
    if result is None or isinstance(result, int):
        return int(result or 0)
    print(result)
    return 0


def _require_text(names: Iterable[str]) -> None:
    """Refuse arguments, and a working folder, whose names are not valid text.

    Raises:
        InputError: the first that is no text, or this folder was deleted.
    """
    try:
        working_folder = str(Path.cwd())
    except FileNotFoundError as error:
        raise InputError(
            "expected a folder to work in, found that this one was deleted; change to "
            "another"
        ) from error
    for name in (*names, working_folder):
        if not is_text(name):
            raise InputError(not_text(name))


@contextlib.contextmanager
def _bars_closed_first() -> Iterator[None]:
    """Close progress bars, so that an error message has the last line to itself."""
    try:
        yield
    except BaseException:
        tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
        for bar in list(getattr(tqdm, "_instances", ())):
            bar.close()
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dscpp",
        description="Calibrated segmentation with the DSC++ loss: train, predict, "
        "evaluate and compare with the paper (Yeung et al., 2021).",
        epilog="examples:\n  dscpp demo\n  dscpp reproduce --dataset drive --data DIR\n"
        "Not for clinical use.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="print the version and exit"
    )
    _add_quiet(parser, default=False)
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=("bash", "zsh", "tcsh"),
        help="print the script by which a shell completes commands, options and files",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, entry in arguments.commands().items():
        _add_command(commands, name, entry)
    return parser


_Commands = argparse._SubParsersAction


def _add_command(
    commands: _Commands[argparse.ArgumentParser], name: str, entry: Mapping[str, Any]
) -> None:
    text = entry["help"]
    examples = (f"  dscpp {example}" for example in entry["examples"])
    parser = commands.add_parser(
        name,
        aliases=entry.get("aliases", ()),
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog="\n".join([entry.get("note", ""), "examples:", *examples]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_quiet(parser, default=argparse.SUPPRESS)  # what stands before it counts too
    parser.set_defaults(run=entry["run"])
    arguments.add(parser, entry["arguments"])


def _add_quiet(parser: argparse.ArgumentParser, default: Any) -> None:
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        default=default,
        help="print errors and results only",
    )


class _Version(argparse.Action):
    """`--version`; a tree that runs without being installed has none to look up."""

    def __call__(self, parser: Any, *_: Any) -> None:
        try:
            version = metadata.version("dscpp")
        except metadata.PackageNotFoundError:
            version = "(not installed)"
        print(f"{parser.prog} {version}")
        parser.exit()


class _Completion(argparse.Action):
    """`--print-completion SHELL`; what it needs is imported only then."""

    def __call__(self, parser: Any, namespace: Any, values: Any, *_: Any) -> None:
        from pipelines.training import protocol

        installed.require("shtab")
        import shtab

        known = {"dataset": list(datasets.NAMES), "loss": list(loss_names.NAMES)}
        known["preset"] = list(protocol.PRESETS)
        (commands,) = (a for a in parser._actions if isinstance(a, _Commands))
        for action in (
            a for command in commands.choices.values() for a in command._actions
        ):
            action.choices = known.get(action.dest, action.choices)
            if action.type is arguments.folder:
                action.complete = shtab.FILE
        print(shtab.complete(parser, values))
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
