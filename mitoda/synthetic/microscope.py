"""A microscope: from grey values of the world to images."""

import numpy as np
from scipy import ndimage

from mitoda.synthetic.frame import Frame, SmoothNoise
from mitoda.synthetic.preset import PhantomDomain


class Microscope:
    """Texture, blur, uneven light, noise, contrast: from grey values of the world to uint8, by section."""

    def __init__(self, domain: PhantomDomain, frame: Frame, rng: np.random.Generator) -> None:
        self.domain, self.frame, self.rng = domain, frame, rng
        self.light = SmoothNoise(rng, frame, 1500.0, at_pixels=True)
        self.texture = self.grain(domain.texture_size)
        self.depth = 0.0

    def grain(self, size: float) -> np.ndarray:
        """White noise blurred by `size` nanometres (a standard deviation), scaled to standard deviation 1."""
        white = self.rng.standard_normal(self.frame.shape[1:], dtype=np.float32)
        sigma = size / self.frame.pixel
        return ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=3) * max(
            1.0, 2 * np.sqrt(np.pi) * sigma
        )

    def show(self, grey: np.ndarray) -> np.ndarray:
        """The next section as the microscope shows it, uint8."""
        domain = self.domain
        kept = np.exp(-domain.voxel_size[0] / (2 * domain.texture_size))
        grey = grey + domain.texture * grey * self.texture
        self.texture = kept * self.texture + np.sqrt(1 - kept**2) * self.grain(domain.texture_size)
        grey = ndimage.gaussian_filter(grey.astype(np.float32), domain.blur / self.frame.pixel, truncate=3)
        grey += domain.noise * np.sqrt(grey.clip(0.05)) * self.grain(0.45 * self.frame.pixel)
        grey += domain.illumination * self.light.at(self.depth) + domain.flicker * self.rng.standard_normal()
        if domain.curtains:
            streaks = self.rng.standard_normal(grey.shape[1], dtype=np.float32)
            grey += domain.curtains * ndimage.gaussian_filter1d(streaks, 1.0, mode="wrap") * 1.9
        self.depth += domain.voxel_size[0]
        shown = 0.5 + domain.contrast * (grey - 0.5) + domain.brightness
        return np.round(255 * shown.clip(0, 1)).astype(np.uint8)
