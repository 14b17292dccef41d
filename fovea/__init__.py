"""How much faster does an acceleration method make a diffusion transformer, and what does the speed cost?

    from fovea import generate
    from fovea.methods import RAS

    images = generate(pipe, ["a fox in the snow"], method=RAS(ratio=0.25), seed=0)

In a checkout, the neighbouring folders (conf, eval, methods, models, study) are subpackages, linked from
here, so that editable installs, wheels and type checkers all see one package.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fovea.models import adapt as adapt
    from fovea.models import generate as generate

__all__ = ["adapt", "generate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fovea import models  # slow: imports diffusers

    return getattr(models, name)
