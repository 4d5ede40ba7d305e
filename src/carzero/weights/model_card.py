"""A model card as the hub reads it: head for machines, then what people must know before they use the weights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from carzero._version import __version__
from carzero.core.documents import load_json_object, parse_json_object
from carzero.core.text_files import decode_text
from carzero.errors import TableError, WeightsError, describe, printable, refuse_broken
from carzero.weights.families import CARZERO, FAMILIES

if TYPE_CHECKING:
    from carzero.weights.source import WeightsSource

_SHOWN = 40  # findings in a list, figures in a table
_TASK = "zero-shot-image-classification"
_SECTION = re.compile(r"^## (Data|Result on validation [a-z]+)\n\n(?:```json\n(.*?)\n```|([^\n`#]+))", re.M | re.S)

LIMITS = (
    "Research software: not a medical device, not for diagnosis.",
    "Scores are raw logits: compare them between images for one finding. Between findings, or as probabilities, they "
    "mean nothing until they are calibrated on images like yours.",
    "A map says where the model looked for a finding, not whether the finding is there.",
    'Denials ("There is no ...") are weak prompts: read absence from a low score.',
    "Words that no training sentence spoke of get a number too, which means nothing.",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured figure of a card.

    Attributes:
        dataset: name of the set it was measured on.
        label: a finding, or "macro".
        metric: a name of `carzero.metrics.METRICS`.
        value: the figure.
        interval: its 95 % interval, or None.
        images: how many it was measured on.
        positives: how many of them have the finding.
    """

    dataset: str
    label: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    images: int
    positives: int


def load_figures(path: Path) -> list[Figure]:
    """Reads AUROC and average precision over all images from the metrics.json of `carzero evaluate`.

    Raises:
        TableError: the file is not one.
    """
    content = load_json_object(path, error=TableError, expected="metrics.json as `carzero evaluate --out` writes it")
    rows = content.get("metrics")
    with refuse_broken(f"{path} is not a table of metrics", error=TableError, then="name a metrics.json"):
        if not isinstance(rows, list):
            raise ValueError('it has no list "metrics"')
        found = [row for row in rows if isinstance(row, dict) and row.get("group") == "all"]
        figures = [_to_figure(row) for row in found if row["metric"] in ("auroc", "average_precision")]
        known = [figure for figure in figures if figure is not None]
        if not known:
            raise ValueError("it holds neither auroc nor average_precision")
    return known


def _to_figure(row: Mapping[str, object]) -> Figure | None:
    value, low, high = (row.get(name) for name in ("value", "ci_low", "ci_high"))
    if not isinstance(value, int | float):  # undefined, as with one kind of label
        return None
    return Figure(
        dataset=str(row["dataset"]),
        label=str(row["label"]),
        metric=str(row["metric"]),
        value=float(value),
        interval=(float(low), float(high)) if isinstance(low, int | float) and isinstance(high, int | float) else None,
        images=int(str(row["n"])),
        positives=int(str(row["n_pos"])),
    )


def write_hub_card(
    source: WeightsSource,
    name: str,
    *,
    licence: str | None,
    data: str = "",
    figures: Sequence[Figure] = (),
    origin: str = "",
) -> str:
    """The text of README.md.

    Args:
        source: the weights.
        name: how they will be called: "owner/name", or a folder's name.
        licence: an identifier of the hub, such as "apache-2.0" or "cc-by-nc-4.0"; None leaves it open, and says so.
        data: what they were trained on, in a sentence or two.
        figures: what was measured with them.
        origin: what they were made from, in a sentence, for weights that were converted.

    Raises:
        WeightsError: the weights are not whole.
    """
    sections = {
        "Use": _use(name, source),
        "The model": _model(source, origin),
        "Data": "\n\n".join(part for part in (printable(data), *_trained(source.folder)) if part) or "Not stated.",
        "Figures": _figures_table(figures) if figures else "None were given. Measure on images of your own.",
        "Prompts": _prompts(source),
        "Limits": "\n".join(f"- {limit}" for limit in LIMITS),
        "Method": "carzero began as an implementation of H. Lai et al., [CARZero: Cross-Attention Alignment for "
        "Radiology Zero-Shot Classification](https://arxiv.org/abs/2402.17417), CVPR 2024. Its version "
        f"{__version__} wrote this card.",
    }
    title = name.rpartition("/")[2]
    lines = [_head(title, licence, figures), "", f"# {title}", ""]
    lines += ["It scores chest radiographs against words, by carzero. **Research software, not for clinical use.**"]
    if licence is None:
        lines += ["", "The licence of these weights is not stated here: ask those who trained them."]
    for heading, content in sections.items():
        lines += ["", f"## {heading}", "", content]
    return "\n".join(lines) + "\n"


