"""A call of a route: the request, who makes it, and the parts it is answered with."""

from typing import TypeVar

from starlette.requests import Request

from zene.domain.errors import NotFound, Unauthorized
from zene.domain.ids import is_id
from zene.domain.users import User
from zene.gateway.parts import Parts
from zene.gateway.signin import Caller

T = TypeVar("T")

_MAX_KEY = 255


class Call:
    """What a handler is given. `caller` is None on public routes only."""

    def __init__(self, parts: Parts, request: Request, caller: Caller | None) -> None:
        self.parts = parts
        self.request = request
        self._caller = caller

    @property
    def caller(self) -> Caller:
        """Who is signed in. Raises Unauthorized on a public route."""
        if self._caller is None:
            raise Unauthorized("Sign in first.")
        return self._caller

    @property
    def user(self) -> User:
        """The signed-in user."""
        return self.caller.user

    def id(self, name: str, prefix: str) -> str:
        """An id from the path. Raises NotFound where it cannot be one, as for one that is not there."""
        value: str = self.request.path_params[name]
        if not is_id(value, prefix):
            raise NotFound("There is no such thing here, or it belongs to somebody else.")
        return value

    def now(self) -> int:
        """Milliseconds since 1970."""
        return self.parts.outside.clock()

    def new_id(self, prefix: str) -> str:
        """A new id of that prefix."""
        return self.parts.ids.new(prefix)
