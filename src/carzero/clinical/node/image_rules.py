"""Which images are scored: rules of a file, the first that fits decides."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from carzero.core.documents import load_yaml
from carzero.errors import ConfigurationError, describe, refuse_broken

Action = Literal["score", "ignore"]


class Rule(BaseModel):
    """One rule.

    Attributes:
        when: DICOM keyword to patterns (`*` and `?`), of which one must fit the attribute; all keywords must. `Origin`
            is who sent the image. No keyword fits every image.
        then: what is done.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    when: dict[str, str | list[str]] = {}
    then: Action

    def fits(self, header: Dataset, origin: str) -> bool:
        """Whether it is about an image."""
        return all(self._fits(name, patterns, header, origin) for name, patterns in self.when.items())

    @staticmethod
    def _fits(name: str, patterns: str | list[str], header: Dataset, origin: str) -> bool:
        value = origin if name == "Origin" else str(header.get(name) or "")
        wanted = [patterns] if isinstance(patterns, str) else patterns
        return any(fnmatchcase(value.strip().upper(), pattern.upper()) for pattern in wanted)


class Rules(BaseModel):
    """All rules, in their order; an image that no rule is about is scored."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rules: list[Rule] = []

    def decide(self, header: Dataset, origin: str) -> Action:
        """What is done with an image."""
        return next((rule.then for rule in self.rules if rule.fits(header, origin)), "score")


def load_rules(path: Path) -> Rules:
    """Reads rules, YAML or JSON: `rules: [{when: {BodyPartExamined: [CHEST, THORAX]}, then: score}, {then: ignore}]`.

    Raises:
        ConfigurationError: the file cannot be read, or holds something else, or a keyword that DICOM does not have.
    """
    expected = "rules: [{when: ..., then: score}]"
    content = load_yaml(path, "The file of rules", error=ConfigurationError, expected=expected)
    with refuse_broken(f"{path} holds no rules", error=ConfigurationError, expected=expected):
        rules = Rules.model_validate(content or {})
    for rule in rules.rules:
        unknown = [name for name in rule.when if name != "Origin" and tag_for_keyword(name) is None]
        if unknown:
            raise ConfigurationError(
                describe("A rule asks for an unknown attribute", got=unknown, expected="DICOM keywords, or Origin")
            )
    return rules
