"""What cannot run is refused before torch is imported: with the value, what is allowed, the nearest name."""

import subprocess
import sys

import pytest

from fovea.study.commands.command import execute as study
from fovea.study.config.compose import load, resolved
from fovea.study.config.errors import Refused
from fovea.study.plan.plan import make

REFUSED = {
    "method.ratio=0": "method.ratio=0: must be a number greater than 0 and at most 1",
    "method.ratio=-1": "method.ratio=-1: must be a number greater than 0 and at most 1",
    "method.ratio=abc": "method.ratio=abc: must be a number greater than 0 and at most 1",
    "method.ratio=1.01": "method.ratio=1.01: must be a number greater than 0 and at most 1",
    "method.ratio=true": "method.ratio=True: must be a number",
    "method.ratioo=0.5": "method.ratioo=0.5: RAS has no ratioo; did you mean ratio?",
    "+method.speed=2": "method.speed=2: RAS has no speed",
    "method.selection=stdd": "method.selection=stdd: must be one of std, l2norm, random (did you mean std?)",
    "method.start=30": "method: start=30: must be less than steps=",
    "method._target_=os.system": "method._target_=os.system: only classes of fovea.methods can stand here",
    "method._target_=fovea.methods.Rass": "_target_=fovea.methods.Rass: there is no such class",
    "method=rass": "method=rass: no such method; did you mean ras? allowed: baseline",
    "model=lumina_tyni": "did you mean lumina_tiny?",
    "model.height=100": "height=100 is not a multiple of",
    "model.dtype=float3": "must be one of auto, float32, bfloat16, float16 (did you mean float32?)",
    "model.stps=3": "model.stps=3: Checkpoint has no stps; did you mean steps?",
    "modell.steps=3": "modell.steps=3: there is no modell; did you mean model?",
    "~method": "~method: a study needs one; allowed: baseline",
    "method.steps=${nothing}": "Interpolation key 'nothing' not found",
    "metod=ras": "metod=ras: unknown key; did you mean method?",
    "n=0": "n=0: must be a whole number at least 1",
    "n=two": "n=two: must be a whole number at least 1",
    "+m=2": "m=2: Settings has no m",
    "seeds=[]": "seeds=[]: must be a list",
    "seeds=[1,1]": "seeds=[1, 1]: a seed is there twice",
    "name=../x": "name=../x: must be letters",
    "batch=1.5": "batch=1.5: must be a whole number at least 1",
    "prompts=nowhere.txt": "prompts=nowhere.txt: no such file (.txt, .csv",
    "prompts=drawbnech": "nor a set; did you mean drawbench?",
    "sweep.grid.method.ratio=[]": "grid.method.ratio=[]: must be a list of at least one value",
    "sweep.grid.method.ratio=[0.5,2]": "method.ratio=2: must be a number",
    "sweep.grid.method.rato=[0.5]": "method.rato=0.5: RAS has no rato; did you mean ratio?",
    "sweep.curve=[0]": "sweep.curve=[0]: must be a list of numbers greater than 0",
    "sweep.curve=[2.5]": "curve=2.5: must be a fraction up to 1 or a whole number of steps",
    "eval=quik": "eval=quik: no such eval; did you mean quick?",
    "eval.metrics=[psnr,sim]": "eval.metrics=[sim]: no such metric; did you mean ssim? allowed: clip_iqa",
    "eval.metrics=[psnr,psnr]": "eval.metrics=[psnr,psnr]: psnr is there twice",
    "eval.metrics=psnr": "must be a list of names, such as eval.metrics=[psnr,ssim]",
    "eval.metrics=psnr,ssim": "several metrics are one list, eval.metrics=[psnr,ssim]",
    "eval.metrics=[clip_score_emoji,clip_score_twin]": "no such metric; did you mean clip_score",
    "metrics=[psnr]": "unknown key; did you mean eval.metrics?",
    "eval.metrics.psnr.window=3": "set a metric's key as metric.psnr.window=VALUE",
    "~eval.metrics.psnr": "eval.metrics is a list of names; say them all",
    "eval.strict=maybe": "eval.strict=maybe: must be true or false",
    "metric.psnr.window=3": "metric.psnr.window=3: PSNR has no window",
    "metric.fd_emoji.backbone.bach=3": "Backbone has no bach; did you mean batch?",
    "metric.fd_emoji.backbone.batch=0": "metric.fd_emoji.backbone.batch=0: must be a whole number at least 1",
    "metric.sim.window=3": "there is no metric sim; did you mean ssim? allowed: clip_score_emoji",
    "metric.kid.batch=3": "kid is not used; add it, eval.metrics=[psnr,ssim,fd_emoji,clip_score_emoji,kid]",
    "metric.psnr=3": "metric.psnr=3: write metric.NAME.KEY=VALUE",
    "sweep.grid.metric.psnr.window=[1,2]": "every cell is scored alike",
    "metric.fd_emoji.cache=a,b": "a metric's key takes one value",
    "logger.mode=loud": "must be one of offline, online, disabled",
    "method.ratio=[1,": "is not understood: write key=value",
    "--multirun": "'--multirun' is not understood: write key=value",
}


@pytest.mark.parametrize("override", REFUSED)
def test_refused(override, weights, prompts):
    extra = ["logger=wandb"] if override.startswith("logger.") else []
    with pytest.raises(Refused) as refusal:
        make([f"model.path={weights}", f"prompts={prompts}", *extra, override])
    assert REFUSED[override] in str(refusal.value)


def test_refused_without_torch_in_no_time():
    """In a process of its own: exit 2, one message on stderr, nothing on stdout, nothing heavy imported."""
    code = (
        "import sys, time, run; t = time.process_time(); rc = run.main(['method.ratio=-1']); "
        "assert not {'torch', 'diffusers', 'pandas', 'matplotlib'} & set(sys.modules); "
        "assert time.process_time() - t < 5; sys.exit(rc)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == "refused: method.ratio=-1: must be a number greater than 0 and at most 1\n"


def test_missing_weights_name_the_three_ways_out(tmp_path, prompts):
    with pytest.raises(Refused) as refusal:
        study([f"model.path={tmp_path}/none", f"prompts={prompts}", f"results={tmp_path}"])
    for way in ("model.path=", "model=lumina_tiny", "model.weights=random"):
        assert way in str(refusal.value)


def test_a_baseline_in_a_sweep_of_ratios_says_what_to_do(weights, prompts):
    with pytest.raises(Refused, match="sweep=none runs the one method"):
        make(["method=baseline", f"model.path={weights}", f"prompts={prompts}"])


def test_a_value_given_fixes_its_axis_and_a_comma_makes_one():
    assert resolved(load(["method.ratio=0.3"]), "sweep")["grid"] == {"method.ratio": [0.3]}
    assert resolved(load(["method.start=3,5", "sweep=none"]), "sweep")["grid"] == {"method.start": [3, 5]}
    assert resolved(load(["method=ras,random"]), "sweep")["grid"]["method"] == ["ras", "random"]
