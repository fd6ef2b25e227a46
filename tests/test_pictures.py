"""Pictures: the same bytes, the right colours in the right place, clear refusals."""

import dataclasses

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


def draw(image, truth, maps, stem, title="", window=None):
    """A row of image, truth and heat maps, and one of a part of them."""
    row = [panels.photo(image), panels.truth_of(truth)]
    row += [panels.Panel(np.asarray(p), name) for name, p in maps.items()]
    rows = [row] if window is None else [row, [one.cut(window) for one in row]]
    return panels.Sheet(rows, title).draw(stem, ["png"])[0]


def test_same_input_same_bytes(arrays, tmp_path):
    image, truth, p = arrays
    a = draw(image, truth, {"DSC": truth, "DSC++": p}, tmp_path / "a")
    b = draw(image, truth, {"DSC": truth, "DSC++": p}, tmp_path / "b")
    content = a.read_bytes()
    assert content == b.read_bytes()
    assert content.startswith(b"\x89PNG") and b"Software" not in content
    c = draw(image, truth, {"DSC": p, "DSC++": p}, tmp_path / "c")
    assert content != c.read_bytes()


def test_heat_map_has_the_colours_of_its_values(tmp_path):
    # All 0.5, without a value at 0 or 1: the scale is 0 to 1, not what is in the map.
    flat = np.full(SHAPE, 0.5)
    path = draw(flat, flat > 1, {"": flat}, tmp_path / "a")
    pixels = (matplotlib.image.imread(path)[..., :3] * 255).round().astype(int)
    middle = np.array(matplotlib.colormaps["inferno"](0.5)[:3]) * 255
    share = (np.abs(pixels - middle).max(axis=-1) <= 1).mean()
    # One of three equal panels and a bar: about a quarter of the picture.
    assert 0.15 < share < 0.35


def test_more_losses_stay_within_a_page(arrays, tmp_path):
    image, truth, p = arrays
    sizes = [
        matplotlib.image.imread(
            draw(image, truth, {str(i): p for i in range(n)}, tmp_path / "a")
        ).shape[:2]
        for n in (1, 3, 8)
    ]
    # Panels side by side: wider up to two columns of print, then smaller panels.
    assert sizes[0][1] < sizes[1][1] == sizes[2][1] == 7.2 * 300
    assert sizes[2][0] < sizes[1][0] < sizes[0][0]


def test_detail_adds_a_row_and_a_frame(arrays, tmp_path):
    image, truth, p = arrays
    window = (slice(0, 8), slice(2, 10))
    plain = draw(image, truth, {"": p}, tmp_path / "a")
    detail = draw(image, truth, {"": p}, tmp_path / "b", window=window)
    heights = [matplotlib.image.imread(path).shape[0] for path in (plain, detail)]
    assert heights[0] < heights[1]
    framed = dataclasses.replace(panels.photo(image), frame=window)
    (path,) = panels.Sheet([[framed]], "title").draw(tmp_path / "c", ["png"])
    assert (0x2C, 0xA8, 0xD2) in colours(path)


def test_busiest_window_by_hand():
    mask = np.zeros((6, 9), dtype=np.uint8)
    mask[1, 1] = 1
    mask[3:5, 6:8] = 1
    # The first 3x3 square, row by row, that holds all four: rows 2-4, columns 5-7.
    assert panels.busiest_window(mask, 3) == (slice(2, 5), slice(5, 8))
    assert panels.busiest_window(np.zeros((6, 9)), 6) == (slice(0, 6), slice(0, 6))


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
    assert panel.title == "T = 0.5"


def test_an_overlay_by_hand():
    image = np.array([[10, 20, 30, 100]], dtype=np.uint8)
    panel = panels.overlay(image, np.array([[0, 1, 2, 8]]), "prediction")
    # 60 % of the image; of a class half of that and half of its colour, the 8th is
    # that of the 1st.
    expected = [[6, 6, 6], [121, 85, 6], [52, 99, 125], [145, 109, 30]]
    assert panel.pixels.tolist() == [expected]


def test_a_panel_has_the_aspect_of_its_voxels(tmp_path):
    """Anisotropic volumes were drawn with square pixels."""
    blue = np.full((10, 20, 3), [0, 0, 200], np.uint8)
    found = {}
    for aspect in (1.0, 3.0):
        panel = panels.Panel(blue, aspect=aspect)
        assert panel.ratio == aspect / 2
        (path,) = panels.Sheet([[panel]], "").draw(tmp_path / "a", ["png"])
        drawn = matplotlib.image.imread(path)[..., :3]
        drawn = np.isclose(drawn, [0, 0, 200 / 255], atol=0.01).all(axis=-1)
        rows, columns = (drawn.any(axis=axis).sum() for axis in (1, 0))
        found[aspect] = rows / columns
    assert found == pytest.approx({1.0: 0.5, 3.0: 1.5}, rel=0.02)


def test_rows_are_of_equal_length():
    one = panels.Panel(np.zeros((2, 2)))
    lengths = [[row.count(one), len(row)] for row in panels.in_rows([one] * 5)]
    assert lengths == [[3, 3], [2, 3]]
    assert len(panels.in_rows([one] * 4)) == 1


def test_cropped_panel_keeps_its_title():
    panel = panels.Panel(np.array([[0.1, 0.2], [0.3, 0.4]]), "DSC")
    part = panel.cut((slice(0, 2), slice(1, 2)))
    assert (part.pixels.tolist(), part.title) == ([[0.2], [0.4]], "DSC")
    assert panel.cut(None) is panel


def test_colours_of_the_errors_are_explained(arrays, tmp_path):
    image, truth, p = arrays
    panel = panels.errors(image, truth, p > 0.9, "errors")
    without, explained = (
        colours(
            panels.Sheet([[panel]], "title", key=key).draw(tmp_path / "a", ["png"])[0]
        )
        for key in ({}, panels.KEY)
    )
    # Nothing is missed here, so green is in the key alone.
    green = {(0, 200, 0)}
    assert not green & without
    assert green <= explained


def test_gaps_and_both_formats(arrays, tmp_path):
    image, truth, p = arrays
    rows = [[panels.photo(image), panels.Panel(p, "DSC")], [None, None]]
    rows[1][0] = panels.truth_of(truth)
    sheet = panels.Sheet(rows, "t", "note", ["row"])
    first = sheet.draw(tmp_path / "a.b")
    assert [path.name for path in first] == ["a.b.pdf", "a.b.png"]
    again = sheet.draw(tmp_path / "c")
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
@pytest.mark.parametrize("scale", [1.0, 0.0, -3.5])
def test_images_of_any_range_and_channels_are_drawn(channels, scale, arrays, tmp_path):
    _, truth, p = arrays
    image = scale * np.random.default_rng(1).normal(size=(*SHAPE, *channels))
    path = draw(image, truth, {"": p}, tmp_path / "a")
    assert path.stat().st_size > 1000


def test_unwritable_folder(arrays, tmp_path):
    image, truth, p = arrays
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="another folder"):
        draw(image, truth, {"": p}, tmp_path / "file" / "a")


def test_drawing_does_not_import_pyplot(arrays, tmp_path):
    import sys

    for name in [name for name in sys.modules if name == "matplotlib.pyplot"]:
        del sys.modules[name]
    image, truth, p = arrays
    draw(image, truth, {"": p}, tmp_path / "a")
    assert "matplotlib.pyplot" not in sys.modules
