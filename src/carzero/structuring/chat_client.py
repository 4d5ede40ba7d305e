"""A client of OpenAI-compatible chat completions: one question in, one answer out, whatever happens; and the cost."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

from carzero.core.optional import require_extra
from carzero.errors import ConfigurationError, LanguageModelError, describe
from carzero.structuring.answer_cache import KeptAnswer
from carzero.structuring.completions import ANSWER_FORMS, LEFT_OUT, find_refused_field, read_completion, to_body
from carzero.structuring.server import Server, is_passing, retry_after_s


@dataclass(frozen=True, slots=True)
class Prices:
    """What a million tokens cost, in whatever currency the user thinks in; None where it is not known."""

    prompt: float | None = None
    completion: float | None = None


@dataclass(slots=True)
class Tally:
    """Counts of one run; rows of an interrupted run that were taken over are in `resumed` and nowhere else.

    Attributes:
        resumed: rows taken over from an interrupted run.
        asked: distinct texts put to the language model or answered from the cache.
        repeated: rows whose text another row of the run has asked already, at that moment or shortly before.
        requests: HTTP requests sent, repetitions among them.
        retries: requests that were sent again after a failure of server or connection, by reason.
        cache_hits: answers taken from the cache.
        prompt_tokens: as the server states them, for this run's requests.
        completion_tokens: likewise.
        unpriced: answers whose server stated no token counts.
        answer_form: how the server was asked for JSON; "" where it was not asked.
        invalid: answers that were not accepted, by reason.
        dropped: findings of accepted answers that were left out, by reason.
        blanked: details of findings that were emptied, by reason.
        unlike_rules: findings kept whose presence the rules read otherwise; one of the two is uncertain.
    """

    resumed: int = 0
    asked: int = 0
    repeated: int = 0
    requests: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    cache_hits: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unpriced: int = 0
    answer_form: str = ""
    invalid: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    blanked: Counter[str] = field(default_factory=Counter)
    unlike_rules: int = 0

    def cost(self, prices: Prices) -> float | None:
        """What this run's tokens cost; None where a price is missing."""
        if prices.prompt is None or prices.completion is None:
            return None
        return (self.prompt_tokens * prices.prompt + self.completion_tokens * prices.completion) / 1e6

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; reasons in alphabetical order, so that equal runs read the same."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            name: dict(sorted(value.items())) if isinstance(value, Counter) else value for name, value in values.items()
        }


_MAX_BODY_BYTES = 2**20
_CONNECT_S = 15.0
_FEW_TRIES = 3
_SHOWN = 300
_NOTED = 3  # refusals that are shown in the server's own words

_KEY_REFUSED = frozenset({401, 403})
_NOT_THERE = frozenset({404, 405})
_MISTAKEN = frozenset({400, 422})

_FAILURES = {
    "TimeoutException": "timeout",
    "TimeoutError": "timeout",
    "ConnectError": "no_connection",
    "RemoteProtocolError": "cut_connection",
    "NetworkError": "cut_connection",
}


