"""The workshop of benchmarks/compare_cases.py: small networks that learnt digits, made once."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks/compare_cases.py"


@pytest.fixture(scope="session")
def cases():
    spec = importlib.util.spec_from_file_location("compare_cases", BENCHMARK)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_cases"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def shop(cases, tmp_path_factory):
    return cases.Workshop(tmp_path_factory.mktemp("shop"), bases=2)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """ppcls's own folder, where nothing of the user's is."""
    monkeypatch.setenv("PPCLS_HOME", str(tmp_path / "home"))
