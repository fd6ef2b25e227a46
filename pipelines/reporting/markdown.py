"""Tables in Markdown, as all generated pages have them, and where they stand."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from data_io.errors import InputError
from data_io.files.writing import write_atomically


def escape(text: str) -> str:
    """Write a name so that Markdown shows it as it is, in one line, in a cell too."""
    line = " ".join(text.split())
    # An underscore between letters begins no emphasis.
    special = r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)"
    marked = re.sub(f"({special})", r"\\\1", line)
    return marked.replace("<", "&lt;")


def table(header: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """Lay out a table: the first column to the left, the others right."""
    header = list(header)

    def line(cells: Iterable[object]) -> str:
        # A class name is no column and no HTML.
        text = (re.sub(r"(?<!\\)\|", r"\|", str(cell)) for cell in cells)
        return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", f"| {' | '.join(text)} |")

    ruler = "|---|" + "--:|" * (len(header) - 1)
    return "\n".join([line(header), ruler, *map(line, rows)])


def interval(ends: Sequence[float], form: str, limits: tuple[float, float]) -> str:
    """Write an interval such as " [0.80, 0.82]".

    Args:
        ends: lower and upper end; "" where one is NaN.
        form: their format.
        limits: what the measure can be. An interval beyond it comes from the spread of
            two or three seeds: this is said in its place.
    """
    if any(math.isnan(end) for end in ends):
        return ""
    if not all(limits[0] <= end <= limits[1] for end in ends):
        return " (too few seeds)"
    return f" [{', '.join(format(end, form) for end in ends)}]"


def fill(
    path: Path, parts: Mapping[str, Callable[[], str]], some: bool = False
) -> list[str]:
    """Put new text between `<!-- NAME:begin -->` and `<!-- NAME:end -->` of a page.

    `parts` makes the text of each name. With `some`, names without markers are left
    out; returns the others.

    Raises:
        InputError: no such file, a marker that begins and does not end, or, without
            `some`, a name without markers.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: expected a Markdown file, found one that cannot be read "
            f"({error}); give the path of the README"
        ) from error
    new, names = text, [name for name in parts if f"<!-- {name}:begin -->" in text]
    lacking = [name for name in parts if name not in names]
    if lacking and not some:
        raise InputError(
            f"{path}: expected <!-- {lacking[0]}:begin -->, found none; add it where "
            "the generated part begins"
        )
    for name in names:
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, _, rest = new.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise InputError(
                f"{path}: expected {end} after {begin}, found none; add it where the "
                "generated part ends"
            )
        new = f"{before}{begin}\n{parts[name]()}\n{end}{after}"
    if new != text:
        write_atomically(path, lambda aside: aside.write_text(new, "utf-8"))
    return names
