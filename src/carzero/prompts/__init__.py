"""Prompts: what is asked, under which name."""

from carzero.prompts.library import (
    LibraryRecord,
    list_codes,
    list_findings,
    list_prompt_sets,
    load_prompt_set,
    resolve_prompts,
)
from carzero.prompts.lint_finding import LintFinding
from carzero.prompts.prompt_set import DEFAULT_TEMPLATE, Code, LabelEntry, PromptSet
from carzero.prompts.review import PromptReview, PromptWarning, lint
from carzero.prompts.training_words import TrainingWords

__all__ = [
    "DEFAULT_TEMPLATE",
    "Code",
    "LabelEntry",
    "LibraryRecord",
    "LintFinding",
    "PromptReview",
    "PromptSet",
    "PromptWarning",
    "TrainingWords",
    "lint",
    "list_codes",
    "list_findings",
    "list_prompt_sets",
    "load_prompt_set",
    "resolve_prompts",
]
