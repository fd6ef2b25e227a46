"""Tables in Markdown, as all generated pages have them, and where they stand."""

import re
from collections.abc import Sequence
from pathlib import Path

from data_io.errors import InputError


def escape(text: str) -> str:
    """Write a name so that Markdown shows it as it is, in one line, in a cell too."""
    line = " ".join(text.split())
    # An underscore between letters begins no emphasis.
    special = r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)"
    marked = re.sub(f"({special})", r"\\\1", line)
    return marked.replace("<", "&lt;")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table: the first column to the left, the others right."""

    def line(cells: Sequence[str]) -> str:
        # A class name is no column and no HTML.
        text = (re.sub(r"(?<!\\)\|", r"\|", cell) for cell in cells)
        return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", f"| {' | '.join(text)} |")

    ruler = "|---|" + "--:|" * (len(header) - 1)
    return "\n".join([line(header), ruler, *map(line, rows)])


def replace_marked(path: Path, text: str, name: str, content: str) -> str:
    """Replace what stands between `<!-- name:begin -->` and `<!-- name:end -->`.

    Returns:
        The new text of the file at `path`.

    Raises:
        InputError: no such markers, or one that begins and does not end.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise InputError(
            f"{path}: expected {end} after {begin}, found none; add it where the "
            "generated part ends"
        )
    part = f"{begin}\n{content}\n{end}"
    return pattern.sub(lambda _: part, text)
