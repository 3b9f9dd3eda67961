"""The serving processes: `serve_node(home)` and `serve_platform(home)`, and the `Runtime` a role plugs into."""

from gateway.runtime.context import Role, Runtime, Service
from gateway.runtime.serve import serve_node, serve_platform

__all__ = ["Role", "Runtime", "Service", "serve_node", "serve_platform"]
