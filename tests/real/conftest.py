"""Where the real models lie. Tests that need one carry the marker `real` and ask the fixture `real_model`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.make_real_models import FOLDER


@pytest.fixture(scope="session")
def real_model() -> Callable[[str], Path]:
    """`real_model("tiny_llama2")`: the folder of that model; skips where it is not there."""

    def find(name: str) -> Path:
        folder = FOLDER / name
        if not folder.is_dir():
            pytest.skip(f"{folder} is not there: `make real` makes it; ORCA2_REAL names another place")
        return folder

    return find
