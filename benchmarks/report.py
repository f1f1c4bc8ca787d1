"""What a benchmark found, as data: written by each program, read by `run_all.py`. Imports nothing but the library.

Ratios are such that more than 1 means that Lakeloop is better.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure, its peer's where there is one, and what was promised of it."""

    what: str
    unit: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    more_is_better: bool = False
    at_most: float | None = None
    ratio_at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times better than the peer; None without one."""
        if self.peer is None:
            return None
        better, worse = (self.ours, self.peer) if self.more_is_better else (self.peer, self.ours)
        return better / worse if worse else float("inf")

    @property
    def target(self) -> str:
        """What was promised, as people write it; empty where nothing was."""
        parts = [f"≤ {number(self.at_most)} {self.unit}"] if self.at_most is not None else []
        return ", ".join(parts + ([f"ratio ≥ {number(self.ratio_at_least)}"] if self.ratio_at_least else []))

    @property
    def missed(self) -> bool:
        """Whether the promise is not kept."""
        too_much = self.at_most is not None and self.ours > self.at_most
        ratio = self.ratio
        return too_much or (self.ratio_at_least is not None and (ratio is None or ratio < self.ratio_at_least))


Parts = Sequence[tuple[str, float]]
"""Where a time goes: what, and seconds, in their order."""


def total(parts: Parts) -> float:
    """Their sum."""
    return sum(took for _, took in parts)


@dataclass(frozen=True)
class Split:
    """Where a figure's time goes."""

    title: str
    parts: Parts


@dataclass
class Report:
    """All that one benchmark has to say."""

    subject: str
    rows: list[Row] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def dump(self, path: Path) -> None:
        """Writes it as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> "Report":
        """Reads what `dump` wrote."""
        found: Mapping[str, Any] = json.loads(path.read_text())
        return cls(
            found["subject"],
            [Row(**row) for row in found["rows"]],
            [Split(split["title"], [(name, took) for name, took in split["parts"]]) for split in found["splits"]],
            list(found["notes"]),
        )


def number(value: float) -> str:
    """Three digits that matter, never in powers of ten."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def spread(values: Sequence[float]) -> str:
    """`median 0.41 (0.38 to 0.60, 9 rounds)`."""
    low, high = number(min(values)), number(max(values))
    return f"median {number(statistics.median(values))} ({low} to {high}, {len(values)} rounds)"


def median_round(rounds: Sequence[Parts]) -> Parts:
    """The round whose sum is the median (the lower one of two): medians of each part would not add up to anything."""
    return sorted(rounds, key=total)[(len(rounds) - 1) // 2]


def table(reports: Sequence[Report]) -> str:
    """One table of all figures, in Markdown, aligned so that it reads in a terminal too."""
    lines = [["", "Lakeloop", "peer", "ratio", "target", "kept"]]
    for row in (row for report in reports for row in report.rows):
        ratio = "" if row.ratio is None else number(row.ratio)
        peer = "" if row.peer is None else f"{number(row.peer)} ({row.peer_name})"
        kept = "" if not row.target else "no" if row.missed else "yes"
        lines.append([f"{row.what}, {row.unit}", number(row.ours), peer, ratio, row.target, kept])
    return _aligned(lines)


def split_table(split: Split) -> str:
    """The parts and their sum."""
    parts = [*split.parts, ("together", total(split.parts))]
    lines = [["", "s"], *([name, f"{took:.2f}"] for name, took in parts)]
    return f"{split.title}:\n\n{_aligned(lines)}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def text(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([text(lines[0]), f"|{rule}|", *map(text, lines[1:])])


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write what was found to this file too")
    return parser


def say(line: str) -> None:
    """A line of progress, at once."""
    print(line, flush=True)


def finish(report: Report, path: Path | None) -> None:
    """Prints the report, and writes it where asked."""
    for note in report.notes:
        say(note)
    say("\n".join(["", table([report]), *(f"\n{split_table(split)}" for split in report.splits)]))
    if path is not None:
        report.dump(path)
