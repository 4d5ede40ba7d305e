"""The released models that are known: whose they are, what they may be used for, how to get them, what was verified.

Nothing is downloaded by looking at it.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from importlib import resources

from carzero.errors import ConfigurationError, describe


@dataclass(frozen=True, slots=True)
class PublishedFigure:
    """One figure that somebody printed.

    Attributes:
        dataset: the test set.
        value: AUROC, or what `metric` says.
        source: who printed it, under which protocol.
        metric: "auroc" or "pointing".
        classes: how many findings, or which.
    """

    dataset: str
    value: float
    source: str
    metric: str = "auroc"
    classes: str = ""


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A released model.

    Attributes:
        name: what `carzero models show` takes.
        title: what it is called.
        paper: where it was published.
        architecture: towers and image size.
        alignment: how image and text become a score.
        size: parameters.
        trained_on: its training data.
        code_licence: of the authors' code, of which nothing is in this package.
        weights_licence: of the weights, which a user brings.
        source: where it is.
        get: how to get the files.
        convert: the command that makes a folder of weights of them.
        prompts: how its authors ask.
        maps: what its maps are.
        verified: what this package has verified, and how.
        published: figures.
    """

    name: str
    title: str
    paper: str
    architecture: str
    alignment: str
    size: str
    trained_on: str
    code_licence: str
    weights_licence: str
    source: str
    get: str
    convert: str
    prompts: str
    maps: str
    verified: str
    published: tuple[PublishedFigure, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values, ready for JSON."""
        return asdict(self)


def list_models() -> list[KnownModel]:
    """Every model that is known, the package's own first."""
    return [_to_model(name, entry) for name, entry in _read().items()]


def find_model(name: str) -> KnownModel:
    """Finds a model by its name.

    Raises:
        ConfigurationError: there is none of that name.
    """
    known = _read()
    if name not in known:
        close = get_close_matches(name, known, n=1)
        raise ConfigurationError(
            describe(
                "No model of this name is known",
                got=name,
                expected=f"one of {', '.join(known)}",
                then=f'did you mean "{close[0]}"?' if close else "see `carzero models list`",
            )
        )
    return _to_model(name, known[name])


@functools.cache
def _read() -> Mapping[str, Mapping[str, object]]:
    import yaml

    text = resources.files("carzero.weights").joinpath("models.yaml").read_text(encoding="utf-8")
    content: Mapping[str, Mapping[str, object]] = yaml.safe_load(text)
    return content


def _to_model(name: str, entry: Mapping[str, object]) -> KnownModel:
    licence, published = entry["licence"], entry["published"]
    if not isinstance(licence, dict) or not isinstance(published, list):
        raise TypeError(f"models.yaml: {name} has no licence or no list of figures")
    plain = {field.name: str(entry[field.name]).strip() for field in fields(KnownModel) if field.name in entry}
    plain.pop("published")
    return KnownModel(
        name=name,
        code_licence=str(licence["code"]),
        weights_licence=str(licence["weights"]),
        published=tuple(_to_figure(each) for each in published),
        **plain,
    )


def _to_figure(entry: Mapping[str, object]) -> PublishedFigure:
    return PublishedFigure(
        dataset=str(entry["set"]),
        value=float(str(entry["value"])),
        source=str(entry["source"]),
        metric=str(entry.get("metric", "auroc")),
        classes=str(entry.get("classes", "")),
    )
