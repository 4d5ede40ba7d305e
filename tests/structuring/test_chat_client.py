"""The client of language models against a stub server that fails in every way a server can."""

from __future__ import annotations

import asyncio
import datetime
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import format_datetime
from typing import Any

import pytest

from carzero.errors import ConfigurationError, LanguageModelError
from carzero.structuring.answer_cache import KeptAnswer
from carzero.structuring.chat_client import ChatClient, Prices, RequestFailedError, Tally
from carzero.structuring.requests import Instruction, Options, build_request
from carzero.structuring.server import MAX_RETRY_AFTER_S, RetryPolicy, Server, find_api_key, is_passing, retry_after_s
from tests.support.stub_server import Fault, Request, StubServer, completion, running_stub

FAST = RetryPolicy(tries=3, first_wait_s=0.001, max_wait_s=0.002)
KEY = "sk-secret-of-the-user"
Reply = Callable[[Request, int], str | bytes | Fault]


def question(report: str = "The heart is enlarged.") -> dict[str, Any]:
    return build_request(Instruction("test", "Answer in JSON."), report, "tiny", Options(max_tokens=64))


class Asked:
    """Questions put to a stub, and what came of them."""

    def __init__(self, reply: Reply, *reports: str, server: Callable[[StubServer], Server] | None = None) -> None:
        self.tally, self.notes = Tally(), list[str]()
        self.outcomes: list[KeptAnswer | BaseException] = []
        with running_stub(reply) as stub:
            self.stub = stub
            made = server(stub) if server else Server(stub.base_url, "tiny", KEY, 5.0, FAST)
            asyncio.run(self._ask(made, reports or ("The heart is enlarged.",)))
        self.requests = stub.requests

    async def _ask(self, server: Server, reports: tuple[str, ...]) -> None:
        async with ChatClient(server, self.tally, self.notes.append, random.Random(0)) as client:  # noqa: S311
            work = [client.complete(question(report)) for report in reports]
            self.outcomes += await asyncio.gather(*work, return_exceptions=True)

    @property
    def answer(self) -> KeptAnswer:
        (outcome,) = self.outcomes
        assert isinstance(outcome, KeptAnswer), outcome
        return outcome

    @property
    def failure(self) -> BaseException:
        (outcome,) = self.outcomes
        assert isinstance(outcome, BaseException), outcome
        return outcome


def once(fault: Fault) -> Reply:
    return lambda request, earlier: "good" if earlier else fault


class TestRequests:
    def test_what_is_sent_and_what_comes_back(self) -> None:
        asked = Asked(lambda request, earlier: "an answer")
        assert asked.answer == KeptAnswer("an answer", "", 100, 10)
        (request,) = asked.requests
        assert request.body["path"] == "/v1/chat/completions"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.body["model"] == "tiny"
        assert (request.body["temperature"], request.body["seed"], request.body["max_tokens"]) == (0.0, 0, 64)
        assert [message["role"] for message in request.body["messages"]] == ["system", "user"]
        form = request.body["response_format"]
        assert (form["type"], form["json_schema"]["strict"]) == ("json_schema", True)
        assert form["json_schema"]["schema"]["additionalProperties"] is False
        assert "schema" not in request.body
        assert (asked.tally.requests, asked.tally.prompt_tokens, asked.tally.completion_tokens) == (1, 100, 10)
        assert asked.tally.answer_form == "json_schema"
        assert asked.notes == []

    def test_no_key_no_header(self) -> None:
        asked = Asked(lambda request, earlier: "x", server=lambda stub: Server(stub.base_url, "tiny"))
        assert "authorization" not in asked.requests[0].headers

    def test_an_address_with_the_endpoint_or_a_slash(self) -> None:
        for ending in ("/", "/chat/completions", "/chat/completions/"):
            asked = Asked(
                lambda request, earlier: "x",
                server=lambda stub, ending=ending: Server(stub.base_url + ending, "tiny"),  # type: ignore[misc]
            )
            assert asked.requests[0].body["path"] == "/v1/chat/completions"


