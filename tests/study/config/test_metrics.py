"""Metrics by name: suites, lists, single keys; a file of conf/metric is all that a new one takes here."""

import pytest
from omegaconf import OmegaConf

from fovea.study.config import metrics
from fovea.study.config.compose import CONF, load, options, whole
from fovea.study.config.errors import Refused
from fovea.study.config.instantiate import check
from fovea.study.plan.checks import keyed, unavailable

PSNR = {"_target_": "fovea.eval.fidelity.PSNR"}


def suite(*overrides):
    return whole(load(overrides))


@pytest.mark.parametrize("name", options("eval"))
def test_every_suite_is_of_metrics_that_there_are(name):
    config = suite(f"eval={name}")
    assert list(config["metric"]) == config["eval"]["metrics"]
    for metric, node in config["metric"].items():
        check(node, f"metric.{metric}", "fovea.eval")


def test_the_papers_suites_are_what_the_papers_report():
    ras = ["fid_legacy", "sfid_ras", "clip_score", "image_reward", "pick_score", "hpsv2"]
    assert suite("eval=paper_ras")["eval"]["metrics"] == ras
    assert suite("eval=paper_ralu")["eval"]["metrics"] == ["image_reward", "clip_iqa", "niqe"]
    assert suite("eval=paper_ras")["metric"]["clip_score"]["backbone"]["name"] == "ViT-B-32/openai"


def test_a_list_replaces_the_suite_and_keys_are_set_by_name():
    config = suite(
        "eval.metrics=[fid,clip_score]", "metric.fid.reference.path=a/b", "+metric.fid.inception.batch=3"
    )
    assert list(config["metric"]) == ["fid", "clip_score"]
    assert config["metric"]["fid"]["reference"]["path"] == "a/b"
    assert config["metric"]["fid"]["inception"] == suite("eval.metrics=[fid]")["metric"]["fid"][
        "inception"
    ] | {"batch": 3}
    assert suite("eval.metrics=[]")["metric"] == suite("eval.metrics=null")["metric"] == {}


def test_a_new_metric_is_a_file(tmp_path):
    (tmp_path / "mine.yaml").write_text("_target_: fovea.eval.mine.Mine\nsize: ${eval.size}\n")
    config = OmegaConf.create({"eval": {"metrics": ["mine"], "size": 3}})
    metrics.fill(config, ["metric.mine.name='a, b'"], tmp_path, {})
    assert whole(config)["metric"] == {
        "mine": {"_target_": "fovea.eval.mine.Mine", "size": 3, "name": "a, b"}
    }


def test_an_experiment_may_set_keys_and_the_command_line_goes_over_them():
    config = OmegaConf.create(
        {"eval": {"metrics": ["niqe"]}, "metric": {"niqe": {"luma": "x"}, "fid": {"y": 1}}}
    )
    metrics.fill(config, [], CONF / "metric", {})
    assert (list(config.metric), config.metric.niqe.luma) == (["niqe"], "x")
    metrics.fill(config, ["metric.niqe.luma=ycbcr"], CONF / "metric", {})
    assert config.metric.niqe.luma == "ycbcr"


def test_two_metrics_of_one_score_are_refused():
    with pytest.raises(Refused, match="a and b both give psnr; leave one out"):
        unavailable({"metric": {"a": PSNR, "b": PSNR}, "eval": {}})


def test_a_remedy_names_the_whole_key():
    assert keyed("fid", "give `inception.weights=FILE`, or `hf download x`") == (
        "give `metric.fid.inception.weights=FILE`, or `hf download x`"
    )
