"""One space of real processes for all tests of faults: setting it up takes most of their time."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.faults_kit import Faulty


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """Four banks and a platform, each a process, over real TLS."""
    made = Faulty(Path(tmp_path_factory.mktemp("faults")))
    try:
        made.build()
        yield made
    finally:
        made.stop()


@pytest.fixture
def faulty(running: Faulty) -> Iterator[Faulty]:
    """The space with everybody up before and after."""
    running.recover()
    yield running
    running.recover()
