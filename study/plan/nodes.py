"""The config nodes of a cell, its model and its method: their full settings, whether they fit each other, and
what the method declares about itself."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from fovea.study.config.errors import Refused
from fovea.study.config.groups import options
from fovea.study.config.instantiate import instantiate

Node = dict[str, Any]


def checked(model: Node, method: Node) -> tuple[Node, Node]:
    """Return both nodes with all defaults filled in, so that stating a default and omitting it give the same
    cell. Raises Refused if the method does not fit the model."""
    known, checkpoint = full_model(model)
    made = instantiate(method, "method", "fovea.methods")
    check_fits(made, checkpoint)
    return known, with_defaults(method, made)


def full_model(node: Node) -> tuple[Node, Any]:
    """Return the full node and its checkpoint. Settings of methods in a model's file (used by conf/method)
    and the model card's values are removed: they are not settings of the model."""
    known = {*options("method"), *options("method/cache")}
    own = {key: v for key, v in node.items() if not (isinstance(v, Mapping) and key in known | {"card"})}
    checkpoint = instantiate(own, "model", "fovea.models")
    return with_defaults(own, checkpoint), checkpoint


def check_fits(made: Any, checkpoint: Any) -> None:
    """Raise Refused if the method cannot run on the model's token grid in its number of steps, its cache
    on the model's blocks, or there is no guidance for it to leave out."""
    if getattr(made, "needs_guidance", False) and not checkpoint.guided:
        raise Refused(
            f"method {type(made).__name__} with model.guidance={checkpoint.guidance:g}: this model is "
            "evaluated with the prompt alone, so there is no guidance to leave out; choose another method, "
            "or a model with classifier-free guidance"
        )
    from fovea.models import settings  # slow to import

    try:
        settings.check_fits(made, checkpoint.grid, checkpoint.steps, checkpoint.blocks)
    except ValueError as error:
        given = ", ".join(f"model.{key}={getattr(checkpoint, key)}" for key in ("height", "width", "steps"))
        raise Refused(f"method with {given}: {error}") from None


def with_defaults(node: Node, made: Any) -> Node:
    """Return the node with every field of its object, nested objects included."""
    full = {"_target_": node["_target_"]}
    for f in fields(made):
        given, value = node.get(f.name), getattr(made, f.name)
        if isinstance(given, Mapping) and is_dataclass(value):
            value = with_defaults(dict(given), value)
        full[f.name] = value
    return full


def unlike(card: Node | None, model: Node) -> str:
    """Return in words how the settings differ from the model card; empty if they do not or there is no
    card. A card may have settings that Fovea's model does not have."""
    other = {key: value for key, value in (card or {}).items() if model.get(key) != value}
    own = {key: f"{key} {model[key]:g}" if key in model else f"no {key}" for key in other}
    return ", ".join(f"{own[key]} for the card's {value:g}" for key, value in other.items())


def is_off(made: Any) -> bool:
    """True if the settings are those that the class, or its cache's class, declares as `off`."""
    off, inner = getattr(made, "off", None), getattr(made, "cache", None)
    if off is None:
        return inner is not None and is_off(inner)
    return all(getattr(made, key) == value for key, value in off.items())


def makes_another_image(made: Any) -> bool:
    """True if the method, as set, is not meant to reproduce the dense image."""
    return getattr(made, "another_image", False) and not is_off(made)


def is_diagnosis(made: Any) -> bool:
    """True if the settings are those that the class, or that of a nested object, declares as `diagnosis`."""
    named = getattr(made, "diagnosis", None)
    own = named is not None and all(getattr(made, key) == value for key, value in named.items())
    inner = [getattr(made, f.name) for f in fields(made)]
    return own or any(is_diagnosis(value) for value in inner if is_dataclass(value))
