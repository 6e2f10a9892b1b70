"""The application: routes for programs and for people, health, measures, and the page."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse, HTMLResponse, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.staticfiles import StaticFiles

from stresnet import __version__
from stresnet.inference.recognizer import Recognizer
from stresnet.pages import templates
from stresnet.serving.access import Access, require_token
from stresnet.serving.jobs import Jobs
from stresnet.serving.live import Streams
from stresnet.serving.metrics import Metrics
from stresnet.serving.problems import ProblemError, add_problem_handlers
from stresnet.serving.recognition import Models
from stresnet.serving.routes import routes
from stresnet.serving.settings import Settings

_PAGE = Path(__file__).parent / "page"


def create_app(recognizers: Mapping[str, Recognizer], settings: Settings) -> FastAPI:
    """Return the application that serves some networks by name; the first one is the default."""
    metrics = Metrics()
    models = Models(recognizers)
    jobs = Jobs(models, settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        yield
        await jobs.close()

    # FastAPI's own pages load scripts from other servers.
    app = FastAPI(title="stresnet", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Access, metrics=metrics)
    add_problem_handlers(app)
    guarded = [Depends(require_token(settings.token))]
    app.include_router(routes(models, jobs, settings, metrics), dependencies=guarded)

    app.include_router(Streams(models, settings, metrics).router())

    @app.get("/healthz", summary="Whether the process answers")
    async def healthy() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether new videos are taken")
    async def ready() -> dict[str, Any]:
        if jobs.closing:
            raise ProblemError("busy", "the server is about to end", status=503)
        return {"status": "ok", "models": models.names}

    @app.get("/metrics", summary="Measures for Prometheus", dependencies=guarded)
    async def measures() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> HTMLResponse:
        template = templates("stresnet.serving").get_template("docs.html.j2")
        return HTMLResponse(template.render(api=app.openapi()))

    app.mount("/page", StaticFiles(directory=_PAGE))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html")

    return app
