"""A token sequence as rows, (b, n, ...) with one set of rows per image; and the Euler step, which moves all of them."""

from jaxtyping import Float, Int, Shaped
from torch import Tensor


def put(
    x: Shaped[Tensor, "b n *d"], rows: Int[Tensor, "b k"], value: Shaped[Tensor, "b k *d"]
) -> Shaped[Tensor, "b n *d"]:
    """A copy of x with `value` in the given rows of each image."""
    return x.scatter(1, rows.view(*rows.shape, *[1] * (x.ndim - 2)).expand_as(value), value)


def euler(
    x: Float[Tensor, "b n c"], v: Float[Tensor, "b n c"], step: Float[Tensor, ""]
) -> Float[Tensor, "b n c"]:
    """x + step * v, summed in float32 as flow-matching pipelines do, in the dtype of v."""
    return (x.float() + step * v).to(v.dtype)
