"""Which model is in use: an append-only history, its leaves in the log in the same transaction, and the way back."""

import asyncio
import json

import pytest

from federation.errors import ChaotianError
from federation.learning.coding import Numeric
from gateway.audit.events import EventType
from gateway.cli.main import run
from gateway.identity.home import Home, NodeConfig
from gateway.jobs.models import ModelStore, encode
from gateway.jobs.uses import ModelUses, PendingUses, register_uses
from gateway.storage.base import Database
from tests.support.models import made_model

MODELS = [made_model([Numeric("x", 0.0, 1.0)], [0.0, beta], job=f"{k:064x}") for k, beta in enumerate((1.0, 2.0, 3.0))]
PURPOSE = "credit-risk-model"


class Log:
    """Takes events, or fails to."""

    def __init__(self):
        self.events, self.fails = [], False

    def append(self, connection, event):
        if self.fails:
            raise ChaotianError("STORAGE")
        self.events.append(event)
        return len(self.events) - 1


@pytest.fixture
def uses(tmp_path):
    database = Database.at(tmp_path / "state.db")
    database.upgrade()
    store, ticks = ModelStore(tmp_path), iter(range(1, 1000))
    for model in MODELS:
        store.save(model)
    yield ModelUses(database, store, lambda: float(next(ticks)), "bank-1")
    database.close()


def versions(uses):
    return [MODELS.index(next(m for m in MODELS if m.version == use.model)) for use in uses.history()]


def test_use_and_back_again(uses):
    log = Log()
    with pytest.raises(ChaotianError) as caught:
        uses.in_use()
    assert caught.value.code == "NOT_FOUND"
    for model in MODELS:
        change = uses.use(model, PURPOSE, "ada", "committee of May", log)
    assert (change.action, change.before, change.leaf) == ("use", MODELS[1].version, 2)
    again = uses.use(MODELS[2], PURPOSE, "ada", "", log)
    assert again == change and len(log.events) == 3  # it is in use already: nothing happened
    assert uses.rollback(PURPOSE, "bad", "bob", "drift", log).model == MODELS[1].version
    assert uses.rollback("", "", "bob", "", log).model == MODELS[0].version
    with pytest.raises(ChaotianError) as caught:
        uses.rollback(PURPOSE, "", "bob", "", log)
    assert caught.value.code == "NOT_FOUND"
    uses.use(MODELS[2], PURPOSE, "ada", "", log)
    assert uses.rollback(PURPOSE, "", "bob", "", log).model == MODELS[0].version
    assert versions(uses) == [0, 1, 2, 1, 0, 2, 0] and uses.in_use().model == MODELS[0].version
    assert [use.number for use in uses.history()] == sorted(use.number for use in uses.history())
    payloads = [event.payload for event in log.events]
    assert [p["action"] for p in payloads] == ["use"] * 3 + ["rollback"] * 2 + ["use", "rollback"]
    first = log.events[0]
    assert first.type is EventType.MODEL_USED and first.exchange.hex() == MODELS[0].version
    assert first.parties == ("bank-1",) and (first.payload["account"], first.payload["purpose"]) == ("ada", PURPOSE)


def test_purposes_do_not_meet(uses):
    uses.use(MODELS[0], "a", "ada")
    uses.use(MODELS[1], "b", "ada")
    with pytest.raises(ChaotianError) as caught:
        uses.in_use()
    assert caught.value.code == "USAGE" and "a / bad, b / bad" in caught.value.detail
    assert uses.in_use("b").model == MODELS[1].version
    uses.use(MODELS[2], "a", "ada")
    uses.rollback("a", "", "ada")
    assert {use.purpose: use.model for use in uses.all_in_use()} == {"a": MODELS[0].version, "b": MODELS[1].version}
    for purpose in ("", "x" * 65, "a\nb"):
        with pytest.raises(ChaotianError) as caught:
            uses.use(MODELS[0], purpose, "ada")
        assert caught.value.code == "USAGE"


