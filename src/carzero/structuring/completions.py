"""Chat completions as servers take and give them: the body of a request, the answer in a response.

Servers differ in which fields they take and in where they put the answer; everything of that kind stands here. What
comes from a server is parsed and checked for its form; nothing in it is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from carzero.core.documents import parse_json, parse_json_object
from carzero.structuring.answer_cache import KeptAnswer

# How a server may be asked for JSON of a form, the strictest first: OpenAI, vLLM, Ollama, LM Studio and llama.cpp's own
# server know the first; llama-cpp-python's the second; the rest is for servers that constrain less or nothing.
ANSWER_FORMS = ("json_schema", "json_object with schema", "json_object", "no response_format")

# Fields that a request can do without, and what they are called to the user.
LEFT_OUT = {
    "seed": "the field seed (answers may differ from run to run)",
    "temperature": "this temperature (the model's own is used; answers may differ from run to run)",
    "system": "a system message (the instruction is put before the report)",
}
_MENTIONS = {
    "seed": re.compile(r"\bseed\b", re.IGNORECASE),
    "temperature": re.compile(r"\btemperature\b", re.IGNORECASE),
    "system": re.compile(
        r"\bsystem\b.{0,20}\b(?:role|message|prompt|instruction)|\brole\b.{0,40}\bsystem\b"
        r"|developer instruction|roles must alternate",
        re.IGNORECASE,
    ),
}
_SEARCHED = 2000  # characters of a server's message


def to_body(
    request: Mapping[str, object], form: str, limit_field: str, left_out: frozenset[str] = frozenset()
) -> dict[str, object]:
    """The body of a request for a chat completion.

    Args:
        request: `model`, `messages`, options, `max_tokens`, and the `schema` of the answer.
        form: one of `ANSWER_FORMS`.
        limit_field: "max_tokens", or "max_completion_tokens" as newer models of OpenAI call it.
        left_out: keys of `LEFT_OUT`, which the server does not take.
    """
    body = {key: value for key, value in request.items() if key not in ("schema", "max_tokens", *left_out)}
    if "system" in left_out:
        body["messages"] = _join_messages(body["messages"])
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


def find_refused_field(body: bytes) -> str:
    """The key of `LEFT_OUT` that an error message is about; "" where it names none.

    A message that says the field by itself (OpenAI's `param`, FastAPI's `loc`) is believed before one that only
    mentions it.
    """
    text = body.decode("utf-8", "replace")
    try:
        named = set(_named_fields(parse_json(text)))
    except ValueError:
        named = set()
    for field in LEFT_OUT:
        if field in named:
            return field
    if named & {"response_format", "max_tokens", "max_completion_tokens", "model"}:
        return ""  # the message is about something else
    return next((field for field, mention in _MENTIONS.items() if mention.search(text[:_SEARCHED])), "")


def read_completion(body: bytes) -> KeptAnswer | None:
    """The answer in a response's body, or None where the body is not a chat completion.

    Read are a whole response and an event stream; content as a text or as a list of parts; and, where the content is
    empty, `reasoning_content`, into which some servers put all that a model says.
    """
    try:
        text = body.decode("utf-8-sig")
        is_stream = text.lstrip().startswith(("data:", "event:", ":"))
        response: Any = _join_events(text) if is_stream else parse_json(text)
        choice = response["choices"][0]
        message = choice["message"]
        content = _to_text(message.get("content"))
        if not content.strip():
            content = _to_text(message.get("reasoning_content")) or _to_text(message.get("reasoning"))
        refusal, reason = message.get("refusal"), choice.get("finish_reason")
        usage = response.get("usage") or {}
        tokens = [_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens")]
    except Exception:  # another form, at any depth
        return None
    if refusal or reason == "content_filter":
        return KeptAnswer("", "refused", *tokens)
    if reason == "length":
        return KeptAnswer("", "cut_off", *tokens)
    if not content:
        return KeptAnswer("", "empty", *tokens)
    # JSON can hold lone surrogates; UTF-8, in which answers are kept, cannot.
    return KeptAnswer(content.encode("utf-8", "replace").decode(), "", *tokens)


def _join_messages(messages: object) -> list[dict[str, str]]:
    """The system message put in front of the user's, for models that know no such role."""
    if not isinstance(messages, list):
        raise TypeError("messages must be a list")
    return [{"role": "user", "content": "\n\n".join(str(message["content"]) for message in messages)}]


def _named_fields(error: object, depth: int = 0) -> Iterator[str]:
    """Names of request fields in a server's structured error: values of `param`, members of `loc`."""
    if depth > 8:
        return
    if isinstance(error, Mapping):
        for key, value in error.items():
            if key == "param" and isinstance(value, str):
                yield value.split(".")[-1].split("[")[0]
            elif key == "loc" and isinstance(value, list):
                yield from (part for part in value if isinstance(part, str))
            else:
                yield from _named_fields(value, depth + 1)
    elif isinstance(error, list):
        for value in error:
            yield from _named_fields(value, depth + 1)


def _to_text(content: object) -> str:
    """The text of a message's content: a text, or a list of parts of which those of type text are joined.

    Raises:
        TypeError: another form.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TypeError("content is neither a text nor a list of parts")
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif part.get("type") in ("text", "output_text"):
            texts.append(str(part["text"]))
    return "".join(texts)


def _join_events(text: str) -> Any:
    """A stream of server-sent events as one response, as loosely typed as JSON is.

    Raises:
        ValueError: a piece is not JSON, or the stream breaks off before its end.
    """
    contents: list[str] = []
    thoughts: list[str] = []
    usage: object = None
    reason = refusal = ""
    is_done = False
    for line in text.splitlines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            is_done = True
            continue
        piece: Any = parse_json_object(data)
        usage = piece.get("usage") or usage
        for choice in piece.get("choices", [])[:1]:
            said = choice.get("delta") or choice.get("message") or {}
            contents.append(_to_text(said.get("content")))
            thoughts.append(_to_text(said.get("reasoning_content")))
            refusal += said.get("refusal") or ""
            reason = choice.get("finish_reason") or reason
    if not is_done and not reason:
        raise ValueError("the stream breaks off")
    message = {"content": "".join(contents), "reasoning_content": "".join(thoughts), "refusal": refusal}
    return {"choices": [{"message": message, "finish_reason": reason}], "usage": usage}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else None
