"""The agent: settle what is open, ask the model, and again, until it answers without a call.

The loop can start anywhere. It holds nothing that the history does not, so it may end after any batch,
and whoever starts it again on what was stored goes on as if nothing had happened.
"""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Any

from zene.agent import answers, calls, compaction, stops
from zene.agent.base import Batch, Limits, Operations
from zene.agent.desk import Desk, desk
from zene.agent.prompts import system_text
from zene.domain.events import StepStarted, TaskWaiting
from zene.domain.messages import SystemText, UserMessage
from zene.domain.situation import Grant, Granted, Refused, Situation, Unheard
from zene.llm.base import Provider
from zene.tools.base import Tool


async def run(
    situation: Situation,
    *,
    model: Provider,
    tools: Iterable[Tool[Any]],
    ops: Operations,
    limits: Limits = Limits(),  # noqa: B008  a frozen value
) -> AsyncGenerator[Batch, Grant | None]:
    """Work on the task until it has ended or waits; the last batch says which.

    The answer to a batch with `reserve` is a Grant; to the last one, Unheard where the user said something
    meanwhile. Raises what makes going on impossible (LeaseLost, no
    sandbox, no store); what the model or a tool does wrong is told in batches.
    """
    at = desk(situation, model=model, tools=tools, ops=ops, limits=limits)
    if at.talk.is_new_task:
        await _open_task(at)
    while True:
        async with aclosing(calls.settle(at)) as batches:
            async for batch in batches:
                yield batch
        stops.check(at)
        if not at.talk.has_ended:
            step, added = answers.answer, 0
            if compaction.is_due(at):
                step, added = compaction.summarise, compaction.ADDED
            else:
                await _hear(at)
            bound = at.bound(added)
            at.talk.say(StepStarted(model=at.talk.task.model))
            grant = yield at.talk.batch(reserve=bound)
            if isinstance(grant, Granted):
                async with aclosing(step(at, grant)) as batches:
                    async for batch in batches:
                        yield batch
                continue
            if not isinstance(grant, Refused) or grant.why != "wait":
                return
            at.talk.say(TaskWaiting(on="quota"))
        if not isinstance((yield at.talk.batch()), Unheard):
            return
        at.talk.has_ended = False


async def _open_task(at: Desk) -> None:
    """What a task begins with: the system text, where it is not the one in force, and the prompt."""
    text, rules = await system_text(at.ops.bench)
    if text != at.talk.system:
        at.talk.say_item(at.ops.new_id("itm"), "notice", SystemText(text), rules)
    prompt = at.talk.task.prompt
    at.talk.say_item(at.ops.new_id("itm"), "user_message", UserMessage(prompt), prompt)


async def _hear(at: Desk) -> None:
    """Put what the user said meanwhile after all results, before the model is asked."""
    for steer in await at.ops.steers():
        at.talk.say_item(steer.id, "user_message", UserMessage(steer.text), steer.text)
