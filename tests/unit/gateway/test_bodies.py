"""JSON bodies: one meaning, bounded, storable."""

import time

import pytest

from zene.domain.errors import InvalidInput
from zene.gateway.bodies import parse


def refusal(raw: bytes) -> int:
    with pytest.raises(InvalidInput) as caught:
        parse(raw)
    return caught.value.status


@pytest.mark.parametrize("raw", [b"", b"  \n"])
def test_an_empty_body_is_refused(raw: bytes) -> None:
    assert refusal(raw) == 422


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"nul",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1, "a": 2}',
        b'{"b": {"a": 1, "\\u0061": 2}}',
        b'{"a": "\xff"}',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        b'{"a": "\n"}',
    ],
)
def test_what_is_not_json_or_has_two_meanings_is_refused(raw: bytes) -> None:
    assert refusal(raw) == 400


@pytest.mark.parametrize(
    "raw", [b'{"a": "\\u0000"}', b'{"\\u0000": 1}', b'["\\ud800"]', b"9" * 5000]
)
def test_what_the_store_could_not_keep_is_refused(raw: bytes) -> None:
    assert refusal(raw) == 422


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 40 + b"]" * 40])
def test_deep_nesting_is_refused_at_once(raw: bytes) -> None:
    begun = time.process_time()
    assert refusal(raw) == 400
    assert time.process_time() - begun < 0.05


def test_text_beyond_the_basic_plane_is_kept() -> None:
    assert parse(b'{"a": "\\ud83d\\ude00 \xf0\x9f\x98\x80"}') == {"a": "😀 😀"}
