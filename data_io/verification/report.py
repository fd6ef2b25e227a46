"""What `dscpp verify` has to say, for people and for programs."""

from collections import Counter
from collections.abc import Callable, Sized
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_io.errors import Problems

FORMAT = 1  # of the JSON report; docs/verify.md has its schema
KEPT_VALUES = 257  # of a label map; more are no class numbers of 8 bits
MOST_SIZES = 4  # that a report names
AGAIN = "Copy it again from the original download."


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: what kind of thing, a word of the table in docs/verify.md.
        message: which file, what was expected, what was found, what to do.
        case: id of the case; "" where it is of none.
        role: of the file in its case; "" where it is of none.
        file: its path below the data set's folder; "" where it is of none.
    """

    kind: str
    message: str
    case: str = ""
    role: str = ""
    file: str = ""


Say = Callable[[str, str], Finding]  # from kind and text to a finding about a file


@dataclass(frozen=True)
class Leak:
    """Cases in several parts of a split that are not independent.

    Attributes:
        kind: `id`, `bytes`, `pixels`, `turned`, `group`.
        cases: their ids.
        parts: the part of each.
        message: in words.
    """

    kind: str
    cases: tuple[str, ...]
    parts: tuple[str, ...]
    message: str

    @property
    def serious(self) -> bool:
        """False for what the paper's own splits have: cases of one group apart."""
        return self.kind != "group"


@dataclass
class Report:
    """What was found in a data set.

    Attributes:
        title: of the data set.
        root: its folder.
        counts: cases by part of a fixed split, or of all that are to be split.
        files: number of files looked at, by role.
        sizes: number of images, by spatial shape.
        values: the distinct values (or palette indices) seen in masks, by role.
        foreground: mean share of foreground pixels in masks, by role, in [0, 1].
        decoded, skipped: files decoded now, and before and unchanged since.
        warnings: what is unusual but stops nothing.
        warned: the files or cases of those warnings that count them.
        name: of the data set, as `--dataset` takes it.
        problems: what is wrong.
        pixels, turned: by case the image's `pixel_hash` and `turned_hash`.
        classes: numbers of the classes that observer 1 marked, by case.
        split: the split that was looked at for leaks, number of cases by part; {} where
            none was.
        leaks: what was found there.
    """

    title: str
    root: Path
    counts: dict[str, int]
    files: dict[str, int] = field(default_factory=dict)
    sizes: dict[tuple[int, ...], int] = field(default_factory=dict)
    values: dict[str, set[int]] = field(default_factory=dict)
    foreground: dict[str, float] = field(default_factory=dict)
    decoded: int = 0
    skipped: int = 0
    warnings: list[str] = field(default_factory=list)
    warned: dict[str, list[str]] = field(default_factory=dict)
    name: str = ""
    problems: list[Finding] = field(default_factory=list)
    pixels: dict[str, str] = field(default_factory=dict)
    turned: dict[str, str] = field(default_factory=dict)
    classes: dict[str, set[int]] = field(default_factory=dict)
    split: dict[str, int] = field(default_factory=dict)
    leaks: list[Leak] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong, leaks of images included."""
        return not self.problems and not any(leak.serious for leak in self.leaks)

    def __str__(self) -> str:
        if not self.ok:
            return str(self.error())
        lines = [f"{self.title} in {self.root}: OK", *self._shown_counts()]
        texts = [leak.message for leak in self.leaks]
        if len(texts) > 1:
            many = f"{len(texts)} groups that lie in several (--json FILE lists all)"
            texts = [texts[0].replace("cases of one group", f"{many}, such as")]
        return "\n".join(
            lines + [f"  warning: {text}" for text in texts + self.warnings]
        )

    def error(self) -> Problems:
        """All that is wrong, as an error to raise."""
        leaks = [leak.message for leak in self.leaks if leak.serious]
        problems = [problem.message for problem in self.problems]
        return Problems(f"{self.title} in {self.root}", problems + leaks)

    def _shown_counts(self) -> list[str]:
        parts = ", ".join(f"{n} {part}" for part, n in self.counts.items())
        lines = [f"  cases   {sum(self.counts.values())} ({parts})"]
        if self.sizes:
            commonest = Counter(self.sizes).most_common()
            sizes = ", ".join(f"{n} of {shown(s)}" for s, n in commonest[:MOST_SIZES])
            others = sum(n for _, n in commonest[MOST_SIZES:])
            more = f" and {others} of other sizes" if others else ""
            lines.append(f"  images  {sizes}{more}")
        for role, values in self.values.items():
            seen = ", ".join(str(value) for value in sorted(values)[:MOST_SIZES])
            seen += ", ..." if len(values) > MOST_SIZES else ""
            share = f"{100 * self.foreground[role]:.1f} % foreground"
            alone = role == "observer1" and "observer2" not in self.values
            whose = "labels " if alone else role
            lines.append(f"  {whose} {self.files[role]} files, values {seen}, {share}")
        if self.decoded or self.skipped:
            known = f" ({self.skipped} before, unchanged)" if self.skipped else ""
            lines.append(f"  decoded {self.decoded + self.skipped} files{known}")
        if self.split:
            parts = ", ".join(f"{n} {part}" for part, n in self.split.items())
            lines.append(f"  split   {parts}: {len(self.leaks) or 'no'} leaks")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON keeps it; docs/verify.md has the schema."""
        masks = {
            role: {"values": sorted(values), "foreground": self.foreground[role]}
            for role, values in self.values.items()
        }
        sizes = sorted(self.sizes.items())
        return {
            "format": FORMAT,
            "dataset": self.name,
            "title": self.title,
            "root": str(self.root),
            "ok": self.ok,
            "cases": self.counts,
            "files": self.files,
            "sizes": [{"shape": list(s), "images": n} for s, n in sizes],
            "masks": masks,
            "decoded": self.decoded,
            "unchanged": self.skipped,
            "problems": [asdict(problem) for problem in self.problems],
            "warnings": self.warnings,
            **({"warned": self.warned} if self.warned else {}),
            "split": self.split,
            "leaks": [asdict(leak) for leak in self.leaks],
        }


def counted(
    cases: list[str], every: Sized, what: str, after: str = ""
) -> dict[str, list[str]]:
    """A warning about so many of all cases, with the first of them; {} of none."""
    if not cases:
        return {}
    return {f"{len(cases)} of {len(every)} {what}, such as {cases[0]}{after}": cases}


def shown(shape: Any) -> str:
    """A spatial shape in words."""
    axes = ("slices", "rows", "columns")[-len(shape) :]
    parts = zip(shape, axes, strict=True)
    return " x ".join(f"{size} {axis}" for size, axis in parts)
