"""paddle2onnx in a process of its own, which it ends where it meets what it cannot convert."""

import sys

OPSET = 17


def main(program: str, params: str, target: str) -> None:
    """Convert; without the file `params` the weights are left out, as ONNX files limit them."""
    import paddle  # noqa: F401  paddle2onnx needs its libraries
    import polygraphy.config  # noqa: F401  before paddle2onnx lets it install packages
    import paddle2onnx  # isort: skip

    whole = bool(params)
    paddle2onnx.export(
        program,
        params,
        target,
        opset_version=OPSET,
        enable_onnx_checker=whole,
        optimize_tool="polygraphy" if whole else "none",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
