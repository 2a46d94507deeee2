"""Unit tests find the same things each time; `HYPOTHESIS_PROFILE=search` looks for new ones, longer."""

import os
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

settings.register_profile("deterministic", max_examples=60, deadline=None, derandomize=True)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "deterministic"))


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Whoever runs a `main` points logging at that test's stderr, which is closed after it."""
    yield
    structlog.reset_defaults()
