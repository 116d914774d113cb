"""Users. Whoever is disabled or gets another password loses every sign-in in the same transaction."""

from sqlalchemy import and_, bindparam, func, or_, select, text, update

from zene.domain.errors import Conflict, NotFound
from zene.domain.quotas import Quota
from zene.domain.users import Role, User
from zene.store.base import Row, Rows, Statement, Unit
from zene.store.schema import families, users

_COLUMNS = (
    users.c.id,
    users.c.email,
    users.c.role,
    users.c.created_at,
    users.c.disabled_at,
    users.c.max_active_tasks,
    users.c.quota_tokens,
    users.c.quota_period,
)
_CREATE = Statement(
    text(
        "INSERT INTO users (id, email, password_hash, role, created_at)"
        " VALUES (:id, :email, :password_hash, :role, :now)"
        " ON CONFLICT (email) DO NOTHING RETURNING id"
    )
)
_LOCK_INSTALLATION = Statement(text("UPDATE alembic_version SET version_num = version_num"))
_CREATE_FIRST = Statement(
    text(
        "INSERT INTO users (id, email, password_hash, role, created_at)"
        " SELECT :id, :email, :password_hash, 'admin', :now"
        " WHERE NOT EXISTS (SELECT 1 FROM users) ON CONFLICT (email) DO NOTHING RETURNING id"
    )
)
_GET = Statement(select(*_COLUMNS).where(users.c.id == bindparam("id")))
_LIST = Statement(
    select(*_COLUMNS)
    .where(users.c.id > bindparam("after"))
    .order_by(users.c.id)
    .limit(bindparam("limit"))
)
_FIND_LOGIN = Statement(
    select(*_COLUMNS, users.c.password_hash).where(users.c.email == bindparam("email"))
)
_STANDING = Statement(
    select(*_COLUMNS)
    .select_from(users.outerjoin(families, families.c.id == bindparam("family_id")))
    .where(
        users.c.id == bindparam("id"),
        users.c.disabled_at.is_(None),
        or_(
            bindparam("any_family") == 1,
            and_(families.c.user_id == users.c.id, families.c.revoked_at.is_(None)),
        ),
    )
)
_COUNT = Statement(select(func.count()).select_from(users))
_DISABLE = Statement(
    update(users)
    .where(users.c.id == bindparam("user"))
    .values(disabled_at=bindparam("now"))
    .returning(*_COLUMNS)
)
_SET_PASSWORD = Statement(
    update(users)
    .where(users.c.id == bindparam("user"))
    .values(password_hash=bindparam("hash"))
    .returning(*_COLUMNS)
)
_SET_ROLE = Statement(
    update(users)
    .where(users.c.id == bindparam("user"))
    .values(role=bindparam("new_role"))
    .returning(*_COLUMNS)
)
_SET_MAX_ACTIVE = Statement(
    update(users)
    .where(users.c.id == bindparam("user"))
    .values(max_active_tasks=bindparam("most"))
    .returning(*_COLUMNS)
)
_REVOKE_ALL = Statement(
    update(families)
    .where(families.c.user_id == bindparam("user"), families.c.revoked_at.is_(None))
    .values(revoked_at=bindparam("now"))
)


def create_user(user_id: str, email: str, password_hash: str, role: Role, now: int) -> Unit[User]:
    """Add a user. Raises Conflict where somebody has the e-mail address."""
    rows = yield _CREATE(id=user_id, email=email, password_hash=password_hash, role=role, now=now)
    if not rows:
        raise Conflict(f"{email} is taken by another user.", code="email_taken")
    return (yield from get_user(user_id))


def create_first(user_id: str, email: str, password_hash: str, now: int) -> Unit[User | None]:
    """Add the first administrator; None where there is any user already. Who tries at the same time waits, for
    the one row that every installation has.
    """
    yield _LOCK_INSTALLATION()
    rows = yield _CREATE_FIRST(id=user_id, email=email, password_hash=password_hash, now=now)
    return (yield from get_user(user_id)) if rows else None


def get_user(user_id: str) -> Unit[User]:
    """The user. Raises NotFound."""
    return _one((yield _GET(id=user_id)))


def list_users(cursor: str | None, limit: int) -> Unit[tuple[list[User], str | None]]:
    """Users in the order they were added, and the cursor of the next page."""
    rows = yield _LIST(after=cursor or "", limit=limit + 1)
    found = [_user(row) for row in rows[:limit]]
    return found, found[-1].id if len(rows) > limit else None


def find_login(email: str) -> Unit[tuple[User, str] | None]:
    """The user of that e-mail address, with the hash of the password."""
    rows = yield _FIND_LOGIN(email=email)
    return (_user(rows[0]), rows[0][-1]) if rows else None


def standing(user_id: str, family_id: str | None) -> Unit[User | None]:
    """The user, while neither disabled nor, where a sign-in is named, signed out of it."""
    rows = yield _STANDING(id=user_id, family_id=family_id or "", any_family=int(family_id is None))
    return _user(rows[0]) if rows else None


def count_users() -> Unit[int]:
    """How many users there are, disabled ones too."""
    count: int = (yield _COUNT())[0][0]
    return count


def set_disabled(user_id: str, now: int | None) -> Unit[User]:
    """Disable, or with None enable. Raises NotFound."""
    user = _one((yield _DISABLE(user=user_id, now=now)))
    if now is not None:
        yield _REVOKE_ALL(user=user_id, now=now)
    return user


def set_password(user_id: str, password_hash: str, now: int) -> Unit[User]:
    """Change the password. Raises NotFound."""
    user = _one((yield _SET_PASSWORD(user=user_id, hash=password_hash)))
    yield _REVOKE_ALL(user=user_id, now=now)
    return user


def set_role(user_id: str, role: Role) -> Unit[User]:
    """Change what the user may do. Raises NotFound."""
    return _one((yield _SET_ROLE(user=user_id, new_role=role)))


def set_max_active_tasks(user_id: str, most: int | None) -> Unit[User]:
    """Change how many tasks the user may have at once; with None the server's own cap holds. Raises NotFound."""
    return _one((yield _SET_MAX_ACTIVE(user=user_id, most=most)))


def _one(rows: Rows) -> User:
    if not rows:
        raise NotFound("There is no such user.")
    return _user(rows[0])


def _user(row: Row) -> User:
    return User(
        id=row[0],
        email=row[1],
        role=Role(row[2]),
        created_at=row[3],
        disabled_at=row[4],
        max_active_tasks=row[5],
        quota=None if row[6] is None else Quota(tokens=row[6], period=row[7]),
    )
