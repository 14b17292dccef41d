"""A flow with a known solution: images are N(1, 0.4^2) per entry, all else is closed form."""

import torch


class GaussianFlow:
    pixels, std = 4, 0.4

    def __init__(self, n=64, seeds=(0, 1)):
        self.n, self.generators = n, [torch.Generator().manual_seed(seed) for seed in seeds]
        self.evaluated, self.compared = [], []

    def noise(self):
        return torch.stack([torch.randn(self.n, 16, generator=g) for g in self.generators])

    def sigmas(self, steps):
        u = torch.linspace(1, 0, steps + 1)
        return 3 * u / (1 + 2 * u)

    def new_kv(self):
        return None

    def velocity(self, x, sigma, kv=None, rows=None, encodings=None, keep_text=False):
        """E[noise - image | x] of x = (1 - sigma) image + sigma noise."""
        if rows is not None:
            x = x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))
        self.evaluated.append(x.shape[1])
        a, variance = 1 - sigma, ((1 - sigma) * self.std) ** 2 + sigma**2
        return (sigma - a * self.std**2) / variance * (x - a) - 1

    def solution(self):
        """Where the exact flow takes the noise."""
        return 1 + self.std * GaussianFlow.noise(GaussianFlow(self.n, range(len(self.generators))))
