"""A Ray cluster makes the study: its actors join in as any process would, and tell what they do."""

import os
import signal
from collections.abc import Callable, Iterator
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
from fovea.study.run.events import Joined, Left, Said, Started

if TYPE_CHECKING:
    from fovea.study.plan.plan import Plan
    from fovea.study.run.events import Event
    from fovea.study.run.progress import Progress
    from fovea.study.store import Store
    from fovea.study.workers import Worker

LOOPBACK = "127.0.0.1"
PASSED_ON = ("OMP_NUM_THREADS", "HF_HOME", "HF_HUB_OFFLINE")  # of the environment, to the workers


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Ray:
    """address: of a cluster, "auto" for the one that runs here, None for one of its own on this machine that
    listens on the loopback alone. workers: how many, None for as many as there is room for. gpus, cpus: of
    each; gpus=None is one where the cluster has any. retries: how often lost workers are started again, in
    all. The study's folder, the model and the prompts must be at the same paths on every node."""

    address: str | None = None
    workers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    gpus: Annotated[float, Field(ge=0, le=1_000)] | None = None
    cpus: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    retries: Annotated[int, Field(ge=0, le=10_000)] = 3

    def __post_init__(self):
        if find_spec("ray") is None:
            raise ValueError("launcher=ray: Ray is not installed: pip install -e .[ray]")

    @contextmanager
    def opened(self) -> "Iterator[Cluster]":
        with _connected(self.address) as ray:
            room = ray.cluster_resources()
            gpus = min(1.0, room.get("GPU", 0.0)) if self.gpus is None else self.gpus
            most = room.get("GPU", 0.0) / gpus if gpus else room.get("CPU", 0.0) / self.cpus
            actor = ray.remote(Maker).options(num_gpus=gpus, num_cpus=self.cpus, runtime_env=_environment())
            yield Cluster(ray, actor, self.workers or max(1, int(most)), self.retries)


@plain_dataclass
class Cluster:
    """ray: the module, connected. actor: what workers are made by. retries: that are left. idle: workers that
    have nothing to make yet."""

    ray: Any
    actor: Any
    workers: int
    retries: int
    idle: list[Any] = field(default_factory=list)
    streams: dict[Any, Any] = field(default_factory=dict)  # of what a worker tells, to the worker
    joined: dict[Any, str] = field(default_factory=dict)  # to its ID among those at work

    def plan(self, plan: "Plan", arguments: list[str]) -> "Plan":
        """By a worker, which makes some of it then."""
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
        progress.tell(Said(f"{self.workers} workers, {len(self.ray.nodes())} nodes of Ray"))
        for _ in range(self.workers):
            self.start(plan, store)
        begun = False
        while self.streams:
            for stream in self.ray.wait(list(self.streams), timeout=1.0)[0]:
                for event in self.next(stream, worker, lambda: self.start(plan, store)):
                    if isinstance(event, Started) and begun:
                        event = Left(event.images, self.workers)
                    begun |= isinstance(event, Started)
                    progress.tell(event)
            worker.check()

    def start(self, plan: "Plan", store: "Store") -> None:
        made = self.idle.pop() if self.idle else self.actor.remote(os.getcwd())
        stream = made.make.options(num_returns="streaming").remote(plan, store, store.session)
        self.streams[stream] = made

    def next(self, stream: Any, worker: "Worker", again: Callable[[], None]) -> "Iterator[Event]":
        """What a worker tells next, unless that is its end. One that is lost gives its shard back."""
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
            yield Said(f"a worker was lost, {self.retries} starts left: {first_line(error)}")
            if self.retries:
                self.retries -= 1
                again()
            return
        if isinstance(event, Joined):
            self.joined[stream] = event.worker
        else:
            yield event


class Maker:
    """An actor: a process of the cluster that shares in a study. folder: where the command was given."""

    def __init__(self, folder: str):
        os.chdir(folder)

    def plan(self, arguments: list[str]) -> "Plan":
        from fovea.study.plan.plan import make

        return make(arguments)

    def make(self, plan: "Plan", store: "Store", session: str) -> "Iterator[Event]":
        """session: of the process that started this one."""
        from fovea.study.run.share import join

        yield from join(plan, store, session)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """With a cluster. One of its own listens on the loopback alone, and ends with it."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is None:  # Ray's own word for a cluster of this machine alone, by its loopback
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    ray: Any = import_module("ray")
    before = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {"address": address}
    if address is None:
        own = {"address": "local", "include_dashboard": False, "_node_ip_address": LOOPBACK}
    ray.init(**own, log_to_driver=False, logging_level="ERROR")
    signal.signal(signal.SIGTERM, before)  # how a study ends is not for Ray to say
    try:
        yield ray
    finally:
        ray.shutdown()


def _environment() -> dict[str, Any]:
    """Of a worker: this very code, and what numbers and weights depend on."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"env_vars": passed | {"PYTHONPATH": str(ROOT)}}
