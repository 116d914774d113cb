"""Report code that nothing uses: vulture's findings, without declarations that are used by being there.

A field of a data class is read by whoever decodes the record, and an argument of a Protocol's method
by whoever implements it; vulture sees neither. Unused arguments elsewhere are ruff's to find.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

FINDING = re.compile(r"(?P<path>[^:]+):(?P<line>\d+): unused variable ")


def main() -> int:
    """Print what is unused and return the exit code: 1 where there is anything."""
    vulture = subprocess.run(
        [sys.executable, "-m", "vulture", *sys.argv[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    if vulture.stderr:
        print(vulture.stderr, file=sys.stderr)
    unused = [line for line in vulture.stdout.splitlines() if not is_declaration(line)]
    print(*unused, sep="\n", end="\n" if unused else "")
    return 1 if unused or vulture.stderr else 0


def is_declaration(finding: str) -> bool:
    """Whether a finding speaks of a field or of an argument."""
    match = FINDING.match(finding)
    if not match:
        return False
    module = ast.parse(Path(match["path"]).read_text())
    return int(match["line"]) in set(declared_lines(module))


def declared_lines(module: ast.Module) -> Iterator[int]:
    """Lines on which a class names a field or a function its arguments."""
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            yield from (
                field.lineno for field in node.body if isinstance(field, ast.AnnAssign | ast.Assign)
            )
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from (
                argument.lineno for argument in ast.walk(node) if isinstance(argument, ast.arg)
            )


if __name__ == "__main__":
    sys.exit(main())
