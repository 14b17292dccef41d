"""Which command a command line asks for: a key names it, its value says of what. Without any, a study is
made."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from fovea.study.config.errors import Refused
from fovea.study.config.schema import COMMANDS


@dataclass(frozen=True)
class Command:
    """arguments: the whole command line."""

    name: str
    value: str
    arguments: tuple[str, ...]

    @property
    def text(self) -> str:
        """As it was given."""
        return f"{self.name}={self.value}"

    @property
    def rest(self) -> list[str]:
        """The command line without the command's own key."""
        return [text for text in self.arguments if text.partition("=")[0] != self.name]

    def allow(self, *keys: str) -> list[str]:
        """The rest. Refused where a group or plain key other than these is in it."""
        for text in self.rest:
            if text.lstrip("+~").partition("=")[0].split(".")[0] not in keys:
                can = f"only {', '.join(keys)} can" if keys else "nothing else can"
                raise Refused(f"{text}: beside {self.name}=... {can} be said")
        return self.rest

    def option(self, key: str, default: str = "") -> str:
        """The value of a plain key in the rest."""
        given = [text.partition("=")[2] for text in self.rest if text.partition("=")[0] == key]
        value = given[-1] if given and given[-1] not in ("", "null") else default
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        return value[1:-1] if quoted else value

    def folders(self) -> list[str]:
        """The value as a list: [a,b] or a,b."""
        from fovea.study.config.override import parsed, values

        value = values(parsed(self.text))
        return [str(one) for one in (value if isinstance(value, list) else [value])]


def command(arguments: Sequence[str]) -> Command | None:
    """None for a study to be made. Refused if two things are asked for."""
    given = {text.partition("=")[0]: text.partition("=")[2] for text in arguments if "=" in text}
    found = [name for name in COMMANDS if given.get(name, "null") != "null"]
    if len(found) > 1:
        raise Refused(f"{' and '.join(f'{name}=...' for name in found)}: one at a time")
    return Command(found[0], given[found[0]], tuple(arguments)) if found else None


def execute(arguments: list[str]) -> int:
    """The exit code: 0, or 3 if a cell failed. Raises Refused before anything is loaded or made."""
    asked = command(arguments)
    module = import_module(f"fovea.study.commands.{asked.name if asked else 'run'}")
    return module.run(asked or arguments)
