"""Random damage by bits to every kind of file that is read, through what reads it.

Bits are flipped, ends cut off, files swapped. Each is met by a command, and must be
refused by name, or leave the result as it is without the damage. What a file holds is
compared where something says what it held before: a hash, a checksum, a list. Without
one (an image that is seen for the first time) it may be another sound file.

`PYTHONPATH=. python tests/bits.py` does 500 and writes benchmarks/damage.csv.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import nibabel
import numpy as np
import tifffile
from damage import TINY, Damage, Met, Scenes, faults
from damages import (
    CASE,
    DSB,
    EVALUATE,
    ISIC,
    KITS,
    MODEL,
    NUCLEI,
    NUCLEUS,
    OWN,
    PHANTOM,
    PHANTOMS,
    POSTERIOR,
    PREDICT,
    RESUME,
    SKIN,
    SKINS,
)
from PIL import Image

from benchmarks.soak import fingerprint
from pipelines.runs.run import write_csv

__all__ = ["KINDS", "Bits", "Kind"]

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "benchmarks" / "damage.csv"
COLUMNS = ("file", "command", "flipped", "cut", "swapped", "refused", "same", "other")
OUTCOMES = ("refused", "same", "other")
Act = Callable[[Path, random.Random], object]
CVC = ("verify", "--dataset", "cvc-clinicdb", "--data", "CVC-ClinicDB")
SCANS = ("verify", "--images", "scans", "--masks", "segs")
STUDY = """\
- {dataset: phantom, preset: demo, losses: [DSC, DSC++], seeds: [0, 1]}
"""
# What makes it small comes first: an end cut off leaves no long training.
RUN = """\
overrides: {input_shape: [32, 32], filters: 2, depth: 1, epochs: 1}
data: phantom
folder: made
loss: DSC
preset: demo
dataset: phantom
"""
SPLIT = '{"training": ["p0", "p1"], "validation": ["p2"], "test": ["p3", "p4"]}'
FILES = {"split.json": SPLIT, "study.yaml": STUDY, "run.yaml": RUN}
STATUS = ("study", "study.yaml", "--status", "--results", "results")
TABLES = ("tables", "own", "--output", "tables")
PAPER = ("tables", "--results", "results", "--dataset", "drive")
AUTO = ("evaluate", "--run", "run", "--data", "phantom", "--threshold", "auto")
TEMPERATURE = ("temperature", "--run", "run", "--data", "phantom", "--again")
PREDICT_OWN = ("predict", "--run", "own", "--again")
OTHER_OF_OWN = ("evaluate", "--run", "own", "--images", "photos", "--masks", "labels")
DECIDED = ("judge", "probabilities/npy", "phantom/labels", "--output", "judged",
           "--decision", "decision.json")  # fmt: skip
DATA = ("data_hash", "split")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        what: in words, as the table has it.
        files: pattern of the files in the scene, of which one is drawn.
        command: `dscpp` and what follows, which reads it.
        says: what may be named in place of the file.
        free: whether nothing says what the file held before.
        leaves: patterns of files that a command that refuses may leave.
    """

    what: str
    files: str
    command: Sequence[str]
    says: tuple[str, ...] = ()
    free: bool = False
    leaves: tuple[str, ...] = ()

    def damage(self, act: Callable[[Path], object] = lambda scene: None) -> Damage:
        """Something done before the command."""
        return Damage("", "", act, self.command, "", leaves=self.leaves)


