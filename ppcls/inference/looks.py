"""How an image looks as it goes to the network, in a few numbers that any eye could tell.

Networks learn not to see light and focus, so their answers say little of them.
"""

import math

import numpy as np

from ppcls.utils.opencv import cv2

# Of the luma: mean and deviation. Of the means of the channels: red - blue, and green - (red +
# blue) / 2. Of neighbouring pixels: the binary logarithm of how much they differ by the contrast.
LOOKS = ("brightness", "contrast", "warmth", "tint", "sharpness")
LEAST = 0.5  # levels of 255: what differs less is rounding
GREY = {3: cv2.COLOR_RGB2GRAY, 4: cv2.COLOR_RGBA2GRAY}


def looks_of(pixels: np.ndarray) -> np.ndarray:
    """Float32 [LOOKS], in levels of 0 to 255 but for the sharpness, in octaves.

    An image of one channel has no colours: these are 0. It takes some 0.06 ms for 224 pixels.

    Args:
        pixels: uint8 [H, W, C] of 1, 3 or 4 channels (grey, RGB, RGBA).
    """
    channels = pixels.shape[2]
    warmth = tint = 0.0
    if channels == 1:
        grey = pixels[:, :, 0]
    else:
        grey = cv2.cvtColor(pixels, GREY[channels])
        red, middle, blue, _ = cv2.mean(pixels)
        warmth, tint = red - blue, middle - (red + blue) / 2
    mean, deviation = (float(value[0, 0]) for value in cv2.meanStdDev(grey))
    pairs = (grey[:, 1:], grey[:, :-1]), (grey[1:], grey[:-1])
    apart = sum(cv2.norm(*pair, cv2.NORM_L1) for pair in pairs if pair[0].size)
    apart /= max(sum(pair[0].size for pair in pairs), 1)
    sharpness = math.log2((apart + LEAST) / (deviation + LEAST))
    return np.array([mean, deviation, warmth, tint, sharpness], np.float32)
