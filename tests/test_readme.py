"""README and docs claim what the committed studies say, and their commands are commands."""

import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest
import torch

from fovea.eval import contract
from fovea.eval.speed import count_flops
from fovea.methods import Baseline, Caching
from fovea.models import adapt, generator
from fovea.study.commands.command import command as asked
from fovea.study.config.compose import load
from fovea.study.plan.plan import make
from tests.pipelines import PIPELINES

ROOT = Path(__file__).resolve().parent.parent


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RESULTS = (ROOT / "docs/results.md").read_text()
COMMANDS = dict.fromkeys(
    command.strip()
    for page in PAGES
    for command in re.findall(r"^python run\.py[^\n#]*", page.read_text(), re.MULTILINE)
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command):
    """As far as its words go: weights and folders that it names need not be here. On an embedded model, every
    cell of its sweep is one, too."""
    arguments = shlex.split(command)[2:]
    if asked(arguments) is not None or "--help" in arguments:
        return
    if load(arguments).picked["model"].endswith("_tiny"):
        make([word for word in arguments if not word.startswith("prompts=")])


def test_the_method_that_is_written_out_runs_and_switches_off():
    text = (ROOT / "docs/methods.md").read_text()
    code = re.findall(r"^   ```python\n(.*?)^   ```$", text, re.MULTILINE | re.DOTALL)
    assert len(code) == 1
    mine = ModuleType("mine")
    exec(dedent(code[0]), vars(mine))  # of this repository's own page

    def made(method) -> tuple[torch.Tensor, int]:
        with adapt(PIPELINES["lumina"]()) as model:
            flow = model.flow(
                ["a fox"], generators=[generator("a fox", 0)], height=64, width=96, guidance=4.0
            )
            return count_flops(lambda: method(flow))

    (dense, all_of_it), (off, as_much) = made(Baseline(6)), made(mine.Mine(6, ratio=1.0))
    assert torch.equal(dense, off)
    assert all_of_it == as_much
    some, less = made(mine.Mine(6, ratio=0.5))
    assert less < all_of_it
    assert not torch.equal(dense, some)


def written_out(page: str, start: str) -> dict:
    """What the code on a page defines that begins, but for imports, with this line."""
    blocks = re.findall(r"^ *```python\n(.*?)^ *```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    (code,) = (dedent(block) for block in blocks if start in block)
    module = ModuleType("written_out")
    exec(code, vars(module))  # of this repository's own page
    return vars(module)


def test_the_cache_that_is_written_out_reuses_every_kth_velocity():
    mine = written_out("docs/methods.md", "class Mine(Cache)")["Mine"]
    pipe = PIPELINES["lumina"]()

    def made(method) -> tuple[torch.Tensor, list[torch.Tensor]]:
        velocities = []
        with adapt(pipe) as model:
            flow = model.flow(["a fox"], generators=[generator("a fox", 0)], height=64, width=96)
            return method(flow, lambda v, **_: velocities.append(v)), velocities

    assert torch.equal(made(Caching(mine(every=None), 6))[0], made(Baseline(6))[0])
    _, v = made(Caching(mine(every=3), 6))
    assert [torch.equal(a, b) for a, b in pairwise(v)] == [False, True, False, False, True]


def test_the_metric_that_is_written_out_is_one():
    metric = written_out("docs/metrics.md", "class MAE(Compared)")["MAE"]()
    contract.check(metric)
    a, b = contract.pictures()
    (score,) = metric(contract.samples(a, b))
    assert score.value == pytest.approx((a.double() - b.double()).abs().mean().item())


def test_the_default_study_was_made_by_the_default_command():
    record = json.loads((ROOT / "results/embedded/ras-lumina_tiny-ratio/provenance.json").read_text())
    assert record["command"] == "python run.py results=results/embedded"
    assert record["dirty"] is False
    assert record["random_weights"] is False


def test_the_table_is_the_stored_studys():
    stored = (ROOT / "results/embedded/ras-lumina_tiny-ratio/table.md").read_text().splitlines()
    rows = [line for line in stored if line.startswith("|")]
    assert len(rows) > 8
    readme = (ROOT / "README.md").read_text().splitlines()
    assert [line for line in readme if line in rows] == rows


def test_the_matrix_is_the_stored_studies():
    stored = (ROOT / "results/embedded/matrix/table.md").read_text().strip()
    assert stored.count("|") > 100
    assert stored in RESULTS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_picture_and_link_is_there(page):
    links = [part.split(")")[0] for part in page.read_text().split("](")[1:]]
    missing = []
    for link in (link for link in links if not link.startswith("http")):
        place, _, heading = link.partition("#")
        goal = page.parent / place if place else page
        headings = re.findall(r"^#+ (.*)$", goal.read_text(), re.MULTILINE) if heading else []
        anchors = {re.sub(r"[^a-z0-9 _-]", "", h.lower()).replace(" ", "-") for h in headings}
        if not goal.exists() or (heading and heading not in anchors):
            missing.append(link)
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page):
    """But for those that a reader is to add, named x and mine, and what a study leaves in its folder."""
    named = set(re.findall(r"`((?:[a-z_*]+/)+[a-z_*.]+\.(?:py|yaml|csv|sh))`", page.read_text()))
    mine = re.compile(r"(.*/)?(test_)?(x|mine)\.(py|yaml)")
    assert not [name for name in named if not mine.fullmatch(name) and not [*ROOT.glob(name)]]
