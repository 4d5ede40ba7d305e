"""The routes about the service itself: what it scores with, whether it lives and is ready, its numbers."""

from __future__ import annotations

from fastapi import APIRouter, Response

from carzero._version import __version__
from carzero.service.engine import Engine
from carzero.service.openapi import problems
from carzero.service.schemas import ModelsAnswer, RequestLimits, State
from carzero.service.served_weights import not_ready

_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def build_state_routes(engine: Engine) -> APIRouter:
    """The routes, for an engine."""
    router = APIRouter(tags=["service"])

    @router.get("/v1/models", responses=problems(503))
    def models() -> ModelsAnswer:
        """What the service scores with, the default first, and what one request may hold."""
        engine.ensure_started()
        limits = engine.settings.limits
        return ModelsAnswer(
            models=[each.describe() for each in engine.weights.values()],
            limits=RequestLimits(
                images=limits.images,
                prompts=limits.prompts,
                maps=limits.maps,
                body_bytes=limits.body_bytes,
                seconds=limits.seconds,
            ),
            version=__version__,
        )

    @router.get("/healthz")
    async def healthz() -> State:
        """Whether the service lives."""
        return State(status="ok", version=__version__)

    @router.get("/readyz", responses=problems(503))
    async def readyz() -> State:
        """Whether the weights are loaded and images are taken."""
        engine.ensure_started()
        if not engine.is_ready:
            raise not_ready()
        return State(status="ready", version=__version__)

    @router.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Numbers for Prometheus."""
        return Response(engine.telemetry.encode(), media_type=_PROMETHEUS)

    return router
