"""Prompts: what is asked, under which name."""

from carzero.prompts.prompt_set import DEFAULT_TEMPLATE, PromptSet

__all__ = ["DEFAULT_TEMPLATE", "PromptSet"]
