"""Convolutions of oneDNN, from the library that comes inside Paddle, on images channels last.

Paddle's own convolutions on a CPU gather every window into a matrix and multiply; oneDNN compiles a
kernel for each shape. Its C interface (oneDNN 3, stable within the major version) is called as
it is documented. Images are float32 [N, H, W, C] in memory; weights are Paddle's,
[out, in / groups, height, width].
"""

import ctypes
from collections.abc import Sequence
from ctypes import (
    POINTER,
    Array,
    Structure,
    byref,
    c_char_p,
    c_int,
    c_int64,
    c_size_t,
    c_uint,
    c_void_p,
)
from functools import cache, cached_property
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from ppcls.utils import environment

# Of oneDNN's dnnl_types.h, where these are written out.
CPU, F32, ANY = 1, 3, 1
IN_ORDER = 1
FORWARD_TRAINING, DIRECT = 64, 1
SRC, WEIGHTS, DST, DIFF_SRC, DIFF_DST, DIFF_WEIGHTS = 1, 33, 17, 129, 145, 161
FROM, TO = 1, 17  # of a reorder
OF = {SRC: 129, DIFF_SRC: 130, WEIGHTS: 131, DIFF_WEIGHTS: 132, DST: 133, DIFF_DST: 134}
IMPLEMENTATION = 8

Dims = c_int64 * 12


class Argument(Structure):
    _fields_ = [("number", c_int), ("memory", c_void_p)]


class Version(Structure):
    _fields_ = [("major", c_int), ("minor", c_int), ("patch", c_int), ("hash", c_char_p)]
    _fields_ += [("cpu", c_uint), ("gpu", c_uint)]


class Library:
    """oneDNN with an engine and a stream; raises OSError where there is none that fits."""

    def __init__(self):
        import paddle

        folder = Path(paddle.__file__).parent / "libs"
        self.dnnl = ctypes.CDLL(str(folder / "libdnnl.so.3"))
        openmp = ctypes.CDLL(str(folder / "libiomp5.so"))
        self.dnnl.dnnl_version.restype = POINTER(Version)
        if self.dnnl.dnnl_version().contents.major != 3:
            raise OSError("another oneDNN than 3")
        self.dnnl.dnnl_memory_desc_get_size.restype = c_size_t
        self.dnnl.dnnl_primitive_desc_query_md.restype = c_void_p
        openmp.omp_set_num_threads(c_int(environment.threads()))
        self.engine = self.made("engine_create", CPU, c_size_t(0))
        self.stream = self.made("stream_create", self.engine, IN_ORDER)

    def call(self, name: str, *args) -> None:
        code = getattr(self.dnnl, f"dnnl_{name}")(*args)
        if code:
            raise OSError(f"oneDNN: {name} gives {code}")

    def made(self, name: str, *args) -> c_void_p:
        """What a function that makes something makes."""
        found = c_void_p()
        self.call(name, byref(found), *args)
        return found

    def run(self, primitive: c_void_p, count: int, args: Array) -> None:
        code = self.dnnl.dnnl_primitive_execute(primitive, self.stream, count, args)
        if code:
            raise RuntimeError(f"oneDNN gives {code}")

    def free_layout(self, shape: Sequence[int]) -> c_void_p:
        """A layout that oneDNN chooses."""
        name = "memory_desc_create_with_tag"
        return self.made(name, len(shape), Dims(*shape), F32, ANY)

    def layout(self, shape: Sequence[int], strides: Sequence[int]) -> c_void_p:
        name = "memory_desc_create_with_strides"
        return self.made(name, len(shape), Dims(*shape), F32, Dims(*strides))

    def memory(self, layout: c_void_p, address: int | None = None) -> c_void_p:
        return self.made("memory_create", layout, self.engine, c_void_p(address))


@cache
def library() -> Library | None:
    """oneDNN; None where Paddle has not brought one that fits."""
    try:
        return Library()
    except (OSError, AttributeError):
        return None


class Memory:
    """A memory object whose address is set before each use."""

    def __init__(self, lib: Library, layout: c_void_p):
        self.handle = lib.memory(layout)
        self.set_address = lib.dnnl.dnnl_memory_set_data_handle

    def at(self, address: int) -> None:
        self.set_address(self.handle, c_void_p(address))


class Reorder:
    """A copy from one layout to another."""

    def __init__(self, lib: Library, source: c_void_p, target: c_void_p):
        engine = lib.engine
        made = lib.made("reorder_primitive_desc_create", source, engine, target, engine, None)
        self.primitive = lib.made("primitive_create", made)
        self.source = Memory(lib, source)
        self.target = Memory(lib, target)
        self.args = (Argument * 2)(
            Argument(FROM, self.source.handle), Argument(TO, self.target.handle)
        )
        self.lib = lib

    def __call__(self, source: int, target: int) -> None:
        self.source.at(source)
        self.target.at(target)
        self.lib.run(self.primitive, 2, self.args)


