"""Settings of the whole test run."""

import pytest
from hypothesis import settings

# A shared machine may be slow for a moment; what is tested is what comes out, not how fast.
settings.register_profile("chaotian", deadline=None, print_blob=True)
settings.load_profile("chaotian")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave soak tests to `make soak`, which asks for them with `-m soak`."""
    if config.option.markexpr:
        return
    soak = [item for item in items if item.get_closest_marker("soak")]
    if soak:
        config.hook.pytest_deselected(items=soak)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
