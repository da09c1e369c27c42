"""Which replica of the controller works: the one that holds the controller's own Lease.

The rule is the aggregator's (``aggregator.leadership``), without a store: nothing but the Lease
confirms a term, so a holder that cannot renew it stops. Stopping is ending the process, at once
and from the elector's own thread, whatever the main loop does. What a pass does is idempotent and
carries versions, so a pass that is cut anywhere is gone on with by whoever leads next.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from math import inf
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from aggregator.leadership.election import PROFILES, Candidate, Profile, Vitals
from aggregator.leadership.elector import Elector, Standing, boottime
from aggregator.leadership.kubernetes import KubernetesLock, LeaseAt
from controller.aside import Aside
from controller.errors import ClusterError, Conflict
from controller.ports import LEASES

if TYPE_CHECKING:
    from collections.abc import Callable

    from controller.kubeconfig import ApiServer
    from controller.ports import Cluster

logger = logging.getLogger(__name__)

Periods: TypeAlias = Profile
"""Lease, deadline and renewal, in seconds."""

SAFE: Periods = PROFILES["safe"]
"""Lease of 15 s: losing it only delays repairs."""

LOOP_SECONDS = 5.0
"""After which a main loop that does not turn is given up."""

RELEASE_SECONDS = 5.0

_PULSE_SECONDS = 0.25
_ENSURE_SECONDS = 15.0


class NotLeading(Exception):
    """The Lease is not sure to be ours any more."""


class Lead:
    """This replica in the election. ``run`` must run beside its users."""

    def __init__(
        self,
        server: ApiServer,
        namespace: str,
        name: str,
        pod: str,
        lost: Callable[[str], object],
        periods: Periods = SAFE,
    ) -> None:
        """Prepare; nothing competes yet.

        Args:
            server: Where the API server is.
            namespace: Of the Lease.
            name: Of the Lease.
            pod: What this replica is called.
            lost: Ends the process, and gets the reason. Called in the elector's thread.
            periods: How fast a lost holder is replaced.
        """
        self._at = LeaseAt(
            server=server.url,
            namespace=namespace,
            name=name,
            token_file=server.token_file,
            ssl=server.ssl_context(),
        )
        me = f"{pod}.{secrets.token_hex(4)}"
        self._candidate = Candidate(me=me, pod=pod, profile=periods)
        self._lost = lost
        self._pulse = -inf
        self._elector: Elector | None = None
        self._aside: Aside | None = None
        self._acquired = asyncio.Event()
        self._releasing = False
        self.standing = Standing()

    @property
    def leads(self) -> bool:
        """Whether the Lease is ours."""
        return self.standing.active

    @property
    def silence(self) -> float:
        """Seconds since the elector last decided; infinite before it began."""
        return inf if self._elector is None else boottime() - self._elector.beat

    def require(self) -> None:
        """Make sure that the Lease is ours right now.

        Raises:
            NotLeading: It may not be.
        """
        elector = self._elector
        if not self.standing.active or elector is None or boottime() >= elector.good_until:
            raise NotLeading(self.standing.why or "the Lease was not renewed in time")

    async def acquired(self) -> None:
        """Wait until the Lease is ours."""
        await self._acquired.wait()

    async def run(self) -> NoReturn:
        """Compete until cancelled; ``release`` first, or others wait the Lease out.

        Raises:
            RuntimeError: The elector ended by itself.
        """
        self._pulse = boottime()
        self._aside = aside = Aside("elector", self._compete)
        aside.start()
        async with asyncio.TaskGroup() as tasks:
            beating = tasks.create_task(self._beat(), name="pulse")
            try:
                await aside.ended()
            finally:
                beating.cancel()
            if self._releasing:
                await asyncio.Event().wait()
        raise RuntimeError("the elector ended")

    async def release(self) -> None:
        """Give the Lease up, so that another replica may lead at once. Its work has stopped."""
        self._releasing = True
        aside, elector = self._aside, self._elector
        if aside is None or elector is None:
            return
        aside.tell(elector.stop)
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await aside.ended()
        except TimeoutError:
            logger.warning(
                "the Lease is not given up: the API server does not answer. The next leader waits "
                "it out; nothing needs to be done"
            )

    async def _beat(self) -> NoReturn:
        while True:
            self._pulse = boottime()
            await asyncio.sleep(_PULSE_SECONDS)

    # In the elector's thread.

    async def _compete(self) -> None:
        self._elector = Elector(
            KubernetesLock(self._at),
            self._candidate,
            vitals=self._vitals,
            publish=self._take,
        )
        if self._releasing:
            return
        try:
            await self._elector.run()
        finally:
            if self.standing.active and not self._releasing:
                self._lost("the elector failed")

    def _vitals(self) -> Vitals:
        """Return what makes us fit: a main loop that turns, and no more."""
        now = boottime()
        beat = now if now - self._pulse < LOOP_SECONDS else self._pulse
        return Vitals(
            wanted=not self._releasing,
            beat=beat,
            store=now,
            chain=now,
            signs=True,
            operators=True,
            window=True,
        )

    def _take(self, standing: Standing) -> None:
        had, self.standing = self.standing, standing
        if standing.active and not had.active and self._aside is not None:
            self._aside.answer(self._acquired.set)
        if had.active and not standing.active and not self._releasing:
            self._lost(standing.why)


async def ensure_lease(cluster: Cluster, namespace: str, name: str) -> NoReturn:
    """Create the Lease whenever it is absent, until cancelled.

    Args:
        cluster: Where it is to be.
        namespace: Of the Lease.
        name: Of the Lease.
    """
    lease = {
        "apiVersion": LEASES.api_version,
        "kind": LEASES.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"leaseTransitions": 0},
    }
    told = ""
    while True:
        try:
            if await cluster.get(LEASES, namespace, name) is None:
                await cluster.create(lease)
            told = ""
        except Conflict:
            told = ""  # the other replica was faster
        except ClusterError as error:
            if type(error).__name__ != told:
                logger.warning(
                    "the controller's own Lease cannot be looked at or made; nobody can begin to "
                    "lead without it. Check its namespace, our roles, and the API server",
                    extra={"lease": f"{namespace}/{name}", "reason": str(error)},
                )
            told = type(error).__name__
        await asyncio.sleep(_ENSURE_SECONDS)