class TestPassingFailures:
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
    def test_a_status_that_passes(self, status: int) -> None:
        asked = Asked(once(Fault(status)))
        assert asked.answer.content == "good"
        assert asked.tally.requests == 2
        assert asked.tally.retries == {f"status_{status}": 1}

    def test_a_cut_connection(self) -> None:
        asked = Asked(once(Fault(body=completion("cut"), cut_after=40)))
        assert asked.answer.content == "good"
        assert asked.tally.retries == {"cut_connection": 1}

    def test_a_slow_answer(self) -> None:
        def slow(stub: StubServer) -> Server:
            return Server(stub.base_url, "tiny", "", 5.0, FAST)

        asked_again = threading.Event()

        def reply(request: Request, earlier: int) -> str:
            if earlier:
                asked_again.set()
                return "good"
            asked_again.wait()
            return "late"

        asked = Asked(reply, server=slow)
        assert asked.answer.content == "good"
        assert set(asked.tally.retries) == {"timeout"}

    @pytest.mark.parametrize("body", [b"<html>Bad gateway</html>", b"[]", b"{}", b'{"choices": []}', b'"x"', b"\xff"])
    def test_a_body_that_is_no_completion(self, body: bytes) -> None:
        asked = Asked(once(Fault(body=body)))
        assert asked.answer.content == "good"
        assert asked.tally.retries == {"no_completion": 1}

    def test_tries_have_an_end(self) -> None:
        asked = Asked(lambda request, earlier: Fault(503, b"busy"))
        assert isinstance(asked.failure, RequestFailedError)
        assert asked.failure.reason == "status_503"
        assert "busy" in str(asked.failure)
        assert asked.tally.requests == FAST.tries
        assert asked.tally.retries == {"status_503": FAST.tries - 1}

    def test_no_server(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        patient = RetryPolicy(tries=50, first_wait_s=0.001, max_wait_s=0.001)
        asked = Asked(lambda *_: "x", server=lambda stub: Server(f"http://127.0.0.1:{port}/v1", "m", "", 5.0, patient))
        assert isinstance(asked.failure, RequestFailedError)
        assert asked.failure.reason == "no_connection"
        assert asked.tally.requests == 3, "a server that never was there is not waited for"

    def test_a_wait_that_is_asked_for_holds_back_every_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        starts: dict[str, list[float]] = {"first": [], "second": []}
        told_to_wait = threading.Event()

        def read_wait(headers: Mapping[str, str]) -> float:
            wait_s = retry_after_s(headers)
            if wait_s:
                told_to_wait.set()
            return wait_s

        monkeypatch.setattr("carzero.structuring.chat_client.retry_after_s", read_wait)

        def reply(request: Request, earlier: int) -> str | Fault:
            starts[request.report].append(time.monotonic())
            if request.report == "first":
                return "good" if earlier else Fault(429, headers={"retry-after": "1"})
            if earlier:
                return "good"
            told_to_wait.wait()
            return Fault(500)

        asked = Asked(reply, "first", "second")
        assert all(isinstance(outcome, KeptAnswer) for outcome in asked.outcomes)
        # The second failed behind the first one's 429, whose second of waiting it keeps too.
        assert starts["second"][1] - starts["first"][0] > 0.95
        assert starts["first"][1] - starts["first"][0] > 0.95


class TestLastingFailures:
    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refused_key_stops_at_once_and_is_not_shown(self, status: int) -> None:
        asked = Asked(lambda *_: Fault(status, f'{{"error": "Incorrect API key provided: {KEY}"}}'.encode()))
        assert isinstance(asked.failure, LanguageModelError)
        assert "CARZERO_API_KEY" in str(asked.failure)
        assert "***" in str(asked.failure)
        assert KEY not in str(asked.failure)
        assert asked.tally.requests == 1

    def test_a_redirect_is_not_followed(self) -> None:
        with running_stub(lambda *_: "stolen") as elsewhere:
            target = f"{elsewhere.base_url}/chat/completions"
            asked = Asked(lambda *_: Fault(307, headers={"location": target}))
        assert isinstance(asked.failure, LanguageModelError)
        assert target in str(asked.failure)
        assert elsewhere.requests == []

    def test_a_redirect_that_repeats_the_key_does_not_show_it(self) -> None:
        asked = Asked(lambda *_: Fault(302, headers={"location": f"http://elsewhere/?key={KEY}"}))
        assert "http://elsewhere/?key=***" in str(asked.failure)
        assert KEY not in str(asked.failure)

    def test_no_such_model(self) -> None:
        asked = Asked(lambda *_: Fault(404, b"The model does not exist"))
        assert isinstance(asked.failure, LanguageModelError)
        assert "--model" in str(asked.failure)

    def test_no_quota(self) -> None:
        asked = Asked(lambda *_: Fault(429, b'{"error": {"code": "insufficient_quota"}}'))
        assert isinstance(asked.failure, LanguageModelError)
        assert asked.tally.requests == 1

    def test_a_report_that_is_refused(self) -> None:
        asked = Asked(lambda *_: Fault(413, b"too long"))
        assert isinstance(asked.failure, RequestFailedError)
        assert asked.failure.reason == "refused_by_server"
        assert asked.tally.requests == 1


class TestFaultyAnswers:
    def test_a_huge_answer_is_cut_off_and_not_asked_again(self) -> None:
        asked = Asked(lambda *_: completion("x" * 3 * 2**20))
        assert asked.answer == KeptAnswer("", "too_large")
        assert asked.tally.requests == 1

    @pytest.mark.parametrize(
        ("body", "fault"),
        [
            (completion("half an ans", finish_reason="length"), "cut_off"),
            (completion("x", finish_reason="content_filter"), "refused"),
            (completion(None, refusal="I cannot help with that."), "refused"),
            (completion(None), "empty"),
            (completion(""), "empty"),
        ],
    )
    def test_faults_of_the_answer(self, body: bytes, fault: str) -> None:
        assert Asked(lambda *_: body).answer == KeptAnswer("", fault, 100, 10)

    def test_lone_surrogates_are_replaced(self) -> None:
        assert Asked(lambda *_: completion("a\ud800b")).answer.content == "a?b"

    @pytest.mark.parametrize("usage", [b"null", b'{"prompt_tokens": "7"}', b'{"prompt_tokens": -1}', b"{}"])
    def test_tokens_that_are_not_stated(self, usage: bytes) -> None:
        body = b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}], "usage": ' + usage + b"}"
        asked = Asked(lambda *_: body)
        assert asked.answer == KeptAnswer("x", "", None, None)
        assert (asked.tally.unpriced, asked.tally.prompt_tokens) == (1, 0)


