"""What the sentences that weights were trained on spoke of, kept beside the weights: what else is asked is unfamiliar.

The file `training_words.json` names the findings of the vocabulary that some sentence affirms, and holds hashes of
the wordings and of the words that the vocabulary does not know; no sentence can be read back from it. It is bound to
its weights by their SHA-256 and takes no part in that hash: no score depends on it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from carzero.core.atomic import replace_when_done
from carzero.core.documents import parse_json_object
from carzero.errors import WeightsError, refuse_broken
from carzero.reports.naming import Wording, read_wording
from carzero.reports.rules import find_findings

FILE_NAME = "training_words.json"

_FORMAT = 1
_DIGITS = 16  # hexadecimal, of a hash
_MOST = 20_000  # hashes of a kind; the most frequent are kept
_MOST_SENTENCES = 200_000  # that are read; the most frequent
_LIMIT_BYTES = 1 << 23


@dataclass(frozen=True, slots=True)
class TrainingWords:
    """What training sentences spoke of.

    Attributes:
        findings: of the vocabulary, that some sentence affirms or suspects, to how often an image had such a sentence;
            an image counts once for each of its sentences.
        words: hashes of words that the vocabulary does not know.
        wordings: hashes of what whole sentences are about, see `carzero.reports.naming`.
        sentences: how many different ones were read.
        weights_sha256: of the weights that were trained on them; "" before they are saved.
    """

    findings: Mapping[str, int]
    words: frozenset[str]
    wordings: frozenset[str]
    sentences: int
    weights_sha256: str = ""

    @classmethod
    def of(cls, sentences: Mapping[str, int], *, least: int = 1) -> TrainingWords:
        """Reads sentences.

        Args:
            sentences: each with the number of images that it was trained to hold for.
            least: images of which a wording or an unknown word must have been said to be kept: what was written once
                may be a name.
        """
        findings: Counter[str] = Counter()
        words: Counter[str] = Counter()
        wordings: Counter[str] = Counter()
        frequent = sorted(sentences.items(), key=lambda item: (-item[1], item[0]))
        for sentence, images in islice(frequent, _MOST_SENTENCES):
            for name in {one.finding for one in find_findings(sentence) if one.presence != "absent"}:
                findings[name] += images
            wording = read_wording(sentence)
            words.update(dict.fromkeys(wording.unknown, images))
            wordings.update(dict.fromkeys(_write(wording)[:1], images))
        return cls(
            dict(sorted(findings.items())),
            frozenset(_hash(word) for word in _frequent(words, least)),
            frozenset(_hash(content) for content in _frequent(wordings, least)),
            len(sentences),
        )

    def joined(self, other: TrainingWords) -> TrainingWords:
        """What these sentences and others speak of together, as when weights are trained further."""
        return TrainingWords(
            dict(sorted((Counter(self.findings) + Counter(other.findings)).items())),
            self.words | other.words,
            self.wordings | other.wordings,
            self.sentences + other.sentences,
        )

    def find_unfamiliar(self, prompt: str) -> list[str]:
        """What a prompt asks for that no sentence spoke of: findings and words; none where the prompt is familiar.

        A prompt that names nothing at all ("There is left") is unfamiliar as a whole.
        """
        wording = read_wording(prompt)
        if any(_hash(written) in self.wordings for written in _write(wording)):
            return []
        strange = sorted({min(names) for names in wording.named if names.isdisjoint(self.findings)})
        strange += [word for word in sorted(wording.unknown) if _hash(word) not in self.words]
        if strange or wording.named or wording.unknown:
            return strange
        return [" ".join(wording.content) or prompt]

    def save(self, folder: Path, weights_sha256: str) -> None:
        """Writes the file into the folder of the weights that have this hash."""
        content = {
            "format": _FORMAT,
            "weights_sha256": weights_sha256,
            "sentences": self.sentences,
            "findings": dict(self.findings),
            "words": sorted(self.words),
            "wordings": sorted(self.wordings),
        }
        with replace_when_done(folder / FILE_NAME) as target:
            target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_training_words(folder: Path) -> TrainingWords | None:
    """Reads the file in a folder of weights; None where there is none.

    Raises:
        WeightsError: it is not what this version writes.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    with refuse_broken(
        f"{path} cannot be read",
        error=WeightsError,
        expected=f"format {_FORMAT} of what `carzero train` writes beside weights",
        then="take the file that came with the weights, or delete it: no score depends on it",
    ):
        if path.stat().st_size > _LIMIT_BYTES:
            raise ValueError(f"more than {_LIMIT_BYTES:,} bytes")
        return _decode(parse_json_object(path.read_bytes()))


def _decode(content: dict[str, object]) -> TrainingWords:
    if content.get("format") != _FORMAT:
        raise ValueError(f"format {content.get('format')}")
    findings, sentences, sha256 = content.get("findings"), content.get("sentences"), content.get("weights_sha256")
    if not isinstance(findings, dict) or not all(isinstance(count, int) for count in findings.values()):
        raise ValueError("findings without numbers of images")
    if not isinstance(sentences, int) or not isinstance(sha256, str):
        raise ValueError("no number of sentences, or no hash of the weights")
    words, wordings = (_decode_hashes(content.get(name), name) for name in ("words", "wordings"))
    return TrainingWords(findings, words, wordings, sentences, sha256)


def _decode_hashes(value: object, name: str) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) and len(each) == _DIGITS for each in value):
        raise ValueError(f"{name} that are not hashes")
    return frozenset(value)


def _write(wording: Wording) -> list[str]:
    """What a wording is about as a text; of a denial also what it denies, which is asked by the same words."""
    content = " ".join(wording.content)
    if not content:
        return []
    return [f"no {content}", content] if wording.is_denied else [content]


def _frequent(counts: Counter[str], least: int) -> list[str]:
    kept = sorted((key for key, images in counts.items() if images >= least), key=lambda key: (-counts[key], key))
    return kept[:_MOST]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
