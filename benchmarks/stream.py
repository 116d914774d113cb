"""CPU that the client of a model spends on a streamed token, beside a bare httpx loop on the same stream.

`python -m benchmarks.stream` starts the tests' model server in a process of its own and calls it in turns.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import uvloop

from tests.model_server.asking import WIRES, asked, prompt, provider_at
from zene.llm.base import Delta, Provider

Measured = Callable[[], Awaitable[int]]


async def bare(client: httpx.AsyncClient, url: str) -> int:
    """One streamed answer by httpx and json; returns the tokens that came."""
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Go."}]}
    tokens = 0
    headers = {"authorization": "Bearer bench"}
    async with client.stream(
        "POST", f"{url}/v1/chat/completions", json=body, headers=headers
    ) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: ") and line != "data: [DONE]":
                choices = json.loads(line[6:])["choices"]
                tokens += bool(choices and choices[0]["delta"].get("content"))
    return tokens


async def through(provider: Provider) -> int:
    """One streamed answer by Zene's provider; returns the tokens that came."""
    request = asked(provider, prompt(), tools=())
    tokens = 0
    async for output in provider.stream(request):
        tokens += isinstance(output, Delta)
    return tokens


async def measure(url: str, rounds: int) -> dict[str, list[float]]:
    """CPU microseconds a token, by client, in turns; the first round warms up and is left out."""
    async with httpx.AsyncClient(trust_env=False) as client:
        providers = {wire: provider_at(url, wire) for wire in WIRES}
        clients: dict[str, Measured] = {
            "bare": lambda: bare(client, url),
            **{wire: _calling(provider) for wire, provider in providers.items()},
        }
        spent: dict[str, list[float]] = {name: [] for name in clients}
        for _ in range(rounds + 1):
            for name, call in clients.items():
                before = time.process_time()
                tokens = await call()
                spent[name].append((time.process_time() - before) * 1e6 / tokens)
        for provider in providers.values():
            await provider.close()
    return {name: each[1:] for name, each in spent.items()}


def _calling(provider: Provider) -> Measured:
    return lambda: through(provider)


def main() -> None:
    """Print the median of each client and its ratio to the bare loop of the same run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=2000)
    options = parser.parse_args()
    command = [sys.executable, "-m", "tests.model_server", "--tokens", str(options.tokens)]
    root = Path(__file__).parent.parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().split()[1]
            spent = uvloop.run(measure(f"http://127.0.0.1:{port}", options.rounds))
        finally:
            server.terminate()
    base = statistics.median(spent["bare"])
    for name, each in spent.items():
        median = statistics.median(each)
        print(
            f"{name:12} {median:6.2f} µs of CPU a token, {median / base:.2f} of bare, n={len(each)}"
        )


if __name__ == "__main__":
    main()
