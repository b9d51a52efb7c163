"""`ppcls weights convert`: files in, files out."""

import pickle

import numpy as np
import paddle
import pytest

import ppcls
from ppcls.models import registry
from ppcls.weights import dialects, files
from ppcls.weights.convert import convert

NAME = "EfficientNetLite0"
CONVERT = ("weights", "convert")


@pytest.fixture
def net():
    paddle.seed(0)
    return ppcls.create_model(NAME, 5)


@pytest.fixture
def native(net, tmp_path):
    """A file of a network's own tensors that does not say which network it is of."""
    path = tmp_path / "native.safetensors"
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    files.write_safetensors(path, state, {})
    return path


def test_files_there_and_back(run, tmp_path, native, net):
    timm, back = tmp_path / "timm.safetensors", tmp_path / "back.npz"
    code, out, _ = run(*CONVERT, native, timm, "--to", "timm", "--model", NAME)
    assert code == 0
    assert out == f"{timm}: 296 tensors of {NAME} with timm/torchvision's names\n"
    assert "conv_stem.weight" in files.read(timm).tensors
    assert run(*CONVERT, timm, back, "--to", "native")[0] == 0  # the file knows the network
    state = net.state_dict()
    tensors = files.read(back).tensors
    assert list(tensors) == list(state)
    for name, value in tensors.items():
        np.testing.assert_array_equal(value, state[name].numpy(), err_msg=name)
    model = ppcls.create_model(NAME, 5, timm)
    np.testing.assert_array_equal(model.head.weight.numpy(), state["head.weight"].numpy())


WRAPPED = {  # what stands in front of the network's names, and beside it
    "Student.": ["Teacher.", "loss_func.0."],
    "student.": ["teacher."],
    "module.": [],
    "_layers.Student.": ["_layers.Teacher."],
    "module._orig_mod.": [],
}


@pytest.mark.parametrize("start", WRAPPED)
def test_a_network_in_a_wrapper_or_beside_its_teacher(run, capsys, tmp_path, native, start):
    """Files of PaddleClas's distillation and of data parallelism, by the command and in Python."""
    plain = files.read(native).tensors
    tensors = {f"{start}{name}": value for name, value in plain.items()}
    for other in WRAPPED[start]:
        tensors |= {f"{other}{name}": 0 * value for name, value in plain.items()}
    source, target = tmp_path / "wrapped.pdparams", tmp_path / "out.safetensors"
    files.write_pdparams(source, tensors)
    code, out, _ = run(*CONVERT, source, target, "--to", "native", "--model", NAME)
    assert code == 0
    for name, value in files.read(target).tensors.items():
        np.testing.assert_array_equal(value, plain[name], err_msg=name)
    first = start.split(".")[0]
    assert f"'{first}.'" in out
    assert all(other.split(".")[0] in out for other in WRAPPED[start])
    capsys.readouterr()
    for given in (source, tensors):
        model = ppcls.create_model(NAME, 5, given)
        np.testing.assert_array_equal(model.head.weight.numpy(), plain["head.weight"])
        assert f"'{first}.'" in capsys.readouterr().out


def test_the_student_of_nested_state_dicts(run, tmp_path, native):
    state = files.read(native).tensors
    source, target = tmp_path / "two.pth", tmp_path / "out.npz"
    with source.open("wb") as file:
        pickle.dump({"teacher": {"w": np.ones(1)}, "student": dict(state)}, file)
    code, out, _ = run(*CONVERT, source, target, "--to", "native", "--model", NAME)
    assert (code, "read its entry 'student'" in out) == (0, True)


def test_paddle_reads_what_is_written_for_it(run, tmp_path, net):
    net = ppcls.create_model("ResNet18", 5)
    source, target = tmp_path / "in.npz", tmp_path / "out.pdparams"
    files.write_npz(source, {name: value.numpy() for name, value in net.state_dict().items()})
    assert run(*CONVERT, source, target, "--to", "paddleclas", "--model", "ResNet18")[0] == 0
    loaded = paddle.load(str(target))
    assert list(loaded)[:2] == ["stem.0.conv.weight", "stem.0.bn.weight"]
    np.testing.assert_array_equal(loaded["fc.weight"].numpy(), net.head.weight.numpy())


def test_mistakes(run, tmp_path, native):
    out = tmp_path / "out.safetensors"

    def fails(*arguments, words):
        code, _, err = run(*CONVERT, *arguments)
        assert code == 2
        assert words in err
        assert not out.exists()

    to = ("--to", "timm")
    fails(native, out, *to, words="does not say which network it is of: add --model NAME")
    fails(native, out, *to, "--model", "ResNet5", words="did you mean 'ResNet50'")
    fails(native, tmp_path / "o.pth", *to, words="end in .safetensors, .pdparams, .npz")
    other = ("--model", "EfficientNetLite1")
    fails(native, out, *to, *other, words="native.safetensors: cannot be converted as Efficient")
    fails(native, out, *to, *other, words="it has 1, 2, 2, 3, 3, 4, 1 blocks, this network 1, 3")
    fails(tmp_path / "no.npz", out, *to, words="no.npz: no such file")


@pytest.mark.slow
def test_a_run_from_timms_weights_stays_built_as_timm_builds_it(run, workdir):
    """Trained, resumed, evaluated and converted without another word on how it is built."""
    spec = registry.spec_of("ResNet18")
    built = registry.network(dialects.structure(["layer1.0.bn1.running_var"], spec), 2)
    state = {name: value.numpy() for name, value in built.state_dict().items()}
    files.write_safetensors("start.safetensors", convert(state, spec, "timm"), {})
    options = ("-c", "recipe.yaml", "-o", "model.name=ResNet18", "model.weights=start.safetensors")
    assert run("train", *options, "train.epochs=1")[0] == 0
    assert run("train", *options, "train.epochs=1", "--resume")[0] == 0
    best = "runs/small/best.safetensors"
    assert run("eval", "--weights", best)[0] == 0
    assert run("export", "--weights", best, "--output", "exported")[0] == 0
    assert run(*CONVERT, best, "timm.npz", "--to", "timm")[0] == 0
    assert "layer1.0.downsample.0.weight" not in files.read("timm.npz").tensors
    code, _, err = run(*CONVERT, best, "paddleclas.npz", "--to", "paddleclas")
    assert code == 2
    assert "PaddleClas builds this network with a projection in stage 1's first block" in err
