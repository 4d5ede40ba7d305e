"""Servers differ in what they take and in how they answer: all of them are read, and none is believed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from carzero.structuring.answer_cache import KeptAnswer
from carzero.structuring.answers import Claim, InvalidAnswerError, read_claims
from carzero.structuring.chat_client import ChatClient, RequestFailedError, Tally
from carzero.structuring.completions import find_refused_field, read_completion
from carzero.structuring.requests import Instruction, Options, build_request
from carzero.structuring.server import RetryPolicy, Server
from tests.support.commands import carzero
from tests.support.stub_server import Fault, Request, claim, completion, running_stub

FIELD = Path(__file__).parent / "fixtures" / "field"
CASES = {case["case"]: case for case in map(json.loads, (FIELD / "llm_answers.jsonl").read_text("utf-8").splitlines())}
ANSWER = {"findings": [claim("There is edema.", "edema", location="", laterality="none", severity="")]}
TEXT = json.dumps(ANSWER)
REFUSED = "refused as it stands"


def refuses(body: dict[str, object], case: str) -> bool:
    """Whether the server of a field case refuses this body."""
    if case.startswith("f22a"):
        return "seed" in body
    return case.startswith("f22b") and body.get("temperature", 1) != 1


@pytest.mark.parametrize("case", CASES)
def test_the_field_s_servers_are_understood(case: str, tmp_path: Path) -> None:
    good = CASES["f21f byte order mark"]["body"]

    def reply(request: Request, earlier: int) -> Fault:
        if case.startswith("f22") and not refuses(request.body, case):
            return Fault(body=json.dumps(good).encode())
        return Fault(CASES[case]["status"], json.dumps(CASES[case]["body"]).encode())

    out = tmp_path / "o.jsonl"
    with running_stub(reply) as stub:
        done = carzero(
            *("reports", "align", FIELD / "llm_report.csv", "--out", out, "--backend", "openai"),
            *("--base-url", stub.base_url, "--model", "tiny"),
        )
    assert done.returncode == 0, done.stderr
    (row,) = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert row["backend"] == "tiny"
    assert row["sentences"] == ["There is small pleural effusion on the left", "There is no pneumothorax"]


ACCEPTED = {
    "plain": TEXT,
    "fence": f"```json\n{TEXT}\n```",
    "fence without a word": f"```\n{TEXT}\n```",
    "tildes": f"~~~JSON\n{TEXT}\n~~~",
    "fence that is not closed": f"```Json5 {TEXT}",
    "words on both sides": f"Sure! Here you are:\n{TEXT}\nLet me know.",
    "byte order mark in a fence": f"\ufeff```json\n{TEXT}```",
    "zero width": f"\u200b{TEXT}\u200b",
    "thought": f'<think>{{"findings": []}} or rather more</think>{TEXT}',
    "thought in capitals": f"<THINKING>\nhm\n</THINKING>\n\n{TEXT}",
    "thought without a beginning": f"so it is edema.</think>\n{TEXT}",
    "two thoughts": f"<think>a</think><think>b</think>{TEXT}",
    "the same twice": f"{TEXT}\n{TEXT}",
    "blanks in the braces": '{ \n "findings"' + TEXT.removeprefix('{"findings"'),
    "braces before": f"{{x}} {{}} {TEXT}",
}
NOT_READ = {
    "a thought that does not end": "<think>is it edema?",
    "two that differ": f'{TEXT} or {{"findings": []}}',
    "python": TEXT.replace('"', "'"),
    "code": f"json.loads('{TEXT[:-1]}')",
    "cut": TEXT[:-3],
    "a hundred beginnings": '{"findings" ' * 100 + TEXT,
    "blanks": '{"findings"' + " " * 60_000,
    "braces": "{" * 60_000,
    "thoughts": "<think>" * 9_000,
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_answer_is_found_among_other_words(name: str) -> None:
    assert read_claims(KeptAnswer(ACCEPTED[name], "", None, None)) == [Claim(**ANSWER["findings"][0])]


@pytest.mark.parametrize("name", NOT_READ)
def test_what_is_not_one_answer_is_refused(name: str) -> None:
    with pytest.raises(InvalidAnswerError):
        read_claims(KeptAnswer(NOT_READ[name], "", None, None))


def event(**fields: object) -> str:
    return "data: " + json.dumps({"choices": [{"index": 0, **fields}]}) + "\n\n"


HALVES = (TEXT[:9], TEXT[9:])
BODIES: dict[str, str] = {
    "a list of parts": json.dumps(
        {"choices": [{"message": {"content": [{"type": "text", "text": half} for half in HALVES]}}]}
    ),
    "a thought among the parts": json.dumps(
        {
            "choices": [
                {"message": {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": TEXT}]}}
            ]
        }
    ),
    "reasoning_content": json.dumps({"choices": [{"message": {"content": None, "reasoning_content": TEXT}}]}),
    "reasoning": json.dumps({"choices": [{"message": {"content": "", "reasoning": TEXT}}]}),
    "byte order mark": "\ufeff" + json.dumps({"choices": [{"message": {"content": TEXT}}]}),
    "event stream": "".join(event(delta={"content": half}) for half in HALVES)
    + event(delta={}, finish_reason="stop")
    + "data: [DONE]\n\n",
    "event stream with comments": ": keep-alive\n\n"
    + event(delta={"role": "assistant", "content": None})
    + event(delta={"content": TEXT}, finish_reason="stop"),
    "event stream of whole messages": event(message={"content": TEXT}, finish_reason="stop"),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_response_is_read_in_every_form(name: str) -> None:
    answer = read_completion(BODIES[name].encode())
    assert answer is not None
    assert (answer.content, answer.fault) == (TEXT, "")


@pytest.mark.parametrize(
    "body",
    [
        event(delta={"content": TEXT}),  # breaks off
        "data: {\n\ndata: [DONE]\n\n",
        '{"choices": [{"message": {"content": 5}}]}',
        '{"choices": [{"message": {"content": [{"type": "text"}]}}]}',
        '{"choices": []}',
        "data:",
        "[" * 100_000,
    ],
)
def test_what_is_no_response_is_none(body: str) -> None:
    assert read_completion(body.encode()) is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (CASES["f22a while the body has seed"]["body"], "seed"),
        (CASES["f22b while temperature is not 1"]["body"], "temperature"),
        ({"error": {"message": "Unrecognized request argument supplied: seed"}}, "seed"),
        ({"detail": [{"loc": ["body", "temperature"], "msg": "Extra inputs are not permitted"}]}, "temperature"),
        ({"error": {"message": "Conversation roles must alternate user/assistant/user/assistant/..."}}, "system"),
        ({"error": "System role not supported"}, "system"),
        ({"error": {"message": "Developer instruction is not enabled for this model"}}, "system"),
        ({"error": {"param": "messages[0].role", "message": "does not support 'system' with this model"}}, "system"),
        ({"error": {"param": "response_format", "message": "not with this seed"}}, ""),
        ({"error": {"message": "maximum context length is 512 tokens"}}, ""),
        ({"error": {"message": "the seedling grows"}}, ""),
    ],
)
def test_the_field_at_fault_is_read_from_the_message(body: object, field: str) -> None:
    assert find_refused_field(json.dumps(body).encode()) == field


class PickyServer:
    """Refuses fields one after another, and counts what it is asked."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.bodies: list[dict[str, object]] = []

    def __call__(self, request: Request, earlier: int) -> Fault | bytes:
        self.bodies.append(request.body)
        for field in self.refused:
            if field in ("seed", "temperature", "response_format") and field in request.body:
                return Fault(400, json.dumps({"error": {"message": f"unknown argument: {field}"}}).encode())
            if field == "system" and request.body["messages"][0]["role"] == "system":
                return Fault(400, b'{"error": {"message": "system role not supported"}}')
            if field == REFUSED:
                return Fault(400, b'{"error": {"message": "the moon is not right"}}')
        return completion(TEXT)

    def ask(self, *reports: str) -> list[str]:
        notes: list[str] = []

        async def work(base_url: str) -> None:
            server = Server(base_url, "tiny", retries=RetryPolicy(2, 0.001, 0.002))
            async with ChatClient(server, Tally(), notes.append) as client:
                for report in reports:
                    request = build_request(Instruction("test", "Answer in JSON."), report, "tiny", Options())
                    await client.complete(request)

        with running_stub(self) as stub:
            asyncio.run(work(stub.base_url))
        return notes


