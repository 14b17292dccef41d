"""The command line's words: what `key=value` says, and whether there is such a key."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig

from fovea.study.config.errors import Refused, nearest

GRID = "sweep.grid."
NESTED = {"cache": "method/cache"}  # groups inside a group, by the name that the command line knows


def parsed(text: str) -> Override:
    key, equals, value = text.partition("=")
    with suppress(HydraException):
        return OverridesParser.create().parse_override(f"{NESTED.get(key, key)}{equals}{value}")
    raise Refused(
        f"{text!r} is not understood: write key=value, for example method.ratio=0.5 or seeds=[0,1] "
        f"(quote values that hold spaces, commas or brackets: \"name='a, b'\")"
    )


def is_axis(override: Override) -> bool:
    return override.is_sweep_override() or override.key_or_group.startswith(GRID)


def values(override: Override) -> list:
    if override.is_sweep_override():
        try:
            return list(override.sweep_iterator())
        except (HydraException, ValueError) as error:
            raise Refused(f"{override.input_line}: {first_line(error)}") from None
    return override.value()  # type: ignore[return-value]


def axes(overrides: list[Override]) -> dict[str, list]:
    """The keys that take several values, and these."""
    found = {o.key_or_group.removeprefix(GRID): o for o in overrides if is_axis(o)}
    for key, override in found.items():
        if key.split(".")[0] in ("eval", "metric"):
            raise Refused(
                f"{override.input_line}: every cell is scored alike; several metrics are one list, "
                "eval.metrics=[psnr,ssim]"
            )
    return {key: values(override) for key, override in found.items()}


def is_new(config: DictConfig, key: str, value: Any, groups: Iterable[str] = ()) -> bool:
    """Refuses a key that leads nowhere. True if it is new to a node that a class will check."""
    *parents, leaf = key.split(".")
    node, path = config, []
    for part in parents:
        path.append(part)
        if not isinstance(node, DictConfig) or not isinstance(node.get(part), DictConfig):
            raise Refused(f"{key}={value}: there is no {'.'.join(path)}; {nearest(part, keys(node))}")
        node = node[part]
    if leaf in node or (parents and not node):
        return leaf not in node
    if "_target_" in node:
        return True
    inner = [] if parents else [*groups, *(f"eval.{name}" for name in keys(node.get("eval")))]
    raise Refused(f"{key}={value}: unknown key; {nearest(leaf, {*keys(node), *inner})}")


def keys(node: Any) -> list[str]:
    return [str(key) for key in node if key != "hydra"] if isinstance(node, DictConfig) else []


def flat(grid: Mapping, prefix: str = "") -> dict[str, Any]:
    """{method: {ratio: [1]}} and {method.ratio: [1]} are the same grid."""
    found = {}
    for key, value in grid.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
