"""From a released checkpoint to a folder of weights that every part of this package, and transformers, can load."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import PreTrainedTokenizerBase

from carzero.core.hashing import hash_file
from carzero.core.outputs import NewFolder
from carzero.core.run_record import RunRecord
from carzero.errors import CheckpointError, describe
from carzero.images import PixelTransform
from carzero.model import CARZeroModel
from carzero.processing import CARZeroProcessor, build_processor
from carzero.text.tokenizers import continuation_pieces, load_tokenizer
from carzero.weights.released.key_map import Conversion, KeyRecord, translate_released
from carzero.weights.released.reader import ReleasedCheckpoint, read_released_checkpoint

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
        source: file name of the checkpoint, without its folder.
        source_bytes: its size.
        source_sha256: its SHA-256, as `sha256sum` prints it.
        tokenizer: the tokenizer's hub id, or its folder's or file's name.
        out: folder that was written; not part of the saved file.
        epoch: epochs the checkpoint had been trained for, if it says so.
        global_step: optimiser steps, likewise.
        lightning_version: version of PyTorch Lightning that wrote it, likewise.
        hyper_parameters: the authors' training settings, as they were in the file.
        carzero_version: version of this package.
        date: when it was converted, UTC, ISO 8601.
        records: one per released tensor, in the file's order.
        missing: tensors of the model that the file lacked and that are random; empty unless `lenient`.
        lenient: unknown and missing tensors were allowed.
    """

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
    r"conversion\.json|(generation_|processor_|preprocessor_|tokenizer_)?config\.json|special_tokens_map\.json"
    r"|added_tokens\.json|tokenizer\.json|vocab\.txt|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
)

_RESIZE_PER_CROP = 256 / 224  # the released transform: longer side to 256, centre crop of 224


def convert_checkpoint(
    path: str | Path, out_dir: str | Path, *, tokenizer: str | Path, lenient: bool = False, overwrite: bool = False
) -> ConversionReport:
    """Converts a released checkpoint into a folder of weights, processor and `conversion.json`.

    The folder appears whole or not at all: it is written under a temporary name beside `out_dir`, loaded back and
    compared, then renamed.

    Args:
        path: the released .ckpt file; nothing in it is executed.
        out_dir: folder to write. It must be new or empty, unless `overwrite`.
        tokenizer: the text tower's: a folder with `tokenizer.json` or `vocab.txt`, a `vocab.txt`, or a hub id.
        lenient: go on where tensors are unknown (left out) or missing (random).
        overwrite: replace an earlier conversion. A folder with other files in it is never replaced.

    Raises:
        UnsafeCheckpointError: the checkpoint's pickle asks for more than data.
        CheckpointError: the checkpoint, its tokenizer or the folder will not do; the message says why. Nothing was
            written.
        WeightsError: no tokenizer could be loaded.
    """
    source, out = Path(path), Path(out_dir).resolve()
    new = NewFolder(out, overwrite, _is_ours, "conversion", "about 1 GB")
    new.check()
    loaded_tokenizer = load_tokenizer(tokenizer)
    released = read_released_checkpoint(source)
    conversion = translate_released(released.state_dict, lenient=lenient)
    _fill_continuations(conversion.model, loaded_tokenizer, str(tokenizer))
    processor = _processor_for(conversion.model, loaded_tokenizer)
    report = _report(source, released, conversion, out=out, tokenizer=str(tokenizer), lenient=lenient)
    del released, loaded_tokenizer
    with new.fill() as folder:
        _save(folder, conversion.model, processor, report)
        _check_saved(folder, conversion.model, processor)
    return report


def _is_ours(name: str) -> bool:
    return _OURS.fullmatch(name) is not None


def _fill_continuations(model: CARZeroModel, tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    pieces = continuation_pieces(tokenizer)
    rows = int(model.config.text_config.vocab_size)
    if len(pieces) != rows:
        raise CheckpointError(
            describe(
                f"The tokenizer {source} does not belong to this checkpoint",
                got=f"a vocabulary of {len(pieces):,} pieces for a table of {rows:,} rows",
                expected="as many pieces as the checkpoint's word embeddings have rows",
                then="give the tokenizer the model was trained with (the authors': Laihaoran/BioClinicalMPBERT)",
            )
        )
    model.set_continuations(pieces)


def _processor_for(model: CARZeroModel, tokenizer: PreTrainedTokenizerBase) -> CARZeroProcessor:
    crop_px = int(model.config.vision_config.image_size)
    return build_processor(
        tokenizer,
        PixelTransform(round(crop_px * _RESIZE_PER_CROP), crop_px),
        max_text_length=model.config.max_text_length,
    )


def _report(
    source: Path, released: ReleasedCheckpoint, conversion: Conversion, *, out: Path, tokenizer: str, lenient: bool
) -> ConversionReport:
    record = RunRecord()
    return ConversionReport(
        source=source.name,
        source_bytes=source.stat().st_size,
        source_sha256=hash_file(source),
        tokenizer=Path(tokenizer).name if Path(tokenizer).exists() else tokenizer,
        out=str(out),
        epoch=released.epoch,
        global_step=released.global_step,
        lightning_version=released.lightning_version,
        carzero_version=record.version,
        date=record.date,
        lenient=lenient,
        missing=conversion.missing,
        records=conversion.records,
        hyper_parameters=released.hyper_parameters,
    )


def _save(folder: Path, model: CARZeroModel, processor: CARZeroProcessor, report: ConversionReport) -> None:
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # its way of saying that the disk is full
        raise OSError(str(error)) from error
    processor.save_pretrained(folder)
    saved = {name: value for name, value in report.to_dict().items() if name != "out"}  # folders get moved
    (folder / REPORT_NAME).write_text(json.dumps(saved, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        # safetensors lets its files be read by their owner only.
        file.chmod((folder / REPORT_NAME).stat().st_mode)


def _check_saved(folder: Path, model: CARZeroModel, processor: CARZeroProcessor) -> None:
    """Loads the folder back and compares every tensor, the vocabulary, and the tokens of a text made of it."""
    loaded, info = CARZeroModel.from_pretrained(folder, output_loading_info=True, local_files_only=True)
    complete = not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    wanted, got = model.state_dict(), loaded.state_dict()
    if not complete or wanted.keys() != got.keys() or not all(torch.equal(wanted[name], got[name]) for name in wanted):
        raise _differs("The converted weights differ once they are loaded back")
    tokenizer = CARZeroProcessor.from_pretrained(folder, local_files_only=True).tokenizer
    given = processor.tokenizer
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
