"""Everything that a run works with, in one value: the conversation, the model, the tools, the limits."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from zene.agent import context, spending
from zene.agent.base import Limits, Operations
from zene.agent.conversation import Conversation
from zene.domain.approvals import Approval
from zene.domain.errors import ModelError
from zene.domain.events import ErrorBody, ItemKind, StepFinished, TaskFinished
from zene.domain.messages import Usage
from zene.domain.sessions import ApprovalPolicy
from zene.domain.situation import Situation
from zene.domain.tasks import Outcome
from zene.llm.base import Provider, Request, ToolSpec
from zene.llm.pricing import cost
from zene.tools.base import Tool
from zene.tools.schema import parameters


@dataclass(kw_only=True)
class Desk:
    """One run of the agent. Only the conversation grows."""

    talk: Conversation
    model: Provider
    tools: Mapping[str, Tool[Any]]
    specs: tuple[ToolSpec, ...]
    ops: Operations
    limits: Limits
    policy: ApprovalPolicy
    approvals: Mapping[str, Approval]
    rules: frozenset[str]
    reserved: int = 0
    must_compact: bool = False

    @property
    def is_overdue(self) -> bool:
        """Whether the task's working time is used up."""
        deadline = self.limits.deadline_ms
        return deadline is not None and self.ops.now_ms() >= deadline

    def request(self, cap: int) -> Request:
        """The next call of the model on the history as it is."""
        model = self.model
        return context.request(
            self.talk, info=model.info, wire=model.wire, specs=self.specs, cap=cap
        )

    def bound(self, added: int = 0) -> int:
        """The most input tokens that the next call can have, with so many bytes beside the history; kept, to
        charge a call that is not counted.
        """
        self.reserved = spending.bound(self.talk, self.specs, self.model.info.window, added)
        return self.reserved

    def kind(self, name: str) -> ItemKind:
        """How the page shows a call of this tool."""
        tool = self.tools.get(name)
        return "tool_call" if tool is None else tool.kind

    def end_step(self, stop_reason: str, usage: Usage | None, cap: int) -> Usage:
        """The model call is over; what it is charged, at its reservation where it was not counted."""
        charged = spending.charged(usage, bound=self.reserved, cap=cap)
        self._settle(stop_reason, charged)
        return charged

    def fail_step(self, error: ModelError, cap: int) -> None:
        """The model call failed. A history that is too long is summed up, once; all else ends the task."""
        refused = error.unsent or error.code in spending.UNCHARGED
        charged = Usage() if refused else spending.charged(None, bound=self.reserved, cap=cap)
        self._settle("error", charged)
        is_too_long = error.code == "model_context_too_long"
        if is_too_long and self.talk.can_be_compacted and not self.must_compact:
            self.must_compact = True
        else:
            self.fail(error.code, error.message, retryable=error.retryable)

    def end(self, outcome: Outcome, error: ErrorBody | None = None) -> None:
        """The task is over."""
        talk = self.talk
        talk.say(TaskFinished(outcome=outcome, error=error, usage=talk.usage, cost=talk.cost))

    def fail(self, code: str, message: str, *, retryable: bool = False) -> None:
        """The task is over and has failed."""
        self.end("failed", ErrorBody(code=code, message=message, retryable=retryable))

    def _settle(self, stop_reason: str, usage: Usage) -> None:
        price = cost(usage, self.model.info)
        self.talk.say(StepFinished(stop_reason=stop_reason, usage=usage, cost=price))


def desk(
    situation: Situation,
    *,
    model: Provider,
    tools: Iterable[Tool[Any]],
    ops: Operations,
    limits: Limits,
) -> Desk:
    """The desk as it stands when a run begins."""
    by_name = {tool.name: tool for tool in tools}
    return Desk(
        talk=Conversation(situation),
        model=model,
        tools=by_name,
        specs=tuple(map(_spec, by_name.values())),
        ops=ops,
        limits=limits,
        policy=situation.policy,
        approvals=situation.approvals,
        rules=situation.rules,
    )


@cache
def _spec(tool: Tool[Any]) -> ToolSpec:
    return ToolSpec(
        name=tool.name, description=tool.description, parameters=parameters(tool.arguments)
    )
