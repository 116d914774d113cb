"""Sandboxes that are kept ready: the same as others, ended like others, and never anybody's before."""

import asyncio
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.contracts.sandbox.conftest import groups_of, is_running, pids_under, run, shell
from zene.sandbox.base import Spec
from zene.sandbox.bwrap import BubblewrapProvider

SECONDS = 10.0

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has none")


@pytest.fixture
async def warm(provider: BubblewrapProvider, spec: Spec, installation: str) -> BubblewrapProvider:
    """A provider with one ready for `spec`."""
    provider.expect(replace(spec, label="whoever"))
    await until_ready(provider)
    return provider


async def until_ready(provider: BubblewrapProvider) -> None:
    async with asyncio.timeout(SECONDS):
        while not provider.spares:  # noqa: ASYNC110 - nobody else wants to be told
            await asyncio.sleep(0.01)


def all_pids(installation: str) -> set[int]:
    return {pid for group in groups_of(installation).groups() for pid in group.processes()}


async def test_one_is_ready_under_no_label_and_taken_with_all_that_a_session_needs(
    warm: BubblewrapProvider, spec: Spec, installation: str
) -> None:
    ready = all_pids(installation)
    assert ready
    assert pids_under(installation, spec.label) == set()
    sandbox = await warm.open(spec)
    assert pids_under(installation, spec.label) == ready
    ran = await shell(sandbox, "echo mine > file; stat -c %u file; cat /proc/1/environ")
    assert ran.text.startswith("10001\n")
    assert "Permission denied" in ran.text
    assert (await shell(sandbox, "cat /workspace/file")).text == "mine\n"


async def test_another_is_started_for_the_next_and_they_are_apart(
    warm: BubblewrapProvider, spec: Spec, installation: str
) -> None:
    first = await warm.open(spec)
    await shell(first, "echo planted > /tmp/secret")
    await until_ready(warm)
    second = await warm.open(Spec(label="second", folders=spec.folders, limits=spec.limits))
    assert pids_under(installation, "second").isdisjoint(pids_under(installation, spec.label))
    assert (await shell(second, "kill -9 -1; echo on")).exit.code != 1
    assert (await run(first, "true")).exit.code == 0


async def test_one_for_other_limits_is_not_taken(
    warm: BubblewrapProvider, spec: Spec, installation: str
) -> None:
    ready = all_pids(installation)
    await warm.open(replace(spec, limits=replace(spec.limits, pids=77)))
    assert pids_under(installation, spec.label).isdisjoint(ready)


async def test_one_that_has_ended_is_not_taken(
    warm: BubblewrapProvider, spec: Spec, installation: str
) -> None:
    for group in groups_of(installation).groups():
        group.kill()
    await asyncio.sleep(0.1)
    sandbox = await warm.open(spec)
    assert (await run(sandbox, "true")).exit.code == 0


async def test_one_is_killed_under_its_new_label_by_whoever_takes_over(
    warm: BubblewrapProvider, spec: Spec, installation: str, tmp_path: Path
) -> None:
    await warm.open(spec)
    pids = pids_under(installation, spec.label)
    other = BubblewrapProvider(installation=installation, data_dir=tmp_path / "other")
    await other.start()
    await other.kill(spec.label)
    assert pids
    assert not any(map(is_running, pids))
    await other.close()


async def test_closing_ends_those_that_are_ready(
    warm: BubblewrapProvider, installation: str
) -> None:
    ready = all_pids(installation)
    await warm.close()
    assert not any(map(is_running, ready))
    assert groups_of(installation).groups() == []
