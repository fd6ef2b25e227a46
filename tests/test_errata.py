"""The errata: every entry has a number, and it is the one that the code gives."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest

from errata import __main__ as command
from errata import page
from errata.registry import Measurement

MENDED = (
    "other numbers come out now: run `python -m errata --write`, for those of runs "
    "`make tables`, and look at what changed"
)


@pytest.fixture(scope="module")
def committed() -> list[dict[str, str]]:
    """The rows of docs/errata.csv."""
    return page.read()


def numbers(row: dict[str, str]) -> list[str]:
    return [row["published"], row["corrected"]]


def test_every_part_has_numbers(committed: list[dict[str, str]]) -> None:
    known = {part.key for part in command.load()}
    assert {(row["entry"], row["source"]) for row in committed} == known
    for row in committed:
        assert any(numbers(row)), row


def test_every_entry_is_described_once_with_its_numbers(
    committed: list[dict[str, str]],
) -> None:
    text = page.PAGE.read_text("utf-8")
    entries = page.entries(text)
    assert sorted(entries) == sorted({part.entry for part in command.load()})
    for entry in entries:
        assert text.count(f"\n### {entry}: ") == 1, entry
        table = page.table(entry, [r for r in committed if r["entry"] == entry])
        assert f"<!-- {entry}:begin -->\n{table}\n<!-- {entry}:end -->" in text, entry


@pytest.mark.parametrize(
    "part",
    [part for part in command.load() if not part.slow],
    ids=lambda part: "-".join(part.key),
)
def test_page_has_the_measured_numbers(
    part: Measurement, committed: list[dict[str, str]]
) -> None:
    stood = [row for row in committed if (row["entry"], row["source"]) == part.key]
    found = part.rows()
    assert [row["quantity"] for row in found] == [row["quantity"] for row in stood]
    for new, old in zip(found, stood, strict=True):
        for one, other in zip(numbers(new), numbers(old), strict=True):
            assert same(one, other), f"{new}, committed {old}: {MENDED}"


def same(one: str, other: str) -> bool:
    """Equal as text, or as numbers up to a unit of the last of four digits."""
    try:
        if math.isnan(float(one)):
            return math.isnan(float(other))
        return math.isclose(float(one), float(other), rel_tol=1e-3, abs_tol=1e-9)
    except ValueError:
        return one == other


def value(
    committed: list[dict[str, str]], entry: str, quantity: str, source: str = ""
) -> tuple[str, str]:
    rows = [
        row
        for row in committed
        if row["entry"] == entry
        and re.match(f"{re.escape(quantity)}(?![0-9])", row["quantity"])
        and source in ("", row["source"])
    ]
    assert len(rows) == 1, (entry, quantity, len(rows))
    return rows[0]["published"], rows[0]["corrected"]


def test_numbers_by_hand(committed: list[dict[str, str]]) -> None:
    def pair(*where: str) -> list[float]:
        return [float(one) for one in value(committed, *where)]

    # -log(1e-7) = 16.118; tumour voxels, 1 %, have the number 2 and p_1 = 0.
    kidney = pair("label-map-scores", "NLL of the kidney", "constructed")
    assert kidney == pytest.approx([0.01 * 2 * 16.118, 0], abs=1e-4)
    # 1 % of (2 - 1)^2 and 2 % of (1 - 0)^2.
    tumour = pair("label-map-scores", "Brier of the tumour", "constructed")
    assert tumour == pytest.approx([0.03, 0])
    # Focal at gamma 1 is (1 - p) times CE.
    assert pair("focal-gamma", "Focal / CE at gamma 1") == pytest.approx([0.3, 1])
    # 0.5 log(1 - 0.9) = -1.1513, and the other way round.
    sign = pair("eq14-sign", "mCE where the network says foreground with p = 0.9")
    assert sign == pytest.approx([-1.1513, 1.1513], abs=1e-3)
    # 8^(-1/4) and 8^(1/3).
    pull = pair("focal-tversky-exponent", "pull")
    assert pull == pytest.approx([0.5946, 2], abs=1e-3)
    # -0.4 sqrt(0.1) log 0.1, and -0.4 sqrt(0.1) log 0.9.
    wrong = pair("eq19-class", "focal part where background has p = 0.9")
    assert wrong == pytest.approx([0.29126, 0.013327], rel=1e-3)
    assert pair("wrong-axis", "share of a patch") == [2 / 160, 1]
    assert pair("pairwise-means", "weight of patch 3") == [0.5, 0.3333]
    # Two chances in four and the code's 0.5: 1 - 0.5^2, 1 - 0.85^2.
    mirrored = pair("mirroring", "share of samples mirrored, 2D")
    assert mirrored == pytest.approx([0.75, 0.2775], abs=0.02)
    # Keras: alpha on misses; 0.7 * 0.5 / (1 + 0.35) against 0.3 * 0.5 / (1 + 0.15).
    keras = pair("keras-tversky", "Tversky loss, a false positive")
    assert keras == pytest.approx([0.35 / 1.35, 0.15 / 1.15], rel=1e-3)
    # v = 0.9 v + 0.1: after many steps 1, so ten times 0.1 a step, less the start.
    assert 9 < pair("momentum", "way after 100 steps", "constructed")[0] < 10


def test_counts_in_the_printed_tables(committed: list[dict[str, str]]) -> None:
    claims = {
        "DSC++ has the lowest Brier": ("5", "3 and 2 tied"),  # CE ties, DRIVE, 2018DSB
        "DSC++ has the highest Dice": ("4", "3 and 1 tied"),  # DSC ties on 2018DSB
        "Focal has the lowest Dice": ("4", "3"),  # CE on ISIC2018 and CVC-ClinicDB
    }
    for claim, counts in claims.items():
        assert value(committed, "table4-claims", claim) == counts
    assert value(committed, "counts", "ISIC2018, images") == ("2596", "2594")
    # Of CVC: .006 / sqrt(.002^2 + .003^2) = 1.664; of KiTS19's
    # kidney the NLL is not beyond its errors either. Those beyond are not listed.
    beyond = value(
        committed, "significant-claims", "p of Brier, DSC++ against DSC, CVC"
    )
    assert beyond == ("below 0.05", "0.09609")
    listed = [r for r in committed if r["entry"] == "significant-claims"]
    assert len(listed) == 8 and not any("Tversky" in r["quantity"] for r in listed)
    # DSC++ .041 +- .003, CE .051 +- .003: z = .01 / .004243 = 2.357, called no
    # difference; the Dice .808 +- .003, .798 +- .004: z = 2, called one.
    where = "DSC++ against CE, DRIVE"
    assert value(committed, "one-rule-for-both", f"p of NLL, {where}")[1] == "0.01842"
    assert value(committed, "one-rule-for-both", f"p of Dice, {where}")[1] == "0.0455"
    # .035 / .041 at gamma 3.5, .041 at 5; .038 .038 .035 .038 .039 .041 rises thrice.
    assert value(committed, "gamma-claims", "NLL above gamma 2 over that at 2, lowest")[
        1
    ] == ("0.8537")
    steps = "steps of gamma from 2.5 on with a higher NLL"
    assert value(committed, "gamma-claims", steps) == ("5", "3")
    # (0.808 - 0.748) / 0.003.
    assert value(committed, "threshold-cost", "Dice lost at T = 0.8")[1] == "20"


def test_expected_neighbours_of_a_small_set_by_hand() -> None:
    from errata import images

    # 392 of the other 611 frames are trained on; both of two are not with the chance
    # (219 / 611) (218 / 610).
    assert images._chance(392, 1) == pytest.approx(392 / 611)
    assert images._chance(392, 2) == pytest.approx(1 - 219 * 218 / (611 * 610))


def test_part_that_is_not_measured_keeps_its_rows(
    committed: list[dict[str, str]],
) -> None:
    new = [{**row, "published": "7"} for row in committed if row["entry"] == "cubic"]
    new = [row for row in new if row["source"] == "constructed"]
    gone = {**committed[0], "entry": "no-such-entry"}
    merged = page.merge([*committed, gone], new)
    assert len(merged) == len(committed)
    kept = [row for row in merged if row["published"] != "7"]
    assert len(kept) >= len(committed) - len(new)
    of_cubic = [row for row in merged if row["entry"] == "cubic"]
    assert {row["source"] for row in of_cubic} == {"constructed", "data"}


def test_part_without_data_is_skipped_with_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["padded-volumes", "--data", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "padded-volumes (data): skipped, no data" in said
    assert "KiTS19" in said


def test_part_without_its_run_is_skipped_with_a_reason(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from errata import runs

    monkeypatch.setattr(runs, "RESULTS", tmp_path)
    assert command.main(["field-of-view"]) == 0
    said = capsys.readouterr().out
    assert "field-of-view (run): skipped" in said
    assert "ce-s0" in said


def test_one_entry_is_printed_and_an_unknown_one_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["table3-errors"]) == 0
    assert "published 0.05, corrected 0.005" in capsys.readouterr().out
    assert command.main(["table3"]) == 2
    assert "table3-errors" in capsys.readouterr().err


def test_a_page_without_an_entry_is_refused(
    tmp_path: Path, committed: list[dict[str, str]]
) -> None:
    path = tmp_path / "errata.md"
    path.write_text("<!-- cubic:begin -->\n<!-- cubic:end -->\n")
    rows = [row for row in committed if row["entry"] in ("cubic", "counts")]
    with pytest.raises(page.InputError, match="counts"):
        page.update(path, rows)
    page.update(path, [row for row in rows if row["entry"] == "cubic"])
    assert "`python -m errata cubic`" in path.read_text()


def test_the_two_rules_for_labels_by_hand() -> None:
    from errata import images

    # Halved, the middle voxel is 1/2 class 1 and 1/2 class 2, as the old rule has it
    # the last of them; and of 1, 2, 0, 0 a quarter each none has a half: background.
    row = np.array([[1, 1, 1, 2, 2, 2]])
    np.testing.assert_array_equal(images.last_class_of_half(row, (1, 3)), [[1, 2, 2]])
    four = np.array([[1, 2], [3, 4]])
    assert images.last_class_of_half(four, (1, 1)) == 0
    assert images.highest_class(four, (1, 1)) > 0


def test_network_that_recalls_the_labels_by_hand() -> None:
    from errata import images

    disc = np.array([0.5, 0.5, 0.2])
    assert images._dice(disc, disc) == 1
    assert images._dice(disc, np.array([0.5, 0.5, 0.1])) == pytest.approx(0.4, abs=0.01)
    apart = np.array([[0.2, 0.2, 0.1], [0.8, 0.8, 0.1], [0.8, 0.8, 0.1]])
    assert images._recalled(apart, np.array([0])) == 0
    assert images._recalled(apart, np.array([1])) == 1


def test_list_of_released_code_names_existing_entries():
    text = page.PAGE.read_text("utf-8")
    places = text.split("## Where in the released code")[1]
    cells = re.findall(r"^\| (`[^|]+`) \|", places, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`([a-z0-9-]+)`", cell)}
    assert len(named) > 25
    assert named <= set(page.entries(text))
