import sys
from pathlib import Path

import pytest

from zene import seams
from zene.domain.errors import SetupError


def test_a_scheme_opens_its_backend() -> None:
    assert type(seams.backend("bus", "memory://")("memory://", "one")).__name__ == "MemoryBus"


def test_an_unknown_scheme_is_told_the_known_ones() -> None:
    with pytest.raises(SetupError, match=r"'oracle'\. There are: sqlite"):
        seams.backend("store", "oracle://host")


def test_a_missing_client_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "planted_backend.py").write_text("import a_client_nobody_installed")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(seams.BACKENDS["bus"], "planted", "planted_backend:Bus")
    with pytest.raises(
        SetupError, match=r"a_client_nobody_installed.*pip install 'zene\[planted_backend\]'"
    ):
        seams.backend("bus", "planted://")
    sys.modules.pop("planted_backend", None)


@pytest.mark.parametrize(
    ("seam", "scheme"),
    [(seam, scheme) for seam, known in seams.BACKENDS.items() for scheme in known],
)
def test_every_scheme_in_the_table_can_be_opened(seam: seams.Seam, scheme: str) -> None:
    assert callable(seams.backend(seam, f"{scheme}:"))
