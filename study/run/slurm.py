"""Run a study as jobs of a Slurm cluster, through submitit: each job joins like any other process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass as plain_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from fovea.study.config.groups import ROOT
from fovea.study.run.events import Message
from fovea.study.run.launchers import watch

if TYPE_CHECKING:
    from fovea.study.plan.plan import Plan
    from fovea.study.run.progress import Progress
    from fovea.study.store import Store
    from fovea.study.workers import Worker

REQUEUED = 10_000  # maximum number of times that a job out of time is queued again


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Slurm:
    """Launch jobs. The study's folder, the model and the prompts must be at the same paths on all nodes; logs
    are in `.jobs` next to the study.

    cluster: "slurm", or "local" for submitit's processes on this machine.
    jobs: number of jobs that share the study.
    hours: time limit of a job.
    gpus, cpus: per job.
    options: further options of sbatch.
    """

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
        """Add this code to PYTHONPATH: jobs inherit this process's environment."""
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
        """Plan in a job, unless jobs run on this machine."""
        if self.cluster == "local":
            return plan
        return self._executor(plan.folder).submit(Planning(os.getcwd(), arguments)).result()

    def make(self, plan: "Plan", store: "Store", worker: "Worker", progress: "Progress") -> None:
        executor = self._executor(store.folder)
        task = Task(os.getcwd(), plan, store, store.session)
        with executor.batch():
            jobs = [executor.submit(task) for _ in range(self.jobs)]
        progress.tell(Message(f"{len(jobs)} jobs, {jobs[0].job_id} and on; logs: {executor.folder}"))
        try:
            watch(plan, store, worker, progress, lambda: sum(not job.done() for job in jobs))
        except BaseException:
            for job in jobs:
                job.cancel(check=False)
            raise
        for job in jobs:
            if (error := job.exception()) is not None:
                progress.tell(Message(f"job {job.job_id}: {error}; its log: {job.paths.stderr}"))

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
    """A job that plans, since cell ids include the machine. folder: where the command was given."""

    folder: str
    arguments: list[str]

    def __call__(self) -> "Plan":
        from fovea.study.plan.plan import make

        os.chdir(self.folder)
        return make(self.arguments)


@plain_dataclass(frozen=True)
class Task:
    """A job that works on a study. session: of the process that submitted it."""

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
        """Return what to queue again when the job is preempted or out of time; finished work is stored
        already."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
