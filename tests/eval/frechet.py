"""The Fréchet distance of two sets of features."""

from fovea.eval.frechet import contributions, fit


def frechet_distance(a, b):
    """Of (n, d) and (m, d)."""
    return contributions(a, fit(b)).mean()