def _head(title: str, licence: str | None, figures: Sequence[Figure]) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    results = [
        EvalResult(
            task_type=_TASK,
            dataset_type=re.sub(r"[^a-z0-9]+", "-", figure.dataset.lower()).strip("-") or "own",
            dataset_name=figure.dataset,
            metric_type=figure.metric,
            metric_name=f"{figure.metric} {figure.label}",
            metric_value=round(figure.value, 4),
        )
        for figure in figures
    ]
    data = ModelCardData(
        license=licence,
        library_name="carzero",
        pipeline_tag=_TASK,
        language="en",
        tags=["radiology", "chest-x-ray", "zero-shot", "medical"],
        model_name=title if results else None,
        eval_results=results or None,
    )
    return f"---\n{data.to_yaml()}\n---"


def _use(name: str, source: WeightsSource) -> str:
    label = next(iter(_findings(source)), "pneumonia")
    return (
        "```python\nimport carzero\n\n"
        f'classifier = carzero.ZeroShotClassifier.from_pretrained("{name}")\n'
        f'table = classifier.predict(["chest.dcm"], labels=["{label}"])\n```\n\n'
        f'```\ncarzero predict chest.dcm --labels "{label}" --weights {name}\n```'
    )


def _model(source: WeightsSource, origin: str) -> str:
    pixels = source.pixels
    rows = {"kind": source.family.title}
    if source.family is FAMILIES[CARZERO]:
        config = source.config
        rows |= {
            "image tower": config.vision_config.model_type,
            "text tower": config.text_config.model_type,
            "alignment": config.alignment,
        }
    rows |= {
        "pixels": f"longer side {pixels.resize_px}, centre {pixels.crop_px}, "
        f"mean {pixels.image_mean}, deviation {pixels.image_std}",
        "tokens of a text": str(source.max_text_length),
        "SHA-256 of the weights": f"`{source.sha256}`",
        **({"made from": origin} if origin else {}),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


def _trained(folder: Path) -> Iterator[str]:
    """What the card of a training run says of its data and its validation, without the paths of its recipe."""
    card = folder / "README.md"
    if not card.is_file():
        return
    with refuse_broken(f"{card} is not a text", error=WeightsError):
        text = decode_text(card.read_bytes())
    for heading, written, plain in _SECTION.findall(text):
        if plain and heading != "Data":
            yield f"{heading}: {printable(plain.strip())}"
        elif written:
            with refuse_broken(f"{card} is not as a training run wrote it", error=WeightsError):
                content = parse_json_object(written)
            said = ((name, _to_words(value)) for name, value in content.items())
            yield f"{heading}: " + "; ".join(f"{name}: {words}" for name, words in said if words) + "."


def _to_words(value: object) -> str:
    """A value of a training run's card for people: figures with four digits, lists without brackets, no empty names."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(filter(None, map(_to_words, value)))
    return printable(value) if isinstance(value, str) else json.dumps(value)


def _figures_table(figures: Sequence[Figure]) -> str:
    lines = ["| set | finding | metric | value (95 %) | images | positives |", "|---|---|---|---|---|---|"]
    for figure in figures[:_SHOWN]:
        interval = "" if figure.interval is None else f" ({figure.interval[0]:.3f}-{figure.interval[1]:.3f})"
        cells = (figure.dataset, figure.label, figure.metric, f"{figure.value:.4f}{interval}")
        row = (*cells, str(figure.images), str(figure.positives))
        lines.append("| " + " | ".join(printable(cell).replace("|", "\\|") for cell in row) + " |")
    if len(figures) > _SHOWN:
        lines += ["", f"The first {_SHOWN} of {len(figures)}; all are in the head of this card."]
    return "\n".join(lines)


def _findings(source: WeightsSource) -> list[str]:
    words = source.training_words
    return [] if words is None else sorted(words.findings, key=lambda name: (-words.findings[name], name))


def _prompts(source: WeightsSource) -> str:
    found = _findings(source)
    lines = ['Ask in sentences of the form "There is pneumonia".']
    if found:
        more = f", and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        lines.append(f"The training sentences affirm: {', '.join(found[:_SHOWN])}{more}.")
    else:
        lines.append("What the training sentences spoke of is not recorded with these weights.")
    return " ".join(lines)


def check_licence(licence: str) -> str:
    """The licence as the hub writes it.

    Raises:
        WeightsError: it is not an identifier.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]{1,40}", licence):
        raise WeightsError(
            describe(
                "This is not the identifier of a licence",
                got=licence,
                expected='one of the hub\'s, such as "apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "other"',
                then="name the licence that your data and starting weights allow",
            )
        )
    return licence
