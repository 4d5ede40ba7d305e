"""From a released checkpoint to a folder of weights that every part of this package, and transformers, can load."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from carzero.core.hashing import hash_file
from carzero.core.outputs import NewFolder
from carzero.core.run_record import RunRecord
from carzero.errors import CheckpointError, describe
from carzero.model import CARZeroModel
from carzero.weights.model_card import write_hub_card
from carzero.weights.publishing import CARD
from carzero.weights.released.biovil import BiovilRelease
from carzero.weights.released.openai_clip import ChexzeroRelease
from carzero.weights.released.paper import PaperRelease
from carzero.weights.released.radzero import RadzeroRelease
from carzero.weights.released.reader import read_tensors
from carzero.weights.released.release import (
    ConversionOptions,
    Converted,
    KeyRecord,
    Release,
    ReleasedFile,
    find_weights,
    join_tensors,
    keys_error,
    locate,
)
from carzero.weights.source import WeightsSource

_LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class KeyGroup:
    """Released tensors that met the same fate: `pattern` has N in place of layer numbers."""

    pattern: str
    action: str
    count: int
    reason: str


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """A conversion's provenance and the fate of every released tensor.

    Attributes:
        release: whose model it is, told by its tensors.
        source: file name of the checkpoint, without its folder.
        source_bytes: its size.
        source_sha256: its SHA-256, as `sha256sum` prints it.
        tokenizer: its hub id, or its folder's or file's name.
        out: folder that was written; not part of the saved file.
        epoch: epochs the checkpoint had been trained for, if it says so.
        global_step: optimiser steps, likewise.
        lightning_version: version of PyTorch Lightning that wrote it, likewise.
        hyper_parameters: the authors' training settings, as they were in the file.
        notes: what to know about the result.
        carzero_version: version of this package.
        date: when it was converted, UTC, ISO 8601.
        records: one per released tensor, in the file's order.
        missing: tensors of the model that the file lacked and that are random; empty unless `lenient`.
        lenient: unknown and missing tensors were allowed.
    """

    release: str
    source: str
    source_bytes: int
    source_sha256: str
    tokenizer: str
    out: str
    epoch: int | None
    global_step: int | None
    lightning_version: str | None
    carzero_version: str
    date: str
    lenient: bool
    missing: list[str]
    records: list[KeyRecord]
    hyper_parameters: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Number of released tensors by action: "renamed", "split", "dropped", "unknown"."""
        return dict(Counter(record.action for record in self.records))

    def groups(self, *actions: str) -> list[KeyGroup]:
        """Released tensors of these actions, those that differ in layer number alone as one group."""
        grouped = Counter(
            (_LAYER_NUMBER.sub("N", record.source), record.action, record.reason)
            for record in self.records
            if record.action in actions
        )
        return [KeyGroup(pattern, action, count, reason) for (pattern, action, reason), count in grouped.items()]

    def to_dict(self) -> dict[str, object]:
        """Everything, ready for JSON."""
        return {"counts": self.counts(), **asdict(self)}


REPORT_NAME = "conversion.json"

# What a conversion (of this or a later version) writes; a folder with anything else in it is never replaced.
_OURS = re.compile(
    r"conversion\.json|README\.md|(generation_|processor_|preprocessor_|tokenizer_)?config\.json"
    r"|special_tokens_map\.json|added_tokens\.json|tokenizer\.json|vocab\.txt|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
)


def convert_checkpoint(
    path: str | Path | Sequence[str | Path],
    out_dir: str | Path,
    *,
    tokenizer: str | Path | None = None,
    text: str | Path | None = None,
    image_px: int | None = None,
    stretch: str = "factor",
    lenient: bool = False,
    overwrite: bool = False,
) -> ConversionReport:
    """Converts a released model into a folder of weights, processor and `conversion.json`.

    Which model it is, its tensors tell. The folder appears whole or not at all: it is written under a temporary name
    beside `out_dir`, loaded back and compared, then renamed.

    Args:
        path: the released file (.ckpt, .pt, .safetensors), or a folder or hub id with one; nothing in it is executed.
            Several make an ensemble (CheXzero).
        out_dir: folder to write. It must be new or empty, unless `overwrite`.
        tokenizer: the text tower's: a folder with `tokenizer.json` or `vocab.txt`, a `vocab.txt`, CLIP's file of
            merges, or a hub id; None where the release brings its own.
        text: the text encoder, where it is a model of its own (BioViL): a folder or a hub id.
        image_px: side of the images, where the release leaves it open (RadZero: 518, or 224).
        stretch: how a table of positions is stretched to it: "factor", as published, or "size", as transformers 5.
        lenient: go on where tensors are unknown (left out) or missing (random).
        overwrite: replace an earlier conversion. A folder with other files in it is never replaced.

    Raises:
        UnsafeCheckpointError: the checkpoint's pickle asks for more than data.
        CheckpointError: the checkpoint, its tokenizer or the folder will not do; the message says why. Nothing was
            written.
        WeightsError: no tokenizer or text encoder could be loaded.
    """
    given = [path] if isinstance(path, str | Path) else path
    options = ConversionOptions(
        tokenizer=None if tokenizer is None else str(tokenizer),
        text=None if text is None else str(text),
        image_px=image_px,
        stretch=stretch,
        lenient=lenient,
    )
    out = Path(out_dir).resolve()
    new = NewFolder(out, overwrite, _is_ours, "conversion", "about 1 GB")
    new.check()
    files = [_read(locate(each)) for each in given]
    release = find_release(files)
    converted = _convert(release, files, options)
    report = _report(release, files, converted, options, out)
    del files
    with new.fill() as folder:
        _save(folder, converted, report)
        _check_saved(folder, converted)
    return report


