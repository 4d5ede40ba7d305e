"""How weights want to be asked: the authors' sentences, the cleaning of text, and how prompts become a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from carzero.prompts.prompt_set import DEFAULT_TEMPLATE, NEGATIVE_TEMPLATE, PromptSet
from carzero.records import Pool, ScoreKind


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """What belongs to a family of weights; the defaults are CARZero's.

    Attributes:
        template: sentence with the field {label} that asks for a finding.
        negative: sentence with the field {label} that denies it, for the score kind "logit_difference".
        cleaning: what is done to a text before it is tokenised, a key of `carzero.text.cleaning.CLEANINGS`.
        pool: how the prompts of a label become one.
        score_kind: what the score of a label is; see `carzero.inference.score_kinds`.
        stated: whether the sentences are the authors'; False where they state none, and CARZero's are taken.
    """

    template: str = DEFAULT_TEMPLATE
    negative: str = NEGATIVE_TEMPLATE
    cleaning: str = "carzero"
    pool: Pool = "mean"
    score_kind: ScoreKind = "logit"
    stated: bool = True

    @property
    def is_linted(self) -> bool:
        """Whether the linter knows what becomes of a prompt: it was made for CARZero's cleaning and template."""
        return self.cleaning == "carzero"

    def ask(
        self,
        labels: str | Sequence[str] | None,
        prompts: Mapping[str, object] | PromptSet | None = None,
        template: str | None = None,
        score_kind: ScoreKind | None = None,
    ) -> PromptSet:
        """The prompt set of labels or prompts, one of the two, in this style.

        Args:
            labels: findings; each is put into `template` and, denied, into `negative`.
            prompts: `{label: [prompt, ...]}`, or a prompt set.
            template: instead of the style's own; its negation is then "no" before the label.
            score_kind: None is the style's own, or "logit_difference" where a prompt set asks for that already.

        Raises:
            PromptError: neither is given, or both are, or the words cannot be asked.
        """
        if isinstance(prompts, PromptSet) and score_kind is None and prompts.score_kind != "logit":
            score_kind = prompts.score_kind
        chosen = self.template if template is None else template
        asked = PromptSet.from_request(
            labels,
            self.check(prompts) if isinstance(prompts, PromptSet) else prompts,
            chosen,
            score_kind=score_kind or self.score_kind,
            negative=self.negative if chosen == self.template else chosen.replace("{label}", "no {label}"),
            cleaning=self.cleaning,
        )
        return replace(asked, score_kind=score_kind or self.score_kind)

    def check(self, prompt_set: PromptSet) -> PromptSet:
        """Returns a prompt set whose words can be asked in this style.

        Raises:
            PromptError: a prompt has nothing left once it is cleaned.
        """
        return replace(prompt_set, cleaning=self.cleaning)


CARZERO_STYLE = PromptStyle()