JUDGED = tuple(
    Kind(f"probabilities of others, .{kind}",
         f"probabilities/{kind}/phantom-004.{kind}",
         ("judge", f"probabilities/{kind}", "phantom/labels", "--output", "judged"),
         free=True)
    for kind in ("npy", "npz", "png", "tif")
)  # fmt: skip
SET = "own/other-sets/other"
KINDS = (
    Kind("PNG image", NUCLEI, DSB, free=True),
    Kind("PNG mask", NUCLEUS, DSB, ("n1/masks",), free=True),
    Kind("JPEG image", ISIC, SKINS, free=True),
    Kind("PNG label map", SKIN, SKINS, free=True),
    Kind("TIFF image", "CVC-ClinicDB/Original/30.tif", CVC, free=True),
    Kind("own image", "photos/p1.png", OWN, ("p1",), free=True),
    Kind("own label map", "labels/p1.png", OWN, ("p1",), free=True),
    Kind("NIfTI volume, .nii.gz", f"{CASE}/*.nii.gz", KITS, free=True),
    Kind("NIfTI volume, .nii", "scans/*.nii", SCANS, ("scans",), free=True),
    Kind("image of a run", PHANTOM, PREDICT, DATA),
    Kind("label map of a run", "phantom/labels/phantom-004*", EVALUATE, DATA),
    Kind("posterior of a run", POSTERIOR, PREDICT, DATA),
    Kind("dataset.json of phantoms", "phantom/dataset.json", PREDICT, DATA),
    Kind("run.json", "run/run.json", PREDICT, ("run:", "run/")),
    Kind("run.json, in tables", "own/run.json", TABLES, ("own",)),
    Kind("run.json of a stopped run", "cut/run.json", RESUME, ("cut",)),
    Kind("state.npz", "cut/state.npz", RESUME),
    Kind("model.keras", "run/model.keras", PREDICT),
    Kind("model.keras, for other images", "run/model.keras", MODEL),
    Kind("probabilities", "run/probabilities/*.npy", EVALUATE),
    Kind("SHA-256 of probabilities", "run/probabilities/dscpp.sha256", TEMPERATURE),
    Kind("cases.csv", "own/cases.csv", TABLES),
    Kind("cases.csv, for a threshold", "run/cases.csv", AUTO),
    Kind("histograms.npz", "own/histograms.npz", TABLES),
    Kind("cases.csv of another set", f"{SET}/cases.csv", TABLES, (SET,)),
    Kind("set.json", f"{SET}/set.json", OTHER_OF_OWN, (SET,)),
    Kind("measures at a threshold", "run/threshold-0.5.csv", PREDICT),
    Kind("split file", "split.json", (*OWN, "--split", "split.json"), free=True),
    Kind("experiment file", "study.yaml", STATUS, free=True),
    Kind("run file", "run.yaml", ("run", "run.yaml"), ("run",), True, ("*",)),
    Kind("cache: arrays", ".work/cache/phantom/phantom-00[4-7]*/*.npy", PREDICT),
    Kind("cache: sheets", ".work/cache/phantom/phantom-00[4-7]*/*.json", PREDICT),
    Kind("remembered hashes", ".work/cache/phantom/raw-files.json", PREDICT),
    Kind("remembered checks", ".work/verify/phantom.json", PHANTOMS),
    Kind(
        "description of own images", "own/own-data/*", PREDICT_OWN, ("own-data", *DATA)
    ),
    Kind("list of images seen", "own/seen-images.json", OTHER_OF_OWN),
    Kind("decision file", "decision.json", DECIDED),
    *JUDGED,
    Kind("published values", "results/paper/*.csv", PAPER, free=True),
    Kind("SHA-256 of predictions", "out/dscpp.sha256", MODEL, ("out/",)),
    Kind("a table to be replaced", "tables/table.csv", TABLES),
)


# What is done to a file.


def flipped(path: Path, random: random.Random, _: Sequence[Path]) -> None:
    """One to four bits of a file, anywhere."""
    content = bytearray(path.read_bytes())
    for _ in range(random.randint(1, 4)):
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(bytes(content))


def shortened(path: Path, random: random.Random, _: Sequence[Path]) -> None:
    """A file's end cut off, anywhere."""
    content = path.read_bytes()
    path.write_bytes(content[: random.randrange(len(content))])


def swapped(path: Path, random: random.Random, others: Sequence[Path]) -> None:
    """Another file in its place: every other time one of its kind, where there is."""
    alike = [other for other in others if other.suffix == path.suffix]
    shutil.copyfile(random.choice(random.choice([alike or others, others])), path)


WAYS = {"flipped": flipped, "cut": shortened, "swapped": swapped}


