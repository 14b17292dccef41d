"""Run a study as jobs of a Slurm cluster, through submitit: each job joins like any other process."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass as plain_dataclass
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from fovea.study.config.errors import Refused
from fovea.study.config.groups import ROOT
from fovea.study.run.events import Message
from fovea.study.run.launchers import PAUSE, watch
from fovea.study.run.leaving import leaving_on
from fovea.study.run.slurm_jobs import LocalQueue, Queue, postponed

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
        """Add this code to PYTHONPATH: jobs inherit this process's environment. Raises Refused where there is
        no Slurm."""
        if self.cluster == "slurm" and which("srun") is None:
            raise Refused(
                "launcher=slurm: there is no srun on this machine: give the command on a login node of the "
                "cluster, or try it here with launcher.cluster=local"
            )
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
        """Plan in a job, unless jobs run on this machine. Raises Refused if the job fails."""
        if self.cluster == "local":
            return plan
        with self._submitted(plan.folder, [Planning(os.getcwd(), arguments)]) as queue:
            while queue.count_unfinished():
                time.sleep(PAUSE)
        job = queue.jobs[0]
        if why := queue.problem(job):
            raise Refused(f"launcher=slurm: the job that plans the study, {job.job_id}: {why}")
        return job.result()

    def make(self, plan: "Plan", store: "Store", worker: "Worker", progress: "Progress") -> None:
        tasks = [Task(os.getcwd(), plan, store, store.session, self.cluster == "local")] * self.jobs
        with self._submitted(store.folder, tasks) as queue:
            first = queue.jobs[0]
            logs = first.paths.folder
            progress.tell(Message(f"{len(queue.jobs)} jobs, {first.job_id} and on; logs: {logs}"))
            watch(plan, store, worker, progress, queue.count_unfinished)
        for job in queue.jobs:
            if why := queue.problem(job):
                progress.tell(Message(f"job {job.job_id}: {why}"))

    @contextmanager
    def _submitted(self, study: Path, tasks: "Sequence[Planning | Task]") -> Iterator[Queue]:
        """Submit a job for each task, several as an array. All are cancelled if the block raises."""
        queue = LocalQueue([]) if self.cluster == "local" else Queue([])
        try:
            with postponed():
                queue.jobs += self._submit(study, tasks)
            yield queue
        except BaseException:
            queue.cancel()
            raise

    def _submit(self, study: Path, tasks: "Sequence[Planning | Task]") -> list[Any]:
        """Raises Refused with what sbatch says, if it does not take them."""
        from submitit.core.utils import FailedJobError

        try:
            return self._executor(study).submit_array(tasks)
        except FailedJobError as error:
            said = " ".join(str(error).split())
            raise Refused(f"launcher=slurm: no job was submitted: {said}") from None

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
    """A job that works on a study. session: of the process that submitted it. local: it runs on the same
    machine, where it ends on SIGTERM; of Slurm's, submitit tells preemption from a cancelled job."""

    folder: str
    plan: "Plan"
    store: "Store"
    session: str
    local: bool

    def __call__(self) -> None:
        if self.local:
            signal.signal(signal.SIGTERM, _stop)
        from fovea.study.run.progress import Progress
        from fovea.study.run.share import join

        os.chdir(self.folder)
        with leaving_on(signal.SIGUSR1, signal.SIGUSR2), Progress() as progress:
            for event in join(self.plan, self.store, self.session):
                progress.tell(event)

    def checkpoint(self, *_: Any) -> Any:
        """Return what to queue again when the job is preempted or out of time; finished work is stored
        already."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _stop(*_: Any) -> None:
    """Let running work clean up, undisturbed by further signals of the same kind."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
