"""Pipelines with Qwen-Image's autoencoder (arXiv:2508.02324), which is one of videos."""

from typing import Any

import torch
from torch import Tensor

from fovea.models.pipeline import Pipeline


class VideoVAEPipeline(Pipeline):
    """Whose latents are normalised per channel, and whose images are videos of one frame."""

    def denormalise(self, latents: Tensor) -> Tensor:
        """Denormalise per channel as the pipeline does, including its rounded reciprocal of the deviation."""
        mean, deviation = self._statistics(latents)
        return latents / (1.0 / deviation) + mean

    def normalise(self, latents: Tensor) -> Tensor:
        mean, deviation = self._statistics(latents)
        return (latents - mean) * (1.0 / deviation)

    def _statistics(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        config = self.pipe.vae.config
        mean, deviation = (
            torch.tensor(values).view(1, -1, 1, 1).to(latents)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, deviation

    @staticmethod
    def vae_decode(vae: Any, latents: Tensor) -> Tensor:
        return vae.decode(latents[:, :, None], return_dict=False)[0][:, :, 0]

    @staticmethod
    def vae_encode(vae: Any, images: Tensor) -> Tensor:
        return vae.encode(images[:, :, None]).latent_dist.mode()[:, :, 0]
