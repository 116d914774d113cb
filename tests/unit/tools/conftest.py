"""A workspace in a temporary folder, and a call's surroundings in it."""

from pathlib import Path

import pytest

from tests.local import LocalBench, LocalContext


@pytest.fixture
def context(tmp_path: Path) -> LocalContext:
    return LocalContext(LocalBench(tmp_path), "itm_1", {})
