"""Asks a model behind the model server, and sorts what comes out."""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct, structs

from tests.model_server.server import ModelServer
from tests.planted import KEY
from zene.domain.errors import ModelError
from zene.domain.messages import (
    Content,
    Item,
    Message,
    Reasoning,
    SystemText,
    ToolCall,
    ToolResult,
    UserMessage,
)
from zene.llm import anthropic, openai
from zene.llm.base import CallStarted, Delta, Done, ModelInfo, Output, PartDone, Provider, Request
from zene.llm.base import ToolSpec as Tool
from zene.llm.http import Endpoint, Limits

WireName = Literal["openai.chat", "openai.responses", "anthropic"]
WIRES: tuple[WireName, ...] = ("openai.chat", "openai.responses", "anthropic")
# A model of each maker that takes tools and, where it thinks, is asked to.
MODELS: dict[WireName, str] = {
    "openai.chat": "gpt-4.1",
    "openai.responses": "gpt-5.4",
    "anthropic": "claude-opus-4-7",
}
SHELL = Tool(
    name="shell",
    description="Run a command",
    parameters={"type": "object", "properties": {"command": {"type": "string"}}},
)


class Heard(Struct, kw_only=True):
    """What came out of one call, sorted; `error` where it failed."""

    outputs: list[Output]
    error: ModelError | None = None

    @property
    def contents(self) -> list[Content]:
        return [output.content for output in self.outputs if isinstance(output, PartDone)]

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.contents if isinstance(part, Message))

    @property
    def thoughts(self) -> list[Reasoning]:
        return [part for part in self.contents if isinstance(part, Reasoning)]

    @property
    def calls(self) -> list[ToolCall]:
        return [part for part in self.contents if isinstance(part, ToolCall)]

    @property
    def done(self) -> Done:
        last = self.outputs[-1]
        assert isinstance(last, Done), self.error
        return last

    @property
    def streamed(self) -> str:
        """All deltas, also of parts that were never whole."""
        return "".join(output.text for output in self.outputs if isinstance(output, Delta))

    @property
    def has_begun(self) -> bool:
        return any(isinstance(output, Delta | CallStarted | PartDone) for output in self.outputs)


def provider_at(
    url: str, wire: WireName, *, model: str = "", key: str = KEY, limits: Limits | None = None
) -> Provider:
    """A provider of the wire format for a server at `url`."""
    info = ModelInfo(name=model or MODELS[wire], window=128_000)
    if wire == "anthropic":
        endpoint = Endpoint(base_url=url, api_key=key)
        return anthropic.open_provider(info, endpoint, limits or Limits())
    endpoint = Endpoint(base_url=f"{url}/v1", api_key=key, api=wire.removeprefix("openai."))
    return openai.open_provider(info, endpoint, limits or Limits())


def provider_for(server: ModelServer, wire: WireName, **options: Any) -> Provider:
    """A provider of the wire format for the model server."""
    return provider_at(server.url, wire, **options)


def prompt(text: str = "Mend it.", system: str = "Be good.") -> list[Item]:
    """A history that begins: system text and a prompt."""
    return [
        Item(id="itm_s", task_id="tsk_1", step=0, content=SystemText(system)),
        Item(id="itm_u", task_id="tsk_1", step=0, content=UserMessage(text)),
    ]


def asked(provider: Provider, items: Sequence[Item], **fields: Any) -> Request:
    """A request for the provider's model with one tool."""
    given: dict[str, Any] = {"tools": [SHELL], "max_output_tokens": 16_384, **fields}
    return Request(model=provider.info.name, items=items, **given)


async def hear(provider: Provider, request: Request) -> Heard:
    """Make the call and keep all that comes out, the error too."""
    heard = Heard(outputs=[])
    try:
        async for output in provider.stream(request):
            heard.outputs.append(output)
    except ModelError as error:
        heard.error = error
    return heard


def answered(items: Sequence[Item], heard: Heard, step: int, output: str = "ok") -> list[Item]:
    """The history with the answer, every call in it with a result."""
    result = ToolResult(status="succeeded", output=output)
    contents = [
        structs.replace(content, result=result) if isinstance(content, ToolCall) else content
        for content in heard.contents
    ]
    return [
        *items,
        *(
            Item(id=f"itm_{step}_{at}", task_id="tsk_1", step=step, content=content)
            for at, content in enumerate(contents)
        ),
    ]
