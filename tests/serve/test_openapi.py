"""What the OpenAPI says of the service is true: schemathesis asks it all that can be asked by it."""

import pytest
from hypothesis import HealthCheck, Phase, settings

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

from schemathesis.checks import CHECKS, load_all_checks  # noqa: E402
