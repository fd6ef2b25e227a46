"""The run folder: the sole owner of its files, their schema and their state.

A run is `results/<dataset>/<preset>/runs/<name>/`. What every file holds is laid down
in `results/README.md`. Nothing here imports Keras, so tables and `--help` stay light.
"""

import contextlib
import csv
import errno
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import filelock

from data_io import datasets
from data_io.errors import InputError
from data_io.files import schema
from data_io.files.hashing import file_hash
from data_io.files.names import plain, to_cell
from data_io.files.writing import write_atomically, write_json, writing
from pipelines import loss_names
from pipelines.runs.record import FORMAT, STATES, Record

# Cache, logs and unpacked zips; safe to delete while no jobs of a cluster are queued.
WORK = Path(".work")
RECORD = "run.json"
MEASURES = ("cases.csv", "histograms.npz")
COMMITTED = (RECORD, "history.csv", *MEASURES)
MODEL = "model.keras"
STATE = "state.npz"
OTHER_SETS = "other-sets"
OWN_DATA = "own-data"  # folder: where own images are, how they are read; not in git
CUSTOM = "custom-"  # folders of runs with overrides begin so
SHIFT = "shift.csv"  # measures of corrupted test images
SHIFTED = ("nll", "ace_band", "dice", "missed")  # its measures
SEEN = "seen-images.json"  # SHA-256 by case of training and validation; not in git
JUDGED = "judged"  # data set of what `dscpp judge` measured: no network of ours
TRUTH = "true posterior"  # method of the one run that nothing was trained for
_NAMES = ("dataset", "preset", "loss", "method", "backend")
_LONGEST = 100  # of what a folder's name says of overrides
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
CASE_KEYS = (
    "dataset",
    "preset",
    "loss",
    "gamma",
    "seed",
    "method",
    "split",
    "region",
    "reference",
    "case",
    "target",
)
# What makes two runs the same run: a resumed command must agree in all of it.
IDENTITY = (
    "format",
    "dataset",
    "preset",
    "loss",
    "gamma",
    "seed",
    "replicate",
    "split_seed",
    "fold",
    "method",
    "backend",
    "overrides",
    "settings",
    "preprocessing",
    "split",
    "data_hash",
)
_ABSENT = {"replicate": 1}  # what a record says that lacks a key


def folder_name(
    loss: str,
    gamma: float | None,
    seed: int,
    backend: str = "tensorflow",
    method: str = "",
    replicate: int = 1,
) -> str:
    """Return the name of a run's folder.

    It is `<loss>[-g<gamma>]-s<seed>[-<backend>][.r<replicate>][-<method>]`.

    Args:
        loss: a loss of `loss_names.NAMES`, any case, such as "DSC++".
        gamma: the ++ exponent, or None; named only when not the loss's default.
        seed: the training seed.
        backend: Keras backend; named only when not "tensorflow".
        method: what was done after training, such as "temperature"; "" for nothing.
        replicate: which training of the same settings; named from 2 on.
    """
    parts = [loss_names.slug(loss)]
    if gamma is not None and gamma != loss_names.checked(loss)[1]:
        parts.append(f"g{gamma:g}")
    parts.append(f"s{seed}")
    parts += [backend] if backend != "tensorflow" else []
    parts[-1] += f".r{replicate}" if replicate != 1 else ""
    parts += [method] if method else []
    return "-".join(parts)


def replicate_of(folder: Path) -> int:
    """Return the replicate in a run folder's name: 2 for `dsc-s0.r2`; else 1."""
    match = re.search(r"\.r([1-9]\d{0,5})$", Path(folder).name)
    return int(match[1]) if match else 1


