"""Where a finished report is logged, beyond the study's own folder."""

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass


@dataclass(frozen=True)
class Nothing:
    def __call__(self, plan: Any, rows: Any, folder: Path) -> None:
        """The folder is the log."""


@dataclass(frozen=True)
class Wandb:
    """Config, table, plots and images as one wandb run. offline: kept in the study's folder until `wandb
    sync`."""

    project: str = "fovea"
    entity: str | None = None
    mode: Literal["offline", "online", "disabled"] = "offline"

    def __call__(self, plan: Any, rows: Any, folder: Path) -> None:
        try:
            self._log(plan, rows, folder)
        except Exception as error:  # whatever happens there, the study is on the disk already
            print(
                f"wandb: not logged ({type(error).__name__}: {error}); the study itself is complete",
                file=sys.stderr,
            )

    def _log(self, plan: Any, rows: Any, folder: Path) -> None:
        import pandas as pd
        import wandb

        run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=self.mode,
            dir=str(folder),
            name=plan.name,
            config={**plan.config, "random_weights": plan.random_weights},
            tags=["random weights"] if plan.random_weights else None,
            settings=wandb.Settings(silent=True),
        )
        try:
            run.log({"table": wandb.Table(dataframe=pd.read_parquet(folder / "table.parquet"))})
            for file in sorted(folder.glob("*.png")):
                run.log({file.stem: wandb.Image(str(file))})
            for row in rows:
                run.log(_images(wandb, plan, row, folder))
        finally:
            run.finish()


def _images(wandb: Any, plan: Any, row: Any, folder: Path, shown: int = 8) -> dict[str, Any]:
    files = [(s, folder / "cells" / row.cell.id / "samples" / f"{s.key}.png") for s in plan.samples[:shown]]
    images = [wandb.Image(str(f), caption=s.prompt.text) for s, f in files if f.is_file()]
    return {f"images/{row.cell.label}": images} if images else {}
