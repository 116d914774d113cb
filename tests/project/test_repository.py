"""What may be in the repository: nothing that ties it to one machine or one package index, nothing too long to read."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / "requirements.lock", ROOT / "requirements-dev.lock"]

# Written with brackets, so that these lines do not match themselves.
INDEX_HOSTS = re.compile(
    r"[p]ypi\.org|[p]ythonhosted\.org|[r]egistry\.npmjs|[r]egistry\.yarnpkg|[p]roxy\.golang|[c]rates\.io"
)
MACHINE_PATHS = re.compile(r"(?<![\w.$}~])/(?:[w]ork|[r]oot|[f]arm|[h]ome/(?!zene/)[a-z]+)/")
ADDRESS = re.compile(r"[a-z+]+://")

MAX_LINES_OF_A_FILE = 600
MAX_LINES_OF_A_FUNCTION = 80
MAX_LINES_OF_A_CLASS = 300
MEDIAN_LINES_OF_A_FILE = 150


def tracked_files() -> list[Path]:
    """All files that git keeps, whoever owns the checkout."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return [path for name in listed.stdout.split("\0") if (path := ROOT / name).is_file()]


def texts() -> Iterator[tuple[str, str]]:
    """Name and text of every tracked file that is text."""
    for path in tracked_files():
        try:
            yield str(path.relative_to(ROOT)), path.read_text()
        except UnicodeDecodeError:
            continue


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def mentions(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{name}:{text.count(chr(10), 0, found.start()) + 1}: {found.group()}"
        for name, text in texts()
        for found in pattern.finditer(text)
    ]


def test_no_file_names_a_package_index() -> None:
    assert mentions(INDEX_HOSTS) == []


def test_no_file_names_a_folder_of_one_machine() -> None:
    assert mentions(MACHINE_PATHS) == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_holds_no_address(lock: Path) -> None:
    assert ADDRESS.findall(lock.read_text()) == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_everything_with_hashes(lock: Path) -> None:
    requirements = pins(lock)
    assert requirements
    assert [name for name, pin in requirements.items() if "--hash=sha256:" not in pin] == []


def test_the_development_lock_holds_the_same_versions_as_the_one_to_run() -> None:
    run, develop = (pins(lock) for lock in LOCKS)
    assert {name: develop.get(name) for name in run} == run


def pins(lock: Path) -> dict[str, str]:
    """Each `name==version …` of a lock with its hashes, comments left out."""
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    entries = re.split(r"\n(?=\S)", "\n".join(lines))
    return {entry.partition("==")[0]: entry.strip() for entry in entries if "==" in entry}


def test_no_python_file_is_longer_than_one_can_read() -> None:
    lengths = {
        str(path.relative_to(ROOT)): path.read_text().count("\n")
        for folder in ("src", "tests", "benchmarks")
        for path in python_files(folder)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES_OF_A_FILE} == {}


def test_half_of_the_source_files_are_short() -> None:
    lengths = sorted(path.read_text().count("\n") for path in python_files("src"))
    assert lengths[len(lengths) // 2] <= MEDIAN_LINES_OF_A_FILE


def test_no_function_or_class_is_longer_than_one_can_read() -> None:
    too_long = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for path in python_files("src")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and lines_of(node)
        > (MAX_LINES_OF_A_CLASS if isinstance(node, ast.ClassDef) else MAX_LINES_OF_A_FUNCTION)
    ]
    assert too_long == []


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1
