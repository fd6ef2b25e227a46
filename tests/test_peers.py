"""The table of MONAI's and Keras' losses in docs/conformance.md, and how it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

import conformance
from conformance import peers

# Where rounding decides, and so the machine.
ROUNDING = {
    "values_agree_where_p_is_extreme",
    "soft_labels_follow_the_formula",
    "large_images_keep_their_digits",
}


@pytest.mark.peers
def test_conformance_page_lists_the_libraries_failures(project: Path) -> None:
    pytest.importorskip("monai")
    page = (project / "docs" / "conformance.md").read_text()
    table = page.partition(peers.BEGIN)[2].partition(peers.END)[0]
    rows = [row.split(" | ") for row in table.splitlines() if row.startswith("| `")]
    written = {row[0].strip("| `"): row[4].replace("`", "").split(", ") for row in rows}
    for peer in peers.PEERS:
        found = {each.check for each in peer.report().failures}
        assert found - ROUNDING == set(written[peer.name]) - ROUNDING, peer.name


def test_peer_rows_are_written_into_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def twice(y, p):
        return 2 * conformance.reference("DSC", y, p, epsilon=1e-5).value

    peer = peers.Peer(
        "twice",
        "DSC",
        lambda: conformance.NumpyAdapter(twice),
        "why",
        {"epsilon": 1e-5},
    )
    monkeypatch.setattr(peers, "PEERS", [peer])
    monkeypatch.setattr(peers.importlib.metadata, "version", lambda name: "1.2")
    path = tmp_path / "page.md"
    path.write_text(f"above\n{peers.BEGIN}\nold\n{peers.END}\nbelow\n")
    assert peers.main([str(path)]) == 0
    assert peers.main([]) == 0
    page = path.read_text()
    assert page.startswith(f"above\n{peers.BEGIN}\n| implementation | held to be |")
    assert page.endswith(f"With monai 1.2, keras 1.2, torch 1.2.\n{peers.END}\nbelow\n")
    assert "| `twice` | DSC, epsilon 1e-05 | 10 | 8 | `values_agree`, " in page
    assert page.splitlines()[4].endswith("| why |")
    assert capsys.readouterr().out.strip() in page
    path.write_text("no markers")
    with pytest.raises(ValueError, match="expected the markers <!-- peers:begin -->"):
        peers.main([str(path)])
