"""list=KIND: every choice, what it is, and what of it can be had here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

import run
from fovea.study.commands import list as listing
from fovea.study.config.compose import load, whole
from fovea.study.config.groups import CONF
from fovea.study.plan.plan import unavailable

ROOT = Path(__file__).resolve().parents[3]


def listed(capsys, *arguments):
    """Code 0, the object in the last line, the text."""
    assert run.main(list(arguments)) == 0
    out = capsys.readouterr().out
    return json.loads(out.splitlines()[-1]), out


@pytest.mark.parametrize("kind", [k for k in listing.KINDS if k != "metrics"])
def test_every_file_is_there_with_what_it_is(kind, capsys):
    found, out = listed(capsys, f"list={kind}")
    files = sorted(file.stem for file in (CONF / listing.KINDS[kind].group).glob("*.yaml"))
    assert found["names"] == files
    assert [row["name"] for row in found["rows"]] == files
    for row in found["rows"]:
        assert row["what"]
        assert not row["what"].startswith("@")
        first = (CONF / listing.KINDS[kind].group / f"{row['name']}.yaml").read_text("utf-8")
        assert row["what"].split()[0].rstrip(".") in first
        assert row["name"] in out
    assert f"use: {listing.KINDS[kind].use}" in out


def test_models_tell_whether_their_weights_are_here(capsys):
    rows = {row["name"]: row for row in listed(capsys, "list=models")[0]["rows"]}
    assert rows["lumina_tiny"]["weights"] == "here: assets/lumina_tiny"
    others = [row["weights"] for name, row in rows.items() if not name.endswith("_tiny")]
    assert all(text.startswith(("here: ", "not here: `hf download ")) for text in others)


def test_a_model_that_is_not_here_says_how_to_get_it(tmp_path):
    node = whole(load(["model=lumina"]))["model"]
    told = listing._weights(node | {"path": str(tmp_path / "none")})
    assert told.startswith("not here: ")
    assert "model.path=FOLDER" in told
    assert "model.weights=random" in told


def resolved(told, config):
    """Settings as they are told, with the value in this config of each that is the model's."""
    if isinstance(told, dict):
        return {key: resolved(value, config) for key, value in told.items()}
    if not (isinstance(told, str) and told.startswith("model.")):
        return told
    place, _, default = told.partition(" or ")
    return OmegaConf.select(OmegaConf.create(config), place, default=yaml.safe_load(default or "null"))


def without_targets(node):
    if not isinstance(node, dict):
        return node
    return {key: without_targets(value) for key, value in node.items() if key != "_target_"}


def test_methods_tell_their_settings_with_the_defaults(capsys):
    """Those that a study of it has, and what stands for the model's."""
    rows = listed(capsys, "list=methods")[0]["rows"]
    for row in rows:
        config = whole(load([f"method={row['name']}"]))
        node = {key: value for key, value in config["method"].items() if key != "cache"}
        meant = resolved(row["settings"], config)
        assert without_targets(node) == {key: meant[key] for key in node if key != "_target_"}
    settings = {row["name"]: row["settings"] for row in rows}
    assert settings["ras"]["steps"] == "model.steps"
    assert settings["ras"]["resets"] == "model.ras.resets or null"
    assert settings["ralu_caching"]["cache"] == "taylorseer_w3"


def test_metrics_tell_whether_a_number_can_be_had(capsys):
    found, _ = listed(capsys, "list=metrics")
    names = found["names"]
    assert names == sorted(file.stem for file in (CONF / "metric").glob("*.yaml"))
    why = unavailable(whole(load([f"metric=[{','.join(names)}]"])))
    for row in found["rows"]:
        expected = f"unavailable: {why[row['name']]}" if row["name"] in why else "a number can be had"
        assert row["here"] == expected
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["psnr"]["here"] == "a number can be had"
    assert rows["psnr"]["scores"] == "psnr ↑ identical ↑"
    assert "`metric.fid.reference.path=PLACE`" in rows["fid"]["here"]


def test_a_metrics_settings_can_be_tried(tmp_path, capsys):
    rows = listed(capsys, "list=metrics", f"metric.fid.reference.path={tmp_path}/none")[0]["rows"]
    told = next(row["here"] for row in rows if row["name"] == "fid")
    assert f"{tmp_path}/none" in told


def test_prompts_tell_how_many_or_where_to_fetch_them(capsys):
    rows = {row["name"]: row for row in listed(capsys, "list=prompts")[0]["rows"]}
    assert rows["emoji"]["here"] == "200 prompts"
    absent = [row["here"] for row in rows.values() if not row["here"].endswith(" prompts")]
    assert all("fetch from" in text for text in absent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list=model"], "list=model: no such list; did you mean models?"),
        (["list="], "allowed: caches, experiments,"),
        (["list=models", "n=3"], "n=3: nothing else can be given with list=..."),
        (["list=metrics", "eval=quick"], "eval=quick: only metric can be given with list=..."),
        (["list=models", "show=results/x"], "list=... and show=...: one at a time"),
    ],
)
def test_refused(arguments, message, capsys):
    assert run.main(arguments) == 2
    assert message in capsys.readouterr().err


STUDY = "results/embedded/ras-lumina_tiny-ratio"
LIGHT = ["list=suites", "list=prompts", "list=studies", "show=", f"show={STUDY}", "merge=a", "compare=[a,b]"]


@pytest.mark.parametrize("argument", LIGHT)
def test_it_starts_without_torch(argument):
    code = f"import run, sys; run.main(['{argument}']); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("argument", ["list=models", "list=methods"])
def test_it_starts_without_what_takes_long(argument):
    heavy = {"diffusers", "transformers", "torchmetrics", "matplotlib"}
    code = f"import run, sys; run.main(['{argument}']); sys.exit(bool({heavy} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("kind", listing.KINDS)
def test_no_description_ends_within_a_sentence(kind):
    group = listing.KINDS[kind].group
    for text in (listing.head(group, file.stem) for file in (CONF / group).glob("*.yaml")):
        assert (text.count("("), text.count("`") % 2) == (text.count(")"), 0), text
        assert text.rpartition(" ")[2] not in {"to", "then", "the", "of", "and", "a", "with"}, text
