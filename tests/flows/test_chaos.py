"""Chaos, for a short while; `make chaos` and `make soak` go on for longer."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.play import play
from tests.postgres_server import PostgresServer, postgres_server

SECONDS = 30.0


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """One that may be ended."""
    with postgres_server() as server:
        yield server


@pytest.mark.timeout(300)
async def test_whatever_goes_wrong_every_promise_holds(
    tmp_path: Path, own_postgres: PostgresServer
) -> None:
    seed = random.randrange(1 << 32)
    sys.stdout.write(f"seed {seed}\n")  # shown where it fails
    report = await play(tmp_path, own_postgres, seed=seed, seconds=SECONDS)
    assert sum(report.faults.values()) >= len(FAULTS) // 2
    assert report.tasks >= 20
    assert report.outcomes.get("succeeded", 0) > report.tasks // 3


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("build", "fault"),
    [
        ("whoever stood still goes on", "freeze_a_worker"),
        ("a key for one answer is not looked at", "flush_redis"),
    ],
)
def test_chaos_catches_that(build: str, fault: str) -> None:
    """On a build that breaks a promise, a play fails, and says which."""
    play_it = ("chaos", "--seconds", "15", "--plays", "3", "--only", fault)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.broken", build, *play_it],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout
    assert "Violated" in ran.stderr or "AssertionError" in ran.stderr, ran.stderr
