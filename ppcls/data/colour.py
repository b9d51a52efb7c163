"""Training ops that change a photo's colours and leave its alpha alone."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ppcls.config.node import NotNegative, Positive, Share, node
from ppcls.data import pixels

# The principal components of ImageNet's colours, of values from 0 to 1: AlexNet's paper describes
# the method, these figures are the ones in common use.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)
JITTERS = (pixels.brightness, pixels.contrast, pixels.saturation, pixels.hue)


@node
class ColorJitter:
    """Brightness, contrast and saturation times an even draw from 1 - x (at least 0) to 1 + x, the
    hue turned by up to `hue` of the circle either way, in random order.
    """

    op: Literal["color_jitter"] = "color_jitter"
    brightness: NotNegative = 0.0
    contrast: NotNegative = 0.0
    saturation: NotNegative = 0.0
    hue: Annotated[NotNegative, Field(le=0.5)] = 0.0

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        widths = (self.brightness, self.contrast, self.saturation, self.hue)
        order, draws = rng.permutation(4).tolist(), rng.random(4).tolist()
        for index in order:
            width = widths[index]
            low, high = (-width, width) if index == 3 else (max(0.0, 1 - width), 1 + width)
            if width:
                image = JITTERS[index](image, low + draws[index] * (high - low))
        return image


@node
class Grayscale:
    """All colours the luma, with probability `prob`; the number of channels stays."""

    op: Literal["grayscale"] = "grayscale"
    prob: Share = 0.2

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        return pixels.grey(image) if rng.random() < self.prob else image


@node
class GaussianBlur:
    """Blurred with a standard deviation drawn evenly from `sigma`, in pixels (arXiv:2002.05709)."""

    op: Literal["gaussian_blur"] = "gaussian_blur"
    sigma: tuple[Positive, Positive] = (0.1, 2.0)

    def __post_init__(self):
        if self.sigma[0] > self.sigma[1]:
            raise ValueError(f"sigma {list(self.sigma)}: give the smaller one first")

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        low, high = self.sigma
        return pixels.blur(image, low + rng.random() * (high - low))


@node
class Lighting:
    """AlexNet's colour augmentation: each principal component of ImageNet's colours added, times
    its eigenvalue and a normal draw of standard deviation `std`. Grey stays as it is.
    """

    op: Literal["lighting"] = "lighting"
    std: NotNegative = 0.1

    def __call__(self, image: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
        draws = self.std * rng.standard_normal(3)
        if image.shape[2] == 1:
            return image
        shift = 255 * EIGENVECTORS @ (EIGENVALUES * draws)
        return pixels.look_up(image, np.clip(np.rint(pixels.LEVELS[:, None] + shift), 0, 255))
