"""Faults planted one at a time in a copy of the project, and the tests that catch them.

`python tests/planted.py` plants each, runs its tests until one fails, and writes the
table in benchmarks/README.md; with words, only the faults that have them.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from pipelines.reporting import markdown

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "benchmarks" / "README.md"


class Fault(NamedTuple):
    """What is wrong, where, how, and the tests that should catch it."""

    what: str
    file: str
    old: str
    new: str
    tests: str


FAULTS = (
    Fault("Focal Tversky with the exponent not inverted", "losses/overlap.py",
          "power_of_error(errors, 1 / focal_gamma)",
          "power_of_error(errors, focal_gamma)",
          "test_losses.py::test_small_values_keep_their_digits"),
    Fault("a normal distribution in place of Student's",
          "pipelines/reporting/estimates.py",
          "special.stdtrit(df, 0.975)", "special.ndtri(0.975)",
          "test_tables.py::test_a_contrast_by_hand"),
    Fault("the last tile of a volume begins one voxel too early",
          "data_io/prepare/patches.py",
          "last = max(0, size - patch)", "last = max(0, size - patch - 1)",
          "test_patches.py::test_patches_lie_where_miscnn_puts_them"),
    Fault("true and false voxels exchanged in the histograms",
          "pipelines/measure/histograms.py",
          "[count_bins(bins, others) - there, there]",
          "[there, count_bins(bins, others) - there]", "test_histograms.py"),
    Fault("a probability on an edge goes to the bin below",
          "pipelines/measure/histograms.py",
          'p.astype(np.float64), side="right"', 'p.astype(np.float64), side="left"',
          "test_histograms.py"),
    Fault("samples are drawn without the seed",
          "data_io/prepare/batches.py",
          "SeedSequence([self.seed, epoch, index])", "SeedSequence([epoch, index])",
          "test_batches.py::test_seed_epoch_and_index_all_matter"),
    Fault("a resumed training begins with a new optimiser",
          "pipelines/training/state.py",
          ', "optimizer": model.optimizer.variables}', "}",
          "test_training.py::test_optimiser_and_epoch_survive_the_state_file"),
    Fault("of two epochs with the same loss, the later one's weights are kept",
          "pipelines/training/callbacks.py",
          'values["val_loss"] < progress.best', 'values["val_loss"] <= progress.best',
          "test_training.py::test_weights_are_kept_at_each_new_lowest_loss_only"),
    Fault("a voxel exactly at the threshold is background",
          "pipelines/measure/metrics.py",
          "foreground.max(axis=0) >=", "foreground.max(axis=0) >",
          "test_metrics.py"),
    Fault("ACE counts bins without a voxel",
          "pipelines/measure/calibration.py",
          "held = (bins.n > 0).sum(axis=-1)", "held = bins.n.shape[-1]",
          "test_calibration.py"),
    Fault("the cache does not know the size of what it holds",
          "data_io/prepare/cache.py",
          "settings.prepared(), _versions()]", "_versions()]",
          "test_cache.py::test_cache_depends_on_all_settings_but_augmentation"),
    Fault("a file is written in its place, not beside it",
          "data_io/files/writing.py", "with _aside(target) as aside:",
          "with contextlib.nullcontext(target) as aside:",
          "test_run.py::test_a_writer_that_fails_leaves_the_old_file_and_no_other"),
    Fault("the Makefile gives `DATA` unquoted", "Makefile",
          '--$(2)="$$$(1)"', "--$(2)=$$$(1)",
          "test_install.py::test_make_variables_reach_the_command_unchanged"),
    Fault("`GPU=1` takes the lock of the CPU", "Makefile",
          "LOCK := requirements/$(FLAVOUR).txt", "LOCK := requirements/$(BACKEND).txt",
          "test_install.py::test_each_backend_is_installed_in_an_environment_of_its_own"),
    Fault("`KERAS_BACKEND` is not handed on", "Makefile",
          "export KERAS_BACKEND := $(BACKEND)", "KERAS_BACKEND := $(BACKEND)",
          "test_install.py::test_each_backend_is_installed_in_an_environment_of_its_own"),
    Fault("`dscpp --help` imports pandas", "pipelines/cli.py",
          "\nimport argparse\n", "\nimport argparse\n\nimport pandas\n",
          "test_cli.py::test_help_is_quick_and_needs_no_backend"),
)  # fmt: skip


def copy_tracked(copy: Path) -> None:
    """Copy the files that git knows, as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)


def caught(fault: Fault, copy: Path) -> str:
    """The first test that fails with a fault in the copy, "" where none does."""
    path = copy / fault.file
    sound = path.read_text("utf-8")
    path.write_text(sound.replace(fault.old, fault.new), "utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [*command, f"tests/{fault.tests}"],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    path.write_text(sound, "utf-8")
    failed = re.search(r"^FAILED \S+::(\w+)", ended.stdout, re.MULTILINE)
    if failed is None and ended.returncode:
        raise RuntimeError(f"{fault.what}: {ended.stdout[-2000:]}{ended.stderr}")
    return failed[1] if failed else ""


def main() -> None:
    """Plant the faults, write the table, and fail where one was not caught."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copy_tracked(copy)
        for fault in FAULTS:
            if all(word in fault.what for word in sys.argv[1:]):
                test = caught(fault, copy)
                rows.append((fault.what, f"`{test}`" if test else "nothing"))
                print(*rows[-1], sep=": ", flush=True)
    if not sys.argv[1:]:
        table = markdown.table(("fault", "caught by"), rows)
        markdown.fill(PAGE, {"faults": lambda: table})
    if not rows:
        raise SystemExit(f"no fault has the words {sys.argv[1:]}")
    if any(test == "nothing" for _, test in rows):
        raise SystemExit("not every fault was caught")


if __name__ == "__main__":
    main()