def run_folder(
    results: Path,
    dataset: str,
    preset: str,
    name: str,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Return a run's folder; runs with overrides are apart from the preset's runs.

    Of own images its group is named after the overrides, such as `reduced-epochs=3`;
    there is no paper to compare with, so it has tables as any other. Of other data
    sets it goes to `custom-<hash>`, never a table.

    Args:
        results: the folder of all results.
        dataset: a data set's short name, such as "drive".
        preset: "paper", "reduced" or "demo".
        name: from `folder_name`.
        overrides: values that differ from the preset's; {} or None for none.
    """
    group = _group(dataset, preset, overrides) if overrides else preset
    return Path(results) / dataset / group / "runs" / name


def _group(dataset: str, preset: str, overrides: Mapping[str, Any]) -> str:
    name = CUSTOM + schema.digest([preset, overrides])[:8]
    # No brackets, quotes, commas or spaces: they would have to be quoted in a shell.
    text = spelled(overrides).replace("[]", "none").replace(", ", "-")
    text = re.sub(r'[]["]', "", text.replace(",", "x"))
    is_short = len(text) <= _LONGEST
    return f"{preset}-{text}" if datasets.is_own(dataset) and is_short else name


def spelled(overrides: Mapping[str, Any]) -> str:
    """Format overrides, as "epochs=3, input_shape=[64,64]"; "" for none."""
    items = sorted(overrides.items())
    return ", ".join(
        f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in items
    )


def write_csv(
    path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]
) -> Path:
    """Write rows as CSV, atomically; None and NaN become empty cells.

    A text that a spreadsheet takes for a formula is written as `names.to_cell` says.

    Floats are written with 9 significant digits, the precision of float32: more would
    differ between machines, less would lose what the networks give.

    Raises:
        InputError: `path` cannot be written; or, but for a run's own files, it is a
            table with other columns, which this would replace.
    """
    if not is_run(Path(path).parent):
        require_table(Path(path), columns)

    def write(aside: Path) -> None:
        with aside.open("w", -1, "utf-8", "backslashreplace", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)

    return write_atomically(path, write)


def require_table(path: Path, columns: Sequence[str]) -> None:
    """Refuse to replace a file that is no table with similar columns.

    Raises:
        InputError: a file is there that shares less than half of the columns.
    """
    if not os.path.lexists(path):
        return
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        header = []
    if 2 * len(set(header) & set(columns)) < len(columns):
        raise InputError(
            f"{path}: expected no file, or a table with the columns "
            f"{', '.join(columns[:3])}, ..., found another file, which would be "
            "replaced; move it away or rename it"
        )


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return to_cell(value)
    if isinstance(value, bool | int):
        return str(value)
    return f"{float(value):.9g}"


@dataclass
class Run:
    """One run folder.

    Attributes:
        folder: the run's folder.
        record: the content of `run.json`.
    """

    folder: Path
    record: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read a run.

        Raises:
            InputError: there is no readable `run.json`, or one of another format.
        """
        path = Path(folder) / RECORD
        try:
            text = schema.read(path)
            record = schema.parse(text, dict[str, Any])
        except FileNotFoundError as error:
            raise InputError(
                f"{folder}: expected a run folder with a {RECORD}, "
                f"{_unrecorded(folder)}"
            ) from error
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: expected JSON, found a file that cannot be read ({error}); "
                "restore it, or delete the run folder and train again"
            ) from error
        if record.get("format") != FORMAT:
            raise InputError(
                f"{path}: expected format {FORMAT}, found {record.get('format')}; this "
                "run was written by another version: use that version, or train again "
                "into another --output"
            )
        try:
            schema.parse(text, Record)
            schema.require_unchanged(record)
            if "state" not in record:
                raise ValueError("no state")
        except ValueError as error:
            raise InputError(
                f"{path}: expected the values of a run, found others ({error}); "
                "restore the file, or delete the run folder and train again"
            ) from error
        _check_names(path, record)
        return cls(Path(folder), record)

    @classmethod
    def create(cls, folder: Path, record: Mapping[str, Any]) -> Self:
        """Start a run: its folder and a `run.json` in state "training"."""
        run = cls(Path(folder), {"format": FORMAT, **record})
        run.update(state="training")
        return run

    @property
    def state(self) -> str:
        """One of `STATES`."""
        return str(self.record["state"])

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def method(self) -> str:
        """What was done after a training, such as "temperature"; "" for nothing."""
        return str(self.record.get("method") or "")

    @property
    def last_method(self) -> str:
        """The last one of several methods, as of "ensemble-3 + temperature"."""
        return self.method.rpartition(" + ")[2]

    @property
    def origin(self) -> str:
        """Name of the run that this one was made from; "" where it is none."""
        return str(self.record.get("posthoc", {}).get("run", ""))

    @property
    def trained(self) -> Path:
        """Folder of the run that was trained: this one, or what it was made from.

        Of an ensemble the first of its members.
        """
        name = self.record.get("posthoc", {}).get("trained") or self.origin
        return self.folder.absolute().with_name(name) if name else self.folder

    @property
    def members(self) -> list[str]:
        """Names of the runs that an ensemble is the mean of; [] of all others."""
        return list(self.record.get("posthoc", {}).get("members", ()))

    def reached(self, state: str) -> bool:
        """Return whether the run is at `state` or past it."""
        return STATES.index(self.record["state"]) >= STATES.index(state)

    def path(self, name: str) -> Path:
        """A file or folder of the run."""
        return self.folder / name

    def update(self, files: Sequence[str] = (), **values: Any) -> None:
        """Change the record on disk; `files` are hashed into it.

        Dictionaries are merged one level deep, so stages add to `times` side by side.
        """
        for key, value in values.items():
            old = self.record.get(key)
            if isinstance(old, dict) and isinstance(value, Mapping):
                self.record[key] = {**old, **value}
            else:
                self.record[key] = value
        hashes = {name: file_hash(self.folder / name) for name in files}
        if hashes:
            self.record["files"] = {**self.record.get("files", {}), **hashes}
        self.record = schema.sealed(self.record)
        write_json(self.folder / RECORD, self.record)

    def remake(self) -> str:
        """Return the command that writes, or rewrites, the run's probabilities."""
        again = " --again" * self.reached("predicted")
        if self.method == TRUTH:
            return "dscpp reproduce"  # which measures it in passing
        posthoc = self.record.get("posthoc", {})
        if "members" in posthoc:
            option = " --mean logits" if posthoc["mean"] == "logits" else ""
            named = [str(self.folder.with_name(name)) for name in posthoc["members"]]
            return f"dscpp ensemble{again}{option} {' '.join(named)}"
        if self.method:
            origin, last = self.folder.with_name(self.origin or "RUN"), self.last_method
            command = last if last == "temperature" else f"scale --method {last}"
            return f"dscpp {command}{again} --run {origin}"
        return f"dscpp predict{again} --run {self.folder}"

    def require_network(self) -> None:
        """Refuse a run that was made from another one's probabilities, or of folds."""
        if "folds" in self.record:
            raise InputError(
                f"{self.folder}: expected a run with a network, found the cases of all "
                "folds of a cross-validation; give a run of one fold"
            )
        if self.method:
            raise InputError(
                f"{self.folder}: expected a run as it was trained, with a network, "
                f"found one after {self.method}; its probabilities come from "
                f"`{self.remake()}`. Give the run that was trained: "
                f"{self.trained.name if self.origin else 'one beside it'}"
            )

    @property
    def has_measures(self) -> bool:
        """Whether the files that an evaluation writes are there, whatever they hold."""
        return all(self.path(name).is_file() for name in MEASURES)

    def require(self, state: str, command: str) -> None:
        """Refuse to go on from a run that has not reached `state`."""
        if not self.reached(state):
            raise InputError(
                f"{self.folder}: expected a run that is {state!r}, found "
                f"{self.state!r}; run `{command}` first"
            )

    def require_measures(self) -> None:
        """Refuse measures that the run did not write: edited, merged or cut files.

        Files that are not there are not looked at: old runs may lack one.
        """
        for name in MEASURES:
            path, expected = self.path(name), self.record.get("files", {}).get(name)
            if expected and path.is_file() and file_hash(path) != expected:
                raise InputError(
                    f"{path}: expected the file that {RECORD} describes (SHA-256 "
                    f"{expected[:12]}...), found another; restore it, or run "
                    f"`dscpp evaluate --again --run {self.folder}`"
                )

    def require_same(self, wanted: Mapping[str, Any]) -> None:
        """Refuse a command whose settings or data differ from the run's.

        Keys of `IDENTITY` that `wanted` leaves out are not compared.

        Raises:
            InputError: names each value that differs.
        """
        differences = list(_differences(self.record, wanted))
        if differences:
            raise InputError(
                f"{self.folder}: settings or data changed since this run began:\n"
                + "\n".join(f"  {line}" for line in differences)
                + "\nGive the same command and data as before, or another --output "
                "(reproduce: another --results)."
            )

    def seen(self) -> set[str] | None:
        """Return the SHA-256 of the training and validation images; None if unknown.

        Raises:
            InputError: the list is there and is not the one that was written.
        """
        path = self.trained / SEEN
        try:
            hashes = schema.load(path, dict[str, str])
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: expected the list of images that dscpp wrote, found another "
                f"({error}); delete it and give the run's `dscpp train` command again, "
                "which writes it anew and trains nothing"
            ) from error
        return set(hashes.values())


