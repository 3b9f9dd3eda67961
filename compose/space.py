"""A whole space on one machine, as the lab makes it (`gateway.lab.processes`), for demo, tests and benches."""

from gateway.lab.processes import CHAOTIAN, READY_SECONDS, CommandError, Member, Space, free_ports, space

__all__ = ["CHAOTIAN", "READY_SECONDS", "CommandError", "Member", "Space", "free_ports", "space"]
