"""A file of three gigabytes: how much memory loading it takes, in a process of its own."""

import json
import math
import struct
import subprocess
import sys

import pytest

import ppcls

NAME = "ResNeXt101_32x48d_wsl"
BYTES = 4  # of a float32
SCRIPT = """
import resource, sys
import ppcls
net = ppcls.create_model(sys.argv[1], weights=sys.argv[2])
assert not net.head.weight.numpy().any()
print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_zeros(path):
    """A sparse safetensors file of the network's tensors; returns its size."""
    import paddle

    with paddle.LazyGuard():
        shapes = {k: v.shape for k, v in ppcls.create_model(NAME).state_dict().items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + BYTES * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path.stat().st_size


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_loading_takes_little_more_than_file_and_network(tmp_path):
    path = tmp_path / "zeros.safetensors"
    size = write_zeros(path)
    assert size > 3.0e9
    words = [sys.executable, "-c", SCRIPT, NAME, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    ratio = int(done.stdout.split()[-1]) / size
    print(f"{size / 1e9:.2f} GB, peak {ratio:.2f} times the file")
    assert ratio <= 2.2
