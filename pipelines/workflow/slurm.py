"""Runs as jobs of SLURM: `dscpp run FILE` each, and one job that writes the tables.

The runs do not depend on each other, and each is locked and resumes by itself. So the
queue of SLURM is the only workflow engine. `slurm.sh` puts a job back into the queue.
A job is found again by its name, which the run's folder decides; so nothing has to be
kept of what was submitted, and accounting (`sacct`) is not needed.
"""

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, NamedTuple

import yaml
from annotated_types import Ge, Le

from data_io import bars
from data_io.errors import InputError
from data_io.files import schema
from pipelines.environment import streams
from pipelines.workflow import logs, processes
from pipelines.workflow.plan import Planned, load

SCRIPT = Path(__file__).with_name("slurm.sh")
# What this module says itself, or what would take a job out of its hands. SLURM takes
# what such a name begins with for the name.
_OURS = (
    "array", "clusters", "dependency", "error", "help", "job-name", "no-requeue",
    "open-mode", "output", "parsable", "quiet", "requeue", "signal", "test-only",
    "usage", "version", "wait", "wrap",
)  # fmt: skip


@dataclass(frozen=True)
class Profile:
    """The settings of a profile file: what a job asks of a cluster.

    Attributes:
        sbatch: options of `sbatch` by their long names; "" for one without a value.
        tables: those of the job that writes the tables; None for the same.
        attempts: how often a job is started, whatever ended it, before a kill or the
            time limit is its end.
        warning: seconds before the time limit at which a run saves its state.
        price: of one hour of one run, in any currency; None where it has none.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid", "allow_inf_nan": False}

    sbatch: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, str] | None = None
    attempts: Annotated[int, Ge(1)] = 20
    warning: Annotated[int, Ge(1), Le(65535)] = 120  # as far as SLURM counts
    price: Annotated[float, Ge(0)] | None = None

    @property
    def has_gpu(self) -> bool:
        """Whether the runs ask for a GPU."""
        asks = ("constraint", "gres", "partition")
        return any(
            key.startswith("gpus") or (key in asks and "gpu" in value.lower())
            for key, value in self.sbatch.items()
        )


class Job(NamedTuple):
    """A job in the queue: its number, and its state, such as PENDING or RUNNING."""

    number: str
    state: str


def read(path: Path) -> Profile:
    """Read a profile file; `docs/cluster.md` describes it.

    Raises:
        InputError: no such file, or one of another form.
    """
    try:
        # As typed: YAML would read the time 4:00:00 as the number 14400.
        document = yaml.load(schema.read(path), yaml.BaseLoader)
        profile: Profile = schema.typed(document, Profile)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        keys = ", ".join(attribute.name for attribute in dataclasses.fields(Profile))
        raise InputError(
            f"{path}: expected a profile in YAML with any of {keys}, found {error}"
        ) from error
    for key, value in [*profile.sbatch.items(), *(profile.tables or {}).items()]:
        ours = any(option.startswith(key) for option in _OURS)
        if ours or not re.fullmatch("[a-z][a-z-]*", key) or not value.isprintable():
            raise InputError(
                f"{path}: expected long names of options of sbatch, such as partition, "
                f"and none of {', '.join(_OURS)}; found {key!r}: {value!r}"
            )
    limit = _seconds(profile.sbatch.get("time", ""))
    if limit is not None and limit <= profile.warning:
        raise InputError(
            f"{path}: expected a time limit longer than the warning before it, found "
            f"time {profile.sbatch['time']!r} ({limit} s) and warning "
            f"{profile.warning} s: a run would be stopped when it begins"
        )
    return profile


def _seconds(time: str) -> int | None:
    """Return the seconds of a time limit of `sbatch`; None for 0, which is no limit.

    Its forms are minutes[:seconds], hours:minutes:seconds and
    days-hours[:minutes[:seconds]]; None of others, such as UNLIMITED.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if not match:
        return None
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part]
    # Behind days hours come first; else one number is minutes, two have seconds too.
    first = 0 if days or len(numbers) == 3 else 1
    padded = [*[0] * first, *numbers, 0, 0, 0][:3]
    seconds = padded[0] * 3600 + padded[1] * 60 + padded[2]
    return int(days or 0) * 86400 + seconds or None  # 0 is no limit


def require() -> None:
    """Refuse to submit without the commands of SLURM.

    Raises:
        InputError: one is missing.
    """
    missing = [name for name in ("sbatch", "squeue") if shutil.which(name) is None]
    if missing:
        raise InputError(
            f"--slurm: expected the commands of SLURM, found no {missing[0]}. Give the "
            "command on a login node of the cluster; without --slurm the runs are made "
            "on this machine"
        )


def queue() -> dict[str, Job]:
    """Return this user's jobs by name; {} without SLURM.

    Raises:
        InputError: SLURM does not answer.
    """
    if shutil.which("squeue") is None:
        return {}
    listing = _answer("squeue", "--me", "--noheader", "--format=%A %T %j")
    jobs = re.findall(r"^(\d+) (\S+) (dscpp-\S+)$", listing, re.MULTILINE)
    return {name: Job(number, state) for number, state, name in jobs}


def job_name(folder: Path) -> str:
    """Return the name of the job that works on a folder."""
    name = re.sub(r"[^\w.-]", "_", folder.name)
    return f"dscpp-{name}-{zlib.crc32(os.path.realpath(folder).encode()):08x}"


