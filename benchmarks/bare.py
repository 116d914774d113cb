"""The bare loop that every figure is compared with: httpx, a subprocess per command, nothing kept.

It has no users, no store, no sandbox: the least that can run a model's tool calls. It listens on a
loopback port for lines of JSON, `{"prompt", "model_url", "cwd"}`, and answers each connection with the
model's output as it comes and a last line `{"done": true}`.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "shell",
            "description": "Run a command.",
            "parameters": {
                "type": "object",
                "properties": {"command": {"type": "string"}},
                "required": ["command"],
            },
        },
    }
]


async def chunks(
    client: httpx.AsyncClient, url: str, model: str, messages: list[Any]
) -> AsyncIterator[dict[str, Any]]:
    """The chunks of one streamed chat completion."""
    body = {
        "model": model,
        "messages": messages,
        "tools": TOOLS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with client.stream(
        "POST", f"{url}/chat/completions", json=body, headers={"authorization": "Bearer bench"}
    ) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                yield json.loads(line[6:])


async def answer(
    client: httpx.AsyncClient, request: dict[str, Any], writer: asyncio.StreamWriter
) -> None:
    """Call the model and run what it asks for until it asks for nothing."""
    messages: list[Any] = [{"role": "user", "content": request["prompt"]}]
    while True:
        text: list[str] = []
        calls: dict[int, dict[str, str]] = {}
        async for chunk in chunks(client, request["model_url"], request["model"], messages):
            for choice in chunk.get("choices", ()):
                delta = choice["delta"]
                if delta.get("content"):
                    text.append(delta["content"])
                    writer.write(json.dumps({"text": delta["content"]}).encode() + b"\n")
                    await writer.drain()
                for part in delta.get("tool_calls", ()):
                    call = calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
                    call["id"] = part.get("id") or call["id"]
                    call["name"] += part["function"].get("name") or ""
                    call["arguments"] += part["function"].get("arguments") or ""
        messages.append(said("".join(text), list(calls.values())))
        if not calls:
            break
        for call in calls.values():
            output = await shell(json.loads(call["arguments"])["command"], request["cwd"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": output})
    writer.write(b'{"done": true}\n')
    await writer.drain()


def said(text: str, calls: list[dict[str, str]]) -> dict[str, Any]:
    """The assistant's message as it goes back."""
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": call["arguments"]},
            }
            for call in calls
        ]
    return message


async def shell(command: str, cwd: str) -> str:
    """Run a command as this user, on this host."""
    process = await asyncio.create_subprocess_exec(
        "/bin/bash",
        "-c",
        command,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,  # bash reads ~/.bashrc where its stdin is a socket
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode(errors="replace")


async def main() -> None:
    """Serve until standard input ends."""
    async with httpx.AsyncClient(timeout=60) as client:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                await answer(client, json.loads(line), writer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        sys.stdout.write(f"ready {server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        server.close()


if __name__ == "__main__":
    asyncio.run(main())
