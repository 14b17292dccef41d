"""Metrics by name: suites, lists, single keys; a file of conf/metric is all that a new one takes here."""

import shutil

import pytest

from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.groups import CONF, options, suite
from fovea.study.config.instantiate import instantiate
from fovea.study.plan.plan import remedied, unavailable

PSNR = {"_target_": "fovea.eval.fidelity.PSNR"}


def metrics(*overrides):
    return whole(load(overrides))["metric"]


@pytest.mark.parametrize("name", options("eval"))
def test_every_suite_is_of_metrics_that_there_are(name):
    found = metrics(f"eval={name}")
    assert list(found) == suite(name)
    for metric, node in found.items():
        instantiate(node, f"metric.{metric}", "fovea.eval")


@pytest.mark.parametrize("name", options("metric"))
def test_every_file_is_laid_under_its_own_name(name):
    assert (CONF / "metric" / f"{name}.yaml").read_text().startswith(f"# @package metric.{name}\n")
    assert list(metrics(f"metric={name}")) == [name]


def test_the_papers_suites_are_what_the_papers_report():
    ras = ["fid_legacy", "sfid_ras", "clip_score", "image_reward", "pick_score", "hpsv2"]
    assert suite("paper_ras") == ras
    assert suite("paper_ralu") == ["image_reward", "clip_iqa", "niqe"]
    assert metrics("eval=paper_ras")["clip_score"]["backbone"]["name"] == "ViT-B-32/openai"


def test_a_list_replaces_the_suite_and_keys_are_set_by_name():
    found = metrics(
        "metric=[fid,clip_score]", "metric.fid.reference.path=a/b", "+metric.fid.inception.batch=3"
    )
    assert list(found) == ["fid", "clip_score"]
    assert found["fid"]["reference"]["path"] == "a/b"
    assert found["fid"]["inception"] == metrics("metric=fid")["fid"]["inception"] | {"batch": 3}
    assert metrics("metric=[]") == metrics("metric=null") == metrics("eval=none") == {}


def test_what_is_said_last_is_what_is_measured():
    """The suite of an experiment is the experiment's; a suite or a list of the command line goes over it, and
    over a scale's."""
    assert list(metrics("experiment=ras_table1")) == ["fid_legacy", "sfid_ras", "clip_score"]
    assert list(metrics("experiment=ras_table1", "eval=quick")) == suite("quick")
    assert list(metrics("experiment=ras_table1", "metric=[niqe]")) == ["niqe"]
    assert list(metrics("experiment=ras_table1", "scale=tiny")) == suite("emoji")
    assert list(metrics("experiment=ras_table1", "scale=tiny", "metric=niqe", "eval=quick")) == ["niqe"]


def test_nodes_that_are_known_take_the_place_of_their_files():
    known = {"niqe": {"_target_": "fovea.eval.niqe.NIQE", "luma": "x"}, "fid": {}}
    found = whole(load(["metric=[niqe,psnr]"], known=known))["metric"]
    assert (list(found), found["niqe"]["luma"]) == (["niqe", "psnr"], "x")
    found = whole(load(["metric=[niqe]", "metric.niqe.luma=ycbcr"], known=known))["metric"]
    assert found["niqe"]["luma"] == "ycbcr"


def test_two_metrics_of_one_score_are_refused():
    with pytest.raises(Refused, match="a and b both give psnr; leave one out"):
        unavailable({"metric": {"a": PSNR, "b": PSNR}, "eval": {}})


def test_a_remedy_names_the_whole_key():
    assert remedied("fid", "give `metric.NAME.inception.weights=FILE`, or `hf download x`") == (
        "give `metric.fid.inception.weights=FILE`, or `hf download x`"
    )


@pytest.mark.parametrize("head", ["", "# The mean absolute error\n", "# @package metric.psnr\n"])
def test_a_file_that_does_not_say_its_place_is_refused(head, tmp_path, monkeypatch):
    """Without the line, Hydra lays its keys beside the metrics; with another's name, over that metric."""
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf/metric/mine.yaml").write_text(f"{head}_target_: fovea.eval.fidelity.SSIM\n")
    for module in ("compose", "groups"):
        monkeypatch.setattr(f"fovea.study.config.{module}.CONF", tmp_path / "conf")
    with pytest.raises(Refused, match=r"mine\.yaml: its first line must be # @package metric\.mine"):
        load(["metric=[psnr,mine]"])
