"""Where cells run."""

from typing import Any

from pydantic.dataclasses import dataclass


@dataclass(frozen=True)
class Local:
    """This process, this device."""

    def __call__(self, plan: Any, store: Any, progress: Any) -> set[str]:
        from fovea.study.run.execute import (
            execute,  # torch, diffusers: seconds, only if something is to be made
        )

        return execute(plan, store, progress)
