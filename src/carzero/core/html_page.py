"""A report as one HTML file that needs nothing else, in the colours and type of the page that `carzero serve` shows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path

_STYLES = Path(__file__).parents[1] / "assets" / "styles"
THEME = _STYLES / "theme.css"  # colours and type of everything that a browser shows


def build_html_page(title: str, parts: Sequence[str]) -> str:
    """Returns a page.

    Args:
        title: of the window and the first heading, as plain text.
        parts: HTML below the heading, one after the other; empty ones are left out.
    """
    body = "\n".join(part for part in (f"<h1>{escape(title)}</h1>", *parts) if part)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_load_styles()}</style></head>\n<body>\n<main>\n{body}\n</main>\n"
        "</body></html>\n"
    )


@cache
def _load_styles() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in (THEME, _STYLES / "report.css"))


def build_table(head: Sequence[str], lines: Sequence[str]) -> str:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        head: headings, as plain text; empty over the names of the lines.
        lines: of `build_line`.
    """
    header = "".join(f'<th scope="col">{escape(cell)}</th>' if cell else "<td></td>" for cell in head)
    body = "\n".join(lines)
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{header}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    )


def build_line(cells: Sequence[str], kind: str = "") -> str:
    """A line of a table; the cells are HTML, the first names the line.

    Args:
        cells: from the left.
        kind: class of the line in the style sheet, such as "average".
    """
    first, *others = cells
    mark = f' class="{kind}"' if kind else ""
    return f'<tr{mark}><th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in others) + "</tr>"


def build_figure(data: bytes, media_type: str, alternative: str, caption: str) -> str:
    """A picture with what it shows below.

    Args:
        data: of the picture's file.
        media_type: such as "image/svg+xml".
        alternative: plain text for who does not see it.
        caption: HTML.
    """
    coded = base64.b64encode(data).decode("ascii")
    image = f'<img alt="{escape(alternative)}" src="data:{media_type};base64,{coded}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
