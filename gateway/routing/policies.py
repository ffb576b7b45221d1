"""The traffic policies in the database: read by every worker, changed by operators, and by a worker that rolls back."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from gateway.auth import audit
from gateway.auth.database import Database
from gateway.auth.schema import PolicyRow
from gateway.errors import Conflict, InvalidArgument, NotFound
from gateway.routing.policy import CANARY, STABLE, TrafficPolicy

_MAX_MODEL = 200
# Policies that are set at once.
_MAX_POLICIES = 1_000


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A model's policy as it is set.

    Attributes:
        revision: Grows with every change.
    """

    policy: TrafficPolicy
    revision: int
    changed_at: datetime
    changed_by: str


class Policies:
    """Acts on policies. Each change and its entry in the audit log are one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Mapping[str, StoredPolicy]:
        """By model.

        Raises:
            Unavailable: The database did not answer.
        """
        async with self._database.transaction() as session:
            rows = await session.scalars(select(PolicyRow).order_by(PolicyRow.model))
            return {row.model: _stored(row) for row in rows}

    async def one(self, model: str) -> StoredPolicy:
        """Of one model.

        Raises:
            NotFound: It has none.
        """
        async with self._database.transaction() as session:
            row = await session.get(PolicyRow, model)
        if row is None:
            raise NotFound(f"model {model!r} has no traffic policy")
        return _stored(row)

    async def put(self, actor: str, model: str, policy: TrafficPolicy, *, revision: int | None = None) -> int:
        """Set a model's policy; its revision.

        Args:
            revision: The one it replaces, 0 for none: where another was set since, nothing is changed. None: whichever.

        Raises:
            InvalidArgument: The name is not one, or there are too many.
            Conflict: Another was set since.
        """
        if not 0 < len(model) <= _MAX_MODEL or not model.isprintable():
            raise InvalidArgument(f"model: a name has 1 to {_MAX_MODEL} characters, all printable")
        async with self._database.transaction() as session:
            row = await session.get(PolicyRow, model, with_for_update=True)
            if revision is not None and revision != (row.revision if row else 0):
                raise _changed(model)
            if row is None:
                if len((await session.scalars(select(PolicyRow.model))).all()) >= _MAX_POLICIES:
                    raise InvalidArgument(f"there are {_MAX_POLICIES} policies, the limit; remove some")
                row = PolicyRow(model=model, revision=0)
                session.add(row)
            _change(row, actor, policy)
            try:
                await session.flush()
            except IntegrityError as error:
                raise _changed(model) from error  # Another set the first one meanwhile.
            audit.record(session, actor, "traffic.set", f"{model} {policy.model_dump_json(exclude_defaults=True)}")
            return row.revision

    async def remove(self, actor: str, model: str) -> None:
        """Leave a model to its newest version.

        Raises:
            NotFound: It has no policy.
        """
        async with self._database.transaction() as session:
            if await session.get(PolicyRow, model) is None:
                raise NotFound(f"model {model!r} has no traffic policy")
            await session.execute(delete(PolicyRow).where(PolicyRow.model == model))
            audit.record(session, actor, "traffic.remove", model)

    async def roll_back(self, actor: str, model: str, reason: str, *, revision: int | None = None) -> bool:
        """Set a model's canary to 0; whether it was this call that did.

        Args:
            revision: Not where another was set since.

        Raises:
            NotFound: It has no policy, or that has no canary or no stable version.
        """
        async with self._database.transaction() as session:
            row = await session.get(PolicyRow, model, with_for_update=True)
            policy = None if row is None else TrafficPolicy.parse(row.policy)
            if row is None or policy is None or not {CANARY, STABLE} <= policy.aliases.keys():
                raise NotFound(f"model {model!r} has no canary beside a stable version")
            if revision not in (None, row.revision):
                return False
            _change(row, actor, policy.without_canary())
            audit.record(session, actor, "traffic.rollback", f"{model} {policy.aliases[CANARY]}: {reason}")
            return True


def _change(row: PolicyRow, actor: str, policy: TrafficPolicy) -> None:
    row.policy = policy.model_dump_json(exclude_defaults=True)
    row.revision += 1
    row.changed_at = datetime.now(UTC)
    row.changed_by = actor[:200]


def _changed(model: str) -> Conflict:
    return Conflict(f"the policy of {model!r} was changed by another; read it again")


def _stored(row: PolicyRow) -> StoredPolicy:
    return StoredPolicy(TrafficPolicy.parse(row.policy), row.revision, row.changed_at, row.changed_by)
