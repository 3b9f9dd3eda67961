"""Settings of the whole test run."""

import os

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


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail on any skip where the machine is expected to have everything (`.ci/run` says so)."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CHAOTIAN_NO_SKIPS") and reporter and reporter.stats.get("skipped") and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line("tests were skipped, and CHAOTIAN_NO_SKIPS is set: this counts as a failure", red=True)
