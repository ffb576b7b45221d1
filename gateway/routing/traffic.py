"""The router: what the policies say, where there are any, over what the catalog knows."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from random import random

import structlog

from contract.card import ENCODED_SUFFIX
from gateway.call import Arm, Headers, Identity, Watch
from gateway.errors import Unavailable
from gateway.figures import FleetFigures
from gateway.ports import Route
from gateway.routing.catalog import ModelCatalog
from gateway.routing.policies import Policies, StoredPolicy
from gateway.routing.policy import STICKY_HEADER, Choice

_log = structlog.get_logger(__name__)


class TrafficRouter:
    """Chooses the version that answers.

    A policy of NAME holds for NAME_encoded too, whose versions have the same numbers, unless that has its own. A version
    that is not ready is never chosen: `stable` answers for it, else the newest.
    """

    def __init__(self, catalog: ModelCatalog, policies: Policies, poll_s: float, figures: FleetFigures) -> None:
        self._catalog = catalog
        self._policies = policies
        self._poll_s = poll_s
        self._figures = figures
        self._choices: dict[str, Choice] = {}
        self._stored: Mapping[str, StoredPolicy] = {}
        self._reading = asyncio.Lock()

    def route(
        self, model: str, version: str, identity: Identity, headers: Headers, sequence: str | None = None
    ) -> Route:
        """The version that is asked for by number or alias, else the one that the policy chooses, else the newest."""
        if not self._choices:
            return self._catalog.route(model, version)
        name = model if model in self._choices else model.removesuffix(ENCODED_SUFFIX)
        choice = self._choices.get(name)
        if choice is None:
            return self._catalog.route(model, version)
        if version:
            alias = choice.aliases.get(version)
            return self._catalog.route(model, version if alias is None else str(alias))
        chosen = choice.version(identity.subject, headers(STICKY_HEADER), sequence)
        route = self._ready(model, chosen, choice)
        return self._watched(name, route, choice)

    def explain(self, model: str) -> str | None:
        """The inputs and outputs a model takes."""
        return self._catalog.explain(model)

    async def look_again(self) -> None:
        """Learn anew which versions are ready."""
        await self._catalog.refresh()

    def choice(self, model: str) -> Choice | None:
        """A model's policy as it is followed now."""
        return self._choices.get(model)

    def follow(self, model: str, choice: Choice) -> None:
        """Follow another policy before the database has it."""
        self._choices[model] = choice
        self._show(model, choice)

    async def refresh(self) -> None:
        """Read the policies; while the database is away, those that were read last are followed.

        Raises:
            Unavailable: The database did not answer.
        """
        async with self._reading:
            stored = await self._policies.all()
            for model in self._stored.keys() - stored.keys():
                self._show(model, None)
                del self._choices[model]
            for model, each in stored.items():
                if each != self._stored.get(model):
                    self.follow(model, Choice(each.policy, each.revision))
            self._stored = stored

    async def keep_fresh(self) -> None:
        """Refresh until cancelled."""
        away = False
        while True:
            try:
                await self.refresh()
                away = False
            except Unavailable as error:
                if not away:
                    _log.warning("traffic policies cannot be read", error=repr(error.__cause__))
                away = True
            await asyncio.sleep(self._poll_s)

    def _ready(self, model: str, chosen: int | None, choice: Choice) -> Route:
        for version in (chosen, choice.stable):
            if version is not None:
                route = self._catalog.route(model, str(version))
                if route.version:
                    return route
        return self._catalog.route(model, "")

    def _watched(self, name: str, route: Route, choice: Choice) -> Route:
        """Note whose answer it will be, and who else is to be asked."""
        version = int(route.version) if route.version else None
        arm = Arm.OTHER
        if choice.canary is not None and version is not None:
            arm = {choice.canary: Arm.CANARY, choice.stable: Arm.STABLE}.get(version, Arm.OTHER)
        copy_to, shadow = "", choice.policy.shadow
        if arm is Arm.CANARY and choice.policy.guard.max_disagreement is not None:
            copy_to = str(choice.stable)
        elif shadow is not None and shadow.version != version and random() < shadow.share:
            copy_to = str(shadow.version)
        if version is None or arm is Arm.OTHER and not copy_to:
            return route
        return replace(route, watch=Watch(name, choice.revision, arm, copy_to))

    def _show(self, model: str, choice: Choice | None) -> None:
        shares = choice.policy.shares if choice is not None else {}
        before = self._stored[model].policy.shares if model in self._stored else {}
        for version in before.keys() | shares.keys():
            self._figures.traffic_weight(model, str(version), shares.get(version, 0.0))