class TestForms:
    FORMS = ("json_schema", "json_object with schema", "json_object", "none")

    @pytest.mark.parametrize("known", FORMS)
    @pytest.mark.parametrize("status", [400, 422, 500])
    def test_the_strictest_form_that_the_server_knows(self, known: str, status: int) -> None:
        def reply(request: Request, earlier: int) -> str | Fault:
            return "good" if request.form == known else Fault(status, b"response_format: unknown value")

        asked = Asked(reply, "one", "two", "three")
        assert all(isinstance(outcome, KeptAnswer) for outcome in asked.outcomes)
        assert asked.tally.retries == {}
        weaker = self.FORMS.index(known)
        assert asked.tally.answer_form == (*self.FORMS[:3], "no response_format")[weaker]
        assert len(asked.notes) == bool(weaker)
        if weaker:
            assert "does not know json_schema" in asked.notes[0]

    def test_a_fault_of_the_server_is_not_taken_for_a_refused_form(self) -> None:
        asked = Asked(once(Fault(500, b"out of memory")))
        assert [request.form for request in asked.requests] == ["json_schema", "json_schema"]

    def test_a_form_that_has_worked_is_kept(self) -> None:
        async def ask(stub: StubServer) -> list[str]:
            async with ChatClient(Server(stub.base_url, "tiny", "", 5.0, FAST), Tally()) as client:
                await client.complete(question("good"))
                with pytest.raises(RequestFailedError, match="too long"):
                    await client.complete(question("bad"))
            return [request.form for request in stub.requests]

        with running_stub(lambda request, _: Fault(400, b"too long") if request.report == "bad" else "x") as stub:
            assert asyncio.run(ask(stub)) == ["json_schema", "json_schema"]

    def test_a_first_report_that_every_form_fails_on_spoils_nothing(self) -> None:
        async def ask(stub: StubServer) -> list[str]:
            async with ChatClient(Server(stub.base_url, "tiny", "", 5.0, FAST), Tally()) as client:
                with pytest.raises(RequestFailedError, match="too long"):
                    await client.complete(question("bad"))
                await client.complete(question("good"))
            return [request.form for request in stub.requests]

        with running_stub(lambda request, _: Fault(400, b"too long") if request.report == "bad" else "x") as stub:
            assert asyncio.run(ask(stub)) == [*self.FORMS, "json_schema"]

    def test_models_that_call_the_limit_otherwise(self) -> None:
        def reply(request: Request, earlier: int) -> str | Fault:
            if "max_completion_tokens" in request.body:
                return "good"
            return Fault(400, b"'max_tokens' is not supported, use 'max_completion_tokens'")

        asked = Asked(reply)
        assert asked.answer.content == "good"
        assert "max_tokens" not in asked.requests[1].body
        assert asked.requests[1].body["max_completion_tokens"] == 64
        assert asked.tally.answer_form == "json_schema"


