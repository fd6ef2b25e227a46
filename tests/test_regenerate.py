"""What `make tables figures` writes on a clean clone is what is committed, to the byte.

Not from runs made here: files that git does not know are left out.
"""

import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from pipelines import cli

# As `make tables` names them.
PAGES = ("README.md", "docs/results.md", "docs/practice.md", "results/README.md")


def is_given(path: PurePosixPath) -> bool:
    """Whether a file below results/ is a source of the others, not made from them."""
    return path.parts[0] in ("paper", "README.md") or "runs" in path.parts


def tracked(project: Path) -> list[PurePosixPath]:
    """The files of results/ that git knows, relative to it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "results"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    names = [PurePosixPath(name) for name in listed.stdout.split("\0") if name]
    return [name.relative_to("results") for name in names]


def contents(folder: Path) -> dict[PurePosixPath, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {
        PurePosixPath(path.relative_to(folder)): path.read_bytes() for path in paths
    }


def clone(project: Path, folder: Path, names: list[PurePosixPath]) -> Path:
    """Copy the given files alone, as a clean clone whose results were deleted."""
    for name in filter(is_given, names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(project / "results" / name, folder / name)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_committed_file_is_generated_to_the_byte(project, tmp_path, capsys):
    names = tracked(project)
    expected = {
        name: (project / "results" / name).read_bytes()
        for name in names
        if not is_given(name)
    }
    folder = clone(project, tmp_path / "results", names)
    pages = [tmp_path / page.replace("/", "-") for page in PAGES]
    for page, copy in zip(PAGES, pages, strict=True):
        shutil.copyfile(project / page, copy)
    given = ["--results", str(folder)]
    assert cli.main(["tables", *given, "--readme", *map(str, pages)]) == 0
    assert cli.main(["figures", *given]) == 0
    # Figures with images need what git has not: that is said once.
    said = capsys.readouterr().out.splitlines()
    (line,) = (line for line in said if "no probabilities here" in line)
    for group in {path.parent for path in folder.glob("*/*/runs")}:
        assert str(group / "pictures") in line
    found = {k: v for k, v in contents(folder).items() if not is_given(k)}
    # Committed and made by nothing, or made and not committed.
    assert sorted(found) == sorted(expected)
    stale = [str(name) for name in expected if found[name] != expected[name]]
    stale += [
        page
        for page, copy in zip(PAGES, pages, strict=True)
        if copy.read_bytes() != (project / page).read_bytes()
    ]
    assert stale == [], "run `make tables figures` and commit what it writes"
