"""Find which command a command line asks for: a key names it, and its value is the command's argument.
Without one, a study is run."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from os.path import expanduser

from fovea.study.config.errors import Refused, as_text
from fovea.study.config.overrides import listed, text
from fovea.study.config.schema import COMMANDS


@dataclass(frozen=True)
class Command:
    """A command. arguments: the whole command line."""

    name: str
    value: str
    arguments: tuple[str, ...]

    @property
    def text(self) -> str:
        """The command as quoted in messages."""
        return as_text(f"{self.name}={self.value}")

    @property
    def rest(self) -> list[str]:
        """The command line without the command's own key."""
        return [one for one in self.arguments if one.partition("=")[0] != self.name]

    def allow(self, *keys: str) -> list[str]:
        """Return the rest. Raises Refused if it contains a group or plain key other than these."""
        for argument in self.rest:
            if root(argument) not in keys:
                allowed = f"only {', '.join(keys)}" if keys else "nothing else"
                raise Refused(f"{argument}: {allowed} can be given with {self.name}=...")
        return self.rest

    def option(self, key: str, default: str = "") -> str:
        """Return the value of a plain key in the rest."""
        given = [argument for argument in self.rest if argument.partition("=")[0] == key]
        return (text(given[0]) if given else "") or default

    @property
    def results(self) -> str:
        """The folder that contains the studies."""
        return expanduser(self.option("results", "results"))

    def folders(self) -> list[str]:
        """Return the value as a list: [a,b] or a,b."""
        return listed(f"{self.name}={self.value}")


def root(argument: str) -> str:
    """Return the group or plain key that an argument sets: `metric` for `metric.psnr.batch=4`."""
    return argument.lstrip("+~").partition("=")[0].split(".")[0]


def command(arguments: Sequence[str]) -> Command | None:
    """Return the command; None if a study is to be run. Raises Refused if there are two."""
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, _ = argument.partition("=")
        if equals and key in given:
            raise Refused(f"{given[key]} and {argument}: give {key} once")
        given[key] = argument
    found = [name for name in COMMANDS if given.get(name, f"{name}=null") != f"{name}=null"]
    if len(found) > 1:
        raise Refused(f"{' and '.join(f'{name}=...' for name in found)}: one at a time")
    if not found:
        return None
    name, _, value = given[found[0]].partition("=")
    return Command(name, value if name in ("merge", "compare") else text(given[name]), tuple(arguments))


def execute(arguments: list[str]) -> int:
    """Run the command and return its exit code: 0, or 3 if a cell failed. Raises Refused before anything is
    loaded or made."""
    asked = command(arguments)
    module = import_module(f"fovea.study.commands.{asked.name if asked else 'run'}")
    return module.run(asked or arguments)
