"""Keys and tenants over REST: what `tidegate keys` and `tidegate tenants` do, for who has the scope `admin`."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from gateway.auth.administration import Administration
from gateway.auth.audit import AuditLog
from gateway.call import Scope
from gateway.errors import DeadlineExceeded
from gateway.rest import admin
from gateway.rest.body import Body
from gateway.rest.door import Door, credential, documented_key
from gateway.routing.policies import Policies
from gateway.routing.policy import TrafficPolicy

_MAX_BODY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class _Admin:
    """A caller with the scope `admin`, and what it works on."""

    actor: str
    administration: Administration
    audit: AuditLog
    policies: Policies


class _AdminRoute(APIRoute):
    """Checks the caller before FastAPI reads the body, and bounds the body and the time."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]  # FastAPI's says Coroutine.
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            door = cast(Door, request.app.state.door)
            identities = door.identities
            try:
                async with asyncio.timeout_at(door.deadline(request)):
                    identity = await identities.authenticator.authenticate(credential(request), Scope.ADMIN)
                    request.state.admin = _Admin(
                        identity.subject, identities.administration, identities.audit, door.policies
                    )
                    body = Body(request, _MAX_BODY_BYTES)
                    body.check_headers()
                    return await handle(body.request)
            except TimeoutError as error:
                raise DeadlineExceeded("the deadline passed before the answer was there") from error

        return checked


def _admin(request: Request) -> _Admin:
    return cast(_Admin, request.state.admin)


AdminDep = Annotated[_Admin, Depends(_admin)]

router = APIRouter(prefix="/admin/v1", tags=["admin"], dependencies=[documented_key], route_class=_AdminRoute)


@router.post("/keys", summary="Make a key", status_code=201)
async def create_key(asked: admin.NewKey, caller: AdminDep) -> admin.Secret:
    """The answer is the only one that has the key in full."""
    key = await caller.administration.create_key(caller.actor, asked.spec())
    return admin.Secret(key_id=key.key_id, key=key.text)


@router.get("/keys", summary="All keys, without their secrets")
async def list_keys(caller: AdminDep) -> list[admin.Key]:
    """Oldest first, revoked ones too."""
    return [admin.Key.model_validate(key) for key in await caller.administration.keys()]


@router.post("/keys/{key_id}/rotate", summary="Give a key a new secret")
async def rotate_key(key_id: str, asked: admin.Rotation, caller: AdminDep) -> admin.Secret:
    """The secret it has is good for `overlap_s` more."""
    key = await caller.administration.rotate_key(caller.actor, key_id, asked.overlap())
    return admin.Secret(key_id=key.key_id, key=key.text)


@router.put("/keys/{key_id}/limits", summary="Replace a key's limits", status_code=204)
async def limit_key(key_id: str, limits: admin.Limits, caller: AdminDep) -> None:
    """Workers take them up within seconds."""
    await caller.administration.limit_key(caller.actor, key_id, limits.allowance())


@router.delete("/keys/{key_id}", summary="Revoke a key", status_code=204)
async def revoke_key(key_id: str, caller: AdminDep) -> None:
    """Workers refuse it within seconds."""
    await caller.administration.revoke_key(caller.actor, key_id)


@router.post("/tenants", summary="Make a tenant", status_code=204)
async def create_tenant(asked: admin.NewTenant, caller: AdminDep) -> None:
    """Its limits are what all its keys may use together."""
    await caller.administration.create_tenant(caller.actor, asked.name, asked.limits.allowance())


@router.get("/tenants", summary="All tenants")
async def list_tenants(caller: AdminDep) -> list[admin.Tenant]:
    """By name."""
    return [admin.Tenant.model_validate(tenant) for tenant in await caller.administration.tenants()]


@router.put("/tenants/{name}/limits", summary="Replace a tenant's limits", status_code=204)
async def limit_tenant(name: str, limits: admin.Limits, caller: AdminDep) -> None:
    """Workers take them up within seconds."""
    await caller.administration.limit_tenant(caller.actor, name, limits.allowance())


@router.put("/tenants/{name}/state", summary="Disable or enable a tenant", status_code=204)
async def set_tenant_state(name: str, state: admin.TenantState, caller: AdminDep) -> None:
    """Every key of a disabled tenant is refused."""
    await caller.administration.disable_tenant(caller.actor, name, state.disabled)


@router.get("/traffic", summary="All traffic policies")
async def list_policies(caller: AdminDep) -> list[admin.SetPolicy]:
    """By model. A model without one is answered by its newest version."""
    return [admin.SetPolicy.of(model, stored) for model, stored in (await caller.policies.all()).items()]


@router.get("/traffic/{model}", summary="A model's traffic policy")
async def read_policy(model: str, caller: AdminDep) -> admin.SetPolicy:
    """With its revision, which a change may name."""
    return admin.SetPolicy.of(model, await caller.policies.one(model))


@router.put("/traffic/{model}", summary="Set a model's traffic policy")
async def set_policy(
    model: str,
    policy: TrafficPolicy,
    caller: AdminDep,
    revision: Annotated[int | None, Query(ge=0, description="Only in place of this one; 0: only the first.")] = None,
) -> admin.SetPolicy:
    """In place of the one it has. All workers follow within 2 s."""
    await caller.policies.put(caller.actor, model, policy, revision=revision)
    return admin.SetPolicy.of(model, await caller.policies.one(model))


@router.post("/traffic/{model}/rollback", summary="Set a model's canary to 0", status_code=204)
async def roll_back(model: str, caller: AdminDep) -> None:
    """What it got goes to `stable`."""
    await caller.policies.roll_back(caller.actor, model, "by hand")


@router.delete("/traffic/{model}", summary="Remove a model's traffic policy", status_code=204)
async def remove_policy(model: str, caller: AdminDep) -> None:
    """Its newest version answers again."""
    await caller.policies.remove(caller.actor, model)


@router.get("/audit", summary="What administrators did")
async def audit(caller: AdminDep, limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> list[admin.Act]:
    """The newest first."""
    return [admin.Act.model_validate(entry) for entry in await caller.audit.latest(limit)]
