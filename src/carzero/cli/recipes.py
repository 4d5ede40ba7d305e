"""`carzero recipes` and `carzero docs`: what comes with the package for reading and for changing."""

from __future__ import annotations

import itertools
import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from carzero.cli.console import print_result, say
from carzero.cli.options import Overwrite
from carzero.cli.terminal_table import TextTable
from carzero.errors import ConfigurationError, describe

_PACKAGE = Path(__file__).parents[1]
_CHECKOUT = Path(__file__).parents[3]


def shipped_folder(kind: str) -> Path:
    """The folder with the files of one kind: in an installed package inside it, in a checkout beside it.

    Args:
        kind: "recipes" or "docs".
    """
    inside = _PACKAGE / "assets" / kind
    return inside if inside.is_dir() else _CHECKOUT / kind


def list_shipped(kind: str, suffix: str) -> dict[str, Path]:
    """Names, without their ending, and paths of the files of one kind, sorted."""
    return {path.stem: path for path in sorted(shipped_folder(kind).glob(f"*{suffix}"))}


def find_shipped(kind: str, suffix: str, name: str) -> Path:
    """The path of one of these files.

    Raises:
        ConfigurationError: there is none of this name.
    """
    known = list_shipped(kind, suffix)
    if name.removesuffix(suffix) in known:
        return known[name.removesuffix(suffix)]
    near = get_close_matches(name, known, n=1)
    then = (
        f"did you mean {near[0]}?" if near else "take one of these, or give your own file" if kind == "recipes" else ""
    )
    raise ConfigurationError(
        describe(f"None of the {kind} has this name", got=name, expected=", ".join(known), then=then)
    )


app = typer.Typer(help="Recipes for training that come with the package.", no_args_is_help=True)


@app.command("list")
def list_recipes() -> None:
    """Lists the recipes: what each trains, and on what machine."""
    table = TextTable(("recipe", "trains"))
    for name, path in list_shipped("recipes", ".yaml").items():
        table.add(name, _first_sentence(path.read_text(encoding="utf-8")))
    print_result(table)
    say("Copy one to change it: `carzero recipes copy NAME`; `carzero docs training` says what each field does.")


@app.command("copy")
def copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `carzero recipes list` has it.")],
    out: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where to; NAME.yaml here if not given.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Copies a recipe into a file of your own, to be changed and given to `carzero train` or `carzero pretrain`."""
    from carzero.core.atomic import AGAIN, room_for
    from carzero.core.outputs import check_file, new_files

    recipe = find_shipped("recipes", ".yaml", name)
    path = out or Path(recipe.name)
    check_file(path, (".yaml", ".yml"), overwrite=overwrite)
    with room_for(str(path), path.parent, AGAIN), new_files([path], overwrite=overwrite) as (unfinished,):
        unfinished.write_bytes(recipe.read_bytes())
    say(f"Wrote {path}.")


def docs(
    page: Annotated[
        str | None, typer.Argument(metavar="PAGE", help="Such as training; none lists all.", show_default=False)
    ] = None,
) -> None:
    """Shows a page of the documentation, which comes with the package; without a name lists the pages."""
    if page is None:
        table = TextTable(("page", "about"))
        for name, path in list_shipped("docs", ".md").items():
            table.add(name, path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# "))
        print_result(table)
        return
    text = find_shipped("docs", ".md", page).read_text(encoding="utf-8")
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return
    from rich.console import Console
    from rich.markdown import Markdown

    Console().print(Markdown(text, hyperlinks=False))


def _first_sentence(recipe: str) -> str:
    """The first sentence of the remark at the top of a recipe, or what stands before its colon."""
    lines = itertools.takewhile(lambda line: line.startswith("# "), recipe.splitlines())
    return _END.split(" ".join(line.removeprefix("# ") for line in lines), maxsplit=1)[0]


_END = re.compile(r": |\.(?: (?=[A-Z])|$)")
