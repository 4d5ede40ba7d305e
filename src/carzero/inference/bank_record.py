"""What a folder of encoded prompts says of itself. It is read without torch, before any image is.

The folder holds `bank.json`, with the prompts and what the weights are, and the tensors (`inference/prompt_bank`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from carzero.core.documents import check_folder_files, load_json_object
from carzero.core.outputs import check_folder, refuse_existing
from carzero.errors import PromptError, describe, refuse_broken
from carzero.prompts import PromptSet
from carzero.records import to_score_kind
from carzero.text.cleaning import CLEANINGS

RECORD_FILE, TENSORS_FILE = "bank.json", "bank.safetensors"


@dataclass(frozen=True, slots=True)
class BankKey:
    """What encoded prompts depend on, beside the prompts.

    Attributes:
        weights_sha256: hash of the weights that encoded them.
        backend: engine that encoded them.
        dtype: precision they are kept in.
        carzero_version: of the package that wrote them.
    """

    weights_sha256: str
    backend: str
    dtype: str
    carzero_version: str


def is_bank(path: str | Path) -> bool:
    """Whether a path is a folder that `save_bank` wrote."""
    return (Path(path) / RECORD_FILE).is_file()


def check_bank_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuses a folder where no bank could be written, or where one is that must stay.

    Raises:
        OutputError: as said.
    """
    check_folder(folder)
    refuse_existing([folder / RECORD_FILE], overwrite=overwrite)


def load_bank_prompts(folder: str | Path) -> PromptSet:
    """Reads what a bank asks; torch is not needed for it.

    Raises:
        PromptError: the folder holds no bank, or its record was changed.
    """
    return read_record(Path(folder))[1]


def read_record(folder: Path) -> tuple[Mapping[str, object], PromptSet]:
    """What a bank says of itself, and what it asks.

    Raises:
        PromptError: as for `load_bank_prompts`.
    """
    with whole_bank(folder):
        check_folder_files(folder, error=PromptError)
        record = load_json_object(folder / RECORD_FILE, error=PromptError)
        prompts = record["prompts"]
        if not isinstance(prompts, dict):
            raise ValueError("prompts that are not an object")
        kind, cleaning = to_score_kind(record) or "logit", str(record.get("cleaning", "carzero"))
        if cleaning not in CLEANINGS:
            raise ValueError(f"an unknown cleaning {cleaning!r}")
        prompt_set = PromptSet.from_request(None, PromptSet.from_mapping(prompts, cleaning=cleaning), score_kind=kind)
    if record.get("prompts_sha256") != prompt_set.hash:
        raise damaged_bank(folder, "its prompts were changed")
    return record, prompt_set


def check_key(folder: Path, found: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Refuses a bank that other weights made, or in another way.

    Raises:
        PromptError: so it is.
    """
    differing = [name for name in wanted if found.get(name) != wanted[name]]
    if differing:
        raise PromptError(
            describe(
                f"The prompt bank {folder} is stale: it was made by other weights or in another way",
                got={name: found.get(name) for name in differing},
                expected=str({name: wanted[name] for name in differing}),
                then="make it again with `carzero prompts encode`, with the --weights and --dtype of this run",
            )
        )


_EXPECTED = f"{RECORD_FILE} and {TENSORS_FILE} as `carzero prompts encode` writes them"
_ANEW = "make it again with `carzero prompts encode`"


def whole_bank(folder: Path) -> AbstractContextManager[None]:
    """What a reader of a bank meets in it, as a PromptError."""
    return refuse_broken(f"{folder} is not a whole prompt bank", error=PromptError, expected=_EXPECTED, then=_ANEW)


def damaged_bank(folder: Path, why: str) -> PromptError:
    """The error for a bank whose parts do not belong together; the caller raises it."""
    return PromptError(describe(f"{folder} is not a whole prompt bank", got=why, expected=_EXPECTED, then=_ANEW))
