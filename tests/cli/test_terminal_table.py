"""Tables for people: in a terminal of any width no figure is cut and no word is lost; in a pipe nothing is broken."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from carzero.cli import console
from carzero.cli.terminal_table import TextTable, print_table

WIDTHS = range(40, 201)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)
WORDS = st.lists(NAMES, min_size=1, max_size=4).map(" ".join)
FIGURES = st.one_of(
    st.floats(-1e4, 1e4).map(lambda value: f"{value:.3f}"),
    st.floats(0, 1).map(lambda value: f"{value:.4f} [.{int(value * 999):03d},1.000]"),
    st.lists(st.integers(0, 5000), min_size=2, max_size=4).map(lambda edges: ", ".join(map(str, edges))),
    st.just("-"),
)


@st.composite
def tables(draw: st.DrawFn) -> TextTable:
    words, figures = draw(st.integers(1, 2)), draw(st.integers(0, 12))
    table = TextTable(
        [draw(WORDS) for _ in range(words + figures)],
        range(words, words + figures),
        title=draw(st.sampled_from(("", "a title"))),
        note=draw(st.sampled_from(("", "raw logits; not probabilities"))),
    )
    for _ in range(draw(st.integers(1, 5))):
        table.add(*(draw(WORDS) for _ in range(words)), *(draw(FIGURES) for _ in range(figures)))
    return table


def printed(table: TextTable, width: int, *, terminal: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, highlight=False)
    print_table(table, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def parts_of(cell: str) -> list[str]:
    """What of a cell must stand in one piece: a figure's value, its interval, each edge of a box."""
    return cell.split()


@settings(max_examples=40, deadline=None)
@given(tables(), st.sampled_from(WIDTHS))
def test_no_figure_is_cut_and_no_word_is_lost_at_any_width(table: TextTable, width: int) -> None:
    lines = printed(table, width)
    assert max(map(cell_len, lines), default=0) <= width
    tokens = [token for line in lines for token in line.split()]
    for row in table.rows:
        for number, cell in enumerate(row):
            if number in set(table.figures):
                for part in parts_of(cell):
                    assert tokens.count(part) >= sum(
                        parts_of(own).count(part) for line in table.rows for own in line[min(table.figures) :]
                    )
    shown = "".join(tokens)
    for character in set("".join(cell for row in table.rows for cell in row if cell)) - {" "}:
        assert character in shown


@pytest.mark.parametrize(
    ("labels", "images", "widths"),
    [(14, 1, WIDTHS), (14, 20, WIDTHS[::4]), (192, 1, WIDTHS[::10]), (192, 3, WIDTHS[3::20])],
)
def test_scores_of_many_labels_are_whole_at_every_width(labels: int, images: int, widths: range) -> None:
    table = TextTable(["image", *(f"finding number {n}" for n in range(labels))], range(1, labels + 1))
    for image in range(images):
        table.add(f"{image:08d}_000.png", *(f"{image - n / 7:.3f}" for n in range(labels)))
    for width in widths:
        lines = printed(table, width)
        assert max(map(len, lines)) <= width
        figures = re.findall(r"-?\d+\.\d{3}(?!\d)", "\n".join(lines))
        assert sorted(figures) == sorted(cell for row in table.rows for cell in row[1:]), width


def test_a_table_that_fits_is_printed_as_it_is() -> None:
    table = TextTable(["image", "edema"], [1])
    table.add("a.png", "0.125")
    assert printed(table, 40) == ["image  edema", "────────────", "a.png  0.125", ""]


def test_one_image_of_many_labels_becomes_a_list() -> None:
    table = TextTable(["image", *(f"finding {n}" for n in range(14))], range(1, 15), note="raw logits")
    table.add("film.png", *(f"{n}.500" for n in range(14)))
    lines = printed(table, 80)
    assert lines[0].split() == ["image", "film.png"]
    assert [line.split() for line in lines[2:16]] == [["finding", str(n), f"{n}.500"] for n in range(14)]
    assert lines[-1] == "raw logits"


def test_many_images_of_many_labels_stand_below_each_other_for_each_label() -> None:
    table = TextTable(["image", *(f"finding{n}" for n in range(14))], range(1, 15))
    for image in range(30):
        table.add(f"{image:02d}.png", *(f"{n}.500" for n in range(14)))
    lines = printed(table, 80)
    assert [line.split()[1] for line in lines[2:32]] == ["0.500"] * 30
    assert sum(line.startswith("image") for line in lines) == 2


@pytest.mark.parametrize("width", [1, 20, 80])
def test_a_pipe_gets_every_row_whole_on_one_line(width: int) -> None:
    table = TextTable(["image", *(f"finding {n}" for n in range(192))], range(1, 193), note="n" * 300, title="t" * 300)
    table.add("film with blanks in its name.png", *(f"{n}.500" for n in range(192)))
    lines = printed(table, width, terminal=False)
    assert len(lines) == 6
    assert lines[3].split()[6:] == [f"{n}.500" for n in range(192)]
    assert lines[0] == "t" * 300
    assert lines[-1] == "n" * 300


def test_data_is_shown_and_never_obeyed() -> None:
    table = TextTable(["[bold]image", "edema"], [1])
    table.add("a\x1b[31m\nb[red]", "1.000")
    text = "\n".join(printed(table, 80))
    assert "a\\x1b[31m\\nb[red]" in text
    assert "[bold]image" in text


def test_a_row_has_a_cell_for_every_column() -> None:
    with pytest.raises(ValueError, match="1 cells in a row of 2 columns"):
        TextTable(["image", "edema"]).add("a.png")


@pytest.mark.parametrize("width", [60, 80, 200])
def test_no_count_of_a_bar_is_cut(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Console(file=io.StringIO(), force_terminal=True, width=width)
    monkeypatch.setattr(console, "stderr_console", lambda: shown)
    with console.Progress() as progress:
        progress.add("reading and comparing images", "read", "images").advance(3, 1, 249)
        progress.add("training", "step").advance(19, 0, 20, "loss 6.7834, 9.9 images/s")
    assert isinstance(shown.file, io.StringIO)
    said = shown.file.getvalue()
    assert ("3/249" in said, "19/20" in said, "…" in said) == (True, True, False)
    assert all(word in said for word in ("6.7834", "9.9", "1 failed"))
