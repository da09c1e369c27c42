"""Rim: kopf watches, and its events become keys. Nothing else of kopf is used.

Only ``@kopf.on.event``: kopf then keeps no state in the resource, writes nothing to it, adds no
finalizer, and any number of replicas may watch at once. Its view of the world is a hint: it has no
event for what was deleted while it was not connected, so work begins from a live read, and a list
every few minutes finds what events missed.

kopf runs in a thread and loop of its own. It takes over the signals of the loop in the main
thread, and when it ends it cancels every task that began after itself, ours too.
"""

from __future__ import annotations

import asyncio
import logging
import random
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import kopf

from controller import names, ports
from controller.aside import Aside
from controller.essence import Seen, key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from controller.essence import Key
    from controller.kubeconfig import ApiServer
    from controller.ports import Kind

logger = logging.getLogger(__name__)

WATCHED = (ports.PODS, *ports.OWNED)
"""Kinds of objects of ours that are watched beside the resource itself: those with our label."""

DEBOUNCE_SECONDS = 0.1
"""For events of objects: they come in bursts."""

STOP_SECONDS = 5.0
"""For kopf to end. It is left behind then: nothing of it needs to be finished."""

_NEVER = f"kopf-unused.{names.DOMAIN}"


class WatchesEnded(Exception):
    """kopf ended by itself; it has said why."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the watches are, in seconds."""

    server: int = 300
    """After which the API server is asked to end a watch, so that it is begun anew."""
    silence: float = 70.0
    """Without a word, bookmarks included, after which a watch counts as dead; they come each
    minute."""
    reconnect: float = 1.0
    """Before a watch is begun anew."""
    pauses: float = 30.0
    """Longest one between tries while the API server fails."""
    give_up: float = 600.0
    """Of failing, after which kopf gives up, and the process with it."""


@dataclass(frozen=True, slots=True)
class Pauses:
    """Growing pauses with jitter; each use begins anew."""

    cap: float
    total: float

    def __iter__(self) -> Iterator[float]:
        """Yield pauses in seconds until ``total`` of them has passed."""
        pause, spent = 1.0, 0.0
        while spent < self.total:
            jittered = pause * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, hides nothing
            spent += jittered
            yield jittered
            pause = min(pause * 2, self.cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where resources are looked for."""

    namespaces: tuple[str, ...]
    """Empty: everywhere."""

    @property
    def lists(self) -> tuple[str | None, ...]:
        """What to ask lists for: namespaces, or None once for all of them."""
        return self.namespaces or (None,)


class Watches:
    """Watches of the resource and of everything that belongs to one."""

    def __init__(
        self, server: ApiServer, scope: Scope, instance: str, pace: Pace | None = None
    ) -> None:
        """Prepare; nothing is watched yet.

        Args:
            server: Where the API server is.
            scope: What is watched.
            instance: What this process is called.
            pace: How patient they are.
        """
        self._server = server
        self._scope = scope
        self._settings = kopf_settings(instance, pace or Pace())
        self._seen = Seen()
        self.are_running = False
        """kopf has begun, and not ended."""

    async def run(self, resource: Callable[[Key], None], child: Callable[[Key], None]) -> None:
        """Watch until cancelled.

        Args:
            resource: Told of each change of a resource, in this loop.
            child: Told of each change of an object of one, in this loop.

        Raises:
            WatchesEnded: kopf ended by itself.
        """
        main = asyncio.get_running_loop()

        def tell(whom: Callable[[Key], None], key: Key) -> None:
            with suppress(RuntimeError):  # the loop is closed: the process ends
                main.call_soon_threadsafe(whom, key)

        registry = self._registry(lambda key: tell(resource, key), lambda key: tell(child, key))
        run = _Run(registry, self._settings, self._scope, self._server)
        run.begun.add_done_callback(lambda _: self._begin())
        aside = Aside("watches", run.live)
        aside.start()
        try:
            await aside.ended()
        except Exception as error:
            msg = f"the watches of the API server ended: {error!r}"
            raise WatchesEnded(msg) from error
        finally:
            self.are_running = False
            aside.tell(run.stop.set)
            await _patience(aside)
        msg = "the watches of the API server ended"
        raise WatchesEnded(msg)

    def _begin(self) -> None:
        self.are_running = True

    def _registry(
        self, resource: Callable[[Key], None], child: Callable[[Key], None]
    ) -> kopf.OperatorRegistry:
        """Return handlers that only tell keys: they return nothing and never wait."""
        registry = kopf.OperatorRegistry()

        async def on_resource(event: Mapping[str, Any], **_: object) -> None:
            self._take(event, resource)

        async def on_child(event: Mapping[str, Any], **_: object) -> None:
            self._take(event, child)

        kopf.on.event(*_selector(ports.AGGREGATORS), registry=registry)(on_resource)
        for kind in WATCHED:
            kopf.on.event(*_selector(kind), registry=registry)(on_child)
        return registry

    def _take(self, event: Mapping[str, Any], tell: Callable[[Key], None]) -> None:
        manifest = event["object"]
        key = key_of(manifest)
        if key is not None and self._seen.is_news(event["type"], manifest):
            tell(key)


async def _patience(aside: Aside) -> None:
    """Wait for it to end, but not for ever: nothing of it needs to be finished."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await aside.ended()
    except TimeoutError:
        logger.info("the watches take long to end; they are left behind")
    except Exception as error:  # noqa: BLE001 - of what is not needed any more
        logger.debug("the watches ended", extra={"reason": repr(error)})


class _Run:
    """One run of kopf. All but the making happens in its thread."""

    def __init__(
        self,
        registry: kopf.OperatorRegistry,
        settings: kopf.OperatorSettings,
        scope: Scope,
        server: ApiServer,
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._scope = scope
        self._server = server
        self._sessions: list[aiohttp.ClientSession] = []
        self.stop = asyncio.Event()
        self.begun: Future[None] = Future()
        kopf.on.login(registry=registry)(self._login)

    async def live(self) -> None:
        """Run until ``stop``, or until kopf fails: then raise why."""
        tasks = await kopf.spawn_tasks(
            registry=self._registry,
            settings=self._settings,
            # Else it asks for the user's name, and the uid that runs us need not have one.
            identity=self._settings.posting.reporting_instance,  # type: ignore[arg-type]  # a NewType of its own
            standalone=True,
            namespaces=self._scope.namespaces,
            clusterwide=not self._scope.namespaces,
            ready_flag=self.begun,
        )
        try:
            async with asyncio.TaskGroup() as group:
                stopping = group.create_task(self.stop.wait(), name="stop")
                # Not ``run_tasks``: it waits for watchers that lose their cancellation.
                await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=STOP_SECONDS / 2)
            for session in self._sessions:
                await session.close()

    async def _login(self, **_: object) -> kopf.AiohttpSession:
        """Return the way in as it is now: kopf asks again after each 401."""
        token, context = self._server.token(), self._server.ssl_context()
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=True if context is None else context),
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
        )
        self._sessions = [one for one in self._sessions if not one.closed]
        self._sessions.append(session)
        return kopf.AiohttpSession(
            server=self._server.url,
            aiohttp_session=session,
            default_namespace=self._server.namespace,
        )


