"""What `python run.py --help` lists: the groups with their choices, what lists may hold, the plain keys."""

from fovea.study.commands.list import KINDS
from fovea.study.config.compose import CONF, groups, options


def text() -> str:
    lines = [f"  {group + '=':12}{' | '.join(options(group)) or '(none yet)'}" for group in groups()]
    named = [
        f"list=KIND tells more of each: {', '.join(KINDS)}",
        f"eval.metrics=[...], each with its keys as metric.NAME.KEY=VALUE: {', '.join(options('metric'))}",
        f"prompts=, or a file: {', '.join(options('prompt'))}",
    ]
    return "\n".join(
        ["Groups:", *lines, "", *named, "", "conf/config.yaml:", (CONF / "config.yaml").read_text("utf-8")]
    )
