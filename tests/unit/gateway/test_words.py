"""Words to a user become events of the sessions that the user looks at, but for what is said there already."""

import pytest

from zene.bus.base import Live, word
from zene.domain.events import ApprovalWanted, Draft
from zene.gateway.words import shown

WANTED = ApprovalWanted(
    approval_id="apr_1", session_id="ses_1", name="shell", summary="rm", expires_at="later"
)


def test_another_session_tells_it_and_its_own_does_not() -> None:
    assert shown(word(WANTED), "ses_2") == Draft(body=WANTED)
    assert shown(word(WANTED), "ses_1") is None


@pytest.mark.parametrize(
    ("kind", "body"),
    [("of.tomorrow", b"{}"), ("approval.wanted", b"{}"), ("approval.wanted", b"[1]")],
)
def test_what_another_release_says_is_passed_over(kind: str, body: bytes) -> None:
    assert shown(Live(0, kind, durable=False, body=body), "ses_2") is None
