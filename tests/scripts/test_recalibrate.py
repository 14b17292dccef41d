"""scripts/recalibrate.py: what of a model's file is to_yaml anew, and that the methods take it."""

import shutil
from pathlib import Path

import pytest
import yaml

from fovea.methods import Multistep
from scripts import budgets, recalibrate
from scripts.measuring import Entry, to_yaml
from tests import pipelines
from tests.pipelines import PIPELINES

FILE = """\
# The model's card
steps: 20
height: 128             # pixels
# measured long ago
teacache:  # 15% of the variance
  twofold: 0.2
  coefficients: [1.0,
                 2.0]
# published
spectrum: {order: 2}
ras:
  high_ratio: 1
"""


def test_what_is_no_entry_stays_to_the_letter():
    measured = "# by a command\n" + to_yaml({"teacache": Entry({"twofold": 0.3}, "16%"), "ras": Entry({})})
    assert recalibrate.with_entries(FILE, measured) == (
        "# The model's card\nsteps: 20\nheight: 128             # pixels\n# published\nspectrum: {order: 2}\n"
        "# by a command\n# 16%\nteacache: {twofold: 0.3}\nras: {}\n"
    )
    again = recalibrate.with_entries(recalibrate.with_entries(FILE, measured), measured)
    assert again == recalibrate.with_entries(FILE, measured)


@pytest.mark.parametrize("name", ["lumina_tiny", "sd3_tiny", "flux_tiny"])
def test_the_embedded_models_files_have_their_settings_apart(name):
    """Every setting of the model stays where all entries are replaced."""
    text = (Path("conf/model") / f"{name}.yaml").read_text()
    names = [*budgets.CACHES, *budgets.SEARCHES, "forecast", "multistep"]
    left = recalibrate.with_entries(text, to_yaml({entry: Entry({}) for entry in names}))
    known, now = yaml.safe_load(text), yaml.safe_load(left)
    assert {key: value for key, value in known.items() if key not in names} == {
        key: value for key, value in now.items() if key not in names
    }
    assert [line for line in left.splitlines() if line.startswith("#")] == text.splitlines()[:1]


def test_both_remarks_are_kept():
    one, other = Entry({"a": 1}, "one"), Entry({"b": 2}, "other")
    assert recalibrate.merged(one, other) == Entry({"a": 1, "b": 2}, "one; other")
    assert recalibrate.merged(None, other) == other


def test_a_models_file_is_written_and_the_sweep_takes_it(tmp_path, monkeypatch):
    """A stock pipeline with random weights that does not say so, from end to end."""
    conf, folder = tmp_path / "conf", pipelines.saved(PIPELINES["flux"](), tmp_path / "flux")
    shutil.copytree("conf/model", conf / "model")
    (tmp_path / "prompts.txt").write_text("a fox\na map")
    monkeypatch.setattr(recalibrate, "CONF", conf)
    monkeypatch.setattr(budgets, "SEARCHES", {name: budgets.SEARCHES[name] for name in ("ras", "delta_dit")})
    size = ["model.height=64", "model.width=64", "model.steps=8", "model.guidance=3.5", "n=2"]
    command = ["model=flux_tiny", f"model.path={folder}", f"prompts={tmp_path / 'prompts.txt'}", *size]
    before = yaml.safe_load((conf / "model" / "flux_tiny.yaml").read_text())
    told = yaml.safe_load(recalibrate.recalibrate(command))
    found = yaml.safe_load((conf / "model" / "flux_tiny.yaml").read_text())
    assert {name: found[name] for name in told} == told
    assert {name: found[name] for name in before.keys() - told} == {
        n: before[n] for n in before.keys() - told
    }
    assert {"twofold", "fourfold", "coefficients"} == found["teacache"].keys()
    assert len(found["magcache"]["ratios"]) == found["forecast"]["of"] == 8
    assert found["multistep"]["of"] == 8
    for budget, nodes in (("twofold", 4), ("fourfold", 2)):
        solver = Multistep(steps=8, of=8, **found["multistep"][budget])
        assert len(solver.nodes or ()) == nodes
    assert found["ras"].keys() == {"high_ratio", "twofold", "fourfold"}
    assert all(0 <= found[name]["twofold"] <= found[name]["fourfold"] for name in budgets.CACHES)


def test_too_little_to_measure_is_refused(capsys):
    assert recalibrate.main(["model=lumina_tiny", "model.steps=4"]) == 2
    assert "4 steps: too few to measure" in capsys.readouterr().err