def test_a_change_stands_with_its_leaf_or_not_at_all(uses):
    log = Log()
    for model in MODELS[:2]:
        uses.use(model, PURPOSE, "ada", "", log)
    log.fails = True
    for change in (uses.use, lambda _model, *words: uses.rollback("", "", *words[1:])):
        with pytest.raises(ChaotianError):
            change(MODELS[2], PURPOSE, "ada", "", log)
    assert versions(uses) == [0, 1] and len(log.events) == 2


def test_leaves_follow_when_the_log_can_be_opened(uses):
    log = Log()
    for model in MODELS[:2]:
        assert uses.use(model, PURPOSE, "ada").leaf is None
    assert uses.use(MODELS[2], PURPOSE, "ada", "", log).leaf == 2  # those before it come first
    assert [use.leaf for use in uses.history()] == [0, 1, 2]
    uses.rollback("", "", "ada")
    asyncio.run(PendingUses(uses, log).start())
    assert [use.leaf for use in uses.history()] == [0, 1, 2, 3] and uses.log_pending(log) == 0


def test_no_way_back_to_a_model_that_is_gone_or_changed(uses, tmp_path):
    for model in MODELS[:2]:
        uses.use(model, PURPOSE, "ada")
    path = tmp_path / "models" / f"{MODELS[0].version}.json"
    path.write_bytes(encode(MODELS[2]))
    with pytest.raises(ChaotianError) as caught:
        uses.rollback("", "", "ada")
    assert caught.value.code == "MODEL_HASH"
    path.unlink()
    with pytest.raises(ChaotianError) as caught:
        uses.rollback("", "", "ada")
    assert caught.value.code == "NOT_FOUND" and uses.in_use().model == MODELS[1].version
    with pytest.raises(ChaotianError):
        uses.use(MODELS[0], PURPOSE, "ada")


def test_the_nodes_own_methods(uses, tmp_path):
    handlers, log = {}, Log()

    class Local:
        def register(self, method, handler):
            handlers[method] = handler

    register_uses(Local(), uses, ModelStore(tmp_path), log)
    for model in MODELS[:2]:
        words = {"model": model.version, "purpose": PURPOSE, "account": "ada", "note": ""}
        assert asyncio.run(handlers["model.use"](words))["leaf"] is not None
    back = asyncio.run(handlers["model.rollback"]({"purpose": "", "label": "", "account": "ada", "note": ""}))
    assert back["model"] == MODELS[0].version and len(log.events) == 3
    for words in ({"model": 7}, {"model": "zz"}, {"model": MODELS[0].version, "purpose": 3}):
        with pytest.raises(ChaotianError):
            asyncio.run(handlers["model.use"](words))


def test_by_the_command_line(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("CHAOTIAN_HOME", raising=False)

    def call(*words):
        status = run([*map(str, words), "--home", str(tmp_path / "bank")])
        return status, capsys.readouterr()

    assert call("model", "history")[0] == 2
    made, _ = Home.create(tmp_path / "bank", NodeConfig())
    made.finish()
    for k, model in enumerate(MODELS[:2]):
        (tmp_path / f"{k}.json").write_bytes(encode(model))
    status, shown = call("model", "use", tmp_path / "0.json")
    assert status == 2 and "--purpose" in shown.err
    for k in (0, 1):
        status, shown = call("model", "use", tmp_path / f"{k}.json", "--purpose", PURPOSE, "--note", "=1+1")
        assert status == 0 and MODELS[k].version in shown.out and "follows" in shown.out
    assert ModelStore(tmp_path / "bank").get(MODELS[0].version[:8]).version == MODELS[0].version
    status, shown = call("model", "list", "--json")
    assert [m["in_use"] for m in json.loads(shown.out)["models"] if m["version"] == MODELS[1].version] == [[PURPOSE]]
    assert call("model", "rollback", "--label", "other")[0] == 2
    status, shown = call("model", "rollback", "--json")
    assert status == 0 and json.loads(shown.out)["model"] == MODELS[0].version
    status, shown = call("model", "history", "--json")
    changes = json.loads(shown.out)["changes"]
    assert [(c["action"], c["in_use"]) for c in changes] == [("use", True), ("use", False), ("rollback", False)]
    status, shown = call("model", "history")
    assert status == 0 and shown.out.count(PURPOSE) == 3
    assert call("model", "history", "--purpose", "none", "--json")[0] == 0
