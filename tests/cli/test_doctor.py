"""`stresnet doctor`: its text, JSON, page and exit codes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from helpers.planted import drifting, write_clean, write_video
from helpers.tiny import Command, one_line
from stresnet.data.store import Store, video_path
from stresnet.doctor.estimates import Estimates, PrepareEstimate, RecipeEstimate
from stresnet.doctor.survey import Survey
from stresnet.recipes import Recipe, packaged_recipes

FOUND = Estimates(
    PrepareEstimate(hours=50.0, disk_bytes=2.5e9),
    (
        RecipeEstimate("small", hours=1.25, memory_bytes=3e8, disk_bytes=5e7),
        RecipeEstimate("ucf101", math.nan, math.nan, math.nan, "needs more memory than there is"),
    ),
    load=2.0,
)
QUICK = ["--workers", "1", "--no-estimates", "--short-side", "48"]


def test_a_source(command: Command, tmp_path: Path) -> None:
    source = write_clean(tmp_path / "videos <b>", ("clap", "run"))
    page = tmp_path / "page.html"
    code, out, err = command("doctor", source, *QUICK, "--page", page)
    assert (code, out.splitlines()[-1]) == (0, "nothing found")
    assert "14 videos, 14 usable with 336 frames; classes: 2; training: 10, validation: 0, test: 4" in out
    assert f"page: {page}" in err
    html = page.read_text("utf-8")
    assert "Training can begin. Nothing was found." in html
    assert html.count("data:image/jpeg;base64,") == 12
    assert "videos &lt;b&gt;" in html
    assert not re.search(r"<script|https?://|videos <b>", html)

    (source / "test" / "run" / "leak.mp4").write_bytes((source / "train" / "run" / "0.mp4").read_bytes())
    write_video(source / "train" / "run" / "still \x1b[31m.mp4", drifting(9, 1) * 20)
    code, out, err = command("doctor", source, *QUICK, "--json")
    assert code == 1
    values = json.loads(out)
    assert values["wasted"]
    assert values["estimates"] is None
    assert [(f["severity"], f["kind"], f["videos"]) for f in values["findings"]] == [
        ("error", "leak", ["test/run/leak.mp4", "train/run/0.mp4"]),
        ("warning", "still", ["train/run/still \x1b[31m.mp4"]),
    ]
    code, out, err = command("doctor", source, *QUICK)
    assert code == 1
    assert "\x1b" not in out + err
    assert out.startswith("error: 1 video(s) are there twice, in several splits")
    assert out.splitlines()[-1] == "training would be wasted; mend the errors first"


def test_a_store(command: Command, store_copy: Path, tmp_path: Path) -> None:
    name = Store.open(store_copy).select()[0].record.id
    video_path(store_copy, name).write_bytes(b"nothing")
    page = tmp_path / "page.html"
    code, out, _ = command("doctor", store_copy, "--json", "--verify", "--workers", "1", "--page", page)
    values = json.loads(out)
    assert (code, values["prepared"], values["estimates"]) == (1, True, None)
    assert values["findings"][0]["kind"] == "damaged"
    assert values["findings"][0]["videos"] == [name]
    html = page.read_text("utf-8")
    assert "Training would be wasted." in html
    assert "no picture" in html


def test_estimates_are_shown(command: Command, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def found(survey: object, recipes: list[Recipe], *_: object) -> Estimates:
        asked.extend(recipe.name for recipe in recipes)
        return FOUND

    monkeypatch.setattr("stresnet.doctor.run.estimate", found)
    monkeypatch.setattr("stresnet.doctor.run.survey_store", lambda *_, **__: Survey(store, frozenset(), True))
    monkeypatch.setattr("stresnet.doctor.page.pictures_of", lambda *_: {})
    page = tmp_path / "page.html"
    code, out, _ = command("doctor", store.root, "--page", page)
    assert code == 0
    assert asked == [name for name in packaged_recipes() if name != "demo"]
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "prepare 2.1 days 2.5 GB" in lines
    assert "train --recipe small 1.2 h 300 MB 50 MB" in lines
    assert "train --recipe ucf101 – – – needs more memory than there is" in lines
    assert "load 2.0 per core" in out
    html = page.read_text("utf-8")
    for text in ("2.1 days", "300 MB", "needs more memory than there is", "load 2.0 per core"):
        assert text in html
    values = json.loads(command("doctor", store.root, "--json", "--recipe", "small")[1])["estimates"]
    assert asked[-1] == "small"
    assert values["prepare"] == {"hours": 50.0, "disk_bytes": 2.5e9}
    assert values["recipes"][1] == {
        "recipe": "ucf101",
        "hours": None,
        "memory_bytes": None,
        "disk_bytes": None,
        "problem": "needs more memory than there is",
    }


def test_wrong_usage(command: Command, videos: Path, tmp_path: Path) -> None:
    for code, expected, *arguments in (
        (2, "--verify compares a store with its checksums", videos, "--verify"),
        (1, "unknown recipe 'huge'", videos, "--recipe", "huge"),
        (1, "nowhere does not exist", tmp_path / "nowhere"),
        (2, "--dataset ucf101 needs --splits", videos, "--dataset", "ucf101"),
    ):
        found, out, err = command("doctor", *arguments)
        assert (found, out) == (code, "")
        assert expected in one_line(err)