# A new released model is a file here and a line in this list.
RELEASES: tuple[Release, ...] = (PaperRelease(), RadzeroRelease(), ChexzeroRelease(), BiovilRelease())


def find_release(files: Sequence[ReleasedFile]) -> Release:
    """The release that files are of, told by the names of their tensors.

    Raises:
        CheckpointError: of none, or not all of one.
    """
    found = []
    for file in files:
        known = [release for release in RELEASES if release.recognises(list(file.tensors))]
        if not known:
            raise CheckpointError(
                describe(
                    f"{file.name} is another model's checkpoint",
                    got=[name[:60] for name in list(file.tensors)[:3]],
                    expected=f"a released {', '.join(release.title for release in RELEASES)}",
                    then="see `carzero models list`; CLIP and SigLIP of transformers need no conversion",
                )
            )
        found.append(known[0])
    if any(release is not found[0] for release in found):
        raise CheckpointError(
            describe("These files are of different models", got=[release.title for release in found], expected="one")
        )
    return found[0]


def _read(source: Path) -> ReleasedFile:
    """A file, or all tensors of a folder's."""
    paths = find_weights(source) if source.is_dir() else [source]
    parts = [read_tensors(path) for path in paths]
    return ReleasedFile(source, join_tensors(parts), parts[0], tuple(paths))


def _convert(release: Release, files: Sequence[ReleasedFile], options: ConversionOptions) -> Converted:
    try:
        return release.convert(files, options)
    except KeyError as error:
        raise keys_error("lacks tensors that the model needs", [str(error.args[0])]) from error


def _is_ours(name: str) -> bool:
    return _OURS.fullmatch(name) is not None


def _report(
    release: Release, files: Sequence[ReleasedFile], converted: Converted, options: ConversionOptions, out: Path
) -> ConversionReport:
    record = RunRecord()
    first = files[0].checkpoint
    hashes = [hash_file(path) for file in files for path in file.paths]
    return ConversionReport(
        release=release.title,
        source=", ".join(file.name for file in files),
        source_bytes=sum(path.stat().st_size for file in files for path in file.paths),
        source_sha256=", ".join(hashes),
        tokenizer=_short_name(options.tokenizer),
        out=str(out),
        epoch=first.epoch,
        global_step=first.global_step,
        lightning_version=first.lightning_version,
        carzero_version=record.version,
        date=record.date,
        lenient=options.lenient,
        missing=converted.missing,
        records=converted.records,
        hyper_parameters=first.hyper_parameters,
        notes=converted.notes,
    )


def _short_name(tokenizer: str | None) -> str:
    if tokenizer is None:
        return "the release's own"
    return Path(tokenizer).name if Path(tokenizer).exists() else tokenizer


def _save(folder: Path, converted: Converted, report: ConversionReport) -> None:
    try:
        if isinstance(converted.model, CARZeroModel):
            converted.model.save_pretrained(folder)
        else:
            tensors = {name: tensor.contiguous() for name, tensor in converted.model.state_dict().items()}
            save_file(tensors, folder / "model.safetensors", {"format": "pt"})
            (folder / "config.json").write_text(json.dumps(converted.config, indent=2) + "\n", encoding="utf-8")
    except SafetensorError as error:  # its way of saying that the disk is full
        raise OSError(str(error)) from error
    converted.processor.save_pretrained(folder)
    saved = {name: value for name, value in report.to_dict().items() if name != "out"}  # folders get moved
    (folder / REPORT_NAME).write_text(json.dumps(saved, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    card = write_hub_card(
        WeightsSource(folder),
        report.out.rpartition("/")[2],
        licence=None,
        origin=f"{report.source}, SHA-256 `{report.source_sha256}`, tokenizer {report.tokenizer}",
    )
    (folder / CARD).write_text(card, encoding="utf-8")
    for file in folder.iterdir():
        # safetensors lets its files be read by their owner only.
        file.chmod((folder / REPORT_NAME).stat().st_mode)


def _check_saved(folder: Path, converted: Converted) -> None:
    """Loads the folder back and compares every tensor, the vocabulary, and the tokens of a text made of it."""
    source = WeightsSource(folder)
    wanted, got = converted.model.state_dict(), source.load_model().state_dict()
    if wanted.keys() != got.keys() or not all(torch.equal(wanted[name], got[name]) for name in wanted):
        raise _differs("The converted weights differ once they are loaded back")
    tokenizer, given = source.load_processor().tokenizer, converted.processor.tokenizer
    probe = " ".join(given.get_vocab())
    if tokenizer.get_vocab() != given.get_vocab() or tokenizer(probe)["input_ids"] != given(probe)["input_ids"]:
        raise _differs("The tokenizer differs once it is loaded back")


def _differs(what: str) -> CheckpointError:
    return CheckpointError(
        describe(
            what,
            expected="what was saved",
            then="report this with your versions of transformers, tokenizers and safetensors; nothing was left behind",
        )
    )
