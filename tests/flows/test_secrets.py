"""Planted secrets stay where they are: every server of the tests is looked through for them at its end."""

import base64
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.model_server import Answer, Call, ModelServer, Script
from tests.planted import KEY, PASSWORD, check_none
from tests.servers import Zene, a_free_port, begin, served_by

# They name no secret whole: what is asked for would be found where it was asked.
SEARCHES = (
    "env; cat /proc/*/environ /proc/*/cmdline | tr '\\0' '\\n'",
    "grep -rsaoh 'sk-the-[a-z-]*' / --exclude-dir=sys --exclude-dir=usr --exclude-dir=proc",
    "grep -rsaoh 'correct.horse[a-z ]*' / --exclude-dir=sys --exclude-dir=usr --exclude-dir=proc",
    "ls -laR / --ignore=proc --ignore=sys --ignore=usr",
)


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def test_an_agent_that_looks_everywhere_finds_none(zene: Zene, model: ModelServer) -> None:
    calls = [Call(name="shell", arguments={"command": command}) for command in SEARCHES]
    model.scripts["*"] = Script(answers=[Answer(calls=calls), Answer(text="Nothing.")])
    log, task = await begin(zene)
    assert (await log.finished(task))["outcome"] == "succeeded"
    assert "PATH=" in log.calls()[0]["output"]
    zene.check_secrets()


@pytest.mark.parametrize("name", ["openai:gpt-4.1", "anthropic:claude-sonnet-4-5"])
async def test_a_provider_that_repeats_the_key_tells_it_to_nobody(
    tmp_path: Path, name: str
) -> None:
    async with (
        ModelServer({}, keys=["another"]) as model,
        Zene(tmp_path, served_by(model, name), a_free_port()) as zene,
    ):
        await zene.up()
        log, task = await begin(zene)
        end = await log.finished(task)
        assert (end["outcome"], end["error"]["code"]) == ("failed", "model_unauthorized")
        zene.check_secrets()


@pytest.mark.parametrize("form", [str, quote, base64_of])
@pytest.mark.parametrize("before", ["", "1", "22", "{'key': '"])
def test_a_secret_is_found_in_every_form(form: Callable[[str], str], before: str) -> None:
    for secret in (KEY, PASSWORD):
        with pytest.raises(AssertionError):
            check_none(form(f"{before}{secret}, and more").encode(), "a text")
    check_none(form(f"{before}sk-the-key, and more").encode(), "a text")
