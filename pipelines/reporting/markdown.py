"""Tables in Markdown, as all generated pages have them."""

from collections.abc import Sequence

__all__ = ["table"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table: the first column to the left, the others right."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    ruler = "|---|" + "--:|" * (len(header) - 1)
    return "\n".join([line(header), ruler, *map(line, rows)])
