"""Figures: what is drawn is what was measured, the same bytes each time."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from written_runs import CASES, make_run

from data_io.errors import InputError
from pipelines import loss_names
from pipelines.cli import main
from pipelines.reporting import frame, markdown, tables
from pipelines.reporting.figures import curves, style
from pipelines.reporting.published import Variant

ALL = ["figure2-softmax", "figure5-thresholds", "reliability"]


@pytest.fixture
def results(tmp_path):
    results = tmp_path / "results"
    make_run(results, "CE")
    make_run(results, "DSC", gamma=1.0)
    make_run(results, "DSC++", gamma=2.0)
    return results


def study_of(results):
    return frame.open_study(results / "drive" / "paper")


def lines(axis):
    """Curves by label."""
    return {line.get_label(): line.get_xydata() for line in axis.get_lines()}


@pytest.mark.slow
def test_files_in_all_formats(results):
    written = curves.write_figures(results)
    folder = results / "drive" / "paper" / "figures"
    stems = [*(folder / name for name in ALL), results / "figures" / "forest"]
    expected = [stem.with_suffix(f".{end}") for stem in stems for end in curves.FORMATS]
    assert written == expected
    assert sorted(folder.iterdir()) == sorted(expected[:-3])
    starts = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}
    for path in written:
        content = path.read_bytes()
        assert content.startswith(starts[path.suffix[1:]])
        for trace in (b"CreationDate", b"dc:date", b"Software", b"Matplotlib v"):
            assert trace not in content


@pytest.mark.slow
def test_same_runs_same_bytes_in_another_process(tmp_path, project):
    results = tmp_path / "results"
    make_run(results, "DSC", gamma=1.0)
    make_run(results, "DSC++", gamma=2.0)
    first = {path: path.read_bytes() for path in curves.write_figures(results)}
    for path in first:
        path.unlink()
    # A user's own settings, another order of sets, another folder.
    (tmp_path / "matplotlibrc").write_text("font.size: 30\nsvg.hashsalt: other\n")
    code = (
        f"import sys; sys.path.insert(0, {str(project)!r}); "
        "from pathlib import Path; from pipelines.reporting.figures import curves; "
        "curves.write_figures(Path(sys.argv[1])); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(results)],
        cwd=tmp_path,
        env={"PYTHONHASHSEED": "7", "MPLCONFIGDIR": str(tmp_path)},
        check=True,
    )
    assert {path: path.read_bytes() for path in first} == first


@pytest.mark.slow
def test_outdated_figure_without_runs_is_removed(tmp_path):
    results = tmp_path / "results"
    make_run(results, "Focal")
    folder = results / "drive" / "paper" / "figures"
    folder.mkdir()
    (folder / "figure5-thresholds.svg").write_text("of a run that is gone")
    curves.write_figures(results)
    names = {path.stem for path in folder.iterdir()}
    # Focal is no loss of Fig. 5.
    assert names == {"figure2-softmax", "reliability"}


def test_drawn_thresholds_equal_the_table(results):
    study = study_of(results)
    cell = study.paper.thresholds[0]._replace(metric="recall", value=0.5)
    others = cell._replace(dataset="KiTS19", value=0.1)
    study.paper.thresholds[:] = [cell, others]
    with style.drawing():
        recall, precision, dice = curves.thresholds(study).axes
    drawn = lines(recall)
    assert list(drawn) == ["CE", "DSC", "DSC++", "DSC++, paper"]
    np.testing.assert_array_equal(drawn["DSC++, paper"], [[0.8, 0.5]])
    rows = tables.thresholds(study).to_dict("records")
    for axis, metric in ((recall, "recall"), (precision, "precision"), (dice, "dice")):
        table = [
            (row["threshold"], row["mean"])
            for row in rows
            if row["loss"] == "DSC++" and row["metric"] == metric
        ]
        np.testing.assert_allclose(lines(axis)["DSC++"], table, rtol=1e-5)
    # By hand, from the ten voxels of each case: at 0.3 all four of the target are
    # positive and two others, above 0.85 nothing is.
    at = dict(lines(precision)["DSC"].round(9).tolist())
    assert at[0.3] == pytest.approx(4 / 6, rel=1e-5)
    assert np.isnan(at[0.9])
    assert dict(lines(recall)["DSC"].round(9).tolist())[0.5] == 0.75


def test_published_points_are_left_out_for_simulated_data(tmp_path):
    results = tmp_path / "results"
    make_run(results, "DSC++", gamma=2.0, simulated=True)
    study = study_of(results)
    with style.drawing():
        figure = curves.thresholds(study)
        assert list(lines(figure.axes[0])) == ["DSC++"]
        assert "SIMULATED" in figure.get_suptitle()


def test_title_names_preset_seeds_and_images(tmp_path):
    results = tmp_path / "results"
    for seed in (0, 2):
        make_run(results, "DSC++", gamma=2.0, seed=seed)
    make_run(results, "DSC", gamma=1.0, seed=1)
    study = study_of(results)
    expected = "DRIVE, preset paper, {}, 4 test images"
    assert curves.about(study, study.main) == expected.format("3 seeds (0-2)")
    only = [variant for variant in study.main if variant.loss == "DSC++"]
    assert curves.about(study, only) == expected.format("2 seeds (0, 2)")


def test_histogram_counts_voxels_by_hand(results):
    study = study_of(results)
    with style.drawing():
        axes = curves.softmax(study).axes
    assert [axis.get_title("left") for axis in axes] == [
        "CE",
        "DSC (γ = 1)",
        "DSC++, γ = 2",
    ]
    everything, target = (patch.get_data() for patch in axes[0].patches)
    # A case has p = .1 x4, .3, .85 of the background and .3, .85 x3 of the target.
    n = len(CASES)
    by_bin = np.zeros(20)
    by_bin[[2, 6, 17]] = np.multiply(n, [4, 2, 4])
    np.testing.assert_array_equal(everything.values, by_bin)
    by_bin[[2, 6, 17]] = np.multiply(n, [0, 1, 3])
    np.testing.assert_array_equal(target.values, by_bin)
    np.testing.assert_allclose(target.edges, np.linspace(0, 1, 21))
    assert axes[0].texts[0].get_text().startswith("100.0 %")


def test_no_bar_reaches_the_text_of_its_panel(results):
    with style.drawing():
        figure = curves.softmax(study_of(results))
        figure.draw_without_rendering()
        for axis in figure.axes:
            text = axis.texts[0].get_window_extent()
            top = max(axis.patches[0].get_data().values)
            assert axis.transData.transform((0.5, top))[1] < text.y0


def test_points_that_few_cases_support_are_faded(results):
    """No bin has the 10 voxels of a case that count as enough."""
    with style.drawing():
        axis = curves.reliability(study_of(results)).axes[0]
    *_, together, supported = axis.get_lines()
    assert together.get_alpha() < 0.5 and supported.get_alpha() is None
    assert not np.isnan(together.get_ydata()).any()
    assert np.isnan(supported.get_ydata()).all()


@pytest.mark.slow
def test_curves_for_the_column_of_a_paper(results, tmp_path, capsys):
    """Chosen losses, a width, no title; those beside the runs are not touched."""
    asked = ["figures", "--results", str(results), "--width", "3.5"]
    assert main(asked) == 2
    assert "expected --output DIR" in capsys.readouterr().err
    asked += ["--output", str(tmp_path / "out"), "--no-title"]
    assert main([*asked, "--losses", "DCS"]) == 2
    assert main([*asked, "--losses", "dsc,DSC++"]) == 0
    folder = tmp_path / "out" / "drive" / "paper" / "figures"
    assert {path.stem for path in folder.iterdir()} == set(ALL)
    with Image.open(folder / "figure2-softmax.png") as drawn:
        assert drawn.width == 3.5 * 200
    assert not (results / "drive" / "paper" / "figures").exists()
    with style.drawing(width=3.5):
        figure = curves.thresholds(study_of(results))
        style.leave_bare(figure)
        figure.draw_without_rendering()
        lowest = figure.legends[0].get_window_extent().y0
        assert all(axis.title.get_window_extent().y1 < lowest for axis in figure.axes)
    assert not figure.get_suptitle().strip() and not figure.get_supxlabel()


def test_several_seeds_are_averaged_in_the_histogram(tmp_path):
    results = tmp_path / "results"
    make_run(results, "CE", seed=0)
    make_run(results, "CE", seed=1, shift=(4, 0, 0, 0))  # four voxels more at .97
    study = study_of(results)
    with style.drawing():
        axis = curves.softmax(study).axes[0]
    assert axis.patches[0].get_data().values[19] == 2
    assert axis.texts[0].get_text().startswith("95.2 %")  # 40 of 42


def test_exponents_in_order_in_their_family():
    given = [Variant("CE"), Variant("DSC"), Variant("DSC++", 0.5), Variant("DSC++", 2)]
    given += [Variant("Tversky"), Variant("DSC++", 1.5)]
    order = [given[i] for i in (0, 2, 1, 5, 3, 4)]
    assert curves.by_exponent(given) == order


def test_every_loss_has_its_own_colour():
    assert sorted(style.LOSSES) == sorted(loss_names.NAMES)
    assert len({style.colour(loss) for loss in style.LOSSES}) == len(style.LOSSES)


def test_unwritable_folder(results):
    (results / "drive" / "paper" / "figures").write_text("a file in its place")
    with pytest.raises(InputError, match="another folder"):
        curves.write_figures(results)


def test_dollar_sign_in_a_name_is_drawn_as_text(tmp_path):
    r"""A case named `$\frac$` stopped the drawing: matplotlib parsed it."""
    with style.drawing():
        figure = style.sheet((2.0, 1.0), r"$\frac$")
        style.save(figure, tmp_path / "a", ["png"])
    assert (tmp_path / "a.png").is_file()


def test_names_are_escaped_in_markdown_tables():
    made = markdown.table(["class", "n"], [["a|b<script>", "1"], [r"a\|b", "< 2"]])
    assert made.splitlines()[2:] == [
        r"| a\|b&lt;script> | 1 |",
        r"| a\|b | < 2 |",
    ]


def test_learning_curves_equal_the_history(results):
    run = study_of(results).runs[Variant("DSC")][0]
    assert curves.learning(run) is None  # judged, or its history was not kept
    path = run.path("history.csv")
    path.write_text(
        "epoch,loss,val_loss,learning_rate\n1,0.5,0.4,0.1\n2,0.4,0.2,0.1\n3,0.3,0.3,0.05\n"
    )
    with style.drawing():
        (axis,) = curves.learning(run).axes
    found = lines(axis)
    assert found["training"].tolist() == [[1, 0.5], [2, 0.4], [3, 0.3]]
    assert found["validation"].tolist() == [[1, 0.4], [2, 0.2], [3, 0.3]]
    assert found["lowest validation loss"].tolist() == [[2, 0.2]]
    falls = [line for line in axis.get_lines() if line.get_color() == "0.8"]
    assert [line.get_xdata()[0] for line in falls] == [3]


@pytest.mark.parametrize("missing", ["", "NA", "N/A", "nan"])
def test_missing_values_of_a_history_are_nan(results, missing):
    """R writes NA, spreadsheets N/A."""
    run = study_of(results).runs[Variant("DSC")][0]
    run.path("history.csv").write_text(
        f"epoch,loss,val_loss,learning_rate\n1,0.5,{missing},0.1\n2,0.4,0.2,0.1\n"
    )
    with style.drawing():
        (axis,) = curves.learning(run).axes
    found = lines(axis)
    assert found["training"].tolist() == [[1, 0.5], [2, 0.4]]
    np.testing.assert_array_equal(found["validation"], [[1, np.nan], [2, 0.2]])


def test_a_page_without_a_marker_is_refused(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("<!-- a:begin -->\nold\n<!-- a:end -->\n")
    parts = {"a": lambda: "new", "b": lambda: "more"}
    with pytest.raises(InputError, match=r"README\.md: expected <!-- b:begin -->"):
        markdown.fill(page, parts)
    assert "old" in page.read_text()
    assert markdown.fill(page, parts, some=True) == ["a"]
    assert page.read_text() == "<!-- a:begin -->\nnew\n<!-- a:end -->\n"


@pytest.mark.parametrize(
    "text", ["", "epoch,loss\n1,0.5\n", "epoch,loss,val_loss,learning_rate\n1,a,2,3\n"]
)
def test_a_damaged_history_is_named(results, text):
    run = study_of(results).runs[Variant("DSC")][0]
    run.path("history.csv").write_text(text)
    with pytest.raises(InputError, match=r"history\.csv: expected the columns epoch, "):
        curves.learning(run)
