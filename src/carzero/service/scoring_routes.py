"""The routes that look at images: scores, maps, and pixels for a viewer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import JsonValue

from carzero.core.workers import WorkerCrashedError, WorkerHungError
from carzero.errors import ImageError
from carzero.inference.places import describe_maps
from carzero.prompts import PromptReview, PromptSet
from carzero.records import ImageItem, Pool, ScoredImage
from carzero.service.engine import Engine
from carzero.service.openapi import BINARY, describe_body, problems
from carzero.service.problems import ProblemError, to_problem_error
from carzero.service.remote_images import RemoteImages
from carzero.service.replies import to_facts, to_grounded, to_scored
from carzero.service.schemas import (
    Asked,
    AskedMaps,
    FailedAnswer,
    GroundAnswer,
    GroundedAnswer,
    GroundForm,
    GroundRequest,
    PredictAnswer,
    PredictForm,
    PredictRequest,
    ScoredAnswer,
)
from carzero.service.scoring_queue import Question, Result
from carzero.service.served_weights import ServedWeights
from carzero.service.uploads import SentImage, reading_form, receive_images, store_files, to_prompt_set

T = TypeVar("T")
AnswerT = TypeVar("AnswerT", ScoredAnswer, GroundedAnswer)

_LARGEST_IMAGE = 2**28
_GLANCE_S = 0.5  # how often it is looked whether a caller is still there


@dataclass(frozen=True, slots=True)
class _Case:
    """A request that is understood."""

    request: Request
    weights: ServedWeights
    asked: Asked
    prompts: PromptSet
    pool: Pool
    review: PromptReview
    sent: list[SentImage]


def build_scoring_routes(engine: Engine) -> APIRouter:
    """The routes, for an engine."""
    router, limits = APIRouter(prefix="/v1", tags=["images"]), engine.settings.limits
    remote = RemoteImages(engine.settings.dicomweb, largest=_LARGEST_IMAGE, seconds=limits.seconds)

    @router.post(
        "/predict", openapi_extra=describe_body(PredictForm, PredictRequest), responses=problems(422, 503, 504)
    )
    async def predict(request: Request) -> PredictAnswer:
        """Scores images against words, as `carzero predict` does."""
        async with _understanding(engine, remote, request, Asked) as case:
            results = await _score(engine, case, need_maps=False)

            def answer(name: str, image: ScoredImage) -> ScoredAnswer:
                return to_scored(name, image, case.prompts, case.review, case.weights, case.pool)

            images = await run_in_threadpool(_to_answers, case.sent, results, answer)
            manifest = await run_in_threadpool(_build_manifest, case, results, {})
            return PredictAnswer(
                model=case.weights.name, labels=case.prompts.labels, images=[*images], manifest=manifest
            )

    @router.post("/ground", openapi_extra=describe_body(GroundForm, GroundRequest), responses=problems(422, 503, 504))
    async def ground(request: Request) -> GroundAnswer:
        """Shows where the model looks, as `carzero ground` does."""
        async with _understanding(engine, remote, request, AskedMaps) as case:
            asked = case.asked
            if not isinstance(asked, AskedMaps):
                raise TypeError("maps are asked for")
            count = len(case.sent) * len(case.prompts)
            if asked.format != "arrays" and count > limits.maps:
                raise ProblemError("too-many-maps", f"Got {count} maps; expected at most {limits.maps}.")
            kind = case.weights.map_kind
            results = await _score(engine, case, need_maps=True)

            def answer(name: str, image: ScoredImage) -> GroundedAnswer:
                return to_grounded(name, image, case.prompts, case.weights, case.pool, asked)

            images = await run_in_threadpool(_to_answers, case.sent, results, answer)
            about = {**describe_maps(asked.box_share, kind)}
            manifest = await run_in_threadpool(_build_manifest, case, results, about)
            return GroundAnswer(
                model=case.weights.name, labels=case.prompts.labels, images=[*images], manifest=manifest
            )

    @router.post("/pixels", openapi_extra=BINARY, responses=problems(413, 422, 504), response_class=Response)
    async def pixels(request: Request, force: bool = False) -> Response:
        """An image at full depth: little-endian uint16, row after row, larger is brighter; facts in `CARZero-Image`."""
        with engine.folder() as folder:
            async with reading_form(request, 1) as form:
                sent = (await store_files(form, "image", folder, 1))[0]
            path = sent.path or folder
            reading = engine.load_display(path, force)
            try:
                image = (await _wait(request, limits.seconds, [reading]))[0]
            except (WorkerCrashedError, WorkerHungError) as error:
                raise ProblemError("unreadable-image", f"{sent.name}: its reader crashed or hung.") from error
            except ImageError as error:
                raise to_problem_error(error, hide=str(path), name=sent.name) from error
        header = json.dumps(to_facts(image, str(path), sent.name).model_dump())
        body = np.ascontiguousarray(image.levels, "<u2").tobytes()
        return Response(body, media_type="application/octet-stream", headers={"CARZero-Image": header})

    return router


@asynccontextmanager
async def _understanding(
    engine: Engine, remote: RemoteImages, request: Request, kind: type[Asked]
) -> AsyncIterator[_Case]:
    """Reads a request, and keeps its images until it is answered. What there is no room for is refused unread."""
    engine.queue.check_room()
    with engine.folder() as folder:
        sent, asked = await receive_images(request, kind, folder, engine.settings.limits, remote)
        weights = engine.find_weights(asked.model)
        style = weights.source.style
        prompts = to_prompt_set(asked, style, engine.settings.limits)
        review = await run_in_threadpool(weights.review, prompts)
        yield _Case(request, weights, asked, prompts, asked.pool or style.pool, review, sent)


async def _score(engine: Engine, case: _Case, *, need_maps: bool) -> list[Result]:
    """The results of the images that could be had, in order."""
    asked = case.asked
    question = Question(case.weights.name, case.prompts, case.pool, asked.force, need_maps)
    paths = [str(each.path) for each in case.sent if each.path is not None]
    futures = engine.queue.submit([ImageItem(path, path, path) for path in paths], question)
    return await _wait(case.request, engine.settings.limits.seconds, futures)


async def _wait(request: Request, seconds: float, futures: Sequence[Future[T]]) -> list[T]:
    """Waits for results; where it takes too long or the caller is gone, what is not begun is not done.

    Raises:
        ProblemError: it took too long.
    """
    try:
        async with asyncio.timeout(seconds):
            joined = asyncio.gather(*(asyncio.wrap_future(future) for future in futures))
            while not (await asyncio.wait([joined], timeout=_GLANCE_S))[0]:
                if await request.is_disconnected():
                    raise ProblemError("too-late", "The caller is gone.")
            return [*joined.result()]
    except TimeoutError as error:
        raise ProblemError("too-late", f"There was no answer within {seconds:g} s.") from error
    finally:
        for future in futures:
            future.cancel()


def _to_answers(
    sent: Sequence[SentImage], results: Sequence[Result], answer: Callable[[str, ScoredImage], AnswerT]
) -> list[AnswerT | FailedAnswer]:
    """What is answered of each image, in the order in which they were sent."""
    left = iter(results)
    answers: list[AnswerT | FailedAnswer] = []
    for each in sent:
        result = None if each.path is None else next(left)
        if isinstance(result, ScoredImage):
            answers.append(answer(each.name, result))
            continue
        error = each.error or ProblemError("fault", "There is no result.")
        if result is not None:
            error = to_problem_error(result.error, hide=str(each.path), name=each.name)
        answers.append(FailedAnswer(name=each.name, error=error.to_problem()))
    return answers


def _build_manifest(case: _Case, results: Sequence[Result], about: Mapping[str, object]) -> dict[str, JsonValue]:
    scored = sum(isinstance(result, ScoredImage) for result in results)
    manifest = case.weights.build_manifest(
        case.prompts,
        case.pool,
        force=case.asked.force,
        review=case.review,
        images=len(case.sent),
        scored=scored,
        **about,
    )
    plain: dict[str, JsonValue] = json.loads(json.dumps(manifest))
    return plain