def submit(
    planned: Sequence[Planned],
    pending: Sequence[Planned],
    folder: Path,
    profile: Profile,
) -> None:
    """Submit the runs that are not queued, and a job that then writes the tables.

    `pending` are those with data that are not done; notes and run files go to `folder`.

    Raises:
        InputError: SLURM refuses a job; those before it are in the queue.
    """
    queued = queue()
    files = _write(planned, folder / "slurm", queued)
    # Of earlier calls too: their runs are in these tables as well.
    run_files = sorted((folder / "slurm").glob("*.json"))
    numbers = [queued[file.stem].number for file in run_files if file.stem in queued]
    fresh = [run for run in pending if job_name(run.folder) not in queued]
    for done, run in enumerate(fresh):
        try:
            numbers.append(_submit_run(run, files[run.folder], profile))
        except InputError as error:
            raise InputError(
                f"{error}\n{len(pending) - len(fresh) + done} of {len(pending)} run(s) "
                "are in the queue; the same command submits the rest"
            ) from error
    if fresh or job_name(folder) not in queued:
        _submit_tables(folder, numbers, profile)
    bars.note(
        f"{len(fresh)} run(s) submitted to SLURM, {len(pending) - len(fresh)} were in "
        f"its queue. A last job writes the tables; its log: {_log(folder)}"
    )


def _write(
    planned: Sequence[Planned], folder: Path, queued: Mapping[str, Job]
) -> dict[Path, Path]:
    """Write the run files; delete those of runs that are no longer asked for.

    A job in the queue reads its file when it starts.
    """
    files = {
        run.folder: run.write(folder / f"{job_name(run.folder)}.json")
        for run in planned
    }
    for old in set(folder.glob("*.json")) - set(files.values()):
        if old.stem not in queued:
            old.unlink()
    return files


def _submit_run(run: Planned, file: Path, profile: Profile) -> str:
    from pipelines.workflow import reproduce

    more = ("--requeue", f"--signal=B:USR1@{profile.warning}")
    script_arguments = [str(profile.attempts), str(run.folder)]
    command = [*script_arguments, *reproduce.dscpp(), "run", str(file)]
    return _sbatch(profile.sbatch, run.folder, run.log, [*more, str(SCRIPT), *command])


def _submit_tables(folder: Path, numbers: Sequence[str], profile: Profile) -> str:
    """Submit the job that waits for all others, however they end."""
    options = profile.sbatch if profile.tables is None else profile.tables
    after = f"--dependency=afterany:{':'.join(numbers)}"
    command = [sys.executable, "-m", "pipelines.workflow.slurm", str(folder)]
    wrapped = f"--wrap=exec {shlex.join(command)}"
    return _sbatch(options, folder, _log(folder), [after, wrapped])


def _sbatch(
    options: Mapping[str, str], folder: Path, log: Path, more: Sequence[str]
) -> str:
    if "\\" in str(log):  # sbatch leaves it out, and nothing could be written
        raise InputError(f"{log}: expected a place without a backslash, for SLURM")
    log.parent.mkdir(parents=True, exist_ok=True)
    ours = {
        "job-name": job_name(folder),
        "output": str(log).replace("%", "%%"),  # % begins a pattern
        "open-mode": "append",
    }
    words = [
        f"--{key}={value}" if value else f"--{key}"
        for key, value in {**options, **ours}.items()
    ]
    answer = _answer("sbatch", "--parsable", *words, *more).strip()
    number = answer.rpartition("\n")[2].partition(";")[0]  # behind a site's own lines
    if not number.isdecimal():
        raise InputError(f"sbatch: expected the number of a job, found {answer!r}")
    return number


def _log(folder: Path) -> Path:
    return folder / "tables.log"


def _answer(*command: str) -> str:
    """Return the output of a command of SLURM.

    A filter of the user's, such as SQUEUE_STATES, would hide jobs that are queued.
    """
    env = {
        key: text
        for key, text in os.environ.items()
        if key != processes.VARIABLE and not key.startswith("SQUEUE_")
    }
    env["PYTHONUNBUFFERED"] = "1"
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        raise InputError(
            f"{command[0]}: expected an answer of SLURM, found exit code "
            f"{done.returncode}: {done.stderr.strip()}"
        )
    return done.stdout


def main() -> int:
    """Write the tables of a call, given its folder; return its exit code."""
    from pipelines.workflow import reproduce

    folder = Path(sys.argv[1])
    try:
        with reproduce.alone(folder):
            planned = [load(file) for file in sorted((folder / "slurm").glob("*.json"))]
            results = {run.group.parents[1] for run in planned}
            if not results:
                raise InputError(
                    f"{folder / 'slurm'}: expected the files of the runs, found none; "
                    "`dscpp tables` writes the tables of what was made"
                )
            return max(
                _finish(folder, planned, folder_of_results)
                for folder_of_results in sorted(results)
            )
    except InputError as error:
        streams.say(str(error))
        return 2


def _finish(folder: Path, planned: Sequence[Planned], results: Path) -> int:
    from pipelines.workflow import reproduce

    placed = [run for run in planned if run.group.parents[1] == results]
    failed = [
        (run, logs.reason(run.log) or "it was not started")
        for run in placed
        if not run.done
    ]
    call = reproduce.Call(placed, results, placed[0].work, folder)
    return call.finish([run for run in placed if run.data], failed)


if __name__ == "__main__":
    sys.exit(main())
