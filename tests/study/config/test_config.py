"""What cannot run is refused before torch is imported: with the value, what is allowed, the nearest name."""

import subprocess
import sys

import pytest

from fovea.study.commands.command import execute as study
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
from fovea.study.config.groups import ROOT
from fovea.study.config.instantiate import validated
from fovea.study.config.overrides import why_fixed
from fovea.study.config.schema import Settings
from fovea.study.plan import fingerprint
from fovea.study.plan.plan import make

REFUSED = {
    "method.ratio=0": "method.ratio=0: must be greater than 0",
    "method.ratio=-1": "method.ratio=-1: must be greater than 0",
    "method.ratio=abc": "method.ratio=abc: must be a valid number",
    "method.ratio=1.01": "method.ratio=1.01: must be less than or equal to 1",
    "method.ratio=true": "method.ratio=true: must be a number, not true or false",
    "method.ratioo=0.5": "method.ratioo=0.5: RAS has no ratioo; did you mean ratio?",
    "+method.speed=2": "method.speed=2: RAS has no speed",
    "method.selection=stdd": "must be 'std', 'l2norm', 'random' or 'oracle' (did you mean std?)",
    "method.start=30": "method: start=30: must be less than steps=",
    "method._target_=os.system": "method._target_=os.system: must be a class of fovea.methods",
    "method._target_=fovea.methods.Rass": "_target_=fovea.methods.Rass: there is no such class",
    "method=rass": "method=rass: no such method; did you mean ras? allowed: baseline",
    "model=lumina_tyni": "did you mean lumina_tiny?",
    "model.height=100": "height=100 is not a multiple of",
    "model.dtype=float3": "must be 'auto', 'float32', 'bfloat16' or 'float16' (did you mean float32?)",
    "model.stps=3": "model.stps=3: Checkpoint has no stps; did you mean steps?",
    "modell.steps=3": "modell.steps=3: there is no modell; did you mean model?",
    "~method": "~method: a study needs it, so it cannot be removed; allowed: baseline",
    "method.steps=${nothing}": "Interpolation key 'nothing' not found",
    "metod=ras": "metod=ras: unknown key; did you mean method?",
    "n=0": "n=0: must be greater than or equal to 1",
    "n=two": "n=two: must be a valid integer",
    "steps=3": "steps=3: unknown key; did you mean model.steps or method.steps? allowed: batch",
    "ratio=0.5": "ratio=0.5: unknown key; did you mean method.ratio?",
    "+m=2": "m=2: unknown key; allowed: batch",
    "seeds=[]": "seeds=[]: list should have at least 1 item, not 0",
    "seeds=[1,1]": "seeds=[1, 1]: a seed is listed twice; leave one out",
    "name=../x": "name=../x: must be letters",
    "batch=1.5": "batch=1.5: must be a valid integer",
    "prompts=nowhere.txt": "prompts=nowhere.txt: neither a file (.txt, .csv",
    "prompts=drawbnech": "nor a prompt set; did you mean drawbench?",
    "sweep.grid.method.ratio=[]": "grid.method.ratio=[]: must be a list of at least one value",
    "sweep.grid.method.ratio=[0.5,2]": "at the grid point method.ratio=2; sweep=none",
    "sweep.grid.method.rato=[0.5]": "method.rato=0.5: RAS has no rato; did you mean ratio?",
    "sweep.curve=[0]": "sweep.curve=[0]: must be greater than 0",
    "sweep.curve=[2.5]": "curve=2.5: must be a fraction up to 1 or a whole number of steps",
    "eval=quik": "eval=quik: no such eval; did you mean quick?",
    "metric=[psnr,sim]": "metric=sim: no such metric; did you mean ssim? allowed: clip_iqa",
    "metric=[psnr,psnr]": "metric=[psnr,psnr]: psnr is listed twice",
    "metric=psnr,ssim": "give the metrics as one list, metric=[psnr,ssim]",
    "metric=[clip_score_emoji,clip_score_twin]": "no such metric; did you mean clip_score",
    "metrics=[psnr]": "unknown key; did you mean metric?",
    "eval.metrics=[psnr]": "metrics are a config group: metric=[psnr,ssim] metric.psnr.KEY=VALUE",
    "eval.metrics.psnr.window=3": "metrics are a config group: metric=[psnr,ssim]",
    "~metric.psnr": "so it cannot be removed",
    "eval.strict=maybe": "eval.strict=maybe: must be a valid boolean",
    "metric.psnr.window=3": "metric.psnr.window=3: PSNR has no window",
    "metric.fd_emoji.backbone.bach=3": "Backbone has no bach; did you mean batch?",
    "metric.fd_emoji.backbone.batch=0": "metric.fd_emoji.backbone.batch=0: must be greater",
    "metric.sim.window=3": "there is no metric sim; did you mean ssim? allowed: clip_score_emoji",
    "metric.kid.batch=3": "kid is not used; add it, metric=[psnr,ssim,fd_emoji,clip_score_emoji,kid]",
    "metric.psnr=3": "write metric.NAME.KEY=VALUE",
    "sweep.grid.metric.psnr.window=[1,2]": "metric must be the same in every cell",
    "metric.fd_emoji.cache=a,b": "for a variant, add a file to conf/metric",
    "logger.mode=loud": "must be 'offline', 'online' or 'disabled'",
    "method=[ras,random]": "takes one name; for several, method=ras,random, without brackets",
    "model=[lumina_tiny]": "model=[lumina_tiny]: takes one name, without brackets",
    "cache=[]": "cache=[]: takes one name, without brackets",
    "sweep=[none]": "sweep=[none]: takes one name, without brackets",
    "sibling=sd3_tiny,flux_tiny": "give several as one list, sibling=[a,b]",
    "sibling=[flux_tiny,flux_tiny]": "sibling=['flux_tiny', 'flux_tiny']: a model is listed twice",
    "sibling=flux_tyni": "sibling=flux_tyni: no such model; did you mean flux_tiny?",
    "model.device=cuda:99": "model.device=cuda:99: torch has no such GPU here: auto, cpu",
    "cache=fora": "must be a TaylorOutput, not a FORA",
    "method.ratio=[1,": "cannot be parsed: write key=value",
    "cache=range(3,1)": "cache=range(3,1): gives no values; at least one is needed",
    "model.steps=range(1),3": "several values such as method.ratio=0.5,0.25 cannot be part of another value",
    "model.negative={a: glob(*)}": "cannot be part of another value",
    "n@x=3": "n@x=3: a key has one place only; leave out @x",
    "name.x=1": "name.x=1: name is a single value without keys; write name=...",
    "eval.margin.psnr=30": "eval.margin is a single value without keys; write eval.margin=...",
    "launcher.workers=3": "launcher.workers=3: Local has no workers",
    "seeds=[0,true]": "seeds=[0, True]: must be a number, not true or false",
    "eval.margin={psnr: true}": "must be a number, not true or false",
    "method.starvation=inf": "method.starvation=inf: must be a finite number",
    "eval.strict=1": "eval.strict=1: must be true or false",
    "model.negative=2025": "must be a valid string: \"model.negative='2025'\"",
    "n='١٢'": "n=١٢: must be a valid integer",
    "--multirun": "'--multirun' cannot be parsed: write key=value",
    "-m": "several values make the cells of one study without it, method.ratio=0.5,0.25",
    "--cfg": "plan=true prints what would run",
    "--config-dir=mine": f"a file of your own belongs in its group's folder in {ROOT / 'conf'}",
    "-cd": "belongs in its group's folder",
    "method=glob(*)": "method=glob(*): names no values; list them",
    "method.ratio=interval(0,1)": "method.ratio=interval(0,1): names no values; list them, or give range(",
}


