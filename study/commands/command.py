"""What run.py does beside making a study: a key of the command line names the deed, its value what it is
about."""

from collections.abc import Sequence
from dataclasses import dataclass

from fovea.study.config.errors import Refused

DEEDS = {
    "list": "fovea.study.commands.list",
    "show": "fovea.study.commands.show",
    "merge": "fovea.study.commands.merge",
    "compare": "fovea.study.commands.compare",
    "rescore": "fovea.study.commands.rescore",
}


@dataclass(frozen=True)
class Deed:
    """arguments: the whole command line. rest: without the deed's own key."""

    name: str
    value: str
    arguments: tuple[str, ...]

    @property
    def said(self) -> str:
        return f"{self.name}={self.value}"

    @property
    def rest(self) -> list[str]:
        return [text for text in self.arguments if text.partition("=")[0] != self.name]

    def only(self, *keys: str) -> list[str]:
        """The rest of the command line. Refused where a group or plain key other than these is in it."""
        for text in self.rest:
            if text.lstrip("+~").partition("=")[0].split(".")[0] not in keys:
                can = f"only {', '.join(keys)} can" if keys else "nothing else can"
                raise Refused(f"{text}: beside {self.name}=... {can} be said")
        return self.rest

    def plain(self, key: str, default: str = "") -> str:
        """The value of a plain key in the rest."""
        given = [text.partition("=")[2] for text in self.rest if text.partition("=")[0] == key]
        return given[-1] if given and given[-1] not in ("", "null") else default

    def folders(self) -> list[str]:
        """The value as a list: [a,b] or a,b."""
        from fovea.study.config.override import parsed, values

        value = values(parsed(self.said))
        return [str(one) for one in (value if isinstance(value, list) else [value])]


def asked(arguments: Sequence[str]) -> Deed | None:
    """What the command line asks for; None for a study to be made. Refused if it asks for two things."""
    given = {text.partition("=")[0]: text.partition("=")[2] for text in arguments if "=" in text}
    found = [name for name in DEEDS if given.get(name, "null") != "null"]
    if len(found) > 1:
        raise Refused(f"{' and '.join(f'{name}=...' for name in found)}: one at a time")
    return Deed(found[0], given[found[0]], tuple(arguments)) if found else None