def test_refused_fields_are_left_out_once_and_remembered() -> None:
    server = PickyServer("seed", "temperature", "system")
    notes = server.ask("The heart is enlarged.", "There is edema.")
    assert len(server.bodies) == 5  # three refusals, and an answer to each report
    last = server.bodies[-1]
    assert "seed" not in last
    assert "temperature" not in last
    assert [message["role"] for message in last["messages"]] == ["user"]  # type: ignore[attr-defined]
    assert "Answer in JSON." in last["messages"][0]["content"]  # type: ignore[index]
    assert last["response_format"]["type"] == "json_schema"  # type: ignore[index]
    assert len(notes) == 3
    assert all("asked without it" in note for note in notes)


@pytest.mark.parametrize(
    "refused",
    [
        ("seed",),
        ("temperature",),
        ("system",),
        ("response_format",),
        ("system", "response_format"),
        ("seed", "temperature", "system", "response_format"),
    ],
    ids="+".join,
)
def test_each_field_that_is_refused_is_left_out(refused: tuple[str, ...]) -> None:
    server = PickyServer(*refused)
    notes = server.ask("The heart is enlarged.", "There is edema.")
    assert len(notes) == len(refused)
    assert len(server.bodies) <= 2 + len(refused) + 2  # a format is asked for in three ways
    for body in server.bodies[-2:]:
        assert set(refused).isdisjoint(body)
        assert "system" not in refused or body["messages"][0]["role"] == "user"  # type: ignore[index]
    assert server.bodies[-1] != server.bodies[-2]  # the second report, at once without the fields


def test_the_server_s_own_words_reach_the_user() -> None:
    server = PickyServer(REFUSED)
    with pytest.raises(RequestFailedError, match="the moon is not right"):
        server.ask("The heart is enlarged.")


def test_the_server_s_own_words_reach_the_terminal(tmp_path: Path) -> None:
    with running_stub(PickyServer(REFUSED)) as stub:
        done = carzero(
            *("reports", "align", FIELD / "llm_report.csv", "--out", tmp_path / "o.jsonl", "--backend", "openai"),
            *("--base-url", stub.base_url, "--model", "tiny"),
        )
    assert done.returncode == 1
    assert "the moon is not right" in " ".join(done.stderr.split())
