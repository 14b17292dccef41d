"""What `python run.py --help` lists: the groups with their choices, and the plain keys."""

from study.config import CONF, groups, options


def text() -> str:
    lines = [f"  {group + '=':12}{' | '.join(options(group)) or '(none yet)'}" for group in groups()]
    return "\n".join(["Groups:", *lines, "", "conf/config.yaml:", (CONF / "config.yaml").read_text("utf-8")])
