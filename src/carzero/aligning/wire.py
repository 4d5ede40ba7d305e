"""The chat completions protocol: what is sent as JSON, and what comes back, read without trust."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from carzero.aligning.cache import KeptAnswer

__all__ = ["ANSWER_FORMS", "read_completion", "to_body"]

# How a server may be asked for JSON of a form, the strictest first: OpenAI, vLLM, Ollama, LM Studio and llama.cpp's own
# server know the first; llama-cpp-python's the second; the rest is for servers that constrain less or nothing.
ANSWER_FORMS = ("json_schema", "json_object with schema", "json_object", "no response_format")


def to_body(request: Mapping[str, Any], form: str, limit_field: str) -> dict[str, Any]:
    """The body of a request for a chat completion.

    Args:
        request: `model`, `messages`, options, `max_tokens`, and the `schema` of the answer.
        form: one of `ANSWER_FORMS`.
        limit_field: "max_tokens", or "max_completion_tokens" as newer models of OpenAI call it.
    """
    body = {key: value for key, value in request.items() if key not in ("schema", "max_tokens")}
    body[limit_field] = request["max_tokens"]
    schema = request["schema"]
    if form == "json_schema":
        described = {"name": "report_findings", "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": described}
    elif form == "json_object with schema":
        body["response_format"] = {"type": "json_object", "schema": schema}
    elif form == "json_object":
        body["response_format"] = {"type": "json_object"}
    return body


def read_completion(body: bytes) -> KeptAnswer | None:
    """The answer in a response's body, or None where the body is no chat completion."""
    try:
        response = json.loads(body)
        choice = response["choices"][0]
        content, refusal = (choice["message"].get(name) for name in ("content", "refusal"))
        reason = choice.get("finish_reason")
        usage = response.get("usage") or {}
        tokens = [_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return None
    if refusal or reason == "content_filter":
        return KeptAnswer("", "refused", *tokens)
    if reason == "length":
        return KeptAnswer("", "cut_off", *tokens)
    if content is None or content == "":
        return KeptAnswer("", "empty", *tokens)
    # JSON can hold lone surrogates; UTF-8, in which answers are kept, cannot.
    return KeptAnswer(content.encode("utf-8", "replace").decode(), "", *tokens) if isinstance(content, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else None
