"""Every kind of damage: no traceback, no wrong result, nothing half written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bits import KINDS, Bits
from damage import STAGES, Damage, Met, Scenes, faults, table
from damages import DAMAGES, SOUND

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Scenes:
    return Scenes(tmp_path_factory.mktemp("damage"))


@pytest.fixture(scope="module")
def met() -> list[tuple[Damage, Met]]:
    """What the tests of this module came across, for the table."""
    return []


def test_at_least_forty_damages_over_all_stages():
    kinds = {(damage.stage, damage.what) for damage in DAMAGES}
    assert len(kinds) == len(DAMAGES) >= 40
    assert {stage for stage, _ in kinds} == set(STAGES)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: f"{d.stage}: {d.what}")
def test_damage_is_reported_and_changes_no_file(scenes, met, damage):
    found = scenes.meet(damage)
    met.append((damage, found))
    assert faults(damage, found) == []


def test_random_bit_errors_change_no_result(scenes):
    """One damage a kind, of the 500 that `bits.py` does."""
    found = Bits(scenes)
    met = [found.meet(number) for number in range(0, 3 * len(KINDS), 3)]
    assert {kind.what for kind, *_ in met} == {kind.what for kind in KINDS}
    assert [one for one in met if one[-1]] == []


@pytest.mark.parametrize("command", SOUND, ids=" ".join)
def test_undamaged_files_give_no_error(scenes, command):
    """Else a damage might be met for another reason than itself."""
    undamaged = Damage("", "", lambda scene: None, command, "", code=0)
    assert scenes.meet(undamaged).code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the system's words differ")
def test_damage_page_equals_the_messages(met, project: Path):
    if len(met) < len(DAMAGES):
        pytest.skip("only part of the damages was done")
    page = (project / "docs" / "damage.md").read_text("utf-8")
    assert page == table(met), "PYTHONPATH=. python tests/damage.py writes it anew"
