"""The planted change is named first: a short form of benchmarks/compare_cases.py."""

import pytest


def misses(cases, shop, kind, seeds):
    return [
        f"{kind} {seed}: {case.planted}: {first}"
        for seed, case, first in cases.run_cases(shop, kind, seeds)
        if first not in case.wanted
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["preprocessing", "engine", "weights", "class"])
def test_planted_changes_come_first(cases, shop, kind):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    missed = misses(cases, shop, kind, range(1000, 1012))
    assert len(missed) <= 1, missed
