"""What PaddleClas's networks compute, to the digit.

`golden/logits.json` gives PaddleClas's parameter names in its order, a layer a line, and what its
network put out with every parameter set to `fill(name, shape)`: the first 16 logits and the norm
of all 1000.
"""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest
from golden_fill import blank, fill, image

import ppcls

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/logits.json").read_text())

# PaddleClas has linear layers [in, out] where we have 1x1 convolutions [out, in, 1, 1].
LINEAR = (".scale.squeeze.weight", ".scale.excitation.weight")


def filled(key, shape):
    if key.endswith(LINEAR):
        return fill(key, (shape[1], shape[0])).T.reshape(shape)
    return fill(key, shape)


@pytest.mark.parametrize("name", GOLDEN)
def test_logits_equal_those_of_paddleclas(name):
    golden = GOLDEN[name]
    lines = [line.split() for line in golden["layers"]]
    keys = [f"{layer}.{leaf}" for layer, *leaves in lines for leaf in leaves]
    with blank():
        net = ppcls.create_model(name)
    state = net.state_dict()
    values = [filled(key, p.shape) for key, p in zip(keys, state.values(), strict=True)]
    net.set_state_dict(dict(zip(state, values, strict=True)))
    net.eval()
    with paddle.no_grad():
        logits = net(paddle.to_tensor(image(golden["size"])))[0].numpy()
    assert len(logits) == 1000
    expected = np.array(golden["logits"])
    error = np.linalg.norm(logits[:16] - expected) / np.linalg.norm(expected)
    assert error < 1e-5
    assert np.linalg.norm(logits) == pytest.approx(golden["norm"], rel=1e-5)
