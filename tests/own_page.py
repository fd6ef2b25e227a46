"""The commands for own images in docs/, typed one after the other."""

import re
import shlex
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.training import protocol
from pipelines.workflow import reproduce

DOCS = Path(__file__).resolve().parents[1] / "docs"


def lines(name: str) -> list[str]:
    """The commands, in the order of a page."""
    text = (DOCS / name).read_text("utf-8")
    return "".join(re.findall(r"```\n(.*?)```", text, re.DOTALL)).splitlines()


def type_all(
    patch: pytest.MonkeyPatch,
    reduced,
    losses: str = "CE,DSC,DSC++",
    pages: tuple[str, ...] = ("own_images.md",),
) -> None:
    """Run them all in the folder that this is.

    Processes are left out: what `reproduce` starts runs in this one.

    Args:
        patch: takes back what is changed.
        reduced: gives the protocol of that preset, as in `protocol.PRESETS`.
        losses: to train in place of the page's, of which each takes seconds.
        pages: whose commands, in this order; `scans` are `photos`.
    """
    start = len(reproduce.dscpp())

    def make(jobs, *_) -> list[str]:
        return ["" if main(job.command[start:]) == 0 else "!" for job in jobs]

    patch.setitem(protocol.PRESETS, "reduced", reduced)
    patch.setattr(reproduce.processes, "make", make)
    patch.setattr(reproduce.Call, "_dscpp", lambda _, *arguments, **__: main(arguments))
    patch.setattr(reproduce.Call, "_expect", lambda *_: None)
    for line in (line for page in pages for line in lines(page)):
        typed = line.replace("CE,DSC,DSC++", losses).replace("scans", "photos")
        name, *command = shlex.split(typed)
        assert (name, main(command)) == ("dscpp", 0), line
