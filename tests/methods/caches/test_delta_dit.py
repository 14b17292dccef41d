import pytest
import torch
from pydantic import ValidationError

from fovea.methods.caches import DeltaDiT
from fovea.models import adapt
from tests.methods.caches.brute import hold_blocks
from tests.methods.caches.runs import STEPS, run, stock
from tests.pipelines import PIPELINES

SETTINGS = [(2, 0.75, 0.5), (3, 0.34, 0.5), (3, 0.5, 0.3), (4, 1.0, 0.6), (5, 0.01, 0.0)]


def stretch(blocks, i, interval, share, boundary):
    """The blocks, of so many, that step i holds or renews: decided by the last step at which all run."""
    anchor = i - i % interval
    held = max(1, round(share * blocks))
    return (blocks - held, blocks) if anchor < boundary * STEPS else (0, held)


@pytest.mark.parametrize(("interval", "share", "boundary"), SETTINGS)
def test_equals_brute_force_over_the_stock_blocks(family, interval, share, boundary):
    def decide(i, _):
        return *stretch(len(blocks), i, interval, share, boundary), i % interval == 0

    pipe = PIPELINES[family]()
    with adapt(pipe) as model:
        blocks = model.blocks
    hold_blocks(pipe.transformer, blocks, decide)
    found = run(family, DeltaDiT(interval, share, boundary))
    assert torch.equal(found.x[0], stock(pipe, family))
    for i, ran in enumerate(found.blocks[0]):
        first, last = stretch(len(blocks), i, interval, share, boundary)
        assert ran == len(blocks) - (last - first if i % interval else 0)


def test_the_last_blocks_are_held_first():
    """Of 4 blocks, 3: behind the first one in the first half of the steps, in front of the last one then."""
    flow = run("flux", DeltaDiT(interval=3)).flow
    ran = [(w.first, w.last) for w in flow.block_runs if w.last > w.first]
    early, late = [(0, 1), (1, 4), (0, 1), (0, 1)], [(0, 3), (3, 4), (3, 4), (3, 4)]
    assert ran == early * 2 + late * 2


@pytest.mark.parametrize("wrong", [{"interval": 0}, {"share": 0}, {"share": 1.1}, {"boundary": -0.1}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        DeltaDiT(**wrong)
