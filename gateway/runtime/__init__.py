"""The serving processes: `serve_node(home)` and `serve_platform(home)`, and the `Runtime` a role plugs into."""

import os

# Read by NumPy's BLAS when it is loaded, so it is set before anything here imports it. Its threads wait for work by
# spinning: with several processes on few cores they cost each round more than all its cryptography. One thread adds
# up a million rows of 25 features in well under a second, and its sums do not change with the number of cores.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from gateway.runtime.context import Role, Runtime, Service
from gateway.runtime.serve import serve_node, serve_platform

__all__ = ["Role", "Runtime", "Service", "serve_node", "serve_platform"]
