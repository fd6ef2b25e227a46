"""Damage: what is done to a small scene, at which command it is met, and its message.

`damages.py` has the list. `python tests/damage.py` writes docs/damage.md from it;
tests/test_damage.py does all of it and compares.
"""

from __future__ import annotations

import contextlib
import copy
import fnmatch
import io
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import imitations
import numpy as np
import tiny_volumes

from data_io.datasets import phantom
from data_io.files.hashing import file_hash

__all__ = ["STAGES", "Damage", "Met", "Scenes", "table"]

STAGES = ("verify", "train", "predict", "evaluate")
PAGE = Path(__file__).parents[1] / "docs" / "damage.md"
TINY = ("input_shape=[32,32]", "filters=2", "depth=1")
# What a refused command may leave: caches, locks, and what was decoded.
FREE = (".work/*", "*.lock")


@dataclass(frozen=True)
class Damage:
    """One kind of damage.

    Attributes:
        stage: the command at which it is met.
        what: in words, as the table has it.
        act: does it, in the folder of the scene.
        command: `dscpp` and what follows, met by it.
        names: what the message must name: the file, the case, the option.
        code: exit code; 0 where the command says a warning and goes on.
        leaves: patterns of files that the command may write or change nevertheless.
        during: what is wrong with the machine while the command runs.
    """

    stage: str
    what: str
    act: Callable[[Path], object]
    command: Sequence[str]
    names: str
    code: int = 2
    leaves: tuple[str, ...] = ()
    during: Callable[[], contextlib.AbstractContextManager[object]] = (
        contextlib.nullcontext
    )


@dataclass(frozen=True)
class Met:
    """What came of a damage.

    Attributes:
        code: exit code.
        error: all of stderr.
        message: what was said, paths from the scene on, sizes left out.
        changed: files that the command made, changed or deleted.
        output: all of stdout.
    """

    code: int
    error: str
    message: str
    changed: tuple[str, ...]
    output: str


class Scenes:
    """One folder with sound data and runs, put back before each damage.

    Always in the same place, so that what is remembered by path stays true.

    Args:
        folder: to work in.
    """

    def __init__(self, folder: Path) -> None:
        self.place, self._sound = folder / "scene", folder / "sound"
        self.place.mkdir(parents=True)
        with contextlib.chdir(self.place):
            _write_sets(Path())
            _train()
        shutil.copytree(self.place, self._sound)

    def meet(self, damage: Damage) -> Met:
        """Damage a sound scene and give the command."""
        self._restore()
        output, error = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.place):
            damage.act(Path())
            before = _files(Path())
            with (
                contextlib.redirect_stdout(output),
                contextlib.redirect_stderr(error),
                damage.during(),
            ):
                code = _dscpp(damage.command)
            changed = _changed(before, _files(Path()))
        printed = error.getvalue() if code else output.getvalue()
        message = _message(printed, damage, folder=self.place)
        return Met(code, error.getvalue(), message, changed, output.getvalue())

    def with_more(self, add: Callable[[], object]) -> Scenes:
        """The same place with more in its sound scene, added in that folder."""
        other = copy.copy(self)
        other._sound = self._sound.with_name("more")
        self._restore()
        with contextlib.chdir(self.place), contextlib.redirect_stdout(io.StringIO()):
            add()
        shutil.copytree(self.place, other._sound, symlinks=True)
        return other

    def _restore(self) -> None:
        shutil.rmtree(self.place)
        shutil.copytree(self._sound, self.place, symlinks=True)


def _dscpp(command: Sequence[str]) -> int:
    from pipelines import cli

    try:
        return cli.main(list(command))
    except SystemExit as end:  # argparse
        return int(end.code or 0)
    except Exception:
        traceback.print_exc()
        return 70


def _write_sets(folder: Path) -> None:
    settings = phantom.Settings(training=3, validation=2, test=2, size=32, seed=1)
    phantom.generate(settings, folder / "phantom")
    for number in range(5):
        _write_nuclei(folder / "dsb" / f"n{number}", number)
    imitations.write_isic2018(folder, 5)
    imitations.write_cvc_clinicdb(folder, (1, 2, 30, 31, 60, 61))
    tiny_volumes.write(folder / "kits")
    for number in range(5):
        mask = imitations.blob((40, 50), number)
        grey = imitations.shaded(mask, number, 60, 150)
        imitations.save(folder / "photos" / f"p{number}.png", grey)
        imitations.save(folder / "labels" / f"p{number}.png", imitations.as_grey(mask))


