"""The client of the examples, the commands of the documentation, and the container's files."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.serving import Service, service
from stresnet.inference.recognizer import Recognizer

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-secret-of-the-service"


@pytest.fixture(scope="module")
def running(recognizer: Recognizer) -> Iterator[Service]:
    with service({"m": recognizer}, token=TOKEN) as started:
        yield started


@pytest.fixture
def token(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return tmp_path / "token"


def ask(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "client.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_example_prints_what_was_found(running: Service, recognizer: Recognizer, video: Path, token: Path) -> None:
    done = ask(video, "--server", running.url, "--token", token, "--timeline")
    assert done.returncode == 0, done.stderr
    first, *segments = done.stdout.splitlines()
    assert first == ", ".join(f"{label} {share:.1%}" for label, share in recognizer.predict(video, top=3).top)
    assert len(segments) == len(recognizer.timeline(video).segments())


def test_the_example_prints_problems(running: Service, tmp_path: Path, token: Path, video: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    done = ask(tmp_path / "a.mp4", "--server", running.url, "--token", token)
    assert (done.returncode, done.stdout) == (1, "")
    assert "a.mp4: not a video" in done.stderr
    assert "expected the bearer token" in ask(video, "--server", running.url).stderr


def curl_lines() -> list[str]:
    lines = re.findall(r"^    (curl .*)$", (ROOT / "docs" / "serve.md").read_text("utf-8"), re.MULTILINE)
    assert len(lines) == 5
    return lines


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", curl_lines())
def test_the_commands_of_the_documentation_work(
    recognizer: Recognizer, running: Service, video: Path, token: Path, line: str
) -> None:
    for name in ("new.mp4", "match.mp4"):
        shutil.copy(video, token.parent / name)
    # The video is short.
    command = line.replace("http://127.0.0.1:8000", running.url).replace("from=10&to=1:30", "from=0.1&to=0:1.3")
    if "Authorization" not in command:
        command = command.replace("curl", f"curl -H 'Authorization: Bearer {TOKEN}'", 1)
    done = subprocess.run(["bash", "-c", command], cwd=token.parent, capture_output=True, text=True, timeout=60)
    values = json.loads(done.stdout)
    wanted = "name" if "models" in line else "id" if "respond-async" in line else "label"
    assert wanted in (values[0] if isinstance(values, list) else values), done.stdout


def test_the_container_cannot_write_and_has_no_privileges() -> None:
    composed: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text("utf-8"))
    served = composed["services"]["stresnet"]
    assert (served["read_only"], served["cap_drop"]) == (True, ["ALL"])
    assert (ROOT / "docker" / served["build"]["context"] / served["build"]["dockerfile"]).is_file()
    assert composed["services"]["prometheus"]["profiles"] == ["metrics"]
    recipe = (ROOT / "docker" / "Dockerfile.serve").read_text("utf-8")
    final = recipe.split("\nFROM ")[-1]
    assert "\nUSER 1000\n" in final
    assert "\nHEALTHCHECK " in final
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", final, re.MULTILINE)
    assert_options_exist([*json.loads(entry)[2:], *served["command"]])


def assert_options_exist(arguments: list[str]) -> None:
    import typer

    from stresnet.cli.app import app

    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    with command.make_context("serve", list(arguments)) as context:
        assert context.params["host"] == "0.0.0.0"
        assert shlex.join(context.params["models"]) == "/models/model.safetensors"
