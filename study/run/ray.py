"""Run a study on a Ray cluster: its actors join like any other process and stream their events."""

import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from fovea.study.config.errors import Refused, first_line
from fovea.study.config.groups import ROOT
from fovea.study.files import FULL
from fovea.study.run.events import Joined, Message
from fovea.study.run.leaving import leaving_on

if TYPE_CHECKING:
    from fovea.study.plan.plan import Plan
    from fovea.study.run.events import Event
    from fovea.study.run.progress import Progress
    from fovea.study.store import Store
    from fovea.study.workers import Worker

LOOPBACK = "127.0.0.1"
REACH = 5.0  # seconds to reach a head node
PASSED_ON = ("OMP_NUM_THREADS", "HF_HOME", "HF_HUB_OFFLINE")  # environment variables passed to the workers


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Ray:
    """Launch workers on a Ray cluster. The study's folder, the model and the prompts must be at the same
    paths on every node.

    address: HOST:PORT of a cluster's head node; "auto" for the cluster running here; None to start one on
        this machine that listens on the loopback interface only.
    workers: number of workers; None for as many as fit.
    gpus, cpus: per worker; gpus=None is one if the cluster has any.
    retries: total number of restarts of lost workers.
    """

    address: str | None = None
    workers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    gpus: Annotated[float, Field(ge=0, le=1_000)] | None = None
    cpus: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    retries: Annotated[int, Field(ge=0, le=10_000)] = 3

    def __post_init__(self):
        if find_spec("ray") is None:
            raise ValueError("launcher=ray: Ray is not installed: pip install -e .[ray]")
        if self.address not in (None, "auto") and _host_and_port(self.address) is None:
            raise ValueError(
                f"address={self.address}: must be null (a cluster of its own), auto (the one running here) "
                "or HOST:PORT of a head node, as `ray start --head` prints it; ray://, Ray's client, carries "
                "no events"
            )

    @contextmanager
    def opened(self) -> "Iterator[Cluster]":
        with _connected(self.address) as ray:
            room = ray.cluster_resources()
            gpus = min(1.0, room.get("GPU", 0.0)) if self.gpus is None else self.gpus
            _check_fit(ray.nodes(), {"GPU": gpus, "CPU": self.cpus})
            most = room.get("GPU", 0.0) / gpus if gpus else room.get("CPU", 0.0) / self.cpus
            actor = ray.remote(WorkerActor).options(
                num_gpus=gpus, num_cpus=self.cpus, runtime_env=_environment()
            )
            yield Cluster(ray, actor, self.workers or max(1, int(most)), self.retries)


@plain_dataclass
class Cluster:
    """A connected cluster.

    ray: the module.
    actor: class that workers are created from.
    retries: restarts left.
    idle: workers without work yet.
    streams: by stream of events, the worker that it comes from.
    joined: by stream, the worker's id among those at work.
    """

    ray: Any
    actor: Any
    workers: int
    retries: int
    idle: list[Any] = field(default_factory=list)
    streams: dict[Any, Any] = field(default_factory=dict)
    joined: dict[Any, str] = field(default_factory=dict)

    def plan(self, plan: "Plan", arguments: list[str]) -> "Plan":
        """Plan on a worker, which then also makes part of the study."""
        planner = self.actor.remote(os.getcwd())
        try:
            found = self.ray.get(planner.plan.remote(arguments))
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayError as error:
            if not self.retries:
                raise Refused(
                    f"launcher=ray: workers are lost before they have planned: {first_line(error)}"
                ) from None
            self.retries -= 1
            return self.plan(plan, arguments)
        self.idle.append(planner)
        return found

    def make(self, plan: "Plan", store: "Store", worker: "Worker", progress: "Progress") -> None:
        progress.tell(Message(f"{self.workers} workers, {len(self.ray.nodes())} nodes of Ray"))
        for _ in range(self.workers):
            self.start(plan, store)
        while self.streams:
            for stream in self.ray.wait(list(self.streams), timeout=1.0)[0]:
                for event in self.next(stream, worker, lambda: self.start(plan, store)):
                    progress.tell(event)
            worker.check()

    def start(self, plan: "Plan", store: "Store") -> None:
        made = self.idle.pop() if self.idle else self.actor.remote(os.getcwd())
        stream = made.make.options(num_returns="streaming").remote(plan, store, store.session)
        self.streams[stream] = made

    def next(self, stream: Any, worker: "Worker", again: Callable[[], None]) -> "Iterator[Event]":
        """Yield a worker's next event, if any. If the worker is lost, its shards are released and another is
        started while retries remain."""
        try:
            event = self.ray.get(next(stream))
        except StopIteration:
            del self.streams[stream]
            return
        except self.ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except self.ray.exceptions.RayError as error:
            del self.streams[stream]
            if stream in self.joined:
                worker.remove_lost(self.joined.pop(stream))
            yield Message(f"a worker was lost, {self.retries} starts left: {first_line(error)}")
            if self.retries:
                self.retries -= 1
                again()
            return
        if isinstance(event, Joined):
            self.joined[stream] = event.worker
        else:
            yield event


