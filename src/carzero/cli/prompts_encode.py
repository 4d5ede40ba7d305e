"""`carzero prompts encode`: prompts encoded once, kept for many runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from carzero.cli.console import quiet_libraries, stderr_console


def encode(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME_OR_FILE", help="A set of the library, NAME or NAME:VARIANT, or a file."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Write the bank into this folder.")],
    variant: Annotated[str | None, typer.Option(help="Wording of a library set: paper, pairs or synonyms.")] = None,
    weights: Annotated[str, typer.Option("--weights", "-w", help='"demo", a folder, or a hub id.')] = "demo",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the bank that lies there.")] = False,
    device: Annotated[
        str | None, typer.Option(help="The device that will score: cpu, cuda, ...; a GPU if there is one.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="The precision that will score, as in `carzero predict`.")] = "auto",
) -> None:
    """Encodes a set once for many runs; `carzero predict --prompts FOLDER` then starts without the text tower's work.

    A bank belongs to weights, precision and package version, and is refused by runs with others.

    Exit code 0: written; 2: wrong use.
    """
    from carzero.precision import check_dtype
    from carzero.prompts import resolve_prompts

    prompt_set = resolve_prompts(name, variant)
    check_dtype(dtype)
    quiet_libraries()
    from carzero.zeroshot import ZeroShotClassifier

    classifier = ZeroShotClassifier.from_pretrained(weights, device=device, dtype=dtype)
    bank = classifier.encode_prompts(prompt_set)
    classifier.save_prompts(bank, out, overwrite=overwrite)
    prompts = sum(len(prompts) for _, prompts in prompt_set)
    stderr_console().print(
        f"Wrote {prompts} prompts of {len(prompt_set)} labels in {classifier.dtype} to {out}.", markup=False
    )
