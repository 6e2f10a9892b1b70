"""Links, files, recipes and options named in the documentation exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stresnet.recipes import packaged_recipes

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_point_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing
    assert "<!--" not in page.read_text("utf-8")


def test_recipes_files_and_targets_of_the_readme_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert set(re.findall(r"--recipe (\S+)", text)) <= set(packaged_recipes())
    for file in re.findall(r"`((?:docs|model|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / file).exists() or (ROOT / "src" / "stresnet" / file).exists(), file
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"^    make (\w+)", text, re.MULTILINE)) <= set(targets)


def test_options_of_the_readme_exist(capsys: pytest.CaptureFixture[str]) -> None:
    from stresnet.cli.app import run

    text = (ROOT / "README.md").read_text("utf-8")
    for command in ("prepare", "train", "evaluate", "predict"):
        assert run([command, "--help"]) == 0
        known = capsys.readouterr().out
        for line in re.findall(rf"stresnet {command} ([^\n]*)", text):
            for option in re.findall(r"--[a-z-]+", line):
                assert option in known, f"{command} {option}"
