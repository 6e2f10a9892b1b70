"""`stresnet serve`: recognition as a service over HTTP, and a page."""

from __future__ import annotations

import ipaddress
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stresnet.cli import options
from stresnet.cli.display import Bar, note
from stresnet.cli.predict import FlowPreset
from stresnet.errors import StresnetError

if TYPE_CHECKING:
    from stresnet.serving.settings import Settings

_MIN_TOKEN_LENGTH = 16

Models = Annotated[
    list[str], typer.Argument(help="Model files, folders of runs, URLs or hub names.", show_default=False)
]
Workers = Annotated[
    int | None, typer.Option(help="Decoder processes at once. Default: one per core.", min=1, show_default=False)
]
Token = Annotated[
    Path | None,
    typer.Option(
        "--token", help="File with a token that requests must carry: 'Authorization: Bearer …'.", show_default=False
    ),
]


def serve(
    models: Models,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all of this machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.", min=0, max=65535)] = 8000,
    workers: Workers = None,
    max_upload_mb: Annotated[int, typer.Option(help="MiB of an upload.", min=1)] = 200,
    max_seconds: Annotated[float, typer.Option(help="Time to decode and score a video, in seconds.", min=1)] = 300,
    token: Token = None,
    device: options.Device = None,
    precision: options.Precision = "auto",
    flow_preset: FlowPreset = None,
) -> None:
    """Recognise actions over HTTP: an API, and a page for people. Uploads are decoded in processes of their own."""
    if sys.platform != "linux":
        raise StresnetError("serve needs Linux, which limits what decoding may take: use the container, docs/serve.md")
    from pydantic import SecretStr

    try:
        import uvicorn

        from stresnet.serving.app import create_app
        from stresnet.serving.live import MAX_MESSAGE_BYTES
        from stresnet.serving.settings import Settings
    except ModuleNotFoundError as error:
        raise StresnetError(f"serve needs {error.name}: pip install 'stresnet[serve]'") from error
    from stresnet.inference.recognizer import Recognizer
    from stresnet.serving.recognition import model_names
    from stresnet.weights.fetch import fetch

    wanted = options.parse_precision(precision)
    given: dict[str, Any] = {"workers": workers} if workers else {}
    settings = Settings(
        max_upload_bytes=max_upload_mb << 20,
        max_seconds=max_seconds,
        token=SecretStr(_read_token(token)) if token else None,
        **given,
    )
    with Bar(transient=True) as bar:
        files = [fetch(model, progress=bar) for model in models]
    recognizers = {
        name: Recognizer(file, device=device, precision=wanted, flow_preset=flow_preset)
        for name, file in zip(model_names(models), files, strict=True)
    }
    _note_openness(host, settings)
    _log_to_stderr()
    config = uvicorn.Config(
        create_app(recognizers, settings),
        host,
        port,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="websockets-sansio",
        ws_max_size=MAX_MESSAGE_BYTES,
    )
    uvicorn.Server(config).run()


def _read_token(file: Path) -> str:
    """Return the token in a file.

    Raises:
        StresnetError: it is too short to be a secret.
    """
    token = file.read_text("utf-8").strip()
    if len(token) < _MIN_TOKEN_LENGTH or not token.isascii() or len(token.split()) > 1:
        raise StresnetError(
            f"{file}: expected a token of at least {_MIN_TOKEN_LENGTH} ASCII characters without spaces; make one with "
            "openssl rand -hex 32"
        )
    return token


def _note_openness(host: str, settings: Settings) -> None:
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host == "localhost"
    if not is_local and settings.token is None:
        note(f"whoever reaches {host} may use this service; --token FILE asks for a token")


def _log_to_stderr() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    for name in ("stresnet.serving", "uvicorn"):
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