@pytest.mark.parametrize("override", REFUSED)
def test_refused(override, weights, prompts):
    extra = ["logger=wandb"] if override.startswith("logger.") else []
    extra += [] if override.startswith("prompts=") else [f"prompts={prompts}"]
    with pytest.raises(Refused) as refusal:
        make([f"model.path={weights}", *extra, override])
    assert REFUSED[override] in str(refusal.value)


def test_a_wrong_item_is_not_told_to_be_no_item():
    with pytest.raises(Refused) as refusal:
        validated(Settings, {"prompts": "", "seeds": [-1, "x"]})
    told = "seeds=[-1, 'x']: must be greater than or equal to 0 or a valid integer"
    assert str(refusal.value).startswith(told)
    assert "at least 1 item" not in str(refusal.value)


def test_only_text_is_told_to_stand_in_quotes():
    assert "quotes" in str(why_fixed("prompts"))
    assert "quotes" not in str(why_fixed("n"))


LABELS = {
    "batch=1,2": "batch must be the same in every cell",
    "n=3,4": "n must be the same in every cell",
    "seeds=0,1": "give the seeds as one list, seeds=[0,1]",
    "prompts=emoji,coco2014": "put a value with a comma in quotes",
    "results=a,b": "results must be the same in every cell",
    "cost=flops,time": "cost must be the same in every cell",
    "plan=true,false": "plan must be the same in every cell",
    "name=a,b": "put a value with a comma in quotes, \"name='a,b'\"",
    "logger=wandb,none": "logger must be the same in every cell",
    "launcher=local,local": "launcher must be the same in every cell",
    "scale=full,tiny": "scale must be the same in every cell",
    "sweep=none,ratio": "sweep must be the same in every cell",
    "experiment=ras_table1,ras_table3": "experiment must be the same in every cell",
    "sweep.curve=0.5,0.25": "write a list in brackets, sweep.curve=[0.5,0.25]",
    "seeds=range(0,3)": "give the seeds as one list",
    "sweep.grid.batch=[1,2]": "batch must be the same in every cell",
    "sweep.points=[{n: 3}]": "sweep: n: n must be the same in every cell",
    "sweep.points=[{seeds: [5]}]": "sweep: seeds: seeds must be the same in every cell",
    "sweep.points=[{eval.strict: true}]": "eval must be the same in every cell",
    "n=4 n=8": "n=4 and n=8: both set n; leave one out",
    "seeds=[0] seeds=[0]": "both set seeds; leave one out",
    "model=lumina_tiny model=sd3_tiny": "both set model; leave one out",
    "cache=fora method/cache=dbcache method=caching": "both set cache; leave one out",
    "n=4 ~n": "so it cannot be removed",
    "method.ratio=0.5 method.ratio=0.3,0.2": "both set method.ratio; leave one out",
    "method.ratio=0.5 sweep.grid.method.ratio=[0.3]": "both set method.ratio; leave one out",
    "~model.height": "so it cannot be removed",
    "hydra.run.dir=/x": "results=FOLDER",
    "hydra/launcher=x": "Hydra's own settings have no effect",
    "sweep=matrix method=random": "method: every point of the sweep sets it",
    "sweep.points=[{method.ratio: 0.5}]": "method.ratio is set by both the grid and a point",
    "sweep.grid=abc": "sweep.grid=abc: must be lists of values by key",
    "+paper=[1]": "paper=[1]: unknown key",
    "name=2025": "name=2025: must be a valid string: \"name='2025'\"",
    "results=étude": "put text with é in quotes: \"results='étude'\"",
    "results=~/x": "put text with ~ in quotes: \"results='~/x'\"",
    "prompts=epoch=9.txt": "put text with = in quotes: \"prompts='epoch=9.txt'\"",
    "results=": "results=: string should have at least 1 character",
    f"results={'x' * 300}": "is longer than a file system allows",
    f"n={'9' * 5000}": "cannot be parsed",
    f"method.resets={'[' * 500}": "lists and nodes are nested deeper than 20 levels",
    "model.steps=1000000000": "must be less than or equal to 10000",
    "method.steps=1000000000": "must be less than or equal to 10000",
    "method.cache={_target_: os.system}": "must be a class of fovea.methods",
    "method=caching cache=dbcache sweep=none method.cache.front=3": "no block is left in the middle of 3",
    "method=caching cache=dbcache sweep=none method.cache.back=5": "front=1, back=5: no block is left",
    "sweep.points=[{method: rass}]": "method=rass: no such method; did you mean ras?",
    "logger=none logger.project=x": "logger.project=x: Nothing has no project",
    "method=caching cache=fora sweep=none method.cache.interval=true": "interval=true: must be a number",
    "method._partial_=true": "there is no such setting",
    "method=caching cache=null sweep=none": "cache=null: this method needs a cache; allowed: dbcache",
    "method.steps=null model.steps=3 sweep=none": "start=4: must be less than steps=3",
    "method=selflift method.steps=null method.low=99 sweep=none": "low=99: must be at most steps=",
    "method=ralu_ras method.steps=3 sweep=none": "start=1: must be less than steps=1",
    "method.as_released=true method.high_ratio=0 sweep=none": "the released rule must leave tokens out",
    "sweep.points=[{method.resets: [7], label: a},{method.resets: [7,7], label: b}]": "are one cell",
}


