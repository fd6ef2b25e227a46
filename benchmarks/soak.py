"""Soak test: a run that is killed many times equals one that was never killed.

`dscpp run` makes one run of small phantoms, then `dscpp tables` its tables: once
undisturbed, then many times in fresh folders, each time with a SIGKILL in each stage at
a random moment from a seed. In some of them the disk is full from that moment on: no
file may grow (RLIMIT_FSIZE), until the command ends or is killed. Each run and its
tables must then equal the undisturbed ones bit for bit, except for times. `python -m
benchmarks.soak` writes `soak.csv`, and resumes one with fewer kills than requested. It
takes half an hour. Linux only.
"""

import contextlib
import hashlib
import io
import json
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import timing
from data_io.datasets import phantom
from data_io.files import hashing
from data_io.own_images import describe
from pipelines.environment import provenance
from pipelines.runs import run as runs
from pipelines.runs.run import write_csv
from pipelines.workflow.reproduce import dscpp

OUTPUT = Path(__file__).with_suffix(".csv")
COLUMNS = ("kill", "run", "stage", "after_s", "disk", "ended", "state", "same",
           "backend", "machine")  # fmt: skip
# The state in which a stage begins: the moment of a kill is counted from it.
STAGES = {
    "train": "training",
    "predict": "trained",
    "evaluate": "predicted",
    "temperature": "evaluated",
    "tables": "",
}
RUN, SCALED, TABLES = "run", "run-temperature", "tables"
_CLOCKS = ("times", "peak_memory_mb", "sha256")
COSTS = ["train_s", "seconds_per_epoch", "fit_s", "predict_s", "evaluate_s",
          "peak_memory_mb"]  # fmt: skip
_PATIENCE_S = 10.0  # time for a command on a full disk before it is killed
_POLL_S = 0.01
_MISSED = 3  # runs in a row without a kill before the soak stops


def fingerprint(folder: Path, without: Collection[str] = ()) -> dict[str, str]:
    """Return SHA-256 of each file below a folder, without times and locks.

    Args:
        folder: the folder.
        without: names of files to leave out.
    """
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {str(path.relative_to(folder)): path for path in files}
    wanted = {n: p for n, p in named.items() if n not in without and p.name != ".lock"}
    return {name: _digest(path) for name, path in wanted.items()}


def _digest(path: Path) -> str:
    reader = _KEPT.get(path.name)
    data = reader(path) if reader else path.read_bytes()
    return hashlib.sha256(data).hexdigest()


def _of_record(path: Path) -> bytes:
    """Return a `run.json` without times and without hashes of model archives."""
    record = json.loads(path.read_bytes())
    values = {key: value for key, value in record.items() if key not in _CLOCKS}
    values["files"] = {
        k: v for k, v in values.get("files", {}).items() if k != runs.MODEL
    }
    values.get("posthoc", {}).pop("model", None)
    return json.dumps(values).encode()


def _of_network(path: Path) -> bytes:
    import h5py

    with zipfile.ZipFile(path) as file:
        parts = [file.read("config.json")]
        weights_file = io.BytesIO(file.read("model.weights.h5"))

    def add(name: str, item: Any) -> None:
        parts.append(name.encode())
        if isinstance(item, h5py.Dataset):
            parts.append(item[()].tobytes())

    with h5py.File(weights_file) as weights:
        weights.visititems(add)
    return b"".join(parts)


def _of_state(path: Path) -> bytes:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    progress = json.loads(str(arrays.pop("progress"))) | {"seconds": 0}
    parts = [name.encode() + array.tobytes() for name, array in arrays.items()]
    return b"".join([json.dumps(progress).encode(), *parts])


def _of_costs(path: Path) -> bytes:
    return pd.read_csv(path, dtype=str).drop(columns=COSTS).to_csv().encode()


_KEPT: dict[str, Callable[[Path], bytes]] = {
    runs.RECORD: _of_record,
    runs.MODEL: _of_network,
    runs.STATE: _of_state,
    "costs.csv": _of_costs,
}


