"""`stresnet doctor`: its text, JSON, page and exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from helpers.planted import drifting, write_clean, write_video
from helpers.tiny import VALUES, Command, one_line
from stresnet.data.store import Store, video_path

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
    code, out, err = command("doctor", source, *QUICK, "--json", "--page", page)
    assert code == 1
    values = json.loads(out)
    assert values["wasted"]
    assert values["estimates"] is None
    assert [(f["severity"], f["kind"], f["videos"]) for f in values["findings"]] == [
        ("error", "leak", ["test/run/leak.mp4", "train/run/0.mp4"]),
        ("warning", "still", ["train/run/still \x1b[31m.mp4"]),
    ]
    assert "Training would be wasted." in page.read_text("utf-8")
    code, out, err = command("doctor", source, *QUICK)
    assert code == 1
    assert "\x1b" not in out + err
    assert out.startswith("error: 1 video(s) are there twice, in several splits")
    assert out.splitlines()[-1] == "training would be wasted; mend the errors first"


def test_a_store(command: Command, store_copy: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(VALUES | {"stages": VALUES["stages"][:1]}))
    code, out, _ = command("doctor", store_copy, "--recipe", recipe, "--verify", "--workers", "1")
    assert code == 0
    assert re.search(r"train --recipe tiny +1 min", out)
    name = Store.open(store_copy).select()[0].record.id
    video_path(store_copy, name).write_bytes(b"nothing")
    code, out, _ = command("doctor", store_copy, "--json", "--workers", "1", "--page", tmp_path / "page.html")
    values = json.loads(out)
    assert (code, values["prepared"], values["estimates"]) == (1, True, None)
    assert values["findings"][0]["kind"] == "damaged"
    assert values["findings"][0]["videos"] == [name]
    assert "no picture" in (tmp_path / "page.html").read_text("utf-8")


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
