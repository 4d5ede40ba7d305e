"""The prompt bank: everything that depends on the prompts alone, encoded once and used for every image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

from carzero.core.atomic import AGAIN, room_for
from carzero.core.documents import parse_json_object
from carzero.core.outputs import make_folder, new_files
from carzero.errors import PromptError, describe
from carzero.inference.bank_record import (
    RECORD_FILE,
    TENSORS_FILE,
    BankKey,
    check_bank_folder,
    check_key,
    damaged_bank,
    read_record,
    whole_bank,
)
from carzero.inference.score_kinds import SCORE_RULES
from carzero.model.alignment import ALIGNMENTS, ScoringTexts
from carzero.model.scoring_model import ScoringModel, device_of
from carzero.processing import CARZeroProcessor
from carzero.prompts import PromptSet
from carzero.records import POOLS, Pool

_TEXTS_AT_ONCE = 64


TextsT_co = TypeVar("TextsT_co", covariant=True)

KindT = TypeVar("KindT")


@dataclass(frozen=True, slots=True)
class PromptBank(Generic[TextsT_co]):
    """Encoded prompts.

    Attributes:
        prompt_set: labels and prompts.
        texts: what the backend that encoded them keeps of all prompts, flattened in order.
        owner: (prompts,) int64 on the CPU, the label that each prompt belongs to.
        denies: (prompts,) bool on the CPU, the prompts that deny their label; see `PromptSet.questions`.
    """

    prompt_set: PromptSet
    texts: TextsT_co
    owner: torch.Tensor
    denies: torch.Tensor

    @property
    def labels(self) -> list[str]:
        """Labels in order."""
        return self.prompt_set.labels

    def texts_as(self, kind: type[KindT]) -> KindT:
        """Returns the texts, which must be of the kind that the backend at hand makes.

        Raises:
            PromptError: another backend encoded the prompts.
        """
        if isinstance(self.texts, kind):
            return self.texts
        raise PromptError(
            describe(
                "These prompts were encoded by another backend",
                got=type(self.texts).__name__,
                expected=kind.__name__,
                then="encode them again, with the weights that are to score",
            )
        )

    def to_scores(self, scores: torch.Tensor, how: Pool) -> torch.Tensor:
        """Joins scores of prompts to scores of labels, as the prompt set's kind of score says.

        Args:
            scores: (I, prompts), or (I, prompts, M) of the M members of an ensemble.
            how: as in `pool`.

        Returns:
            (I, labels).

        Raises:
            ValueError: `how` is not known.
        """
        members = scores if scores.dim() == 3 else scores.unsqueeze(-1)  # (I, prompts, M)
        rule = SCORE_RULES[self.prompt_set.score_kind]
        affirmed = self.pool(members, how)  # (I, labels, M)
        return rule.join(affirmed, self._join(members, how, self.denies) if rule.denies else affirmed)  # (I, labels)

    @property
    def group(self) -> torch.Tensor:
        """(prompts,) int64: prompts with equal numbers say the same of one label."""
        numbers: torch.Tensor = torch.unique(2 * self.owner + self.denies, return_inverse=True)[1]
        return numbers

    def merged(self, texts: KindT) -> PromptBank[KindT]:
        """The bank in which each group of prompts is one text."""
        groups = torch.unique(2 * self.owner + self.denies)
        return PromptBank(self.prompt_set, texts, groups // 2, groups % 2 == 1)

    def pool(self, values: torch.Tensor, how: Pool) -> torch.Tensor:
        """Joins what prompts that affirm one label have: (I, prompts, ...) to (I, labels, ...).

        "text" is a mean of what was merged.

        Raises:
            ValueError: `how` is not known.
        """
        return self._join(values, how, ~self.denies)

    def _join(self, values: torch.Tensor, how: Pool, chosen: torch.Tensor) -> torch.Tensor:
        if how not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}; got {how!r}.")
        groups = [values[:, (self.owner == index) & chosen] for index in range(len(self.labels))]
        return torch.stack([g.amax(dim=1) if how == "max" else g.mean(dim=1) for g in groups], dim=1)


@dataclass(frozen=True, slots=True)
class TorchTexts:
    """Encoded prompts of a torch model: what its alignment prepared, in groups."""

    groups: tuple[ScoringTexts, ...]


def build_bank(prompt_set: PromptSet, texts: KindT) -> PromptBank[KindT]:
    """Joins prompts and what a backend made of them."""
    asked = prompt_set.questions
    owner, denies = torch.tensor([each.label for each in asked]), torch.tensor([each.denies for each in asked])
    return PromptBank(prompt_set, texts, owner, denies)


def unmergeable(what: str) -> PromptError:
    """The error for weights whose prompts cannot become one text."""
    return PromptError(
        describe(
            'The pool "text" needs a model with one vector per text',
            got=what,
            expected="a CLIP, a SigLIP, CheXzero or BioViL",
            then='take "mean" or "max"',
        )
    )


def encode_prompts(model: ScoringModel, processor: CARZeroProcessor, prompt_set: PromptSet) -> PromptBank[TorchTexts]:
    """Encodes a prompt set on the model's device; `texts` is what the model prepares.

    Raises:
        PromptError: a prompt is longer than the model reads.
    """
    device = device_of(model)
    batches = token_batches(processor, prompt_set)
    groups = model.prepare_prompts((ids.to(device), mask.to(device)) for ids, mask in batches)
    return build_bank(prompt_set, TorchTexts(groups))


def token_batches(processor: CARZeroProcessor, prompt_set: PromptSet) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Tokenises all prompts in order, some dozens at once: `input_ids` and `attention_mask`, each (T, W).

    Raises:
        PromptError: a prompt is longer than the model reads.
    """
    texts = [question.text for question in prompt_set.questions]
    for text in texts:
        _check_length(processor, text)
    tokens = processor.tokenize(texts)
    yield from zip(
        tokens["input_ids"].split(_TEXTS_AT_ONCE), tokens["attention_mask"].split(_TEXTS_AT_ONCE), strict=True
    )