class TestServer:
    @pytest.mark.parametrize(
        "address", ["", "127.0.0.1:8000/v1", "ftp://host/v1", "http://", "http://host:99999/v1", "http://[::1/v1"]
    )
    def test_addresses_that_are_none(self, address: str) -> None:
        with pytest.raises(ConfigurationError, match="address cannot be used"):
            Server(address, "tiny")

    @pytest.mark.parametrize(
        "address", ["http://me:hidden@host/v1", "https://host/v1?key=hidden", "https://host/v1#hidden"]
    )
    def test_secrets_in_the_address_are_refused_and_not_shown(self, address: str) -> None:
        with pytest.raises(ConfigurationError, match="CARZERO_API_KEY") as caught:
            Server(address, "tiny")
        assert "hidden" not in str(caught.value)

    def test_no_model(self) -> None:
        with pytest.raises(ConfigurationError, match="--model"):
            Server("http://127.0.0.1/v1", " ")

    def test_who_reads_the_reports(self) -> None:
        for address, here, encrypted in (
            ("http://127.0.0.1:8000/v1", True, False),
            ("http://localhost/v1", True, False),
            ("http://[::1]:8000/v1", True, False),
            ("http://10.0.0.7:8000/v1", False, False),
            ("https://api.example.org/v1", False, True),
            ("http://localhost.example.org/v1", False, False),
        ):
            server = Server(address, "tiny", KEY)
            assert (server.is_this_machine, server.is_encrypted) == (here, encrypted), address
            assert KEY not in repr(server)

    def test_the_key_comes_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CARZERO_API_KEY", raising=False)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        assert find_api_key() == ""
        monkeypatch.setenv("OPENAI_API_KEY", "second")
        assert find_api_key() == "second"
        monkeypatch.setenv("CARZERO_API_KEY", " first\n")
        assert find_api_key() == "first"
        monkeypatch.setenv("CARZERO_API_KEY", "a\nb-hidden")
        with pytest.raises(ConfigurationError) as caught:
            find_api_key()
        assert "hidden" not in str(caught.value)


class TestWaits:
    def test_they_double_with_jitter_up_to_a_limit(self) -> None:
        policy, chance = RetryPolicy(first_wait_s=1.0, max_wait_s=8.0), random.Random(0)  # noqa: S311
        for failures, middle in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (50, 8.0)):
            waits = [policy.wait_s(failures, chance) for _ in range(200)]
            assert middle * 0.5 <= min(waits) < middle * 0.6
            assert middle * 1.4 < max(waits) <= middle * 1.5

    def test_what_a_server_asks_for(self) -> None:
        def asked(value: str) -> float:
            return retry_after_s({"retry-after": value})

        assert asked("7") == 7.0
        assert asked("99999999999999999999") == MAX_RETRY_AFTER_S
        for nonsense in ("", "soon", "-3", "1e9", "٣", "Wed, 99 Foo 2026"):
            assert asked(nonsense) == 0.0, nonsense
        assert retry_after_s({}) == 0.0
        now = datetime.datetime.now(datetime.UTC)
        assert 55 < asked(format_datetime(now + datetime.timedelta(seconds=60), usegmt=True)) <= 60
        assert asked(format_datetime(now - datetime.timedelta(seconds=60), usegmt=True)) == 0.0

    def test_which_statuses_pass(self) -> None:
        assert all(is_passing(status) for status in (408, 425, 429, 500, 503, 529))
        assert not any(is_passing(status) for status in (400, 401, 404, 413, 422))


def test_the_tally_adds_up_and_reads_the_same() -> None:
    tally = Tally(prompt_tokens=2_000_000, completion_tokens=500_000)
    tally.invalid.update({"b": 1, "a": 2})
    assert tally.cost(Prices(0.5, 2.0)) == 2.0
    assert tally.cost(Prices(0.5, None)) is None
    assert list(tally.to_dict()["invalid"]) == ["a", "b"]
