"""What is found of images: in one pass, batch by batch, once, and by content."""

import weakref
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from fovea.eval import Samples
from fovea.eval.fidelity import PSNR, SSIM
from fovea.eval.rows import Column
from fovea.eval.samples import BATCH, InMemory


def images(n):
    generator = torch.Generator().manual_seed(n)
    return torch.randint(0, 256, (n, 3, 16, 16), generator=generator, dtype=torch.uint8)


def made(x, dense=None):
    keys = [str(i) for i in range(len(x if isinstance(x, torch.Tensor) else x.ids))]
    return Samples(x, [f"prompt {key}" for key in keys], keys, dense)


@dataclass
class Brightness:
    """The mean of each image; counts the images it looks at, and raises at the first that `fails` names."""

    paired: bool = False
    fails: float | None = None
    seen: list[int] = field(default_factory=list)
    identity = {"of": "brightness"}  # noqa: RUF012
    module = __name__

    def compute(self, batch):
        found = (batch.dense if self.paired else batch.images).double().mean((1, 2, 3))
        self.seen.append(len(found))
        if self.fails in found.tolist():
            raise ArithmeticError(f"over {self.fails}")
        return {"mean": found}


@dataclass
class Reading(InMemory):
    """A tensor that counts what is read of it."""

    def __init__(self, x):
        super().__init__(x)
        self.reads = []

    def read(self, places):
        self.reads.append(len(places))
        return super().read(places)


class Held(InMemory):
    """Counts how many of the batches that were read are in memory at once."""

    def __init__(self, x):
        super().__init__(x)
        self.batches, self.most = [], 0

    def read(self, places):
        found = super().read(places).clone()
        self.batches.append(weakref.ref(found))
        self.most = max(self.most, sum(batch() is not None for batch in self.batches))
        return found


def test_memory_does_not_grow_with_the_number_of_images():
    most = []
    for batches in (4, 16):
        held, dense = Held(images(batches * BATCH)), Held(images(batches * BATCH))
        made(held, dense).compute([PSNR(), Brightness()])
        assert len(held.batches) == len(dense.batches) == batches
        most += [held.most, dense.most]
    assert max(most) <= 3  # what is looked at, what is read ahead, and what is about to go


@pytest.mark.parametrize("n", [1, BATCH, 2 * BATCH + 3])
def test_batches_hold_all_images_in_order(n):
    x = images(n)
    batches = [*made(x).batches()]
    assert torch.equal(torch.cat([b.images for b in batches]), x)
    assert [len(b.images) for b in batches] == [BATCH] * (n // BATCH) + [n % BATCH] * (n % BATCH > 0)
    assert torch.equal(made(x).rows(Brightness())["mean"].tensor(), x.double().mean((1, 2, 3)))


def test_all_is_found_in_one_pass_and_once():
    x, one = images(2 * BATCH + 3), Brightness()
    reading = Reading(x)
    samples = made(reading, x.flip(0))
    samples.compute([one, PSNR(), SSIM()])
    assert sum(reading.reads) == sum(one.seen) == len(x)
    for metric in (PSNR(), SSIM()):
        assert metric(samples) == metric(made(x, x.flip(0)))
    assert torch.equal(samples.rows(one)["mean"].tensor(), x.double().mean((1, 2, 3)))
    assert sum(reading.reads) == sum(one.seen) == len(x)


def test_no_image_is_read_that_nobody_asks_for():
    reading = Reading(images(3))
    samples = made(reading)
    samples.compute([])
    PSNR()(samples)  # there is no dense image
    PSNR()(replace(samples, random_weights=True))
    assert reading.reads == []


def test_only_new_images_are_looked_at():
    x, what = images(5), Brightness()
    known = InMemory(x[:3])
    made(known).rows(what)
    assert (
        made(InMemory(x, known.known)).rows(what)["mean"].tensor().tolist()
        == x.double().mean((1, 2, 3)).tolist()
    )
    assert what.seen == [3, 2]


def test_what_is_found_is_told_apart_by_identity_and_content():
    x, what, other = images(4), Brightness(), Brightness()
    samples = made(x)
    samples.rows(what)
    other.identity = {"of": "another"}
    samples.rows(other)
    assert (what.seen, other.seen) == ([4], [4])
    changed = x.clone()
    changed[0, 0, 0, 0] += 1
    made(InMemory(changed, samples.source.known)).rows(what)
    assert what.seen == [4, 1]


def test_dense_images_count_where_they_are_looked_at():
    x, what = images(4), Brightness(paired=True)
    samples = made(x, x.flip(0))
    assert torch.equal(samples.rows(what)["mean"].tensor(), x.flip(0).double().mean((1, 2, 3)))
    other = replace(samples, images=InMemory(x, samples.source.known), dense=images(4).roll(1, 0))
    assert torch.equal(other.rows(what)["mean"].tensor(), images(4).roll(1, 0).double().mean((1, 2, 3)))


def test_what_raises_costs_itself_alone():
    x = images(2 * BATCH)
    fine, broken = Brightness(), Brightness(fails=x[BATCH].double().mean().item())
    broken.identity = {"of": "broken"}
    samples = made(x)
    samples.compute([broken, fine])
    assert sum(fine.seen) == len(x)
    assert len(samples.rows(fine)["mean"].tensor()) == len(x)
    with pytest.raises(ArithmeticError, match="over"):
        samples.rows(broken)


def test_columns_read_nothing_until_they_are_arrays():
    class Part(torch.Tensor):
        read = 0

        def __getitem__(self, at):
            Part.read += 1
            return super().__getitem__(at)

    x = torch.randn(6, 3)
    part, row = np.array([0, 0, 1, 1]), np.array([2, 0, 1, 1])
    column = Column([x[:3].as_subclass(Part), x[3:].as_subclass(Part)], part, row)
    some = column[np.array([3, 1])][:1]
    assert (len(column), len(some), Part.read) == (4, 1, 0)
    assert np.array_equal(np.asarray(some, np.float64), x[[4]].double())
    assert torch.equal(column.tensor().as_subclass(torch.Tensor), x[[2, 0, 4, 4]])