def _write_nuclei(folder: Path, number: int) -> None:
    """A case of 2018DSB with two nuclei."""
    mask = imitations.blob((24 + number, 30), number)
    grey = imitations.shaded(mask, number, 160, 30)[..., np.newaxis]
    opaque = np.full_like(grey, 255)
    pixels = np.concatenate([grey, grey // 2, grey, opaque], -1)
    imitations.save(folder / "images" / f"{folder.name}.png", pixels)
    half = mask.copy()
    half[:, 15:] = False
    imitations.save(folder / "masks" / "a.png", imitations.as_grey(half))
    imitations.save(folder / "masks" / "b.png", imitations.as_grey(mask & ~half))


def train_command(output: str, *more: str, epochs: int = 1) -> list[str]:
    """Trains on the phantoms, as the scene's run was."""
    sets = [part for text in TINY for part in ("--set", text)]
    return [
        *("train", "--dataset", "phantom", "--data", "phantom", "--loss", "DSC++"),
        *(
            "--preset",
            "demo",
            "--epochs",
            str(epochs),
            *sets,
            "--output",
            output,
            *more,
        ),
    ]


def _train() -> None:
    """Make `run`, evaluated, and `cut`, stopped between two epochs."""
    from pipelines.training import fit

    run_and_data = ("--run", "run", "--data", "phantom")
    ways = [
        train_command("run"),
        ["predict", *run_and_data],
        ["evaluate", *run_and_data],
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        for command in ways:
            if code := _dscpp(command):
                raise RuntimeError(f"{command}: exit code {code}")
        with mock.patch.object(fit, "_finish", side_effect=KeyboardInterrupt):
            _dscpp(train_command("cut", epochs=2))


def _files(folder: Path) -> dict[str, str]:
    """The hash of each file; of a link that leads nowhere its target."""
    return {
        str(path): file_hash(path) if path.is_file() else str(path.readlink())
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


def _changed(before: dict[str, str], after: dict[str, str]) -> tuple[str, ...]:
    names = sorted(before.keys() | after.keys())
    return tuple(name for name in names if before.get(name) != after.get(name))


def _message(text: str, damage: Damage, folder: Path) -> str:
    """What was said, without bars and what differs between machines."""
    if damage.code:
        text = text[text.rfind("dscpp: ") :] if "dscpp: " in text else text
        text = re.split(r"\r|\n\n", text)[0]
    else:
        lines = [line.strip() for line in text.splitlines() if "warning:" in line]
        text = "\n".join(line for line in lines if damage.names in line)
    text = text.replace(f"{folder.resolve()}/", "").replace(f"{folder}/", "")
    text = re.sub(r"\.work/(own|data)/[\w-]*?[0-9a-f]{12,}", r".work/\1/…", text)
    text = re.sub(r"\b\d+ bytes", "N bytes", text)
    text = re.sub(r"line \d+ column \d+ \(char \d+\)", "line N", text)
    text = re.sub(r"\b0x[0-9a-f]+", "0x…", text)
    text = re.sub(r"\b[0-9a-f]{12}\.\.\.", "(hash)", text)
    text = re.sub(r"'?\b[0-9a-f]{64}\b'?", "(hash)", text)
    return text.strip()


def faults(damage: Damage, met: Met) -> list[str]:
    """What is not as it should be when damage is met."""
    message, problems = met.message, []
    if met.code != damage.code:
        problems.append(f"expected exit code {damage.code}, found {met.code}")
    if "Traceback" in met.error:
        problems.append(f"a traceback: {met.error}")
    if damage.names not in message:
        problems.append(f"expected {damage.names!r} to be named in: {message}")
    if met.code == 2 and not _is_whole(message):
        problems.append(f"expected what was expected and found in: {message}")
    free = (*FREE, *damage.leaves)
    written = [name for name in met.changed if not _fits(name, free)]
    if written:
        problems.append(f"expected nothing to be written, found {written}")
    return problems


def _is_whole(message: str) -> bool:
    """Whether it says what was expected, what was found, and what to do."""
    held = "another process is working on this run; wait"
    changed = "changed since this run began"  # says what the run has, and what is asked
    if held in message or changed in message:
        return True
    words = ("expected", "found|received|gave")
    return all(re.search(part, message) for part in words)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def table(met: Sequence[tuple[Damage, Met]]) -> str:
    """The page: a table a stage."""
    parts = [
        "# Damage, and what is said of it",
        "",
        f"{len(met)} kinds of damage to data and runs, by the command that meets them, "
        "each done to a small scene by `tests/damages.py`. The exit code is 2, unless "
        "another is named; 0 is a warning, after which the command goes on. No file is "
        "left half written. Written by `PYTHONPATH=. python tests/damage.py`; a test "
        "does all of it again and compares.",
    ]
    for stage in STAGES:
        rows = [(damage, each) for damage, each in met if damage.stage == stage]
        parts += [
            "",
            f"## {stage}: {len(rows)}",
            "",
            "| damage | message |",
            "|---|---|",
        ]
        parts += [_row(damage, each) for damage, each in rows]
    return "\n".join(parts) + "\n"


def _row(damage: Damage, met: Met) -> str:
    code = "" if met.code == 2 else f" (exit code {met.code})"
    text = met.message.removeprefix("dscpp: ")
    for old, new in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("*", "\\*")):
        text = text.replace(old, new)
    return f"| {damage.what}{code} | {'<br>'.join(text.splitlines())} |"


def every() -> Iterator[tuple[Damage, Met]]:
    """Does every damage."""
    from damages import DAMAGES

    with tempfile.TemporaryDirectory() as folder:
        scenes = Scenes(Path(folder).resolve())
        for damage in DAMAGES:
            met = scenes.meet(damage)
            for fault in faults(damage, met):
                print(f"{damage.stage}: {damage.what}: {fault}", file=sys.stderr)
            yield damage, met


if __name__ == "__main__":
    PAGE.write_text(table(list(every())), "utf-8")
