"""Acts on keys and tenants, and the log of them."""

from datetime import timedelta

import pytest

from gateway.auth.administration import Administration, KeySpec
from gateway.auth.audit import AuditLog
from gateway.auth.database import Database
from gateway.call import Allowance, Scope
from gateway.errors import Conflict, InvalidArgument, NotFound, Unavailable

_INFER = frozenset({Scope.INFER})


async def test_every_act_is_in_the_audit_log(administration: Administration, database: Database) -> None:
    await administration.create_tenant("cli:ann", "acme", Allowance())
    key = await administration.create_key("key:root", KeySpec("k", _INFER, tenant="acme"))
    await administration.rotate_key("cli:ann", key.key_id, timedelta(0))
    await administration.limit_key("cli:ann", key.key_id, Allowance(max_in_flight=3))
    await administration.limit_tenant("cli:ann", "acme", Allowance(max_in_flight=5))
    await administration.disable_tenant("cli:ann", "acme", True)
    await administration.disable_tenant("cli:ann", "acme", False)
    await administration.revoke_key("cli:ann", key.key_id)
    entries = await AuditLog(database).latest(100)
    assert [(entry.actor, entry.action, entry.target, entry.result) for entry in reversed(entries)] == [
        ("cli:ann", "tenants.create", "acme", "ok"),
        ("key:root", "keys.create", key.key_id, "ok"),
        ("cli:ann", "keys.rotate", key.key_id, "ok"),
        ("cli:ann", "keys.limit", key.key_id, "ok"),
        ("cli:ann", "tenants.limit", "acme", "ok"),
        ("cli:ann", "tenants.disable", "acme", "ok"),
        ("cli:ann", "tenants.enable", "acme", "ok"),
        ("cli:ann", "keys.revoke", key.key_id, "ok"),
    ]
    assert all(earlier.at <= later.at for later, earlier in zip(entries, entries[1:], strict=False))
    assert [entry.action for entry in await AuditLog(database).latest(2)] == ["keys.revoke", "tenants.enable"]


async def test_an_act_outside_the_database_is_noted_before_it_begins(database: Database) -> None:
    log = AuditLog(database)
    async with log.act("key:a", "RepositoryModelLoad", "digits"):
        assert [entry.result for entry in await log.latest(1)] == ["begun"]
    assert [entry.result for entry in await log.latest(1)] == ["ok"]
    with pytest.raises(NotFound):
        async with log.act("key:a\x1b", "RepositoryModelLoad", "absent\0" + "x" * 400):
            raise NotFound("no")
    (entry,) = await log.latest(1)
    assert (entry.actor, entry.target[:8], entry.result) == ("key:a�", "absent�x", "not_found")


async def test_what_cannot_be_noted_is_not_done() -> None:
    database = Database.at("postgresql+asyncpg://nobody@127.0.0.1:1/none")
    done = False
    with pytest.raises(Unavailable):
        async with AuditLog(database).act("key:a", "RepositoryModelLoad", "digits"):
            done = True
    await database.close()
    assert not done


async def test_what_is_not_there_or_ended_is_not_found(administration: Administration) -> None:
    key = await administration.create_key("t", KeySpec("k", _INFER))
    await administration.revoke_key("t", key.key_id)
    for key_id in (key.key_id, "absent"):
        with pytest.raises(NotFound, match=key_id):
            await administration.revoke_key("t", key_id)
        with pytest.raises(NotFound, match=key_id):
            await administration.rotate_key("t", key_id, timedelta(0))
        with pytest.raises(NotFound, match=key_id):
            await administration.limit_key("t", key_id, Allowance())
    with pytest.raises(NotFound, match="absent"):
        await administration.limit_tenant("t", "absent", Allowance())
    with pytest.raises(NotFound, match="absent"):
        await administration.create_key("t", KeySpec("k", _INFER, tenant="absent"))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (KeySpec("", _INFER), "name"),
        (KeySpec("x" * 101, _INFER), "name"),
        (KeySpec("x\x1b[2J", _INFER), "name"),
        (KeySpec("k", frozenset()), "scopes"),
        (KeySpec("k", _INFER, models=()), "models"),
        (KeySpec("k", _INFER, models=("a b",)), "'a b'"),
        (KeySpec("k", _INFER, models=("x" * 600, "y" * 600)), "1000"),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(administration: Administration, spec: KeySpec, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        await administration.create_key("t", spec)
    assert await administration.keys() == []


async def test_limits_are_replaced_as_a_whole(administration: Administration) -> None:
    await administration.create_tenant("t", "acme", Allowance(requests_per_s=1, images_per_day=5))
    await administration.limit_tenant("t", "acme", Allowance(images_per_s=2))
    (tenant,) = await administration.tenants()
    assert tenant.limits == Allowance(images_per_s=2)


async def test_a_tenants_name_is_its_own_and_plain(administration: Administration) -> None:
    await administration.create_tenant("t", "acme", Allowance())
    with pytest.raises(Conflict, match="already"):
        await administration.create_tenant("t", "acme", Allowance())
    for name in ("", "-a", "A", "a b", "a" * 64):
        with pytest.raises(InvalidArgument, match="a-z"):
            await administration.create_tenant("t", name, Allowance())
    assert [tenant.name for tenant in await administration.tenants()] == ["acme"]