def _check_length(processor: CARZeroProcessor, text: str) -> None:
    count = processor.count_tokens(text)
    if count > processor.max_text_length:
        raise PromptError(
            describe(
                f"A prompt has {count} tokens, more than the model reads",
                got=text,
                expected=f"at most {processor.max_text_length} tokens",
                then="ask in fewer words, or split it into several prompts",
            )
        )


_KEY = "key"  # of the tensors' own header, so that record and tensors of two banks cannot be mixed


def check_bank_engine(name: str) -> None:
    """Refuses a backend whose encoded prompts cannot be kept.

    Raises:
        PromptError: it is another than torch.
    """
    if name != "torch":
        raise PromptError(
            describe(
                "Encoded prompts of exported weights cannot be saved",
                got=name,
                expected="weights that torch computes",
                then="export the weights with the prompts baked in: `carzero export --prompts`",
            )
        )


def save_bank(bank: PromptBank[object], folder: Path, key: BankKey, *, overwrite: bool = False) -> None:
    """Writes a bank into a folder: `bank.json`, with the prompts and what the weights are, and `bank.safetensors`.

    Raises:
        OutputError: the folder holds a bank already, or cannot be written.
        PromptError: the weights have no hash, or another backend than torch encoded the prompts.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    check_bank_engine(key.backend)
    if not key.weights_sha256:
        raise PromptError(
            describe("A model made in memory has no hash to keep a bank by", then="save the weights, and load them")
        )
    check_bank_folder(folder, overwrite=overwrite)
    kind, cleaning = bank.prompt_set.score_kind, bank.prompt_set.cleaning
    record = {
        **asdict(key),
        "prompts_sha256": bank.prompt_set.hash,
        **({} if kind == "logit" else {"score_kind": kind}),
        **({} if cleaning == "carzero" else {"cleaning": cleaning}),
    }
    tensors = {
        f"{number}.{type(group).__name__}.{name}": tensor.contiguous()
        for number, group in enumerate(bank.texts_as(TorchTexts).groups)
        for name, tensor in group.tensors().items()
    }
    make_folder(folder)
    with room_for("The prompt bank", folder, AGAIN, also=(SafetensorError,)):
        files = new_files([folder / RECORD_FILE], overwrite=overwrite, beside=[folder / TENSORS_FILE])
        with files as (unfinished, unfinished_tensors):
            save_file(tensors, unfinished_tensors, {_KEY: json.dumps(record)})
            content = json.dumps({**record, "prompts": bank.prompt_set.to_mapping()}, indent=2)
            unfinished.write_text(content, encoding="utf-8")


def load_bank(folder: str | Path, key: BankKey, device: str | torch.device = "cpu") -> PromptBank[TorchTexts]:
    """Reads a bank.

    Args:
        folder: where `save_bank` wrote it.
        key: of the weights that are to use it.
        device: where its tensors go.

    Raises:
        PromptError: the folder holds no bank, or one of other weights, prompts, precision or package version.
    """
    from safetensors import safe_open

    record, prompt_set = read_record(Path(folder))
    check_key(Path(folder), record, {**asdict(key), "prompts_sha256": prompt_set.hash})
    with whole_bank(Path(folder)), safe_open(Path(folder) / TENSORS_FILE, framework="pt", device=str(device)) as file:
        header = parse_json_object((file.metadata() or {}).get(_KEY, "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    if header != {name: record.get(name) for name in header} or not header:
        raise damaged_bank(Path(folder), "tensors and record are of two banks")
    return build_bank(prompt_set, _read_texts(Path(folder), tensors))


def _read_texts(folder: Path, tensors: Mapping[str, torch.Tensor]) -> TorchTexts:
    kinds = {kind.scoring_texts.__name__: kind.scoring_texts for kind in ALIGNMENTS.values()}
    groups: dict[int, tuple[type[ScoringTexts], dict[str, torch.Tensor]]] = {}
    with whole_bank(folder):
        for name, tensor in tensors.items():
            if tensor.isnan().any():  # infinity masks padding
                raise ValueError(f"{name} holds values that are not numbers")
            number, kind, field = name.split(".")
            groups.setdefault(int(number), (kinds[kind], {}))[1][field] = tensor
        return TorchTexts(tuple(kind(**fields) for _, (kind, fields) in sorted(groups.items())))