@dataclass(frozen=True)
class Attempt:
    """A folder in which the run and its tables are made.

    Attributes:
        folder: the folder; the data are beside it.
    """

    folder: Path

    def commands(self) -> dict[str, list[str]]:
        """Return the two commands: the run, then its tables."""
        run_folders = [
            str(path) for path in (self.folder / RUN, *self.folder.glob(SCALED))
        ]
        out = ["--output", str(self.folder / TABLES)]
        return {
            RUN: ["run", str(self.folder / "run.yaml")],
            TABLES: ["tables", *run_folders, *out],
        }

    def prepare(self, data: Path, epochs: int) -> None:
        """Write the run file, of own images: tables accept their overrides."""
        self.folder.mkdir()
        small = {"input_shape": [32, 32], "filters": 2, "depth": 1, "epochs": epochs}
        run_file = {
            "dataset": "own",
            "data": str(data),
            "loss": "DSC++",
            "preset": "demo",
            "overrides": small | {"stopping_patience": epochs},
            "backend": provenance.backend(),
            "folder": str(self.folder / RUN),
            "work": str(self.folder / "work"),
        }
        (self.folder / "run.yaml").write_text(json.dumps(run_file))

    def start(self, name: str) -> subprocess.Popen[str]:
        """Start one of the commands."""
        command = [*dscpp(), "--quiet", *self.commands()[name]]
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def finish(self, name: str) -> None:
        """Wait until a command ends; it must succeed."""
        process = self.start(name)
        _, message = process.communicate()
        if process.returncode:
            raise SystemExit(
                f"{self.folder}: {name}: exit code {process.returncode}: {message}"
            )

    @property
    def state(self) -> str:
        """Return the run's state; "" before it begins."""
        record = hashing.read_json(self.folder / RUN / runs.RECORD) or {}
        return str(record.get("state", ""))

    def made(self) -> dict[str, str]:
        """Return the fingerprint of the run, its scaled run and their tables."""
        return {
            f"{part}/{name}": value
            for part in (RUN, SCALED, TABLES)
            for name, value in fingerprint(self.folder / part).items()
        }

    @property
    def saved(self) -> int:
        """Return when the training state was last written, ns; 0 if never."""
        path = self.folder / RUN / runs.STATE
        return path.stat().st_mtime_ns if path.exists() else 0

    def begun(self, stage: str, saved: int) -> bool:
        """Return whether a stage can be disturbed now; `saved` is from the start."""
        if stage == "train":  # from its first epoch on: before, it only imports
            return self.saved != saved
        return STAGES[stage] in ("", self.state)


def watched(attempt: Attempt) -> dict[str, float]:
    """Make the undisturbed run and its tables; return the seconds of each stage."""
    stages = [stage for stage in STAGES if stage != TABLES]
    begun: dict[str, float] = {}
    process = attempt.start(RUN)
    while process.poll() is None:
        for stage in stages:
            if attempt.begun(stage, 0):
                begun.setdefault(stage, time.monotonic())
        time.sleep(_POLL_S)
    end = time.monotonic()
    attempt.finish(RUN)
    begin = time.monotonic()
    attempt.finish(TABLES)
    times = [begun.get(stage, end) for stage in stages]
    # A stage that was too short to be timed is disturbed at once.
    spans = np.maximum(np.diff([*times, end]), 0).tolist()
    return dict(zip(stages, spans, strict=True)) | {TABLES: time.monotonic() - begin}


def disturb(
    attempt: Attempt, stage: str, after: float, full: bool
) -> dict[str, object] | None:
    """Start a command and kill it in a stage.

    Args:
        attempt: where the run is.
        stage: one of `STAGES`.
        after: seconds from the moment at which the stage can be disturbed.
        full: whether the disk is full from then on.

    Returns:
        What happened; None if the command had already ended.
    """
    saved, process = attempt.saved, attempt.start(TABLES if stage == TABLES else RUN)
    while process.poll() is None and not attempt.begun(stage, saved):
        time.sleep(_POLL_S)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
    if full and process.poll() is None:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
    process.kill()
    message, code = process.communicate()[1], process.wait()
    known = (0, -signal.SIGKILL, 2) if full else (0, -signal.SIGKILL)
    if "Traceback" in message or code not in known:
        raise SystemExit(f"{attempt.folder}: {stage}: exit code {code}: {message}")
    if code == 0:
        return None
    ended = "SIGKILL" if code < 0 else "exit code 2"
    row: dict[str, object] = {"stage": stage, "after_s": f"{after:.3f}", "ended": ended}
    row |= {"disk": "full" if full else "", "state": attempt.state}
    print(row, flush=True)
    return row