class RequestFailedError(Exception):
    """A request failed in all its tries, or was refused for good; `reason` is a short name for the tally."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool


@dataclass(frozen=True, slots=True)
class _Problem:
    reason: str
    message: str
    asked_wait_s: float = 0.0


class ChatClient:
    """Sends questions to one server. To be used as an asynchronous context manager.

    Redirects are not followed, so a report goes to the server's own address and nowhere else. Proxies named in the
    environment are used for https alone, where they see no text. Failures that may pass are tried again with growing
    waits; a wait that the server asks for (Retry-After) holds back every request of this client.

    Args:
        server: where, which model, and how patiently.
        tally: requests, retries and tokens are counted into it.
        note: told, once, what the user should know of the server.
        chance: source of the jitter.

    Raises:
        MissingExtraError: httpx is not installed.
        ConfigurationError: the server's address is none.
    """

    def __init__(
        self,
        server: Server,
        tally: Tally,
        note: Callable[[str], None] = lambda message: None,
        chance: random.Random | None = None,
    ) -> None:
        with require_extra("A language model needs httpx", "llm"):
            import httpx
        self.server = server
        self._tally = tally
        self._note = note
        self._chance = chance or random.Random()  # noqa: S311 (spreads waits; guards nothing)
        self._form = 0
        self._is_settled = self._has_replied = False
        self._limit_field = "max_tokens"
        self._left_out: frozenset[str] = frozenset()
        self._noted: set[str] = set()
        self._not_before = 0.0
        self._failures = (httpx.TransportError, httpx.DecodingError, TimeoutError)
        headers = {"accept-encoding": "identity", "content-type": "application/json", "user-agent": "carzero"}
        if server.api_key:
            headers["authorization"] = f"Bearer {server.api_key}"
        try:
            self._endpoint = httpx.URL(server.endpoint)
        except httpx.InvalidURL as error:
            raise ConfigurationError(
                describe("The server's address cannot be used", got=server.endpoint, expected="a web address")
            ) from error
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(server.timeout_s, connect=min(_CONNECT_S, server.timeout_s), pool=None),
            follow_redirects=False,
            trust_env=server.is_encrypted,
            limits=httpx.Limits(max_connections=None),
        )

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def complete(self, request: Mapping[str, object]) -> KeptAnswer:
        """Asks for one completion.

        Args:
            request: `model`, `messages`, `temperature`, `seed`, `max_tokens`, and the `schema` of the answer.

        Returns:
            The answer's text, unread; or its fault.

        Raises:
            RequestFailedError: every try failed, or the server refuses this request for good.
            LanguageModelError: no request to this server can succeed: wrong key, model or address.
        """
        for failures in itertools.count(1):
            while (wait_s := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            outcome = await self._try(request)
            if isinstance(outcome, KeptAnswer):
                return outcome
            if failures >= self._tries(outcome.reason):
                raise RequestFailedError(outcome.reason, outcome.message)
            self._tally.retries[outcome.reason] += 1
            self._not_before = max(self._not_before, time.monotonic() + outcome.asked_wait_s)
            await asyncio.sleep(self.server.retries.wait_s(failures, self._chance))
        raise AssertionError("count() does not end")

    def _tries(self, reason: str) -> int:
        """Few for what repeating seldom mends: an answer that takes too long, a server that never was there."""
        is_hopeless = reason == "timeout" or (reason == "no_connection" and not self._has_replied)
        return min(self.server.retries.tries, _FEW_TRIES) if is_hopeless else self.server.retries.tries

    async def _try(self, request: Mapping[str, object]) -> KeptAnswer | _Problem:
        try:
            reply = await self._post_negotiated(request)
        except self._failures as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            reason = next((_FAILURES[kind] for kind in kinds if kind in _FAILURES), "broken_transfer")
            return _Problem(reason, f"{reason.replace('_', ' ')} ({error or type(error).__name__})")
        self._has_replied = True
        if reply.status != 200:
            self._refuse_for_good(reply)
            message = f"status {reply.status}: {self._show(reply.body)}"
            return _Problem(f"status_{reply.status}", message, retry_after_s(reply.headers))
        answer = read_completion(reply.body) if reply.is_whole else KeptAnswer("", "too_large")
        if answer is None:
            return _Problem("no_completion", f"status 200 without a completion: {self._show(reply.body)}")
        self._count_tokens(answer)
        return answer

    async def _post_negotiated(self, request: Mapping[str, object]) -> _Reply:
        """Sends the request, again without each field that the server refuses by name, and remembers what it takes.

        Until a first request has succeeded, it is also sent in weaker and weaker forms as the server refuses them.
        """
        left_out = self._left_out
        while True:
            form, limit_field = self._form, self._limit_field
            reply = await self._post(to_body(request, ANSWER_FORMS[form], limit_field, left_out))
            if reply.status == 200:
                self._settle(form)
                self._remember_left_out(left_out)
                return reply
            if reply.status in _MISTAKEN and limit_field == "max_tokens" and b"max_completion_tokens" in reply.body:
                self._limit_field = "max_completion_tokens"
                continue
            refused = find_refused_field(reply.body) if reply.status in _MISTAKEN else ""
            if refused and refused not in left_out:
                left_out |= {refused}
                continue
            # llama-cpp-python's server answers 500 to a form that it does not know, and names the field.
            is_form_refused = reply.status in _MISTAKEN or (reply.status >= 500 and b"response_format" in reply.body)
            if not is_form_refused or (self._is_settled and form == self._form):
                return reply
            if form != self._form:
                continue  # another request has gone on to the next form meanwhile
            if form + 1 == len(ANSWER_FORMS):
                self._form = 0  # not the form was at fault
                return reply
            self._form = form + 1

    def _settle(self, form: int) -> None:
        if self._is_settled:
            return
        self._is_settled = True
        self._form = form
        self._tally.answer_form = ANSWER_FORMS[form]
        if form:
            self._note(f"{self.server.host} does not know {ANSWER_FORMS[0]}; asked with {ANSWER_FORMS[form]} instead.")

    def _remember_left_out(self, left_out: frozenset[str]) -> None:
        for name in sorted(left_out - self._left_out):
            self._note(f"{self.server.host} does not take {LEFT_OUT[name]}; asked without it.")
        self._left_out |= left_out

    async def _post(self, body: Mapping[str, object]) -> _Reply:
        self._tally.requests += 1
        content = json.dumps(body).encode("ascii")
        async with (
            asyncio.timeout(self.server.timeout_s),  # httpx limits the wait for each piece, not for the whole
            self._http.stream("POST", self._endpoint, content=content) as response,
        ):
            received = bytearray()
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > _MAX_BODY_BYTES:
                    return _Reply(response.status_code, response.headers, bytes(received[:_MAX_BODY_BYTES]), False)
            return _Reply(response.status_code, response.headers, bytes(received), True)

    def _refuse_for_good(self, reply: _Reply) -> None:
        """Raises for what no further try can mend."""
        shown = f"{reply.status}: {self._show(reply.body)}"
        if reply.status in _KEY_REFUSED:
            raise LanguageModelError(
                describe(
                    f"{self.server.host} refuses the key",
                    got=shown,
                    then="set the environment variable CARZERO_API_KEY (or OPENAI_API_KEY) to a valid key",
                )
            )
        if 300 <= reply.status < 400:
            raise LanguageModelError(
                describe(
                    f"{self.server.host} wants to send the reports elsewhere, which is not followed",
                    got=self._show(reply.headers.get("location", "").encode()) or shown,
                    then="give the right address with --base-url, if you trust it",
                )
            )
        if reply.status in _NOT_THERE:
            raise LanguageModelError(
                describe(
                    f"{self.server.endpoint} is not there, or has no model {self.server.model}",
                    got=shown,
                    expected="an OpenAI-compatible server",
                    then="check --base-url (most end in /v1) and --model",
                )
            )
        if b"insufficient_quota" in reply.body:
            raise LanguageModelError(describe(f"The account at {self.server.host} has no quota left", got=shown))
        if not is_passing(reply.status):
            if shown not in self._noted and len(self._noted) < _NOTED:
                self._noted.add(shown)
                self._note(f"{self.server.host} refused a request with status {shown}")
            raise RequestFailedError("refused_by_server", f"status {shown}")

    def _show(self, body: bytes) -> str:
        """The beginning of what a server said, with the key taken out should it be repeated there."""
        text = " ".join(body.decode("utf-8", "replace").split())
        if self.server.api_key:
            text = text.replace(self.server.api_key, "***")
        return text[:_SHOWN]

    def _count_tokens(self, answer: KeptAnswer) -> None:
        self._tally.prompt_tokens += answer.prompt_tokens or 0
        self._tally.completion_tokens += answer.completion_tokens or 0
        self._tally.unpriced += answer.prompt_tokens is None or answer.completion_tokens is None
