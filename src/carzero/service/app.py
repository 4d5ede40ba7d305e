"""The service as an ASGI application, by itself or mounted into another, and the routes about the service itself."""

from __future__ import annotations

import atexit
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from carzero._version import __version__
from carzero.core.html_page import THEME
from carzero.errors import CARZeroError
from carzero.service.engine import Engine
from carzero.service.gate import Gate
from carzero.service.openapi import build_openapi, problems
from carzero.service.problems import MEDIA_TYPE, ProblemError, to_problem_error
from carzero.service.prompt_routes import build_prompt_routes
from carzero.service.schemas import ModelsAnswer, RequestLimits, State
from carzero.service.scoring_routes import build_scoring_routes
from carzero.service.served_weights import not_ready
from carzero.service.settings import ServiceSettings
from carzero.service.telemetry import Telemetry
from carzero.service.uploads import describe_invalid
from carzero.weights.source import example_film

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


_TITLE = "CARZero"
_ABOUT = "Scores chest radiographs against words, and shows where the model looks. Research use, not a diagnosis."
_BY_STATUS = {404: "not-found", 405: "wrong-method", 400: "malformed-body", 413: "too-large"}


def create_app(settings: ServiceSettings | None = None, *, telemetry: Telemetry | None = None) -> FastAPI:
    """Makes the service.

    Mounted into another application, it starts with the first request, as that one's start is not its own, and ends
    with the process; `app.state.engine` has `start` and `close` for those who want it otherwise.

    Args:
        settings: how it works; by default the demo weights, without keys.
        telemetry: log and numbers; by default a log on stderr.

    Example:
        >>> app = FastAPI()
        >>> app.mount("/cxr", create_app())
    """
    asked = settings or ServiceSettings()
    told = telemetry or Telemetry()
    engine = Engine(asked, told)
    atexit.register(engine.close)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.close()

    app = FastAPI(
        title=_TITLE, version=__version__, description=_ABOUT, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.state.engine = engine
    app.openapi = build_openapi(app)  # type: ignore[method-assign]
    app.add_middleware(Gate, settings=asked, telemetry=told)
    for router in (build_scoring_routes(engine), build_prompt_routes(engine), build_state_routes(engine)):
        app.include_router(router)
    _add_page(app)
    _add_handlers(app)
    return app


def _add_page(app: FastAPI) -> None:
    """The page and its files, from the package."""
    folder = Path(str(resources.files("carzero.service"))) / "page"

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        if not (folder / "index.html").is_file():
            raise ProblemError("not-found", "This installation has no page.")
        return FileResponse(folder / "index.html")

    @app.get("/page/example.dcm", include_in_schema=False)
    async def example() -> FileResponse:
        return FileResponse(example_film(), media_type="application/dicom")

    @app.get("/page/styles/theme.css", include_in_schema=False)
    async def theme() -> FileResponse:
        return FileResponse(THEME, media_type="text/css")

    app.mount("/page", StaticFiles(directory=folder, check_dir=False), name="page")


def _add_handlers(app: FastAPI) -> None:
    def answer(request: Request, error: ProblemError) -> Response:
        request_id = str(getattr(request.state, "request_id", ""))
        request.state.problem = error.kind
        return Response(error.encode(request_id), error.status, error.headers, MEDIA_TYPE)

    @app.exception_handler(ProblemError)
    @app.exception_handler(CARZeroError)
    async def refuse(request: Request, error: Exception) -> Response:
        return answer(request, to_problem_error(error))

    @app.exception_handler(RequestValidationError)
    async def refuse_invalid(request: Request, error: RequestValidationError) -> Response:
        return answer(request, ProblemError("invalid-request", describe_invalid(error.errors())))

    @app.exception_handler(HTTPException)
    async def refuse_plain(request: Request, error: HTTPException) -> Response:
        kind = _BY_STATUS.get(error.status_code, "malformed-body" if error.status_code < 500 else "fault")
        return answer(request, ProblemError(kind, f"{str(error.detail).rstrip('.')}.", error.headers))
