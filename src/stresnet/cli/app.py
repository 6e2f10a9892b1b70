"""The application `stresnet`: its commands, exit codes and error messages."""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from stresnet import __version__
from stresnet.cli import recipes, weights
from stresnet.cli.convert import convert
from stresnet.cli.demo import demo
from stresnet.cli.display import errors
from stresnet.cli.doctor import doctor
from stresnet.cli.evaluate import evaluate
from stresnet.cli.export import export
from stresnet.cli.flow import flow
from stresnet.cli.fuse import fuse
from stresnet.cli.live import live
from stresnet.cli.models import models
from stresnet.cli.predict import predict
from stresnet.cli.prepare import prepare
from stresnet.cli.serve import serve
from stresnet.cli.study import study
from stresnet.cli.train import train

COMMANDS: tuple[Callable[..., None], ...] = (
    demo,
    prepare,
    doctor,
    train,
    evaluate,
    fuse,
    study,
    predict,
    live,
    serve,
    convert,
    export,
    models,
    flow,
)
GROUPS = {"recipes": recipes.app, "weights": weights.app}

INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C and SIGTERM, as shells count them. Typer turns Ctrl-C into the first."""

_AGAIN = "run the same command again to resume"
RESUME_HINTS = {
    "demo": _AGAIN,
    "prepare": _AGAIN,
    "train": "run the same command again with --resume to continue",
    "evaluate": _AGAIN,
    "study": _AGAIN,
    "weights": _AGAIN,
}
"""How to resume each command that can be interrupted without losing work."""

app = typer.Typer(
    help="Spatiotemporal residual networks for video action recognition: prepare videos, train, evaluate, predict.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in COMMANDS:
    app.command()(_command)
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)

# Typer bundles click or uses the installed one, depending on its version. This is the UsageError of either.
_UsageError: Any = typer.BadParameter.__base__


class _State:
    """State of the command being run."""

    debug = False
    command: str | None = None
    terminated = False


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"stresnet {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    _State.debug = debug
    _State.command = context.invoked_subcommand


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Exit codes: 0 done, 1 something failed and is named, 2 wrong usage, 130 or 143 interrupted.
    """
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that are not valid text
    sys.exit(run(arguments))


def _terminate(*_: object) -> None:
    """Interrupt as Ctrl-C does, once: `timeout` and others send SIGTERM twice."""
    if not _State.terminated:
        _State.terminated = True
        raise KeyboardInterrupt


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; errors are printed in one line."""
    try:
        code = app(arguments, standalone_mode=False)
    except _UsageError as error:
        return _show_usage_error(error)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if _State.terminated:  # torch raises a RuntimeError when its loader processes are terminated too
            return _show_interruption()
        # Running out of memory is an error for the user. Torch's class is checked by name: importing torch is slow.
        if isinstance(error, RuntimeError) and type(error).__name__ != "OutOfMemoryError":
            raise
        if _State.debug:
            traceback.print_exc()
        errors.print(f"stresnet: {_one_line(error)}", soft_wrap=True)
        return 1
    if code == INTERRUPTED:
        return _show_interruption()
    return code if isinstance(code, int) else 0


def _show_interruption() -> int:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # Lightning starts the same command for every other device
        hint = RESUME_HINTS.get(_State.command or "")
        errors.print(f"interrupted; {hint}" if hint else "interrupted", soft_wrap=True)
    return TERMINATED if _State.terminated else INTERRUPTED


def _show_usage_error(error: Any) -> int:
    command = error.ctx.command_path if error.ctx else "stresnet"
    if text := " ".join(error.format_message().split()).rstrip("."):  # empty if the help was shown instead
        errors.print(f"stresnet: {text}; see {command} --help", soft_wrap=True)
    return int(error.exit_code)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'file system'}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
