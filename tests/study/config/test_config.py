"""What cannot run is refused before torch is imported: with the value, what is allowed, the nearest name."""

import subprocess
import sys

import pytest

from fovea.study.commands.command import execute as study
from fovea.study.config.compose import load, whole
from fovea.study.config.errors import Refused
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
    "method._target_=os.system": "method._target_=os.system: only classes of fovea.methods can stand here",
    "method._target_=fovea.methods.Rass": "_target_=fovea.methods.Rass: there is no such class",
    "method=rass": "method=rass: no such method; did you mean ras? allowed: baseline",
    "model=lumina_tyni": "did you mean lumina_tiny?",
    "model.height=100": "height=100 is not a multiple of",
    "model.dtype=float3": "must be 'auto', 'float32', 'bfloat16' or 'float16' (did you mean float32?)",
    "model.stps=3": "model.stps=3: Checkpoint has no stps; did you mean steps?",
    "modell.steps=3": "modell.steps=3: there is no modell; did you mean model?",
    "~method": "~method: a study needs one, nothing can be left out; allowed: baseline",
    "method.steps=${nothing}": "Interpolation key 'nothing' not found",
    "metod=ras": "metod=ras: unknown key; did you mean method?",
    "n=0": "n=0: must be greater than or equal to 1",
    "n=two": "n=two: must be a valid integer",
    "+m=2": "m=2: unknown key; allowed: batch",
    "seeds=[]": "seeds=[]: list should have at least 1 item, not 0",
    "seeds=[1,1]": "seeds=[1, 1]: a seed is there twice",
    "name=../x": "name=../x: must be letters",
    "batch=1.5": "batch=1.5: must be a valid integer",
    "prompts=nowhere.txt": "prompts=nowhere.txt: no such file (.txt, .csv",
    "prompts=drawbnech": "nor a set; did you mean drawbench?",
    "sweep.grid.method.ratio=[]": "grid.method.ratio=[]: must be a list of at least one value",
    "sweep.grid.method.ratio=[0.5,2]": "at the grid point method.ratio=2; sweep=none",
    "sweep.grid.method.rato=[0.5]": "method.rato=0.5: RAS has no rato; did you mean ratio?",
    "sweep.curve=[0]": "sweep.curve=[0]: must be greater than 0",
    "sweep.curve=[2.5]": "curve=2.5: must be a fraction up to 1 or a whole number of steps",
    "eval=quik": "eval=quik: no such eval; did you mean quick?",
    "metric=[psnr,sim]": "metric=sim: no such metric; did you mean ssim? allowed: clip_iqa",
    "metric=[psnr,psnr]": "metric=[psnr,psnr]: psnr is there twice",
    "metric=psnr,ssim": "several metrics are one list, metric=[psnr,ssim]",
    "metric=[clip_score_emoji,clip_score_twin]": "no such metric; did you mean clip_score",
    "metrics=[psnr]": "unknown key; did you mean metric?",
    "eval.metrics=[psnr]": "metrics are a group: metric=[psnr,ssim] metric.psnr.KEY=VALUE",
    "eval.metrics.psnr.window=3": "metrics are a group: metric=[psnr,ssim]",
    "~metric.psnr": "nothing can be left out",
    "eval.strict=maybe": "eval.strict=maybe: must be a valid boolean",
    "metric.psnr.window=3": "metric.psnr.window=3: PSNR has no window",
    "metric.fd_emoji.backbone.bach=3": "Backbone has no bach; did you mean batch?",
    "metric.fd_emoji.backbone.batch=0": "metric.fd_emoji.backbone.batch=0: must be greater",
    "metric.sim.window=3": "there is no metric sim; did you mean ssim? allowed: clip_score_emoji",
    "metric.kid.batch=3": "kid is not used; add it, metric=[psnr,ssim,fd_emoji,clip_score_emoji,kid]",
    "metric.psnr=3": "metric.psnr=3: write metric.NAME.KEY=VALUE",
    "sweep.grid.metric.psnr.window=[1,2]": "every cell has the same metric",
    "metric.fd_emoji.cache=a,b": "a variant is another file of conf/metric",
    "logger.mode=loud": "must be 'offline', 'online' or 'disabled'",
    "method.ratio=[1,": "is not understood: write key=value",
    "cache=range(3,1)": "cache=range(3,1): gives no value",
    "model.steps=range(1),3": "several values, method.ratio=0.5,0.25, are no part of another one",
    "model.negative={a: glob(*)}": "are no part of another one",
    "n@x=3": "n@x=3: a key stands in one place, without @x",
    "name.x=1": "name.x=1: name is one value, name=...; it has no keys here",
    "eval.margin.psnr=30": "eval.margin is one value, eval.margin=...",
    "launcher.workers=3": "launcher.workers=3: Local has no workers",
    "seeds=[0,true]": "seeds=[0, True]: must be a number, not true or false",
    "eval.margin={psnr: true}": "must be a number, not true or false",
    "method.starvation=inf": "method.starvation=inf: must be a finite number",
    "eval.strict=1": "eval.strict=1: must be true or false",
    "model.negative=2025": "must be a valid string: \"model.negative='2025'\"",
    "n='١٢'": "n=١٢: must be a valid integer",
    "--multirun": "'--multirun' is not understood: write key=value",
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
    "batch=1,2": "every cell has the same batch",
    "n=3,4": "every cell has the same n",
    "seeds=0,1": "seeds are one list, seeds=[0,1]",
    "prompts=emoji,coco2014": "a value that holds a comma stands in quotes",
    "results=a,b": "every cell has the same results",
    "cost=flops,time": "every cell has the same cost",
    "plan=true,false": "every cell has the same plan",
    "name=a,b": "a value that holds a comma stands in quotes, \"name='a,b'\"",
    "logger=wandb,none": "every cell has the same logger",
    "launcher=local,local": "every cell has the same launcher",
    "scale=full,tiny": "every cell has the same scale",
    "sweep=none,ratio": "every cell has the same sweep",
    "experiment=ras_table1,ras_table3": "every cell has the same experiment",
    "sweep.curve=0.5,0.25": "a list stands in brackets, sweep.curve=[0.5,0.25]",
    "seeds=range(0,3)": "seeds are one list",
    "sweep.grid.batch=[1,2]": "every cell has the same batch",
    "sweep.points=[{n: 3}]": "sweep: n: every cell has the same n",
    "sweep.points=[{seeds: [5]}]": "sweep: seeds: every cell has the same seeds",
    "sweep.points=[{eval.strict: true}]": "every cell has the same eval",
    "n=4 n=8": "n=4 and n=8: say n once",
    "seeds=[0] seeds=[0]": "say seeds once",
    "model=lumina_tiny model=sd3_tiny": "say model once",
    "cache=fora method/cache=dbcache method=caching": "say cache once",
    "n=4 ~n": "nothing can be left out",
    "method.ratio=0.5 method.ratio=0.3,0.2": "say method.ratio once",
    "method.ratio=0.5 sweep.grid.method.ratio=[0.3]": "say method.ratio once",
    "~model.height": "nothing can be left out",
    "hydra.run.dir=/x": "results=FOLDER",
    "hydra/launcher=x": "Hydra's own settings have no effect here",
    "sweep=matrix method=random": "method: every point of the sweep sets it",
    "sweep.points=[{method.ratio: 0.5}]": "method.ratio is set by both the grid and a point",
    "sweep.grid=abc": "sweep.grid=abc: must be lists of values by key",
    "+paper=[1]": "paper=[1]: unknown key",
    "name=2025": "name=2025: must be a valid string: \"name='2025'\"",
    "results=étude": "text that holds é stands in quotes: \"results='étude'\"",
    "results=~/x": "text that holds ~ stands in quotes: \"results='~/x'\"",
    "prompts=epoch=9.txt": "text that holds = stands in quotes: \"prompts='epoch=9.txt'\"",
    "results=": "results=: string should have at least 1 character",
    f"results={'x' * 300}": "is longer than a file system takes",
    f"n={'9' * 5000}": "is not understood",
    f"method.resets={'[' * 500}": "lists and nodes deeper than 20",
    "model.steps=1000000000": "must be less than or equal to 10000",
    "method.steps=1000000000": "must be less than or equal to 10000",
    "method.cache={_target_: os.system}": "only classes of fovea.methods can stand here",
    "method=caching cache=dbcache sweep=none method.cache.front=3": "leave no block between; the model has 3",
    "method=caching cache=dbcache sweep=none method.cache.back=5": "front=1, back=5: leave no block between",
    "sweep.points=[{method: rass}]": "method=rass: no such method; did you mean ras?",
    "logger=none logger.project=x": "logger.project=x: Nothing has no project",
    "method=caching cache=fora sweep=none method.cache.interval=true": "interval=true: must be a number",
    "method._partial_=true": "there is no such setting",
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