class WorkerActor:
    """An actor: a process of the cluster that works on a study. folder: where the command was given."""

    def __init__(self, folder: str):
        os.chdir(folder)

    def plan(self, arguments: list[str]) -> "Plan":
        from fovea.study.plan.plan import make

        return make(arguments)

    def make(self, plan: "Plan", store: "Store", session: str) -> "Iterator[Event]":
        """session: of the process that started this one."""
        from fovea.study.run.share import join

        with leaving_on(signal.SIGTERM):
            yield from join(plan, store, session)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Connect to a cluster. If it is our own, it listens on the loopback interface only and ends with the
    block."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is not None:
        _check_reachable(address)
    if address is None:  # Ray's switch for a cluster restricted to this machine
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray: Any = import_module("ray")
    before = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {"address": address}
    if address is None:
        own = {"address": "local", "include_dashboard": False, "_node_ip_address": LOOPBACK}
    try:
        ray.init(**own, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # each Ray has its own, for a cluster that is not there or of another version
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        where = "no cluster could be started here" if address is None else f"launcher.address={address}"
        raise Refused(f"launcher=ray: {where}: {first_line(error)}") from None
    signal.signal(signal.SIGTERM, before)  # Ray's handler would end the study in its own way
    try:
        yield ray
    finally:
        ray.shutdown()


def _host_and_port(address: str) -> tuple[str, int] | None:
    """Return the two parts of HOST:PORT; None if it is something else."""
    host, colon, port = address.rpartition(":")
    if "/" in host or not (host and colon and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def _check_reachable(address: str) -> None:
    """Raise Refused if nothing listens at the address, where Ray would try for minutes. For "auto", Ray takes
    the address in RAY_ADDRESS first."""
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    place = _host_and_port(named)
    if place is None:
        return
    try:
        socket.create_connection(place, timeout=REACH).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
        where = f"launcher.address={address}" + (f" (RAY_ADDRESS={named})" if named != address else "")
        raise Refused(
            f"launcher=ray: {where}: no connection ({first_line(error)}): is the cluster there "
            "(`ray start --head --port=6379` on its head node), and its port open to this machine?"
        ) from None


def _check_fit(nodes: list[dict[str, Any]], needed: Mapping[str, float]) -> None:
    """Raise Refused if no node is large enough for a worker, which would be waited for without end."""
    rooms = [node.get("Resources", {}) for node in nodes if node.get("Alive")]
    if any(all(room.get(what, 0.0) >= most for what, most in needed.items()) for room in rooms):
        return
    has = " or ".join(
        dict.fromkeys(" and ".join(f"{room.get(what, 0.0):g} {what}s" for what in needed) for room in rooms)
    )
    raise Refused(
        f"launcher.gpus={needed['GPU']:g} and launcher.cpus={needed['CPU']:g}: more than any node of the "
        f"cluster has for a worker ({has})"
    )


def _environment() -> dict[str, Any]:
    """Return a worker's environment: this code, and the variables that numbers and weights depend on."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"env_vars": passed | {"PYTHONPATH": str(ROOT)}}
