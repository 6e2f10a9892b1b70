"""Importing the light parts of the package stays cheap. `lint-imports` holds the import rule itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "cv2", "av", "lightning", "matplotlib", "pyarrow.parquet")


def loaded_by(code: str) -> set[str]:
    """Return the heavy packages that a new interpreter has loaded after running `code`."""
    ask = f"import sys\n{code}\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    return set(
        subprocess.run([sys.executable, "-c", ask], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    )


@pytest.mark.parametrize("code", ["import stresnet", "import stresnet; dir(stresnet)", "import stresnet.cli.app"])
def test_importing_the_package_and_the_command_line_loads_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


@pytest.mark.parametrize(
    "module", ["media", "flow", "flow.estimate", "data.catalog", "data.store", "data.prepare", "doctor.examine"]
)
def test_processes_that_prepare_videos_do_not_load_torch(module: str) -> None:
    assert loaded_by(f"import stresnet.{module}") <= {"cv2", "av", "pyarrow.parquet"}


def test_predicting_loads_nothing_for_stores_training_or_reports() -> None:
    assert loaded_by("import stresnet.inference.recognizer") <= {"torch", "cv2", "av"}


def test_a_heavy_import_is_noticed() -> None:
    assert "av" in loaded_by("import stresnet.media.video")
