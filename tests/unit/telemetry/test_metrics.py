"""Metrics as Prometheus reads them, and bounded whatever is counted."""

import pytest

from zene.telemetry.metrics import MOST_SERIES, SECONDS, Registry


async def lines(registry: Registry) -> list[str]:
    return [line for line in (await registry.read()).splitlines() if not line.startswith("#")]


async def test_a_counter_is_there_before_it_has_been_counted() -> None:
    registry = Registry()
    claims = registry.counter("zene_claims_total", "Tasks taken.")
    assert await registry.read() == (
        "# HELP zene_claims_total Tasks taken.\n# TYPE zene_claims_total counter\nzene_claims_total 0\n"
    )
    claims.count()
    claims.count(by=2)
    assert await lines(registry) == ["zene_claims_total 3"]


async def test_each_combination_of_labels_is_a_series() -> None:
    registry = Registry()
    requests = registry.counter("requests", "", "route", "status")
    requests.count("/a", "200")
    requests.count("/a", "200")
    requests.count("/a", "404")
    assert await lines(registry) == [
        'requests{route="/a",status="200"} 2',
        'requests{route="/a",status="404"} 1',
    ]


async def test_a_label_cannot_end_its_line_or_its_quotes() -> None:
    registry = Registry()
    registry.counter("errors", 'a "word"\nand \\more', "code").count('x"} 1\ny\\')
    text = await registry.read()
    assert text == (
        '# HELP errors a "word"\\nand \\\\more\n# TYPE errors counter\nerrors{code="x\\"} 1\\ny\\\\"} 1\n'
    )


async def test_what_is_more_than_a_metric_holds_counts_as_other() -> None:
    registry = Registry()
    errors = registry.counter("errors", "", "code", "where")
    seconds = registry.histogram("seconds", "", "where")
    for number in range(MOST_SERIES + 5):
        errors.count(f"code-{number}", "here")
        seconds.observe(1, f"place-{number}")
    errors.count("code-1", "here")
    found = await lines(registry)
    assert len([line for line in found if line.startswith("errors")]) == MOST_SERIES + 1
    assert 'errors{code="other",where="other"} 5' in found
    assert 'errors{code="code-1",where="here"} 2' in found
    assert 'seconds_count{where="other"} 5' in found


async def test_a_gauge_is_what_it_was_set_to_or_what_is_asked_for() -> None:
    registry = Registry()
    registry.gauge("a_set", "").set(1.5)
    registry.gauge("b_unknown", "")
    values = iter([3, 4])
    registry.gauge("c_asked", "").ask(lambda: next(values))
    cleared = registry.gauge("d_cleared", "", "status")
    cleared.set(1, "queued")
    cleared.clear()
    assert await lines(registry) == ["a_set 1.5", "c_asked 3"]
    assert await lines(registry) == ["a_set 1.5", "c_asked 4"]


async def test_a_histogram_counts_up_to_each_limit() -> None:
    registry = Registry()
    seconds = registry.histogram("wait_seconds", "")
    for each in (0.001, 0.002, 0.3, 1000):
        seconds.observe(each)
    found = await lines(registry)
    assert found[0] == 'wait_seconds_bucket{le="0.001"} 1'
    assert found[1] == 'wait_seconds_bucket{le="0.0025"} 2'
    assert 'wait_seconds_bucket{le="0.25"} 2' in found
    assert 'wait_seconds_bucket{le="60"} 3' in found
    assert found[len(SECONDS) :] == [
        'wait_seconds_bucket{le="+Inf"} 4',
        "wait_seconds_sum 1000.303",
        "wait_seconds_count 4",
    ]


async def test_what_fails_takes_time_too() -> None:
    registry = Registry()
    seconds = registry.histogram("append_seconds", "")
    with pytest.raises(KeyError), seconds.timed():
        raise KeyError
    assert "append_seconds_count 1" in await lines(registry)


async def test_who_sets_gauges_before_they_are_read_is_asked_each_time() -> None:
    registry, looks = Registry(), iter([1, 2])
    gauge = registry.gauge("length", "")

    async def look() -> None:
        gauge.set(next(looks))

    registry.before_reading(look)
    assert [await lines(registry) for _ in range(2)] == [["length 1"], ["length 2"]]


def test_no_name_is_there_twice() -> None:
    registry = Registry()
    registry.gauge("length", "")
    with pytest.raises(ValueError, match="length"):
        registry.counter("length", "")
