"""`python -m tests.broken BUILD up …` is `zene up …` of a broken build; `… BUILD pytest TEST …` runs tests on one,
and `… BUILD chaos …` plays chaos on one.
"""

import sys

import pytest

from tests import servers
from tests.broken.builds import BUILDS, FOR_CHAOS
from tests.chaos.__main__ import main as play
from zene.cli import main


class Broken:
    """Breaks the process of the tests before they are collected, and every server that they start."""

    def __init__(self, name: str) -> None:
        self._name = name

    def pytest_configure(self) -> None:
        BUILDS[self._name].breaks()
        servers.PROGRAM = ("-m", "tests.broken", self._name)


def run(name: str, program: str, *arguments: str) -> None:
    if program == "pytest":
        sys.exit(pytest.main([*arguments], plugins=[Broken(name)]))
    if program == "chaos":
        servers.PROGRAM = ("-m", "tests.broken", name)
        sys.argv = ["chaos", *arguments]
        play()
        return
    breaks = FOR_CHAOS.get(name) or BUILDS[name].breaks
    breaks()
    sys.argv = ["zene", program, *arguments]
    main()


run(*sys.argv[1:])
