"""Who lives is known by a lock, and a lock ends with its process."""

import subprocess
import sys
from pathlib import Path

from zene.worker.roll import Roll

LIVES = """
import sys
from pathlib import Path
from zene.worker.roll import Roll
Roll(Path(sys.argv[1]), "other").enter()
print("entered", flush=True)
sys.stdin.read()
"""


def test_a_worker_is_dead_once_its_process_is(tmp_path: Path) -> None:
    roll = Roll(tmp_path, "one")
    roll.enter()
    with subprocess.Popen(
        [sys.executable, "-c", LIVES, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"entered\n"
        assert roll.dead() == []
        other.kill()
        other.wait()
        assert roll.dead() == ["other"]
    roll.strike("other")
    roll.strike("other")
    assert roll.dead() == []


def test_who_leaves_is_seen_by_others(tmp_path: Path) -> None:
    one, two = Roll(tmp_path, "one"), Roll(tmp_path, "two")
    one.enter()
    two.enter()
    assert two.dead() == []
    one.leave()
    one.leave()
    assert two.dead() == ["one"]
