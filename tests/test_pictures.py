"""Pictures: the same bytes, the right colours in the right place, clear refusals."""

import matplotlib.image
import numpy as np
import pytest

from data_io.errors import InputError
from pipelines.reporting.figures import panels

# Rows and columns differ, so that an axis mix-up shows.
SHAPE = (30, 20)


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    truth = np.zeros(SHAPE, dtype=np.uint8)
    truth[5:10, 12:15] = 1
    probability = np.clip(truth + rng.random(SHAPE) / 3, 0, 1).astype(np.float32)
    return image, truth, probability


def colours(path):
    """Distinct RGB colours of a PNG."""
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    return {tuple(colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0)}


def run_picture(image, truth, probability, path, title="", detail=None):
    """The picture of one run: a comparison of one."""
    return panels.compare(image, truth, {"softmax": probability}, path, title, detail)


def test_same_input_same_bytes(arrays, tmp_path):
    image, truth, p = arrays
    a = panels.compare(image, truth, {"DSC": truth, "DSC++": p}, tmp_path / "a.png")
    b = panels.compare(image, truth, {"DSC": truth, "DSC++": p}, tmp_path / "b.png")
    content = a.read_bytes()
    assert content == b.read_bytes()
    assert content.startswith(b"\x89PNG") and b"Software" not in content
    c = panels.compare(image, truth, {"DSC": p, "DSC++": p}, tmp_path / "c.png")
    assert content != c.read_bytes()


def test_heat_map_has_the_colours_of_its_values(tmp_path):
    # All 0.5, without a value at 0 or 1: the scale is 0 to 1, not what is in the map.
    flat = np.full(SHAPE, 0.5)
    path = run_picture(flat, flat > 1, flat, tmp_path / "a.png")
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    middle = np.array(matplotlib.colormaps["inferno"](0.5)[:3]) * 255
    share = (np.abs(pixels - middle).max(axis=-1) <= 1).mean()
    # One of three equal panels and a bar: about a quarter of the picture.
    assert 0.15 < share < 0.35


def test_more_losses_stay_within_a_page(arrays, tmp_path):
    image, truth, p = arrays
    sizes = [
        matplotlib.image.imread(
            panels.compare(
                image, truth, {str(i): p for i in range(n)}, tmp_path / "a.png"
            )
        ).shape[:2]
        for n in (1, 3, 8)
    ]
    # Panels side by side: wider up to two columns of print, then smaller panels.
    assert sizes[0][1] < sizes[1][1] == sizes[2][1] == 7.2 * 300
    assert sizes[2][0] < sizes[1][0] < sizes[0][0]


def test_detail_adds_a_row_and_a_frame(arrays, tmp_path):
    image, truth, p = arrays
    plain = run_picture(image, truth, p, tmp_path / "a.png", "title")
    detail = run_picture(image, truth, p, tmp_path / "b.png", "title", detail=8)
    heights = [matplotlib.image.imread(path).shape[0] for path in (plain, detail)]
    assert heights[0] < heights[1]
    # A square larger than the picture shows nothing more.
    same = run_picture(image, truth, p, tmp_path / "c.png", "title", detail=99)
    assert same.read_bytes() == plain.read_bytes()


def test_busiest_window_by_hand():
    mask = np.zeros((6, 9), dtype=np.uint8)
    mask[1, 1] = 1
    mask[3:5, 6:8] = 1
    # The first 3x3 square, row by row, that holds all four: rows 2-4, columns 5-7.
    assert panels.busiest_window(mask, 3) == (slice(2, 5), slice(5, 8))
    assert panels.busiest_window(np.zeros((6, 9)), 6) == (slice(0, 6), slice(0, 6))
    with pytest.raises(ValueError, match="1 to 6, received 7"):
        panels.busiest_window(mask, 7)


def test_busiest_window_weighs_what_counts_more():
    weight = np.zeros((6, 9), dtype=np.uint8)
    weight[0, :3] = 1
    weight[5, 8] = 200
    # Sums of bytes would overflow: 3 x 200 is not 88.
    weight[4, 7:] = 200
    assert panels.busiest_window(weight, 3) == (slice(3, 6), slice(6, 9))


def test_errors_by_hand():
    truth = np.array([[1, 1, 0, 0]])
    positive = np.array([[True, False, True, False]])
    image = np.array([[10, 20, 30, 100]], dtype=np.uint8)
    panel = panels.errors(image, truth, positive, "T = 0.5")
    expected = [[255, 255, 255], [0, 200, 0], [255, 0, 255], [60, 60, 60]]
    assert panel.pixels.tolist() == [expected]
    assert (panel.title, panel.is_heat) == ("T = 0.5", False)


def test_a_part_of_a_panel_keeps_its_title():
    panel = panels.heat(np.array([[0.1, 0.2], [0.3, 0.4]]), "DSC")
    part = panel.cut((slice(0, 2), slice(1, 2)))
    assert (part.pixels.tolist(), part.title) == ([[0.2], [0.4]], "DSC")
    assert panel.cut(None) is panel


def test_colours_of_the_errors_are_explained(arrays, tmp_path):
    image, truth, p = arrays
    panel = panels.errors(image, truth, p > 0.9, "errors")
    found = {
        key: colours(panels.draw([[panel]], tmp_path / "a", "title", key=key)[0])
        for key in (False, True)
    }
    # Nothing is missed here, so green is in the key alone.
    green = {(0, 200, 0)}
    assert not green & found[False]
    assert green <= found[True]


def test_gaps_and_both_formats(arrays, tmp_path):
    image, truth, p = arrays
    rows = [[panels.photo(image), panels.heat(p, "DSC")], [None, None]]
    rows[1][0] = panels.truth_of(truth)
    formats = ("pdf", "png")
    first = panels.draw(rows, tmp_path / "a.b", "t", "note", ["row"], formats)
    assert [path.name for path in first] == ["a.b.pdf", "a.b.png"]
    again = panels.draw(rows, tmp_path / "c", "t", "note", ["row"], formats)
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("scale", [1.0, 0.0, -3.5])
def test_any_image_is_shown(channels, scale, arrays, tmp_path):
    _, truth, p = arrays
    image = scale * np.random.default_rng(1).normal(size=(*SHAPE, *channels))
    path = run_picture(image, truth, p, tmp_path / "a.png")
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"truth": np.zeros((20, 30))}, r"truth: expected shape \(30, 20\)"),
        ({"maps": {"DSC": np.zeros((30, 21))}}, r"DSC: expected shape \(30, 20\)"),
        ({"maps": {"DSC": np.full(SHAPE, 1.1)}}, "DSC: expected probabilities"),
        ({"maps": {"DSC": np.full(SHAPE, np.nan)}}, "DSC: expected probabilities"),
        ({"maps": {}}, "at least one map"),
        ({"image": np.zeros((30, 20, 2))}, "1 or 3 channels"),
    ],
)
def test_refusals(change, message, arrays, tmp_path):
    image, truth, p = arrays
    given = {"image": image, "truth": truth, "maps": {"DSC": p}} | change
    with pytest.raises(ValueError, match=message):
        panels.compare(given["image"], given["truth"], given["maps"], tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder(arrays, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="another output folder"):
        run_picture(*arrays, tmp_path / "file" / "a.png")


def test_no_pyplot(arrays, tmp_path):
    import sys

    for name in [name for name in sys.modules if name == "matplotlib.pyplot"]:
        del sys.modules[name]
    run_picture(*arrays, tmp_path / "a.png")
    assert "matplotlib.pyplot" not in sys.modules
