"""Tables for people: whole in a pipe, and in a form that fits where there is a terminal. No figure is ever cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carzero.errors import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


_GAP = 2  # blanks between columns
_LONG = 19  # words up to this width stay whole, two beside each other fit into 40; longer ones are broken
_FRAME_LINES = 3  # of a table beside its rows: headings, rule, the blank line below


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, and how narrow it may be.

    Attributes:
        heading: above it, or ""; it may be broken at blanks.
        cells: one a row.
        is_figure: whether it is aligned to the right.
        natural: width at which nothing is broken.
        unbroken: width at which nothing but the heading is broken.
        firm: width at which no figure is broken, and of the words the long ones alone.
        least: width at which figures are broken at blanks alone, as between a value and its interval, and words too.
    """

    heading: str
    cells: tuple[str, ...]
    is_figure: bool
    natural: int
    unbroken: int
    firm: int
    least: int

    @classmethod
    def of(cls, heading: str, cells: Sequence[str], kinds: Sequence[bool], *, is_figure: bool) -> Column:
        """Measures the cells; `kinds` says of each whether it is a figure."""
        whole = [cell for cell, kind in zip(cells, kinds, strict=True) if kind]
        words = [cell for cell, kind in zip(cells, kinds, strict=True) if not kind]
        longest = min(_LONG, max(map(_longest_word, [heading, *words])))
        firm = max([longest, min(_LONG, max(map(_length, words), default=0)), *map(_length, whole)])
        unbroken = max([firm, *map(_length, words)])
        return cls(
            heading=heading,
            cells=tuple(cells),
            is_figure=is_figure,
            natural=max(unbroken, _length(heading)),
            unbroken=unbroken,
            firm=firm,
            least=max([longest, *map(_longest_word, whole)]),
        )


@dataclass(slots=True)
class TextTable:
    """Rows of text below headings. The leading columns of words say what a row is about.

    Attributes:
        headings: of the columns, in their order; may be "".
        figures: the headings' numbers, from 0, whose columns hold figures; the others hold words.
        title: above the table, or "".
        note: below it, or "".
        rows: filled by `add`.
    """

    headings: Sequence[str]
    figures: Iterable[int] = ()
    title: str = ""
    note: str = ""
    rows: list[tuple[str, ...]] = field(default_factory=list)
    _last_of_sections: set[int] = field(default_factory=set)

    def add(self, *cells: str) -> None:
        """Adds a row.

        Raises:
            ValueError: not one cell a column.
        """
        if len(cells) != len(self.headings):
            raise ValueError(f"{len(cells)} cells in a row of {len(self.headings)} columns")
        self.rows.append(cells)

    def end_section(self) -> None:
        """Draws a line below the rows added so far."""
        self._last_of_sections.add(len(self.rows) - 1)

    def arrange(self, width: int | None) -> list[Table]:
        """The table in a form that fits: one or several tables below each other.

        Headings are broken first, then words. Where that does not do, either the columns stand in several tables, or
        rows become columns, whichever takes fewer lines. Only where neither fits are figures broken at blanks.

        Args:
            width: of the terminal, in cells; None: as wide as the table is.
        """
        kinds = [number in set(self.figures) for number in range(len(self.headings))]
        cells = zip(*self.rows, strict=True) if self.rows else [() for _ in kinds]
        columns = [
            Column.of(printable(heading), [*map(printable, own)], [kind] * len(self.rows), is_figure=kind)
            for heading, own, kind in zip(self.headings, cells, kinds, strict=True)
        ]
        sections = frozenset(self._last_of_sections - {len(self.rows) - 1})
        if width is None:
            return [_draw(columns, [column.natural for column in columns], sections)]
        keys = max(1, kinds.index(True) if True in kinds else 1)
        for may_break in (False, True):
            if widths := _fit(columns, width, may_break=may_break):
                return [_draw(columns, widths, sections)]
            across = _spread(columns, keys, width, may_break=may_break)
            turned = _spread(_turn(columns, kinds), 1, width, may_break=may_break)
            if turned and (len(turned) == 1 or not across or _count_lines(turned) < _count_lines(across)):
                return [_draw(part, widths, frozenset()) for part, widths in turned]
            if across:
                return [_draw(part, widths, sections) for part, widths in across]
        return [_draw(columns, [column.natural for column in columns], sections)]  # the terminal breaks its lines


