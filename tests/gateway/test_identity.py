"""Keys against real databases."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from gateway.auth import migrations
from gateway.auth.administration import Administration, KeySpec
from gateway.auth.authenticator import KeyAuthenticator
from gateway.auth.database import Database, create_engine
from gateway.auth.keys import ApiKey
from gateway.auth.last_uses import LastUses
from gateway.auth.memory import KeyMemory
from gateway.auth.schema import Table
from gateway.auth.store import KeyStore
from gateway.call import Allowance, Limit, Resource, Scope
from gateway.credentials import bearer
from gateway.errors import PermissionDenied, Unauthenticated
from gateway.settings import AuthSettings
from tests.gateway.fakes import Clock

_TESTER = "cli:tester"


@pytest.fixture
def authenticator(store: KeyStore, clock: Clock) -> KeyAuthenticator:
    memory = KeyMemory(store, AuthSettings(recheck_s=2, max_remembered=3), clock)
    return KeyAuthenticator(memory, lambda key_id: None)


async def _create(administration: Administration, *scopes: Scope, **spec: object) -> ApiKey:
    wanted = KeySpec("tests", frozenset(scopes or (Scope.INFER,)), **spec)  # type: ignore[arg-type]  # Of KeySpec.
    return await administration.create_key(_TESTER, wanted)


async def test_migrations_make_the_tables_of_the_models(url: str) -> None:
    def difference(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), Table.metadata))

    engine = create_engine(url)
    async with engine.connect() as connection:
        assert await connection.run_sync(difference) == []
    await engine.dispose()


def test_upgrading_twice_changes_nothing(url: str) -> None:
    migrations.upgrade(url)


async def test_a_key_of_the_first_schema_goes_on_and_may_name_every_model(empty_url: str) -> None:
    key = ApiKey.generate()

    def first_schema(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text("INSERT INTO api_keys VALUES (:id, 'old', :hash, 'infer', :at, NULL)").bindparams(
                id=key.key_id, hash=key.secret_hash, at=datetime.now(UTC)
            )
        )

    engine = create_engine(empty_url)
    async with engine.begin() as connection:
        await connection.run_sync(first_schema)
    await engine.dispose()
    await asyncio.to_thread(migrations.upgrade, empty_url)
    database = Database.at(empty_url)
    stored = await KeyStore(database).find(key.key_id)
    await database.close()
    assert stored is not None and stored.opened_by(key)
    assert stored.identity.may_name("anything")


async def test_a_key_is_found_by_its_id_and_its_secret_is_not_kept(
    administration: Administration, store: KeyStore, database: Database
) -> None:
    key = await _create(administration, Scope.INFER, Scope.READ)
    stored = await store.find(key.key_id)
    assert stored is not None and stored.opened_by(key)
    assert stored.identity.subject == f"key:{key.key_id}"
    assert stored.identity.scopes == {Scope.INFER, Scope.READ}
    (summary,) = await administration.keys()
    assert (summary.key_id, summary.name, summary.revoked_at) == (key.key_id, "tests", None)
    assert summary.created_at.tzinfo is not None
    async with database.transaction() as session:
        for table in Table.metadata.sorted_tables:
            assert key.secret not in repr((await session.execute(table.select())).all())


def test_keys_are_distinct_and_read_back() -> None:
    keys = {ApiKey.generate() for _ in range(100)}
    assert len({key.key_id for key in keys}) == len({key.secret for key in keys}) == 100
    for key in keys:
        assert ApiKey.parse(key.text) == key


@pytest.mark.parametrize(
    "shown", ["", "tg_", "tg_a_b", "xx_" + "a" * 12 + "_" + "b" * 44, "tg_" + "a" * 12 + "_" + "b" * 43]
)
def test_what_is_not_a_key_is_none(shown: str) -> None:
    assert ApiKey.parse(shown) is None
    assert ApiKey.parse(ApiKey.generate().text + "\n") is None


@pytest.mark.parametrize(
    ("header", "token"),
    [(None, None), ("Bearer tg_x", "tg_x"), ("bearer  tg_x ", "tg_x"), ("Basic abc", "Basic abc"), ("tg_x", "tg_x")],
)
def test_bearer(header: str | None, token: str | None) -> None:
    assert bearer(header) == token


async def test_a_good_key_has_its_scopes_and_no_others(
    administration: Administration, authenticator: KeyAuthenticator
) -> None:
    key = await _create(administration)
    assert (await authenticator.authenticate(key.text, Scope.INFER)).subject == f"key:{key.key_id}"
    with pytest.raises(PermissionDenied, match="'admin'"):
        await authenticator.authenticate(key.text, Scope.ADMIN)


async def test_who_is_not_known_is_refused(administration: Administration, authenticator: KeyAuthenticator) -> None:
    key = await _create(administration)
    wrong = ApiKey.renewed(key.key_id).text
    for credential in (None, "", "Basic abc", ApiKey.generate().text, wrong):
        with pytest.raises(Unauthenticated):
            await authenticator.authenticate(credential, Scope.INFER)


async def test_a_revocation_is_seen_when_the_memory_is_old(
    administration: Administration, authenticator: KeyAuthenticator, clock: Clock
) -> None:
    key = await _create(administration)
    await authenticator.authenticate(key.text, Scope.INFER)
    await administration.revoke_key(_TESTER, key.key_id)
    clock.now = 1.0
    await authenticator.authenticate(key.text, Scope.INFER)
    clock.now = 2.1
    with pytest.raises(Unauthenticated, match="revoked"):
        await authenticator.authenticate(key.text, Scope.INFER)


async def test_an_expired_key_is_refused(administration: Administration, authenticator: KeyAuthenticator) -> None:
    past = await _create(administration, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(Unauthenticated, match="expired"):
        await authenticator.authenticate(past.text, Scope.INFER)
    future = await _create(administration, expires_at=datetime.now(UTC) + timedelta(hours=1))
    await authenticator.authenticate(future.text, Scope.INFER)


async def test_a_rotated_key_has_two_secrets_until_the_overlap_ends(
    administration: Administration, authenticator: KeyAuthenticator, clock: Clock
) -> None:
    first = await _create(administration)
    second = await administration.rotate_key(_TESTER, first.key_id, timedelta(hours=1))
    for live in (first, second):
        await authenticator.authenticate(live.text, Scope.INFER)
    third = await administration.rotate_key(_TESTER, first.key_id, timedelta(0))
    clock.now = 10
    await authenticator.authenticate(third.text, Scope.INFER)
    for ended in (first, second):
        with pytest.raises(Unauthenticated, match="wrong"):
            await authenticator.authenticate(ended.text, Scope.INFER)


async def test_a_disabled_tenants_keys_are_refused_until_it_is_enabled(
    administration: Administration, authenticator: KeyAuthenticator, clock: Clock
) -> None:
    await administration.create_tenant(_TESTER, "acme", Allowance())
    key = await _create(administration, tenant="acme")
    await authenticator.authenticate(key.text, Scope.INFER)
    await administration.disable_tenant(_TESTER, "acme", True)
    clock.now = 10
    with pytest.raises(Unauthenticated, match="tenant"):
        await authenticator.authenticate(key.text, Scope.INFER)
    await administration.disable_tenant(_TESTER, "acme", False)
    clock.now = 20
    await authenticator.authenticate(key.text, Scope.INFER)


async def test_an_identity_has_the_limits_of_its_key_and_of_its_tenant(
    administration: Administration, authenticator: KeyAuthenticator
) -> None:
    await administration.create_tenant(_TESTER, "acme", Allowance(images_per_day=1_000))
    key = await _create(administration, tenant="acme", limits=Allowance(requests_per_s=2.5))
    identity = await authenticator.authenticate(key.text, Scope.INFER)
    assert set(identity.limits) == {
        Limit(f"key:{key.key_id}", Resource.REQUESTS, 2.5),
        Limit("tenant:acme", Resource.IMAGES_TODAY, 1_000),
    }


@pytest.mark.parametrize(
    ("globs", "model", "allowed"),
    [
        (("*",), "digits", True),
        (("digits",), "digits", True),
        (("digits",), "digits_encoded", True),
        (("digits",), "digits2", False),
        (("Digits",), "digits", False),
        (("a", "team-*"), "team-cats", True),
        (("team-*",), "cats", False),
        (("team-?",), "team-1", True),
        (("digits_encoded",), "digits", False),
    ],
)
async def test_globs_say_which_models_a_key_may_name(
    administration: Administration, store: KeyStore, globs: tuple[str, ...], model: str, allowed: bool
) -> None:
    key = await _create(administration, models=globs)
    stored = await store.find(key.key_id)
    assert stored is not None
    assert stored.identity.may_name(model) is allowed


async def test_the_last_use_is_written_once_a_minute(administration: Administration, store: KeyStore) -> None:
    key = await _create(administration)
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    written = []
    for seconds in (0, 59, 60):
        await store.used({key.key_id: noon + timedelta(seconds=seconds)})
        written.append((await administration.keys())[0].last_used_at)
    assert written == [noon, noon, noon + timedelta(seconds=60)]


async def test_uses_are_noted_in_memory_and_written_together(
    administration: Administration, store: KeyStore, clock: Clock
) -> None:
    first, second, third = [await _create(administration) for _ in range(3)]
    uses = LastUses(store, max_noted=2, clock=clock)
    for key in (first, second, third):
        uses.note(key.key_id)
    await uses.write()
    used = {key.key_id for key in await administration.keys() if key.last_used_at is not None}
    assert used == {second.key_id, third.key_id}, "the oldest note is dropped past the bound"
