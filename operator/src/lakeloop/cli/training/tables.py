"""Tables that fit the terminal: pure. Columns are dropped, then cells are cut, until the lines are short enough."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

GAP = "  "
LEAST = 8
"""A cell that is cut keeps so many characters."""
NOTHING = "-"
Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Column:
    """A column. The ones with the highest `drop` go first when space is short; 0 stays."""

    title: str
    drop: int = 0
    cut: bool = False
    """Whether its cells may be cut."""


def render(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> list[str]:
    """The lines of the table: cells by the column's title. Without a width nothing is dropped or cut."""
    shown = list(columns)
    widths = {each.title: _widest(each, rows) for each in shown}
    while width is not None and _total(shown, widths) > width:
        left = _narrowed(shown, widths, width)
        if left is not None:
            widths = left
            break
        losing = max(shown, key=lambda each: each.drop)
        if losing.drop == 0:
            break
        shown.remove(losing)
    titles = {each.title: each.title for each in shown}
    return [_line(shown, widths, row) for row in (titles, *rows)]


def _narrowed(shown: Sequence[Column], widths: Mapping[str, int], width: int) -> dict[str, int] | None:
    """Widths that fit, by cutting the widest of those that may be cut; None where that is not enough."""
    found = dict(widths)
    while _total(shown, found) > width:
        wide = [each.title for each in shown if each.cut and found[each.title] > max(LEAST, len(each.title))]
        if not wide:
            return None
        found[max(wide, key=lambda title: found[title])] -= 1
    return found


def _widest(column: Column, rows: Sequence[Row]) -> int:
    return max(len(column.title), *(len(_cell(column, row)) for row in rows)) if rows else len(column.title)


def _total(shown: Sequence[Column], widths: Mapping[str, int]) -> int:
    return sum(widths[each.title] for each in shown) + len(GAP) * (len(shown) - 1)


def _cell(column: Column, row: Row) -> str:
    # A message of several lines would tear the table.
    return plain(" ".join((row.get(column.title) or NOTHING).split()))


def plain(text: str) -> str:
    """A line without what a terminal would obey: tags and messages are written by others."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _line(shown: Sequence[Column], widths: Mapping[str, int], row: Row) -> str:
    cells = []
    for column in shown:
        text, width = _cell(column, row), widths[column.title]
        cells.append((text if len(text) <= width else f"{text[: width - 1]}…").ljust(width))
    return GAP.join(cells).rstrip()


_SPANS = (
    # below so many seconds: unit, its size, and the smaller unit beside it
    (120, "s", 1, None),
    (600, "m", 60, "s"),
    (3 * 3600, "m", 60, None),
    (8 * 3600, "h", 3600, "m"),
    (48 * 3600, "h", 3600, None),
    (8 * 86_400, "d", 86_400, "h"),
)


def span(seconds: float) -> str:
    """`45s`, `3m20s`, `90m`, `5h10m`, `3d4h`: as kubectl writes durations."""
    whole = max(0, int(seconds))
    _, unit, size, smaller = next((each for each in _SPANS if whole < each[0]), (0, "d", 86_400, None))
    count, rest = divmod(whole, size)
    part = rest // {"s": 1, "m": 60, "h": 3600}[smaller] if smaller else 0
    return f"{count}{unit}{part}{smaller}" if part else f"{count}{unit}"


def moment(text: str | None) -> datetime | None:
    """A time as the API server writes it; None for what is none."""
    try:
        found = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found


def number(value: float | int | None) -> str:
    """A metric in at most six significant digits."""
    return NOTHING if value is None else f"{value:.6g}"
