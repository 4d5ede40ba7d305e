"""Questions to a language model: the instruction, a report as data, and the form of the answer."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from carzero.errors import ConfigurationError, describe
from carzero.reports.vocabulary import load_vocabulary
from carzero.structuring.answers import build_schema

_NAMES = "{{names}}"
_MAX_INSTRUCTION_CHARS = 50_000
_BUNDLED = "instruction-v1.md"

# Square brackets are special to templates only as [INST] and the like; "[XXXX]" of a report changes as little.
_BRACKETED = re.compile(r"\[(/?[A-Z_]{3,})\]")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BLANK_KINDS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Instruction:
    """What the model is told to do.

    Attributes:
        name: "v1" for the bundled one, else the file's name.
        text: the whole of it, names of findings filled in.
    """

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Identity of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Options:
    """How an answer is drawn. The defaults ask for the likeliest answer, the same each time as far as servers go."""

    temperature: float = 0.0
    seed: int = 0
    max_tokens: int = 2048


def load_instruction(path: Path | None = None) -> Instruction:
    """Reads an instruction.

    Args:
        path: a UTF-8 file, in which "{{names}}" stands for the vocabulary's findings; None for the bundled one.

    Raises:
        ConfigurationError: the file cannot be read, is empty or too long.
    """
    if path is None:
        name, text = "v1", resources.files("carzero.structuring").joinpath(_BUNDLED).read_text(encoding="utf-8")
    else:
        try:
            name, text = path.name, path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                describe(f"The instruction {path} cannot be read", got=str(error), expected="a text file in UTF-8")
            ) from error
    if not text.strip() or len(text) > _MAX_INSTRUCTION_CHARS:
        raise ConfigurationError(
            describe(
                f"The instruction {path} is empty or too long",
                got=len(text),
                expected=f"1 to {_MAX_INSTRUCTION_CHARS} characters",
            )
        )
    return Instruction(name, text.replace(_NAMES, ", ".join(load_vocabulary().findings)).strip())


def neutralise(text: str) -> str:
    """Takes the power from characters that chat templates and terminals obey; the length stays as it is.

    Angle brackets become ‹ and ›, so no "<|im_start|>", "<s>" or "<start_of_turn>" is left; [INST] becomes (INST);
    control, format and line-separating characters (line feeds and tabs apart) become blanks.
    """
    text = _BRACKETED.sub(r"(\1)", text.replace("<", "‹").replace(">", "›"))
    return _NOT_ASCII.sub(_blank_if_unseen, _CONTROL.sub(" ", text))


def build_request(
    instruction: Instruction, report: str, model: str, options: Options, *, attempt: int = 0, refusal: str = ""
) -> dict[str, object]:
    """Builds a question, ready for `ChatClient.complete` and `request_key`.

    The report stands between two markers that carry a hash of it, which no report can hold by itself.

    Args:
        instruction: what to do.
        report: what is shown of the report.
        model: the model's name.
        options: how the answer is drawn.
        attempt: 0 for the first; it is added to the seed, so that a repeated question is another one.
        refusal: why the answer before was not accepted; words of ours, never of the report or the model.
    """
    mark = hashlib.sha256(report.encode("utf-8", "replace")).hexdigest()[:16]
    content = f"BEGIN REPORT {mark}\n{neutralise(report)}\nEND REPORT {mark}"
    if refusal:
        content += f"\n\nAn earlier answer to this was not accepted: {refusal}. Answer with the JSON object alone."
    return {
        "model": model,
        "messages": [{"role": "system", "content": instruction.text}, {"role": "user", "content": content}],
        "temperature": options.temperature,
        "seed": options.seed + attempt,
        "max_tokens": options.max_tokens,
        "schema": build_schema(),
    }


def _blank_if_unseen(match: re.Match[str]) -> str:
    return " " if unicodedata.category(match[0]) in _BLANK_KINDS else match[0]
