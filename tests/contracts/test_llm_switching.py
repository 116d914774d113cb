"""A session changes its model, in every direction between the wire formats, and comes back."""

import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.model_server import Answer, Call, ModelServer, Script
from tests.model_server.asking import WIRES, WireName, answered, asked, hear, provider_for
from zene.agent.context import visible
from zene.domain.messages import Item, SystemText, UserMessage
from zene.llm.turns import sendable_id

# Ids as compatible servers make them: characters and lengths that others refuse, and two that differ in one.
IDS = ("functions.shell:0", "functions.shell.0", "call_" + "x" * 70)


def answers(wire: WireName, task: int) -> list[Answer]:
    """A task of three turns: parallel calls, one more, the end. Ids and texts tell the task."""
    named = [f"{task}{each}" for each in IDS] if wire == "openai.chat" else ["", "", ""]
    calls = [
        Call(name="shell", arguments={"command": f"ls {n}"}, id=i) for n, i in enumerate(named)
    ]
    return [
        Answer(
            reasoning=f"thought-{task}. Hm.", redacted="r", text=f"said-{task}.", calls=calls[:2]
        ),
        Answer(reasoning=f"thought-{task}. So.", calls=calls[2:]),
        Answer(reasoning=f"thought-{task}. Well.", text=f"done-{task}."),
    ]


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with ModelServer({}) as running:
        yield running


class Session:
    """A history that tasks are added to, each played by a model of a wire format."""

    def __init__(self, server: ModelServer) -> None:
        self.items = [Item(id="s", task_id="t", step=0, content=SystemText("Be good."))]
        self._server = server
        self._steps = itertools.count(1)

    async def play(self, wire: WireName, task: int) -> list[str]:
        """Do the task; the bodies of its requests."""
        self._server.scripts = {"*": Script(answers_to={f"<{task}>": answers(wire, task)})}
        self._server.requests.clear()
        prompt = UserMessage(f"<{task}>")
        self.items.append(Item(id=f"u{task}", task_id="t", step=0, content=prompt))
        provider = provider_for(self._server, wire)
        for step in itertools.islice(self._steps, 3):
            heard = await hear(provider, asked(provider, visible(self.items, wire)))
            assert heard.error is None
            assert heard.thoughts[-1].text.startswith(f"thought-{task}")
            self.items = answered(self.items, heard, step, output=f"result-{task}")
        await provider.close()
        return [request.body for request in self._server.requests]


def directions() -> Iterator[tuple[WireName, WireName]]:
    return itertools.permutations(WIRES, 2)


@pytest.mark.parametrize(("first", "second"), list(directions()))
async def test_a_session_goes_to_another_wire_format_and_comes_back(
    server: ModelServer, first: WireName, second: WireName
) -> None:
    session = Session(server)
    for task, wire in enumerate((first, second, first, second)):
        bodies = await session.play(wire, task)
        check_prefix(bodies)
        last = bodies[-1]
        for before in range(task + 1):
            assert last.count(f"result-{before}") == 3
            is_own = before % 2 == task % 2
            assert (f"thought-{before}. So." in last) == is_own
            assert f"said-{before}." in last
        assert [f"done-{before}." in last for before in range(task)] == [True] * task


def check_prefix(bodies: list[str]) -> None:
    """Each request of a task begins with the whole of the one before."""
    unmarked = [body.replace(',"cache_control":{"type":"ephemeral"}', "") for body in bodies]
    for one, after in itertools.pairwise(unmarked):
        assert after.startswith(one.removesuffix("]}"))


@pytest.mark.parametrize("call_id", ["", "a.b", "é" * 9, "x" * 41, "\udcff", "a b\n"])
def test_an_id_is_made_to_fit_and_stays_its_own(call_id: str) -> None:
    made = sendable_id(call_id, longest=40)
    assert made == sendable_id(made, longest=40)
    assert 0 < len(made) <= 40
    assert made != sendable_id(call_id + "_", longest=40)


def test_an_id_that_fits_stays_as_it_is() -> None:
    assert sendable_id("toolu_01-A", longest=40) == "toolu_01-A"
