"""The model server: which answer a request gets, and a log of every request.

It stands on a protocol of its own, not on a web framework: it has to break off, fall silent and babble at any
byte, and a request should cost less than a millisecond, as it also serves the benchmarks.
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from msgspec import Struct

from tests.model_server import anthropic_format, openai_format, responses_format
from tests.model_server.formats import Refused
from tests.model_server.playing import Connection, Reply
from tests.model_server.scripts import Answer, Fault, Script
from tests.planted import check_none

_FORMATS: Mapping[str, ModuleType] = {
    "/v1/chat/completions": openai_format,
    "/v1/responses": responses_format,
    "/v1/messages": anthropic_format,
}


class Logged(Struct, kw_only=True):
    """A request as it came, and what it was counted for; `usage` is None where it was refused."""

    path: str
    model: str
    key: str
    step: int
    status: int
    body: str
    headers: dict[str, str]
    usage: dict[str, Any] | None = None


class ModelServer:
    """Plays `scripts`, chosen by the request's model, else by its key, else `*`.

    `keys` are the keys it takes; None takes any. `requests` is what it has been asked, in order.
    """

    def __init__(
        self,
        scripts: Mapping[str, Script],
        *,
        keys: Sequence[str] | None = None,
        port: int = 0,
    ) -> None:
        self.scripts = dict(scripts)
        self.requests: list[Logged] = []
        self.port = port
        self._keys = keys
        self._changed = asyncio.Event()
        self._faults_played: Counter[tuple[str, int]] = Counter()
        self.connections_made = 0
        self._server: asyncio.Server | None = None
        self.open_connections: set[Connection] = set()

    @property
    def url(self) -> str:
        """Its address; the wire formats' paths follow `/v1`."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> "ModelServer":
        """Listen, on a free port unless one was named."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def refuse(self) -> None:
        """Take no more connections; those that there are go on."""
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        """Stop, and hang up on everybody."""
        self.refuse()
        players = [connection.hang_up() for connection in list(self.open_connections)]
        await asyncio.gather(*filter(None, players), return_exceptions=True)

    async def until(self, is_so: Callable[[], object]) -> None:
        """Wait, at most 10 s, until it is so: looked at whenever a request comes or a client leaves."""
        async with asyncio.timeout(10):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    async def __aenter__(self) -> "ModelServer":
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()
        for request in self.requests:
            check_none(request.body.encode(), "what the model was asked")

    def reply(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        if path.startswith("/_log"):
            return self._log(method)
        wire = _FORMATS.get(path)
        if wire is None or method != "POST":
            return Reply(status=404, events=[b'{"error": {"message": "no such path"}}'])
        logged = Logged(
            path=path, model="", key=wire.key_of(headers), step=0, status=200, body="", headers={}
        )
        logged.body = body.decode("utf-8", "replace")
        logged.headers = dict(headers)
        self.requests.append(logged)
        try:
            return self._answer(wire, logged, headers, body)
        except Refused as refused:
            logged.status = refused.status
            return Reply(status=refused.status, events=[wire.error_body(refused)])

    def _accepted(self) -> Connection:
        self.connections_made += 1
        return Connection(self.reply, self.open_connections, self._changed)

    def _answer(
        self, wire: ModuleType, logged: Logged, headers: Mapping[str, str], body: bytes
    ) -> Reply:
        if not logged.key or (self._keys is not None and logged.key not in self._keys):
            raise Refused(401, "authentication_error", f"Incorrect API key provided: {logged.key}")
        try:
            request = json.loads(body)
            logged.model = request["model"]
            script = self._script(logged)
            wire.check(request, headers, script)
            prompt, logged.step = wire.place(request, takes_steering=script.takes_steering)
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            raise Refused(400, "invalid_request_error", f"not understood: {err!r}") from err
        if script.window and len(body) // 4 > script.window:
            words = f"This model's maximum context length is {script.window} tokens."
            raise Refused(400, "context_length_exceeded", words)
        answer = script.answer(prompt, logged.step)
        logged.usage = wire.usage_of(body, answer, logged.step)
        name = hashlib.sha256(body).hexdigest()[:12]
        events = wire.events(request, answer, name, logged.usage)
        fault = self._fault(answer, logged)
        return Reply(
            status=200, events=events, delay_ms=answer.delay_ms, fault=fault, is_stream=True
        )

    def _script(self, logged: Logged) -> Script:
        for name in (logged.model, logged.key, "*"):
            if name in self.scripts:
                return self.scripts[name]
        raise Refused(404, "model_not_found", f"The model `{logged.model}` does not exist")

    def _fault(self, answer: Answer, logged: Logged) -> Fault | None:
        fault = answer.fault
        if fault is None:
            return None
        self._faults_played[logged.body, logged.step] += 1
        is_over = fault.times and self._faults_played[logged.body, logged.step] > fault.times
        if is_over:
            return None
        logged.status = fault.status
        return fault

    def _log(self, method: str) -> Reply:
        """GET: the requests so far. DELETE: forget them."""
        requests = [] if method == "DELETE" else self.requests
        told = [{name: getattr(one, name) for name in one.__struct_fields__} for one in requests]
        if method == "DELETE":
            self.requests.clear()
        return Reply(status=200, events=[json.dumps({"requests": told}).encode()])
