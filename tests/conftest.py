"""Hypothesis profiles (dev by default, ci by HYPOTHESIS_PROFILE) and data outside the project."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("dev", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))

SLICOT_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "reference" / "slicot"


@pytest.fixture(scope="session")
def slicot_folder() -> Path:
    """Folder with the SLICOT benchmark models (``*.mat``), which are not part of the project."""
    folder = Path(os.environ.get("SSMRED_SLICOT", SLICOT_FOLDER))
    if not folder.is_dir():
        pytest.skip(f"no SLICOT models in {folder}; set SSMRED_SLICOT to their folder")
    return folder
