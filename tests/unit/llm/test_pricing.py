"""Windows, prices and costs."""

import json
from datetime import date
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from genai_prices import Usage as TheirUsage
from genai_prices import calc_price

from zene.domain.messages import Usage
from zene.llm.base import ModelInfo
from zene.llm.pricing import Given, cost, model_info

ROOT = Path(__file__).parents[3]


def test_the_price_list_is_what_the_locked_package_says() -> None:
    spec = spec_from_file_location("price_list", ROOT / "scripts" / "price_list.py")
    assert spec is not None
    assert spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    kept = script.TARGET.read_text()
    assert kept == script.text(date.fromisoformat(json.loads(kept)["as_of"]))


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-5.4"),
        ("openai", "gpt-4o-mini"),
        ("openai", "o3"),
        ("anthropic", "claude-opus-4-7"),
        ("anthropic", "claude-haiku-4-5-20251001"),
        ("anthropic", "claude-sonnet-4-5"),
    ],
)
def test_a_listed_model_costs_what_the_package_calculates(provider: str, model: str) -> None:
    usage = Usage(
        input_tokens=100_000, output_tokens=4_000, cached_tokens=60_000, cache_write_tokens=0
    )
    theirs = calc_price(
        TheirUsage(input_tokens=100_000, output_tokens=4_000, cache_read_tokens=60_000),
        model,
        provider_id=provider,
    )
    assert cost(usage, model_info(provider, model)) == pytest.approx(float(theirs.total_price))


def test_an_unknown_model_gets_a_window_and_no_price() -> None:
    info = model_info("openai", "my-own-model", url="http://127.0.0.1:8000/v1")
    assert (info.window, info.output_cap, info.known) == (128_000, 16_384, False)
    assert cost(Usage(input_tokens=5), info) is None


def test_the_settings_go_before_the_list() -> None:
    info = model_info(
        "openai", "gpt-4o", given=Given(window=9_000, output_cap=2_000, input_price=0.0)
    )
    assert (info.window, info.output_cap, info.input_price) == (9_000, 2_000, 0.0)
    assert info.output_price == model_info("openai", "gpt-4o").output_price


def test_a_model_is_looked_up_where_its_address_belongs() -> None:
    info = model_info("openai", "deepseek-chat", url="https://api.deepseek.com/v1")
    assert info.known
    assert not model_info("openai", "deepseek-chat").known


def test_cached_and_written_tokens_have_prices_of_their_own() -> None:
    info = ModelInfo(
        name="m",
        window=1,
        input_price=1.0,
        cached_price=0.1,
        cache_write_price=2.0,
        output_price=10.0,
    )
    usage = Usage(
        input_tokens=1_000_000, cached_tokens=500_000, cache_write_tokens=100_000, output_tokens=10
    )
    assert cost(usage, info) == pytest.approx(0.4 + 0.05 + 0.2 + 0.0001)


def test_tokens_without_a_price_of_their_own_cost_what_input_does() -> None:
    info = ModelInfo(name="m", window=1, input_price=1.0, output_price=1.0)
    usage = Usage(input_tokens=1_000_000, cached_tokens=900_000, cache_write_tokens=100_000)
    assert cost(usage, info) == pytest.approx(1.0)
