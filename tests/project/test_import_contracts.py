"""The import contracts cover what is there: a backend that nobody protected would be reached by name."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "zene"

# Modules that only the composition root may import, here once the file is.
BACKENDS = [
    "zene.bus.memory",
    "zene.bus.redis",
    "zene.llm.anthropic",
    "zene.llm.demo",
    "zene.llm.openai",
    "zene.sandbox.bwrap",
    "zene.store.postgres",
    "zene.store.sqlite",
]


def contracts() -> dict[str, dict[str, list[str]]]:
    """Each contract's settings by its id."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {each["id"]: each for each in project["tool"]["importlinter"]["contracts"]}


def exists(module: str) -> bool:
    path = ROOT / "src" / Path(*module.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("module", BACKENDS)
def test_a_backend_that_exists_is_protected(module: str) -> None:
    protected = contracts().get("backends", {}).get("protected_modules", [])
    assert (module in protected) == exists(module)


def test_settings_are_protected_once_they_exist() -> None:
    assert ("settings" in contracts()) == exists("zene.settings")


def test_the_agent_stands_alone_once_it_exists() -> None:
    assert ("agent-stands-alone" in contracts()) == (exists("zene.agent") and exists("zene.tools"))


@pytest.mark.parametrize("library", ["fastapi", "starlette", "uvicorn"])
def test_a_web_library_in_use_is_protected(library: str) -> None:
    imports = re.compile(rf"^\s*(?:from|import) {library}\b", re.MULTILINE)
    is_used = any(imports.search(path.read_text()) for path in SOURCE.rglob("*.py"))
    protected = contracts().get("web-framework", {}).get("protected_modules", [])
    assert (library in protected) == is_used
