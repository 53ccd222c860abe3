"""Small training runs in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.small_fit import Fit


@pytest.fixture
def make_fit(tmp_path: Path) -> Callable[..., Fit]:
    """`make_fit(**settings)`: a new run in a folder of its own."""
    count = 0

    def make(**settings: Any) -> Fit:
        nonlocal count
        count += 1
        folder = tmp_path / f"fit{count}"
        folder.mkdir()
        return Fit(folder, **settings)

    return make