class Room:
    """Memory for what is laid out otherwise meanwhile; grows to the largest that was asked for."""

    def __init__(self):
        self.size = 0
        self.address = 0

    def at_least(self, size: int) -> int:
        """Its address, once it has so many bytes."""
        if size > self.size:
            self.memory = (ctypes.c_char * (size + 64))()
            self.address = -(-ctypes.addressof(self.memory) // 64) * 64
            self.size = size
        return self.address


rooms = [Room() for _ in range(3)]  # one for each that a computation reads or writes
one_at_a_time = Lock()


class Shape(NamedTuple):
    """What tells one convolution from another; padding: top, left, bottom, right."""

    images: int
    height: int
    width: int
    cin: int
    cout: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        top, left, bottom, right = self.padding
        rows = (self.height + top + bottom - self.kernel[0]) // self.stride[0] + 1
        columns = (self.width + left + right - self.kernel[1]) // self.stride[1] + 1
        return rows, columns


class Step:
    """One of a convolution's three computations: two that are read, the third written."""

    def __init__(
        self, lib: Library, made: c_void_p, roles: Sequence[int], given: Sequence[c_void_p]
    ):
        """`given`: the layouts that things come and go in; a kernel may take others."""
        self.lib = lib
        self.primitive = lib.made("primitive_create", made)
        query = lib.dnnl.dnnl_primitive_desc_query_md
        self.memories = []
        self.reorders: list[Reorder | None] = []
        self.sizes = []
        for place, (role, outside) in enumerate(zip(roles, given, strict=True)):
            inside = c_void_p(query(made, OF[role], 0))
            self.memories.append(Memory(lib, inside))
            self.sizes.append(lib.dnnl.dnnl_memory_desc_get_size(inside))
            equal = lib.dnnl.dnnl_memory_desc_equal(inside, outside)
            ways = (inside, outside) if place == 2 else (outside, inside)
            self.reorders.append(None if equal else Reorder(lib, *ways))
        pairs = zip(roles, self.memories, strict=True)
        self.args = (Argument * 3)(*[Argument(role, memory.handle) for role, memory in pairs])
        found = c_char_p()
        lib.dnnl.dnnl_primitive_desc_query(made, IMPLEMENTATION, 0, byref(found))
        self.implementation = (found.value or b"").decode()

    def __call__(self, first: int, second: int, written: int) -> None:
        """Compute from two addresses to a third."""
        with one_at_a_time:
            at = [first, second, written]
            for place, reorder in enumerate(self.reorders):
                if reorder:
                    at[place] = rooms[place].at_least(self.sizes[place])
                    if place < 2:
                        reorder((first, second)[place], at[place])
            for memory, address in zip(self.memories, at, strict=True):
                memory.at(address)
            self.lib.run(self.primitive, 3, self.args)
            if self.reorders[2]:
                self.reorders[2](at[2], written)


class Convolution:
    """The three computations of one shape, made when they are first used."""

    def __init__(self, lib: Library, shape: Shape):
        self.lib = lib
        self.shape = shape
        n, height, width, cin, cout, kernel, stride, padding, groups = shape
        rows, columns = shape.size
        self.x = self.channels_last(n, cin, height, width)
        self.y = self.channels_last(n, cout, rows, columns)
        weights = [cout, cin // groups, *kernel]
        if groups > 1:
            weights = [groups, cout // groups, *weights[1:]]
        strides = [1]
        for side in weights[:0:-1]:
            strides.insert(0, strides[0] * side)
        self.plain = lib.layout(weights, strides)
        self.weights = lib.free_layout(weights)
        self.places = Dims(*stride), Dims(0, 0), Dims(*padding[:2]), Dims(*padding[2:])
        self.hint = lib.made(
            "convolution_forward_primitive_desc_create",
            lib.engine,
            FORWARD_TRAINING,
            DIRECT,
            self.x,
            self.weights,
            None,
            self.y,
            *self.places,
            None,
        )
        self.forward = Step(lib, self.hint, (SRC, WEIGHTS, DST), (self.x, self.plain, self.y))

    def channels_last(self, n: int, channels: int, height: int, width: int) -> c_void_p:
        strides = (height * width * channels, 1, width * channels, channels)
        return self.lib.layout((n, channels, height, width), strides)

    @cached_property
    def backward_data(self) -> Step:
        made = self.lib.made(
            "convolution_backward_data_primitive_desc_create",
            self.lib.engine,
            DIRECT,
            self.x,
            self.weights,
            self.y,
            *self.places,
            self.hint,
            None,
        )
        return Step(self.lib, made, (DIFF_DST, WEIGHTS, DIFF_SRC), (self.y, self.plain, self.x))

    @cached_property
    def backward_weights(self) -> Step:
        """Where AVX2 is all there is, its kernel for blocks of channels is worth the copies."""
        plain = self.plain_weights
        if plain.implementation != "jit:avx2" or self.shape.cin < 16:
            return plain
        n, height, width, cin, cout = self.shape[:5]
        x = self.lib.free_layout((n, cin, height, width))
        y = self.lib.free_layout((n, cout, *self.shape.size))
        made = self.lib.made(
            "convolution_forward_primitive_desc_create", self.lib.engine, FORWARD_TRAINING, DIRECT,
            x, self.weights, None, y, *self.places, None,
        )  # fmt: skip
        blocked = self.weights_step(x, y, made)
        return blocked if blocked.implementation == "jit:avx2" else plain

    def weights_step(self, x: c_void_p, y: c_void_p, hint: c_void_p) -> Step:
        made = self.lib.made(
            "convolution_backward_weights_primitive_desc_create", self.lib.engine, DIRECT,
            x, self.weights, None, y, *self.places, hint, None,
        )  # fmt: skip
        return Step(self.lib, made, (SRC, DIFF_DST, DIFF_WEIGHTS), (self.x, self.y, self.plain))

    @cached_property
    def has_depthwise_weights(self) -> bool:
        """Whether oneDNN has a kernel for the weights' gradient of this depthwise convolution."""
        return "dw" in self.plain_weights.implementation

    @cached_property
    def plain_weights(self) -> Step:
        """The weights' gradient from images channels last as they are."""
        return self.weights_step(self.x, self.y, self.hint)


@cache
def convolution(shape: Shape) -> Convolution:
    """The convolution of a shape, made once."""
    lib = library()
    assert lib
    return Convolution(lib, shape)
