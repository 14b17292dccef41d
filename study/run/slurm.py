"""Jobs of a Slurm cluster make the study, by submitit: each joins in as any process would."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass as plain_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from fovea.study.config.groups import ROOT
from fovea.study.run.events import Left, Said, Started

if TYPE_CHECKING:
    from fovea.study.plan.plan import Plan
    from fovea.study.run.progress import Progress
    from fovea.study.store import Store
    from fovea.study.workers import Worker

PAUSE = 2.0  # seconds between looks at the jobs
REQUEUED = 10_000  # times, at most, that a job out of time is queued again


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Slurm:
    """cluster: "local" for submitit's own processes on this machine. jobs: how many share the study. hours:
    that a job may take. gpus, cpus: of each. options: Slurm's own, as sbatch has them. The study's folder,
    the model and the prompts must be at the same paths on all nodes; logs are in `.jobs` beside the study."""

    cluster: Literal["slurm", "local"] = "slurm"
    jobs: Annotated[int, Field(ge=1, le=10_000)] = 1
    hours: Annotated[float, Field(gt=0, le=10_000)] = 24.0
    gpus: Annotated[int, Field(ge=0, le=1_000)] = 1
    cpus: Annotated[int, Field(ge=1, le=10_000)] = 8
    options: dict[str, str | int | bool] = Field(default_factory=dict)

    def __post_init__(self):
        if find_spec("submitit") is None:
            raise ValueError("launcher=slurm: submitit is not installed: pip install -e .[slurm]")

    @contextmanager
    def opened(self) -> "Iterator[Slurm]":
        """With this very code on the jobs' path: they have this process's environment."""
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before)))
        try:
            yield self
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before

    def plan(self, plan: "Plan", arguments: list[str]) -> "Plan":
        """By a job, unless that would run here."""
        if self.cluster == "local":
            return plan
        return self._executor(plan.folder).submit(Planning(os.getcwd(), arguments)).result()

    def make(self, plan: "Plan", store: "Store", worker: "Worker", progress: "Progress") -> None:
        from fovea.study.run.execute import pending

        executor = self._executor(store.folder)
        task = Task(os.getcwd(), plan, store, store.session)
        with executor.batch():
            jobs = [executor.submit(task) for _ in range(self.jobs)]
        progress.tell(Said(f"{len(jobs)} jobs, {jobs[0].job_id} and on; logs: {executor.folder}"))
        keys, begun = [s.key for s in plan.samples], False
        try:
            while True:
                ended = [job for job in jobs if job.done()]
                store.refresh(cell.id for cell in plan.cells)
                lacking = pending(store, plan.cells, keys)
                left = {cell.id: len(lacking.get(cell.id, ())) for cell in plan.cells}
                progress.tell(Left(left, max(1, len(jobs) - len(ended))) if begun else Started(left))
                begun = True
                if len(ended) == len(jobs):
                    break
                worker.check()
                time.sleep(PAUSE)
        except BaseException:
            for job in jobs:
                job.cancel(check=False)
            raise
        for job in jobs:
            if (error := job.exception()) is not None:
                progress.tell(Said(f"job {job.job_id}: {error}; its log: {job.paths.stderr}"))

    def _executor(self, study: Path) -> Any:
        import submitit

        folder = study.parent / ".jobs" / study.name
        found = submitit.AutoExecutor(folder, cluster=self.cluster, slurm_max_num_timeout=REQUEUED)
        found.update_parameters(
            name=f"fovea-{study.name}",
            timeout_min=max(1, round(60 * self.hours)),
            cpus_per_task=self.cpus,
            gpus_per_node=self.gpus,
            slurm_additional_parameters=dict(self.options),
        )
        return found


@plain_dataclass(frozen=True)
class Planning:
    """A job that plans: cells are named after the machine that makes them. folder: where it was asked for."""

    folder: str
    arguments: list[str]

    def __call__(self) -> "Plan":
        from fovea.study.plan.plan import make

        os.chdir(self.folder)
        return make(self.arguments)


@plain_dataclass(frozen=True)
class Task:
    """A job that shares in a study. session: of the process that submitted it."""

    folder: str
    plan: "Plan"
    store: "Store"
    session: str

    def __call__(self) -> None:
        from fovea.study.run.progress import Progress
        from fovea.study.run.share import join

        os.chdir(self.folder)
        with Progress() as progress:
            for event in join(self.plan, self.store, self.session):
                progress.tell(event)

    def checkpoint(self, *_: Any) -> Any:
        """What is queued again when the job is preempted or out of time: all that is finished is stored."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
