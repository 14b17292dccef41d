"""Command lines that are wrong in any way are refused in words, with little work."""

from itertools import islice

import pytest

from fovea.study.commands.command import execute
from fovea.study.config import compose
from fovea.study.config.errors import Refused
from fovea.study.plan import cells
from tests.study.config.mutants import COMMANDS, KINDS, mutants

WORK = 12  # configs composed, and variants of a model and its method made, until a refusal
LINES = list(islice(mutants(20261126), 7 * len(KINDS)))


def keys(words: tuple[str, ...]) -> set[str]:
    return {word.lstrip("+~").partition("=")[0] for word in words}


@pytest.fixture
def work(monkeypatch):
    """What was done, a name each time."""
    done = []
    for module, name in ((compose, "_hydra"), (cells, "_variant")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, f=real, name=name: (done.append(name), f(*given))[1])
    return done


@pytest.mark.parametrize(
    "words",
    LINES,
    ids=[f"{KINDS[i % len(KINDS)].__name__}-{i // len(KINDS)}" for i in range(len(LINES))],
)
def test_a_wrong_command_line_is_refused(words, work, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = keys(words)
    beside = () if given & {*COMMANDS, "plan"} else ("plan=true",)
    with pytest.raises(Refused) as refusal:
        execute([*words, *beside])
    assert 10 < len(str(refusal.value)) < 5000
    assert len(work) <= WORK
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "said"),
    {
        f"seeds=[{','.join(map(str, range(20_000)))}]": "an argument of 108,897 characters; at most 20,000",
        "method.start=range(0,1000000000000)": "a key takes at most 10,000 values",
        "sweep.grid.cache=[]": "must be a list of at least one value",
        "sweep.grid.method=[[1]]": "no such method",
        f"sweep.points={'[' * 30}{']' * 30}": "deeper than 20",
        "sweep.grid.cache=1": "must be a list of at least one value",
        "model.height=1000000000000": "must be less than or equal to 65536",
        f"n={'9' * 400}": "must be less than or equal to 10000000",
        "batch=100000000": "must be less than or equal to 10000",
        f"show={'x' * 300}": "no study",
        "show='~nobody-of-this-name/x'": "no study",
    }.items(),
)
def test_what_is_too_much_is_refused_with_the_limit(word, said):
    with pytest.raises(Refused, match=said):
        execute([word])


def test_a_product_that_is_too_large_is_refused_before_it_is_made(work):
    values = ",".join(map(str, range(1, 300)))
    words = [f"{key}={values}" for key in ("method.start", "model.steps", "model.guidance", "model.height")]
    with pytest.raises(Refused, match=r"sweep: 39,962,694,005 points.*at most 100,000"):
        execute([*words, "plan=true"])
    assert "_variant" not in work