@pytest.mark.parametrize("overrides", LABELS)
def test_what_a_label_would_hide_is_refused(overrides, weights, prompts):
    given = overrides.split(" ") if "{" not in overrides else [overrides]
    base = [f"model.path={weights}"] if "model=" not in overrides else []
    base += [f"prompts={prompts}"] if "prompts=" not in overrides else []
    with pytest.raises(Refused) as refusal:
        make([*base, *given])
    assert LABELS[overrides] in str(refusal.value)


def test_a_refusal_loads_nothing_heavier_than_torch():
    """In a process of its own: exit 2, one message on stderr, nothing on stdout."""
    code = (
        "import sys, run; rc = run.main(['method.ratio=-1']); "
        "heavy = {'diffusers', 'transformers', 'torchmetrics', 'pandas', 'matplotlib'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules); "
        "sys.exit(rc)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (run.returncode, run.stdout, run.stderr) == (
        2,
        "",
        "refused: method.ratio=-1: must be greater than 0\n",
    )


def test_the_home_is_written_as_ever(weights, prompts, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").symlink_to(weights)
    plan = make(["model.path='~/model'", f"prompts={prompts}", "results='~/x'", "sweep=none"])
    assert plan.folder == tmp_path / "x" / "ras-lumina_tiny-none"
    assert plan.cells[0].identity["weights"] == fingerprint.weights(str(weights), "pretrained")


def test_missing_weights_name_the_three_ways_out(tmp_path, prompts):
    with pytest.raises(Refused) as refusal:
        study([f"model.path={tmp_path}/none", f"prompts={prompts}", f"results={tmp_path}"])
    for way in ("model.path=", "model=lumina_tiny", "model.weights=random"):
        assert way in str(refusal.value)


def test_a_baseline_in_a_sweep_of_ratios_says_what_to_do(weights, prompts):
    with pytest.raises(Refused, match="sweep=none runs the one method"):
        make(["method=baseline", f"model.path={weights}", f"prompts={prompts}"])


def test_a_value_given_fixes_its_axis_and_a_comma_makes_one():
    assert whole(load(["method.ratio=0.3"]))["sweep"]["grid"] == {"method.ratio": [0.3]}
    assert whole(load(["method.start=3,5", "sweep=none"]))["sweep"]["grid"] == {"method.start": [3, 5]}
    assert whole(load(["method.ratio=range(0.1,0.5,0.1)"]))["sweep"]["grid"] == {
        "method.ratio": [0.1, 0.2, 0.3, 0.4]
    }
    assert whole(load(["method=ras,random"]))["sweep"]["grid"]["method"] == ["ras", "random"]
