"""Where a finished report is logged, beyond the study's own folder."""

import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Nothing:
    def __call__(self, folder: Path) -> None:
        """The folder is the log."""


@dataclass(frozen=True)
class Wandb:
    """One wandb run of what lies in a study's folder (study/report/send.py), made by a process of its own:
    whatever becomes of that, this one goes on. Says in one line what happened.

    offline: kept in the study's folder until `wandb sync`. images: shown of each cell. timeout: seconds until
    it is given up. What cannot be sent online is kept offline."""

    project: str = "fovea"
    entity: str | None = None
    mode: Literal["offline", "online", "disabled"] = "offline"
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()
    images: Annotated[int, Field(ge=0)] = 8
    timeout: Annotated[float, Field(gt=0)] = 120.0

    def __call__(self, folder: Path) -> None:
        if self.mode == "disabled":
            return
        before, sent = "", self._sent(folder, self.mode)
        if "error" in sent and self.mode == "online":
            before, sent = f"not sent ({sent['error']}); ", self._sent(folder, "offline")
        print(f"wandb: {before}{_outcome(sent)}", file=sys.stderr)

    def _sent(self, folder: Path, mode: str) -> dict[str, Any]:
        """What the other process says, or `error`, and why."""
        asked = asdict(self) | {"mode": mode, "folder": str(folder.resolve())}  # pyright: ignore[reportArgumentType]
        places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "fovea.study.report.send", json.dumps(asked)],
                stdin=subprocess.DEVNULL,  # nobody is asked for a key
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(places)},
                start_new_session=True,
            )
        except OSError as error:
            return {"error": str(error)}
        try:
            return _answer(*process.communicate(timeout=self.timeout), process.returncode)
        except subprocess.TimeoutExpired:
            return {"error": f"not finished within logger.timeout={self.timeout:g} s"}
        finally:
            _end(process)


def _answer(out: bytes, err: bytes, code: int) -> dict[str, Any]:
    with suppress(ValueError, IndexError):
        return json.loads(out.decode("utf-8", "replace").splitlines()[-1])
    said = err.decode("utf-8", "replace").strip().splitlines()
    return {"error": said[-1] if said else f"exit code {code}"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """With all that it started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _outcome(sent: dict[str, Any]) -> str:
    if "error" in sent:
        return f"not logged ({sent['error']}); the study itself is complete"
    without = "".join(f"; without {part}: {why}" for part, why in sent["without"].items())
    if sent["url"]:
        return f"{sent['url']}{without}"
    return f"kept offline, to be sent by: wandb sync {shlex.quote(sent['run'])}{without}"