def own_images(folder: Path) -> Path:
    """Draw phantoms and describe them as own images; return the description."""
    drawn = phantom.generate(phantom.Settings(3, 1, 2, size=32), folder / "phantom")
    for path in sorted(drawn.glob("*/*.png")):
        path.rename(path.with_name(f"{path.stem.partition('_')[0]}.png"))
    return describe.describe(drawn / "images", drawn / "labels", folder, "own").root


def soak(
    folder: Path,
    kills: int,
    full: int,
    seed: int,
    epochs: int,
    before: tuple[int, int] = (0, 0),
) -> Iterator[dict[str, object]]:
    """Disturb runs until the number of kills is reached; see the module.

    Args:
        folder: folder to work in.
        kills: number of kills in all.
        full: number of them on a full disk.
        seed: seed of the moments.
        epochs: epochs of the training.
        before: kills and runs that were done before.

    Yields:
        A row for each kill, with `COLUMNS`.
    """
    data = own_images(folder)
    alone = Attempt(folder / "alone")
    alone.prepare(data, epochs)
    spans, expected = watched(alone), alone.made()
    print(f"undisturbed: {spans}", flush=True)
    on_full = set(random.Random(seed).sample(range(kills), full))
    (done, number), missed = before, 0
    while done < kills and missed < _MISSED:
        number += 1
        attempt = Attempt(folder / f"disturbed-{number}")
        attempt.prepare(data, epochs)
        chance = random.Random(f"{seed} {number}")
        rows = _rows(attempt, spans, chance, [n in on_full for n in range(done, kills)])
        result = attempt.made()
        names = expected.keys() | result.keys()
        other = sorted(n for n in names if expected.get(n) != result.get(n))
        same = {"run": number, "same": "no" if other else "yes"}
        yield from (row | same | {"kill": done + n} for n, row in enumerate(rows, 1))
        done, missed = done + len(rows), 0 if rows else missed + 1
        verdict = ", ".join(other) or "the same to the bit"
        print(f"run {number}, {done} of {kills} kills: {verdict}", flush=True)
        shutil.rmtree(attempt.folder)
    if done < kills:
        raise SystemExit(f"{missed} runs ended before each kill: add --epochs")


def _rows(
    attempt: Attempt, spans: dict[str, float], chance: random.Random, full: list[bool]
) -> list[dict[str, object]]:
    """Make a run and its tables, killed in each stage; return a row for each kill.

    `full`: for each remaining kill, whether the disk is full. When a stage ends before
    its kill, its later kills come earlier, since the machine has become faster.
    """
    rows = list[dict[str, object]]()
    for stage in STAGES:
        if stage == TABLES:
            attempt.finish(RUN)
        if len(rows) < len(full):
            after = chance.uniform(0, spans[stage])
            row = disturb(attempt, stage, after, full[len(rows)])
            rows += [row] if row else []
            spans[stage] /= 1 if row else 2
    attempt.finish(TABLES)
    return rows


def _before(path: Path, kills: int) -> list[dict[str, Any]]:
    """Return the rows of an interrupted soak; none of a finished one."""
    if not path.exists():
        return []
    rows = pd.read_csv(path, keep_default_na=False, dtype=str).to_dict("records")
    return rows if len(rows) < kills else []


def main() -> None:
    """Disturb runs and write what happened."""
    parser = timing.parser(__doc__, OUTPUT)
    for name, default in (("kills", 50), ("full", 5), ("seed", 0), ("epochs", 30)):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N")
    options = parser.parse_args()
    fewest = min(options.kills, options.epochs)
    if fewest < 1 or not 0 <= options.full <= options.kills:
        parser.error("expected kills and epochs from 1 on, full from 0 to kills")
    rows = _before(options.output, options.kills)
    before = (len(rows), max((int(row["run"]) for row in rows), default=0))
    with tempfile.TemporaryDirectory() as folder:
        numbers = (options.kills, options.full, options.seed, options.epochs)
        where = {"backend": provenance.backend(), "machine": provenance.machine()}
        for row in soak(Path(folder).resolve(), *numbers, before):
            rows.append(row | where)
            write_csv(options.output, COLUMNS, rows)
    if any(row["same"] == "no" for row in rows):
        raise SystemExit("a killed run differs from the undisturbed one: see soak.csv")


if __name__ == "__main__":
    main()
