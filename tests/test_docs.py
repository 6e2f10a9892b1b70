"""Links, files, recipes, options and names in the documentation exist."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from stresnet.recipes import packaged_recipes, parse_recipe
from stresnet.studies import load_study

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])
COMMANDS = (
    *("demo", "prepare", "doctor", "train", "evaluate", "predict", "live", "serve", "export", "fuse", "study", "flow"),
    *("convert", "models"),
)
FOLDERS = (
    "benchmarks|cli|data|docker|docs|doctor|examples|export|flow|inference|media|model|recipes|serving|studies|tests|"
    "training|weights"
)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def load_script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@every_page
def test_links_point_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []
    assert "<!--" not in page.read_text("utf-8")


@every_page
def test_recipes_files_and_targets_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    recipes = set(re.findall(r"--recipe ([a-z][\w-]+)(?![\w.])", text)) - {"mine"}
    assert recipes <= set(packaged_recipes())
    for file in set(re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text)) - {"flow/u", "flow/v"}:  # folders of JPEGs
        assert (ROOT / file).exists() or (ROOT / "src" / "stresnet" / file).exists(), file
    for file in re.findall(r"python ((?:benchmarks|examples|docs)/\S+\.py)", text):
        assert (ROOT / file).exists(), file
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:^    |`)make ([\w-]+)", text, re.MULTILINE)) <= set(targets)


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """The options of each command."""
    import typer

    from stresnet.cli.app import app

    group = typer.main.get_command(app)
    return {name: {"--help"} | {o for p in c.params for o in p.opts} for name, c in group.commands.items()}  # type: ignore[attr-defined]


def options_named(text: str) -> Iterator[tuple[str, str]]:
    """Yield the command and option of each command line on a page."""
    for command, rest in re.findall(rf"stresnet ({'|'.join(COMMANDS)})\b([^\n`]*)", text):
        yield from ((command, option) for option in re.findall(r"(?<!\S)--[a-z][a-z0-9-]*", rest))


@every_page
def test_options_of_commands_exist(page: Path, options: dict[str, set[str]]) -> None:
    assert {name for name in COMMANDS if name not in options} == set()
    for command, option in options_named(page.read_text("utf-8")):
        assert option in options[command], f"stresnet {command} {option}"


def test_options_are_found_on_pages() -> None:
    assert ("train", "--recipe") in set(options_named((ROOT / "README.md").read_text("utf-8")))


def test_the_table_of_recipe_fields_is_current() -> None:
    script = load_script(ROOT / "docs" / "recipe_fields.py")
    assert script.PAGE.read_text("utf-8") == script.page(), "run: python docs/recipe_fields.py"


def test_the_recipe_on_the_recipes_page_is_valid() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "recipes.md").read_text("utf-8"), re.DOTALL)
    assert [stage.name for stage in parse_recipe(yaml.safe_load(text), "docs").stages] == [
        "appearance",
        "motion",
        "st-resnet",
    ]


def test_the_study_on_the_studies_page_is_valid(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "studies.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "study.yaml").write_text(text, "utf-8")
    study, recipes = load_study(tmp_path / "study.yaml")
    assert len(recipes) == 1 + len(study.cells) == 4


@every_page
def test_python_on_pages_uses_public_names(page: Path) -> None:
    import stresnet

    for code in re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL):
        compile(code, str(page), "exec")
        assert set(re.findall(r"\bstresnet\.([A-Za-z_]+)\b", code)) <= {*dir(stresnet), "data", "flow", "model"}


def test_every_page_of_the_site_is_in_its_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:\n")[1]
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert set(re.findall(r"[\w/-]+\.md", navigation)) == pages


def test_the_page_on_videos_has_every_kind_of_finding() -> None:
    from stresnet.data.finding import SEVERITIES

    page = (ROOT / "docs" / "videos.md").read_text("utf-8")
    rows = re.findall(r"^\| (error|warning|note) \| ([`\w, ]+) \|", page, re.MULTILINE)
    assert {kind: severity for severity, kinds in rows for kind in re.findall(r"\w+", kinds)} == SEVERITIES
