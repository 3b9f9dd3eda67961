"""Fails when Flower's surface changes: what is imported, and the signatures that are relied on."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import os
from pathlib import Path

import pytest

from federation.rounds import flower

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}
PRIVATE = {"flwr.common.serde", "flwr.proto.message_pb2", "flwr.supercore.logger", "flwr.supercore.run",
           "flwr.supercore.task_identity"}  # fmt: skip


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "flwr"}


def test_version_is_the_one_this_was_written_for():
    assert importlib.metadata.version("flwr") == "1.41.0"


def test_telemetry_and_update_check_are_off():
    assert os.environ["FLWR_TELEMETRY_ENABLED"] == "0"
    assert os.environ["FLWR_DISABLE_UPDATE_CHECK"] == "1"


def test_only_one_module_imports_flower():
    importers = {
        str(path.relative_to(ROOT)): imported(path)
        for room in ("federation", "gateway", "parties")
        for path in (ROOT / room).rglob("*.py")
        if imported(path)
    }
    assert set(importers) == {"federation/rounds/flower.py"}
    assert importers["federation/rounds/flower.py"] == PUBLIC | PRIVATE


@pytest.mark.parametrize(
    ("thing", "names"),
    [
        (flower.Message.__init__, ["args", "dst_node_id", "message_type", "content", "error", "ttl", "group_id",
                                   "dst_task_id", "reply_to", "metadata"]),
        (flower.Metadata.__init__, ["run_id", "message_id", "src_node_id", "dst_node_id", "reply_to_message_id",
                                    "group_id", "created_at", "ttl", "message_type", "src_task_id", "dst_task_id"]),
        (flower.Strategy.start, ["grid", "initial_arrays", "num_rounds", "timeout", "train_config",
                                 "evaluate_config", "evaluate_fn"]),
        (flower.Grid.send_and_receive, ["messages", "timeout"]),
        (flower.ClientApp.train, ["action", "mods"]),
        (flower.Context.__init__, ["run_id", "node_id", "node_config", "state", "run_config", "series_id"]),
        (flower.message_to_proto, ["message"]),
        (flower.message_from_proto, ["message_proto"]),
    ],
)  # fmt: skip
def test_signatures(thing, names):
    assert [name for name in inspect.signature(thing).parameters if name != "self"] == names


def test_abstract_methods_are_those_we_implement():
    assert flower.Grid.__abstractmethods__ == {
        "set_run", "run", "create_message", "get_node_ids", "push_messages", "pull_messages", "send_and_receive",
    }  # fmt: skip
    assert flower.Strategy.__abstractmethods__ == {
        "configure_train", "aggregate_train", "configure_evaluate", "aggregate_evaluate", "summary",
    }  # fmt: skip
