"""Verify: each way a data set can be broken gets a clear line, all in one message."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from imitations import (
    PALETTE,
    field_of_view,
    verify,
    vessels,
    write_drive,
    write_grey,
    write_image,
    write_palette,
)
from PIL import Image

from data_io.datasets import phantom
from data_io.datasets.drive import drive
from data_io.errors import InputError
from data_io.files.hashing import stamp_of
from data_io.verification import images

IMAGE = "training/images/21_training.tif"
LABEL = "training/1st_manual/21_manual1.gif"
SECOND = "test/2nd_manual/01_manual2.gif"
MASK = "training/mask/21_training_mask.gif"


@pytest.fixture(scope="module")
def imitation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_drive(tmp_path_factory.mktemp("imitation"))


@pytest.fixture(scope="module")
def state(imitation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was decoded of the imitation, by path: copies are other files."""
    path = tmp_path_factory.mktemp("state") / "drive.json"
    verify(drive, imitation, path)
    return path


@pytest.fixture
def copy(imitation: Path, state: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An imitation that a test may damage, and a state that knows its sound files."""
    root = Path(shutil.copytree(imitation, tmp_path / "DRIVE"))  # keeps times
    own = tmp_path / "state.json"
    text = state.read_text().replace(str(imitation), str(root.resolve()))
    kept = json.loads(text)
    del kept["sha256"]  # it is written anew by hand
    for key, entry in kept["files"].items():
        entry["stamp"] = stamp_of(Path(key.partition(" ")[2]))
    own.write_text(json.dumps(kept))
    return root, own


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text(path: Path) -> None:
    path.write_text("<html>please log in</html>\n")


def three_values(path: Path) -> None:
    indices = vessels(1).astype(np.uint8)
    indices[10, 10] = 2
    write_palette(path, indices, [*PALETTE, 0, 0, 0])


def grey_edges(path: Path) -> None:
    ramp = np.arange(584 * 565).reshape(584, 565) % 256
    Image.fromarray(ramp.astype(np.uint8)).save(path)


def grey_image(path: Path) -> None:
    Image.fromarray(np.zeros((584, 565), np.uint8)).save(path)


def turned(path: Path) -> None:
    write_image(path, np.zeros((565, 584, 3), np.uint8))


DAMAGES: dict[str, tuple[str, Callable[[Path], object], list[str]]] = {
    "missing image": (IMAGE, Path.unlink, ["expected a file", "19 of 20"]),
    "missing label": (LABEL, Path.unlink, ["expected a file, found none"]),
    "missing mask": (MASK, Path.unlink, ["expected a file, found none"]),
    "cut TIFF": (IMAGE, cut, ["can't be decoded to the end", "Copy it again"]),
    "cut GIF": (LABEL, cut, ["can't be decoded to the end", "Copy it again"]),
    "empty file": (IMAGE, lambda p: p.write_bytes(b""), ["found an empty file"]),
    "text as TIFF": (IMAGE, text, ["expected a whole TIF image", "bytes of text"]),
    "folder as TIFF": (IMAGE, lambda p: (p.unlink(), p.mkdir()), ["found a folder"]),
    "mask of another size": (
        MASK,
        lambda p: write_grey(p, field_of_view()[:-1]),
        ["584 rows x 565 columns, the size of its image", "583 rows x 565 columns"],
    ),
    "image of another size": (
        IMAGE,
        turned,
        ["expected 584 rows x 565 columns", "found 565 rows x 584 columns"],
    ),
    "0/1/2": (LABEL, three_values, ["expected a binary mask", "values 0, 1, 2"]),
    "0/1/2 of observer 2": (SECOND, three_values, ["a binary mask", "values 0, 1, 2"]),
    "grey edges": (LABEL, grey_edges, ["values 0, 1, 2, 3, 4, 5, 6, 7, ..."]),
    "all foreground": (
        LABEL,
        lambda p: write_grey(p, np.ones((584, 565))),
        ["expected a binary mask", "values 255"],
    ),
    "colour mask": (
        LABEL,
        lambda p: write_png(p, np.zeros((584, 565, 3), np.uint8)),
        ["expected a mask of one channel, found mode RGB"],
    ),
    "grey image": (IMAGE, grey_image, ["expected an RGB image, found mode L"]),
}


def write_png(path: Path, image: np.ndarray) -> None:
    """Pillow goes by content, so a PNG under another name is decoded."""
    Image.fromarray(image).save(path, format="PNG")


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_named(copy: tuple[Path, Path], name: str) -> None:
    root, own = copy
    where, damage, wanted = DAMAGES[name]
    damage(root / where)
    with pytest.raises(InputError) as caught:
        verify(drive, root, own)
    message = str(caught.value)
    assert message.startswith(f"DRIVE in {root}: 1 problem.\n  1. {where}: expected")
    for part in wanted:
        assert part in message


@pytest.mark.parametrize("name", ["missing image", "text as TIFF"])
def test_command_line_reports_damage_and_exits_with_2(
    copy: tuple[Path, Path],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pipelines.cli import main

    root, _ = copy
    monkeypatch.chdir(root.parent)
    where, damage, _ = DAMAGES[name]
    damage(root / where)
    assert main(["verify", "--dataset", "drive", "--data", str(root)]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("dscpp: DRIVE in") == 1
    assert where in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_the_command_line_with_a_wrong_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["verify", "--dataset", "drive", "--data", "nowhere"]) == 2
    assert "expected the data set in nowhere, found no such folder" in (
        capsys.readouterr().err
    )


def test_all_problems_in_one_message(copy: tuple[Path, Path]) -> None:
    root, own = copy
    cut(root / IMAGE)
    three_values(root / LABEL)
    (root / MASK).unlink()
    shutil.rmtree(root / "test" / "1st_manual")
    with pytest.raises(InputError) as caught:
        verify(drive, root, own)
    lines = str(caught.value).splitlines()
    assert "4 problems" in lines[0]
    assert len(lines) == 5
    for where in (IMAGE, LABEL, MASK, "test/1st_manual"):
        assert sum(where in line for line in lines) == 1


def test_report(imitation: Path) -> None:
    report = verify(drive, imitation)
    assert report.counts == {"training": 16, "validation": 4, "test": 20}
    assert report.sizes == {(584, 565): 40}
    assert report.files == {
        "image": 40, "observer1": 40, "observer2": 20, "field of view": 40,
    }  # fmt: skip
    assert report.values["observer1"] == {0, 255}
    assert report.values["observer2"] == {0, 1}
    # Drawn, so known: the aperture is a disc of radius 270, cut at the sides.
    share = field_of_view().mean()
    assert report.foreground["field of view"] == pytest.approx(share)
    assert (report.decoded, report.skipped) == (140, 0)
    assert report.warnings == []
    shown = str(report)
    assert "40 (16 training, 4 validation, 20 test)" in shown
    assert "584 rows x 565 columns" in shown


def test_an_empty_label_and_litter_are_warnings(copy: tuple[Path, Path]) -> None:
    root, own = copy
    write_grey(root / LABEL, np.zeros((584, 565)))
    (root / "Thumbs.db").touch()
    report = verify(drive, root, own)
    assert any("Thumbs.db" in text for text in report.warnings)
    such = f" masks have no foreground, such as {LABEL}"
    assert any(warning.endswith(such) for warning in report.warnings)
    assert "warning:" in str(report)


def test_unchanged_files_are_not_decoded_again(
    copy: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, own = copy
    seen: list[Path] = []
    real = images.decode

    def spy(path: Path) -> tuple[str, np.ndarray]:
        seen.append(path)
        return real(path)

    monkeypatch.setattr(images, "decode", spy)
    assert verify(drive, root, own).skipped == 140
    assert seen == []
    write_grey(root / LABEL, vessels(3))
    report = verify(drive, root, own)
    assert (report.decoded, report.skipped) == (1, 139)
    status = (root / IMAGE).stat()
    os.utime(root / IMAGE, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    seen.clear()
    assert verify(drive, root, own).decoded == 1
    assert seen == [root / IMAGE]
    assert verify(drive, root).decoded == 140  # without a state everything


def test_a_file_whose_time_was_set_back_is_decoded_again(
    copy: tuple[Path, Path],
) -> None:
    """Size and time of writing are as before: the time of change tells."""
    root, own = copy
    before = (root / IMAGE).stat()
    (root / IMAGE).write_bytes((root / IMAGE).read_bytes())
    os.utime(root / IMAGE, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (root / IMAGE).stat().st_size == before.st_size
    assert verify(drive, root, own).decoded == 1


def test_problem_is_reported_again_the_second_time(copy: tuple[Path, Path]) -> None:
    root, own = copy
    three_values(root / LABEL)
    cut(root / IMAGE)
    for _ in range(2):
        with pytest.raises(InputError, match="2 problems"):
            verify(drive, root, own)


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[]", "null", '{"format": 1}', '{"format": 0, "files": {}}',
        '{"format": 5, "files": {"a": 1}}',
        '{"format": 5, "files": {"a": {"stamp": 1, "facts": {"shape": 2}}}}',
    ],
)  # fmt: skip
def test_a_damaged_state_is_ignored(tmp_path: Path, content: str) -> None:
    root = phantom.generate(phantom.Settings(1, 1, 1, 32), tmp_path / "set")
    state = tmp_path / "state.json"
    state.write_text(content)
    assert verify(phantom.vessels, root, state).decoded == 9
    assert json.loads(state.read_text())["format"] == 5
    assert verify(phantom.vessels, root, state).skipped == 9
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set", "state.json"]


def test_state_file_serves_two_folders(tmp_path: Path) -> None:
    settings, state = phantom.Settings(1, 1, 1, 32), tmp_path / "state.json"
    first = phantom.generate(settings, tmp_path / "first")
    second = phantom.generate(settings, tmp_path / "second")
    assert verify(phantom.vessels, first, state).decoded == 9
    assert verify(phantom.vessels, second, state).decoded == 9
    assert verify(phantom.vessels, first, state).skipped == 9
    assert verify(phantom.vessels, second, state).skipped == 9


def test_an_unwritable_state_is_a_warning(tmp_path: Path) -> None:
    root = phantom.generate(phantom.Settings(1, 1, 1, 32), tmp_path / "set")
    (tmp_path / "file").touch()
    report = verify(phantom.vessels, root, tmp_path / "file" / "state.json")
    assert "can't be written" in report.warnings[0]


def test_posterior_outside_0_to_1_is_refused(tmp_path: Path) -> None:
    root = phantom.generate(phantom.Settings(1, 1, 1, 32), tmp_path / "set")
    path = phantom.vessels.roles(root, "phantom-001")["posterior"]
    np.save(path, np.full((32, 32), 1.5, np.float32))
    with pytest.raises(InputError, match=r"in \[0, 1\], found 1\.5 to 1\.5"):
        verify(phantom.vessels, root)
    with path.open("wb") as file:
        np.savez(file, np.zeros((32, 32), np.float32))
    with pytest.raises(InputError, match=r"expected a whole \.npy file"):
        verify(phantom.vessels, root)
    np.save(path, np.zeros((32, 32), np.float32))
    cut(path)
    with pytest.raises(InputError, match=r"expected a whole \.npy file"):
        verify(phantom.vessels, root)


def test_real_data_set_passes(drive_root: Path, tmp_path: Path) -> None:
    state = tmp_path / "drive.json"
    report = verify(drive, drive_root, state)
    assert report.sizes == {(584, 565): 40}
    assert report.values == {
        "observer1": {0, 255}, "observer2": {0, 1}, "field of view": {0, 255},
    }  # fmt: skip
    assert report.warnings == []
    assert report.foreground["observer1"] == pytest.approx(0.087, abs=0.002)
    assert verify(drive, drive_root, state).skipped == 140


def test_training_reports_the_same_problems(
    copy: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pipelines.cli import main

    root, _ = copy
    monkeypatch.chdir(root.parent)
    (root / IMAGE).unlink()
    shutil.copy(
        root / "training/images/22_training.tif", root / "test/images/05_test.tif"
    )
    cut(root / LABEL)
    data = ["--dataset", "drive", "--data", str(root)]
    said = []
    for command in (["verify"], ["train", "--loss", "CE", "--preset", "demo"]):
        assert main([*command, *data]) == 2
        said.append(capsys.readouterr().err.partition("dscpp: ")[2])
    assert said[0] == said[1]
    assert "3 problems" in said[0]
    assert "identical files: 05 (test), 22 (training)" in said[0]