class Bits:
    """A scene with a file of each kind, put back before each damage.

    Args:
        scenes: the scene of `damage`, to which files are added.
        seed: of what is drawn.
    """

    def __init__(self, scenes: Scenes, seed: int = 0) -> None:
        self.scenes, self.seed = scenes.with_more(add_files), seed
        self._sound: dict[Sequence[str], tuple[Met, dict[str, str]]] = {}

    def meet(self, number: int) -> tuple[Kind, str, str, str]:
        """Do one damage.

        Returns:
            The kind, what was done, the outcome, and what is wrong with it or "".
        """
        kind = KINDS[number % len(KINDS)]
        way = list(WAYS)[number // len(KINDS) % len(WAYS)]
        chance = random.Random(f"{self.seed} {number}")
        sound = self._result(kind)
        damaged: list[str] = []

        def act(scene: Path) -> None:
            path = chance.choice(sorted(scene.glob(kind.files)))
            content = path.read_bytes()
            others = [
                p
                for p in sorted(scene.rglob("*"))
                if p.is_file() and p.read_bytes() not in (content, b"")
            ]
            WAYS[way](path, chance, others)
            damaged.append(str(path))

        met = self._meet(kind, act)
        outcome, fault = self._judged(kind, damaged[0], met, sound)
        return kind, f"{way} {damaged[0]}", outcome, fault

    def _result(self, kind: Kind) -> tuple[Met, dict[str, str]]:
        """What a command gives in the sound scene."""
        if tuple(kind.command) not in self._sound:
            met = self._meet(kind, lambda scene: None)
            if met.code:
                raise RuntimeError(f"{kind.command}: exit code {met.code}: {met.error}")
            self._sound[tuple(kind.command)] = met, fingerprint(self.scenes.place)
        return self._sound[tuple(kind.command)]

    def _meet(self, kind: Kind, act: Callable[[Path], object]) -> Met:
        keras.utils.clear_session()  # numbers the layers from 0, as a new process does
        return self.scenes.meet(kind.damage(act))

    def _judged(
        self, kind: Kind, path: str, met: Met, sound: tuple[Met, dict[str, str]]
    ) -> tuple[str, str]:
        """The outcome of a damage, and what is wrong with it or ""."""
        if met.code == 2:
            fault = faults(kind.damage(), met)
            names = (*kind.says, Path(path).stem)
            if not any(name in met.error for name in names):
                fault.append(f"expected one of {names} to be named in: {met.message}")
            return "refused", "; ".join(fault)
        if met.code or "Traceback" in met.error:
            return "fault", f"exit code {met.code}: {met.error}"
        before, sound_files = sound
        # Of the damaged file what the command made of it, where it touched it.
        left = {path} - set(met.changed)
        after = fingerprint(self.scenes.place, left)
        other = [
            name
            for name in (sound_files.keys() | after.keys()) - left
            if sound_files.get(name) != after.get(name)
            and not name.startswith(".work/")
        ]
        lines = set(_said(before).splitlines()) ^ set(_said(met).splitlines())
        if not other and not lines:
            return "same", ""
        fault = f"another result: {sorted(lines)[:4]}, in the files {sorted(other)}"
        return "other", "" if kind.free else fault


def _said(met: Met) -> str:
    return re.sub(r"\d+(\.\d+)? ?(s|ms|it/s|case/s)\b", "", met.output)


def add_files() -> None:
    """Add to the scene, which is the working folder, what `damage` has no need of."""
    from damage import _dscpp

    shutil.copytree(ROOT / "results" / "paper", "results/paper")
    for name in ("dsc-s0", "dscpp-s0"):
        part = Path("results/drive/reduced/runs") / name
        shutil.copytree(ROOT / part, part)
    for name, part in (("imaging", "scans"), ("segmentation", "segs")):
        Path(part).mkdir()
        for path in Path("kits").glob(f"*/{name}.nii.gz"):
            nibabel.save(nibabel.load(path), Path(part, f"{path.parent.name}.nii"))
    for case in ("phantom-004", "phantom-005"):
        _write_probabilities(case)
    for name, text in FILES.items():
        Path(name).write_text(text)
    train_own = ["train", "--images", "photos", "--masks", "labels", "--loss", "CE"]
    train_own += ["--preset", "demo", "--epochs", "1", "--output", "own"]
    train_own += [part for text in TINY for part in ("--set", text)]
    run_and_data = ("--run", "run", "--data", "phantom")
    for command in (
        train_own,
        ("predict", "--run", "own"),
        ("evaluate", "--run", "own"),
        ("temperature", *run_and_data),
        ("evaluate", *run_and_data, "--threshold", "0.5"),
        OTHER_OF_OWN,
        ("calibrate", *DECIDED[1:3]),
        MODEL,
        TABLES,
        PAPER,
        OWN,
        PHANTOMS,
        ("run", "run.yaml"),
    ):
        if code := _dscpp(command):
            raise RuntimeError(f"{command}: exit code {code}")


def _write_probabilities(case: str) -> None:
    """The same probabilities as four kinds of files."""
    p = np.load(f"run/probabilities/{case}.npy")
    for kind in ("npy", "npz", "png", "tif"):
        path = Path("probabilities", kind, f"{case}.{kind}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "npy":
            np.save(path, p)
        elif kind == "npz":
            np.savez_compressed(path, probabilities=np.moveaxis(p, -1, 0))
        elif kind == "tif":
            tifffile.imwrite(path, p[..., 1])
        else:
            Image.fromarray(np.uint8(255 * p[..., 1])).save(path)


def main() -> None:
    """Do so many damages and write how many came out how."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=500, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="CSV")
    options = parser.parse_args()
    done: Counter[tuple[str, str]] = Counter()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        bits = Bits(Scenes(Path(folder).resolve()), options.seed)
        for number in range(options.count):
            kind, what, outcome, fault = bits.meet(number)
            done.update([(kind.what, what.partition(" ")[0]), (kind.what, outcome)])
            wrong += bool(fault)
            print(number, kind.what, what, outcome, fault, sep=": ", flush=True)
            rows = [
                {"file": kind.what, "command": " ".join(kind.command)}
                | {name: done[kind.what, name] for name in COLUMNS[2:]}
                for kind in KINDS
            ]
            write_csv(options.output, COLUMNS, rows)
    if wrong:
        raise SystemExit(f"{wrong} faults")


if __name__ == "__main__":
    main()
