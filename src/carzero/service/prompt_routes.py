"""The routes about words: what can be asked, and what is to be known of it."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated

from fastapi import APIRouter, Query

from carzero.errors import PromptError
from carzero.prompts import LintFinding, PromptSet, TrainingWords, lint, list_codes, list_findings
from carzero.service.engine import Engine
from carzero.service.openapi import problems
from carzero.service.schemas import (
    FindingCode,
    LintAnswer,
    LintedLabel,
    LintRequest,
    Remark,
    SuggestAnswer,
    Suggestion,
)
from carzero.service.served_weights import ServedWeights

_CLOSE = 0.75


def build_prompt_routes(engine: Engine) -> APIRouter:
    """The routes, for an engine."""
    router = APIRouter(prefix="/v1/prompts", tags=["words"])

    @router.get("/suggest", responses=problems(422))
    def suggest(
        q: Annotated[str, Query(max_length=100, description="The beginning of a finding.")] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
        model: Annotated[str | None, Query(max_length=200, description="Weights by name.")] = None,
    ) -> SuggestAnswer:
        """Findings of the prompt library that fit what was typed."""
        known = engine.find_weights(model).source.training_words
        found = find_suggestions(q, limit)
        return SuggestAnswer(suggestions=[_to_suggestion(name, matched, known) for name, matched in found])

    @router.post("/lint", responses=problems(422))
    def lint_labels(asked: LintRequest) -> LintAnswer:
        """What is to be known of labels before they are asked; a label that cannot be asked is an error among it."""
        weights = engine.find_weights(asked.model)
        style, template = weights.source.style, asked.template or weights.source.style.template
        linted: list[tuple[str, str, str | None]] = []
        usable: dict[str, PromptSet] = {}
        for label in asked.labels:
            try:
                one = style.ask([label], None, asked.template)
                if one.labels[0] in usable:
                    raise PromptError(f"{one.labels[0]!r} is asked already. Leave one of them out.")
                usable[one.labels[0]] = one
                linted.append((label, one.labels[0], None))
            except PromptError as error:
                linted.append((label, label, str(error)))
        together = {name: one.prompts[name] for name, one in usable.items()}
        findings = _lint(PromptSet(together), weights) if usable and style.is_linted else []
        known = weights.source.training_words is not None
        answers = [
            _to_linted(label, usable[name], [each for each in findings if each.label == name], known)
            if refusal is None
            else _refused(label, template, refusal)
            for label, name, refusal in linted
        ]
        return LintAnswer(labels=answers, remarks=[_to_remark(each) for each in findings if not each.label])

    return router


def _lint(prompt_set: PromptSet, weights: ServedWeights) -> list[LintFinding]:
    return lint(prompt_set, weights.source.pieces, weights.source.max_text_length, weights.source.training_words)


def _to_linted(label: str, asked: PromptSet, findings: Sequence[LintFinding], known: bool) -> LintedLabel:
    prompt, *denials = (each.text for each in asked.questions)
    return LintedLabel(
        label=label,
        prompt=prompt,
        negative=denials[0] if denials else None,
        remarks=[_to_remark(each) for each in findings],
        unfamiliar=any(each.rule == "unfamiliar" for each in findings) if known else None,
    )


def _refused(label: str, template: str, refusal: str) -> LintedLabel:
    remark = Remark(code="cannot-be-asked", severity="error", message=refusal)
    prompt = template.replace("{label}", label)
    return LintedLabel(label=label, prompt=prompt, negative=None, remarks=[remark], unfamiliar=None)


def _to_remark(finding: LintFinding) -> Remark:
    return Remark(code=finding.rule, severity=finding.severity, message=finding.message)


def find_suggestions(typed: str, limit: int) -> list[tuple[str, str]]:
    """Findings and the name of each that fits: those that begin so, then words within, then what is spelled alike."""
    wanted = " ".join(typed.lower().split())
    names = [(name, each) for name, others in list_findings().items() for each in (name, *others)]
    ranked = [
        (rank + (name != each), len(each), name, each)
        for name, each in names
        if (rank := _rank(each.lower(), wanted)) is not None
    ]
    best: dict[str, str] = {}
    for _, _, name, each in sorted(ranked):
        best.setdefault(name, each)
    if not best and wanted:
        by_spelling = {each.lower(): (name, each) for name, each in names}
        best = dict(by_spelling[near] for near in get_close_matches(wanted, by_spelling, n=limit, cutoff=_CLOSE))
    return [*best.items()][:limit]


def _rank(name: str, wanted: str) -> int | None:
    """How well a name fits, 0 best; None where it does not."""
    if name.startswith(wanted):
        return 0
    if f" {wanted}" in name:
        return 1
    return 2 if wanted in name else None


def _to_suggestion(name: str, matched: str, known: TrainingWords | None) -> Suggestion:
    code = list_codes().get(name)
    return Suggestion(
        label=name,
        matched=matched,
        synonyms=[*list_findings()[name]],
        code=None if code is None else FindingCode(scheme=code.scheme, value=code.value),
        familiar=None if known is None else not known.find_unfamiliar(f"There is {name}"),
    )