def _check_names(path: Path, record: Mapping[str, Any]) -> None:
    """Refuse names in `run.json` that could lead out of the run's folders.

    Also refuse a run folder that holds a link to somewhere else: what is written to
    the run would be written there.
    """
    for key in _NAMES:
        if record.get(key) not in (None, ""):
            plain(record[key], path, key)
    for case in itertools.chain(*record.get("split", {}).values()):
        plain(case, path, "case")
    posthoc = record.get("posthoc", {})
    origins = (posthoc.get("run"), posthoc.get("trained"), *posthoc.get("members", ()))
    for origin in filter(None, origins):
        plain(origin, path, "run")
    _refuse_links(path.parent)


def _refuse_links(folder: Path) -> None:
    whole = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = Path(parent, name)
            if entry.is_symlink() and not entry.resolve().is_relative_to(whole):
                raise InputError(
                    f"{entry}: expected a run's own file or folder, found a link that "
                    "leads out of the run; put what it leads to in its place"
                )


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold a run's folder, made if needed; the lock ends with the process.

    A run on a place that cannot be written is as it is: it needs no lock to be read,
    and what would change it fails.

    Raises:
        InputError: another process holds it, the folder of a new run cannot be written,
            or a link is in the place of the lock or leads nowhere.
    """
    for path in (folder, folder / ".lock"):
        if path.is_symlink() and (path != folder or not path.exists()):
            raise InputError(
                f"{path}: expected a {'folder' if path == folder else 'file'} or "
                f"nothing, found a link to {path.readlink()}; delete it"
            )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # `is_held` has the lock for a moment when somebody asks.
        lock = filelock.FileLock(folder / ".lock", timeout=0.2)
        try:
            lock.acquire(poll_interval=0.02)
        except filelock.Timeout as error:
            raise InputError(
                f"{folder}: another process is working on this run; wait for it to "
                "end, or give another --output"
            ) from error
        except OSError as error:
            if error.errno not in _READ_ONLY or not is_run(folder):
                raise
    try:
        yield
    finally:
        lock.release()


def is_held(folder: Path) -> bool:
    """Return whether a process is working on a run."""
    return is_locked(Path(folder) / ".lock")


def is_locked(path: Path, unknown: bool = False) -> bool:
    """Return whether a process holds a lock file; `unknown` if it can't be tested."""
    if not path.exists():
        return False
    try:
        with filelock.FileLock(path, timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:
        return unknown


def _differences(
    record: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = ""
) -> Iterator[str]:
    # Through JSON, so that tuples and lists, as read and as given, compare equal.
    for key, want in wanted.items():
        if prefix == "" and key not in IDENTITY:
            continue
        have = record.get(key, _ABSENT.get(key) if prefix == "" else None)
        value = json.loads(json.dumps(want))
        if isinstance(have, dict) and isinstance(value, dict):
            gone = dict.fromkeys(have.keys() - value.keys())
            yield from _differences(have, {**value, **gone}, f"{prefix}{key}.")
        elif have != value:
            yield (
                f"{prefix}{key}: the run has {short(have, value)}, the command asks "
                f"{short(value, have)}"
            )


def short(value: object, other: object) -> str:
    """Format a value in one line; of a long one, where it differs from another."""
    text = repr(value)
    if len(text) <= 80:
        return text
    pairs = enumerate(zip(text, repr(other), strict=False))
    begin = max(0, next((at for at, (a, b) in pairs if a != b), 60) - 40)
    part = f"{'...' * (begin > 0)}{text[begin : begin + 60]}"
    part += "..." * (begin + 60 < len(text))
    return f"{len(value)} values, {part}" if isinstance(value, list) else part


def require_free(folder: Path) -> None:
    """Refuse to begin a run among files that are not a run's.

    Raises:
        InputError: the folder holds files and is no run.
    """
    # Looked at in this order: the first file that a run gets is its record.
    names = [path.name for path in _visible(Path(folder))]
    if names and not is_run(folder):
        raise InputError(
            f"{folder}: expected a run, or a folder that is new or empty, found "
            f"{', '.join(sorted(names)[:3])}; choose another --output, or, where this "
            f"is a run that lost its {RECORD}, restore that"
        )


def require_replaceable(folder: Path, what: str, is_it: Callable[[Run], bool]) -> None:
    """Refuse to write over files, or over a run that is not the one to be made anew.

    `what` the run to be made is, in words; `is_it` says whether the one there is that.

    Raises:
        InputError: the folder holds files and is no run, or another run.
    """
    require_free(folder)
    if is_run(folder) and not is_it(Run.open(folder)):
        raise InputError(
            f"{folder}: expected no run, or {what}, found another run, which would be "
            "replaced; move it away or rename it"
        )


def _visible(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.name[0] != ".")


def _unrecorded(folder: Path) -> str:
    """Describe what is in place of a run, and what to do."""
    names = sorted(path.name for path in _visible(Path(folder)))
    if not names:
        return "found none; make one with `dscpp train … --output FOLDER`"
    return (
        f"found {', '.join(names[:3])} without one; restore it, or move the folder "
        "away and train again"
    )


def unrecorded(results: Path) -> list[str]:
    """Return lines on folders in the place of runs with files but no `run.json`.

    A line for each, in order; `find` leaves these folders out.
    """
    return [
        f"{folder}: expected a run folder with a {RECORD}, {_unrecorded(folder)}"
        for folder in sorted(Path(results).glob("*/*/runs/*"))
        if folder.name[0] != "." and not is_run(folder) and any(_visible(folder))
    ]


def readable(folder: Path) -> Run | None:
    """Return the run in a folder; None if there is none that can be read."""
    try:
        return Run.open(folder)
    except InputError:
        return None


def is_run(folder: Path) -> bool:
    """Return whether the folder holds a run."""
    return (Path(folder) / RECORD).is_file()


def find(folder: Path) -> list[Run]:
    """Return all runs in `<folder>/runs/`, by name.

    Folders without a `run.json` are left out: see `unrecorded`.
    """
    return _runs_in(Path(folder) / "runs")


def _runs_in(folder: Path) -> list[Run]:
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [Run.open(path) for path in paths if is_run(path)]


def listed(folders: Iterable[Path]) -> list[Run]:
    """Return the runs that folders are or hold, each once, in the order given.

    A folder is a run, or one of runs, as of `results/<dataset>/<preset>`, or one with
    runs directly in it.

    Raises:
        InputError: a folder that is no run and holds none.
    """
    by_folder: dict[Path, Run] = {}
    for folder in folders:
        members = [] if is_run(folder) else find(folder) or _runs_in(folder)
        for run in members or [Run.open(folder)]:
            by_folder.setdefault(run.folder.resolve(), run)
    return list(by_folder.values())