def kopf_settings(instance: str, pace: Pace) -> kopf.OperatorSettings:
    """Return what keeps kopf to watching.

    Args:
        instance: What this process is called.
        pace: How patient the watches are.
    """
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # else a stranger's peering object could pause us
    settings.scanning.disabled = True  # needs no right to see definitions and namespaces
    settings.watching.server_timeout = pace.server
    settings.watching.client_timeout = pace.server * 1.1
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = pace.silence
    settings.watching.reconnect_backoff = pace.reconnect
    settings.watching.chunk_size = 500
    settings.watching.initial_streaming = False  # needs Kubernetes 1.34
    for kind in WATCHED:
        label = f"{names.MANAGED_BY}={names.MANAGER}"
        settings.watching.label_selectors[_selector(kind)] = label
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = Pauses(pace.pauses, pace.give_up)
    settings.networking.enforce_retry_after = False
    settings.queueing.worker_limit = None  # one coroutine an object; handlers wait for nothing
    settings.queueing.idle_timeout = 5
    settings.queueing.exit_timeout = 2
    settings.execution.max_workers = 2  # no handler of ours needs a thread
    # It would kill the process, and its Lease would have to be waited for. We end the process.
    settings.process.ultimate_exiting_timeout = None
    _keep_out(settings, instance)
    return settings


def _keep_out(settings: kopf.OperatorSettings, instance: str) -> None:
    """Have kopf keep its hands off resources, and should it ever not, leave traces of nobody.

    The finalizer of this name is taken away from whatever has it: it must be one that nobody has.
    """
    settings.persistence.finalizer = f"{_NEVER}/never"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=_NEVER)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=_NEVER)
    settings.posting.enabled = False  # Events are ours, on transitions
    settings.posting.loggers = False
    settings.posting.level = logging.WARNING
    settings.posting.reporting_component = names.MANAGER
    settings.posting.reporting_instance = instance
    settings.posting.event_name_prefix = f"{names.MANAGER}-"
    settings.posting.worker_limit = 4


def _selector(kind: Kind) -> tuple[str, str, str]:
    """Return group, version, plural."""
    group, _, version = kind.api_version.rpartition("/")
    return group, version, kind.plural
