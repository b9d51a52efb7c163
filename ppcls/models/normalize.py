"""The layer in front of every network: uint8 photos to the numbers it was trained on."""

import numpy as np
import paddle
from paddle import nn


class Normalize(nn.Layer):
    """images uint8 [N, H, W, C] to float32 [N, C, H, W], each channel pixel * scale + offset."""

    def __init__(self, scale: np.ndarray, offset: np.ndarray):
        super().__init__()
        for name, values in (("scale", scale), ("offset", offset)):
            tensor = paddle.to_tensor(values.reshape(1, -1, 1, 1), dtype="float32")
            self.register_buffer(name, tensor, persistable=False)

    @staticmethod
    def before(net: nn.Layer, scale: np.ndarray, offset: np.ndarray) -> nn.Sequential:
        """The layer and a network that takes what it gives."""
        return nn.Sequential(Normalize(scale, offset), net)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return images.transpose([0, 3, 1, 2]).astype("float32") * self.scale + self.offset
