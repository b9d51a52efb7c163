"""Kernels for training on a CPU: oneDNN's convolutions and compiled loops, channels last.

`start` says whether they can run here, `channels_last` has what networks call.
"""

NONE, RELU, RELU6, SILU, HARDSWISH = range(5)  # what they call activations