def print_table(table: TextTable, console: Console) -> None:
    """Prints a table: in a form that fits where the console is a terminal, else as wide as it is."""
    from rich.measure import Measurement

    parts = table.arrange(console.width if console.is_terminal else None)
    widest = max(Measurement.get(console, console.options.update(max_width=1 << 20), part).maximum for part in parts)
    wraps = not console.is_terminal
    if table.title:
        console.print(printable(table.title), markup=False, soft_wrap=wraps)
    width, console.width = console.width, max(console.width, widest)
    for part in parts:
        console.print(part, soft_wrap=False, crop=False)
        console.print()
    console.width = width
    if table.note:
        console.print(printable(table.note), markup=False, soft_wrap=wraps)


def _fit(columns: Sequence[Column], width: int, *, may_break: bool) -> list[int] | None:
    """Widths of columns that fit into `width` together; None where there are none."""
    room = width - _GAP * (len(columns) - 1)
    least = [column.least if may_break else column.firm for column in columns]
    if sum(least) > room:
        return None
    for widths in ([column.natural for column in columns], [column.unbroken for column in columns]):
        if sum(widths) <= room:
            return widths
    widths = least
    wanted = [max(0, column.unbroken - own) for column, own in zip(columns, least, strict=True)]
    while (spare := room - sum(widths)) > 0 and any(wanted):
        share = max(1, spare // sum(1 for want in wanted if want))
        for number, want in enumerate(wanted):
            more = min(share, want, room - sum(widths))
            widths[number] += more
            wanted[number] -= more
    return widths


_Part = tuple[list[Column], list[int]]


def _spread(columns: Sequence[Column], keys: int, width: int, *, may_break: bool) -> list[_Part]:
    """The columns in tables that fit, each behind the key columns; empty where one is too wide even alone."""
    parts: list[_Part] = []
    own, rest = list(columns[:keys]), columns[keys:]
    while rest:
        count, fitting = 0, None
        while count < len(rest) and (widths := _fit([*own, *rest[: count + 1]], width, may_break=may_break)):
            count, fitting = count + 1, widths
        if fitting is None:
            return []
        parts.append(([*own, *rest[:count]], fitting))
        rest = rest[count:]
    return parts


def _turn(columns: Sequence[Column], kinds: Sequence[bool]) -> list[Column]:
    """Rows as columns, each headed by its first cell; what was a heading becomes the first column."""
    first, *others = columns
    names = Column.of(first.heading, [column.heading for column in others], [False] * len(others), is_figure=False)
    return [
        names,
        *(
            Column.of(name, [column.cells[row] for column in others], kinds[1:], is_figure=True)
            for row, name in enumerate(first.cells)
        ),
    ]


def _count_lines(parts: Sequence[_Part]) -> int:
    return sum(len(columns[0].cells) + _FRAME_LINES for columns, _ in parts)


def _draw(columns: Sequence[Column], widths: Sequence[int], sections: frozenset[int]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 0, 0, _GAP - 1),  # the box itself has a blank between columns
        show_header=any(column.heading for column in columns),
    )
    for column, width in zip(columns, widths, strict=True):
        table.add_column(
            Text(column.heading),
            justify="right" if column.is_figure else "left",
            width=width,
            overflow="fold",
            vertical="top",
        )
    for number, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
        table.add_row(*map(Text, cells), end_section=number in sections)
    return table


def _length(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _longest_word(text: str) -> int:
    return max(map(_length, text.split()), default=0)
