"""What a process that dies must not leave behind."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from pathlib import Path
from federation.errors import ChaotianError
from gateway.runtime import serve
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
try:
    getattr(serve, sys.argv[1])(Path("/nowhere"))
except ChaotianError as error:
    print(error.code, *resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.parametrize("what", ["serve_node", "serve_platform"])
def test_no_core_is_written(what):
    done = subprocess.run([sys.executable, "-c", PROGRAM, what], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["CONFIG", "0", "0"], done.stderr
