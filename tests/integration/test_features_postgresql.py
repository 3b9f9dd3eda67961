"""Features and data give the same on DuckDB and on PostgreSQL, each expression written once."""

import datetime
from pathlib import Path

import duckdb
import ibis
import numpy as np
import pytest

from federation.errors import ChaotianError
from gateway.cli.data import open_book
from gateway.cli.main import run
from gateway.datasets.book import DatasetBook
from gateway.datasets.schema import parse_schema
from gateway.datasets.sources import Source
from gateway.datasets.values import ValueStore
from gateway.identity.home import Home, NodeConfig
from parties.bank.features import catalogue, uci
from tests.support.ledgers import LEDGER_SCHEMA, SAMPLE, made_ledger
from tests.support.postgresql import BINARIES, WHY_NOT, server

pytestmark = pytest.mark.skipif(not BINARIES, reason=WHY_NOT)
PASSWORD = "correct-horse"


@pytest.fixture(scope="module")
def address():
    with server(PASSWORD) as found:
        yield found


@pytest.fixture
def backend(address, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    host = address.partition("host=")[2].partition("&")[0]
    connection = ibis.postgres.connect(host=host, user="postgres", database="postgres")
    yield connection
    connection.disconnect()


def both(backend, table, make):
    """Compute `make(table)` on both backends from the same rows; return two data frames sorted by loan."""
    backend.create_table("rows", table, overwrite=True)
    local = ibis.duckdb.connect()
    # the server reads its own copy, not ours
    out = [make(where).execute() for where in (local.create_table("rows", table), backend.table("rows"))]
    return [frame.sort_values("loan").reset_index(drop=True) for frame in out]


def same(left, right):
    assert list(left.columns) == list(right.columns) and left["loan"].tolist() == right["loan"].tolist()
    for name in left.columns[1:]:
        a, b = (np.asarray(frame[name], dtype=float) for frame in (left, right))
        assert np.isnan(a).tolist() == np.isnan(b).tolist(), name
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=name)
        assert not np.isnan(a).all(), name


def test_every_feature_is_equal_on_both(backend):
    features = list(catalogue.FEATURES.values())
    left, right = both(backend, made_ledger(), lambda table: catalogue.compute(table, features))
    assert len(left) > 100 and left.shape[1] == len(features) + 1
    same(left, right)


def test_the_public_ledger_is_equal_on_both(backend):
    rows = ibis.duckdb.connect().read_csv(SAMPLE).to_pyarrow()
    chosen = catalogue.plan(uci.ledger(ibis.memtable(rows)).columns).features
    last = datetime.date(2005, 9, 1)
    left, right = both(backend, rows, lambda table: catalogue.compute(uci.ledger(table), chosen, last))
    assert len(left) == 300
    same(left, right)


def test_a_table_of_the_server_is_the_same_snapshot_as_a_file(backend, address, tmp_path):
    table, schema = made_ledger(), parse_schema(LEDGER_SCHEMA)
    backend.create_table("ledger", table, overwrite=True)
    path = tmp_path / "ledger.parquet"
    duckdb.from_arrow(table).write_parquet(str(path))
    store = ValueStore(tmp_path / "data.duckdb")
    assert store.add(Source(address, "ledger"), schema) == store.add(path, schema)
    assert store.add(Source(address, "public.ledger"), schema)[1] == table.num_rows


def test_faults_of_a_table_are_named_and_its_password_is_not(backend, address, tmp_path, monkeypatch):
    backend.raw_sql('CREATE TABLE IF NOT EXISTS odd (id text, v text, "full" boolean, b bytea)')
    backend.raw_sql("INSERT INTO odd VALUES ('a', '1', true, ''), ('b', '１２', false, ''), ('c', NULL, NULL, NULL)")
    schema = parse_schema(b'id="id"\nother_columns="ignore"\n[columns.v]\ntype="numeric"\n'
                          b'[columns.full]\ntype="integer"\nmissing="allow"\n')  # fmt: skip
    report = DatasetBook.check(Source(address, "odd"), schema)
    assert [(f.code, f.row) for f in report.faults] == [("DATA_TYPE", 2), ("DATA_MISSING", 3)]
    wrong = parse_schema(b'id="id"\nother_columns="ignore"\n[columns.b]\ntype="category"\n')
    elsewhere = address.replace("/pg-", "/no-")
    secret = address.replace(":///", f"://postgres:{PASSWORD}@/")
    cases = [
        (Source(address, "odd"), wrong, "DATA_TYPE"),
        (Source(address, "none"), schema, "DATA_SOURCE"),
        (Source(address, "no.such"), schema, "DATA_SOURCE"),
        (Source(address, 'x"; DROP TABLE odd; --'), schema, "DATA_SOURCE"),
        (Source(address), schema, "USAGE"),
        (Source(elsewhere, "odd"), schema, "DATA_SOURCE"),
        (Source(address + "&options=-cfoo", "odd"), schema, "USAGE"),
        (Source(secret, "odd"), schema, "USAGE"),
        (Source(address, "odd", password="wrong-horse"), schema, "DATA_SOURCE"),
    ]
    for source, meaning, code in cases:
        with pytest.raises(ChaotianError) as caught:
            DatasetBook.check(source, meaning)
        assert caught.value.code == code
        assert "horse" not in f"{caught.value.detail} {caught.value.hint} {source!r}" or source.where == secret
    monkeypatch.delenv("PGPASSWORD")
    monkeypatch.setenv("PGPASSFILE", str(Path(tmp_path) / "none"))
    with pytest.raises(ChaotianError, match="user and password"):
        DatasetBook.check(Source(address, "odd"), schema)
    assert DatasetBook.check(Source(address, "odd", password=PASSWORD), schema).faults


def test_features_are_computed_in_the_server_and_registered(backend, address, tmp_path, capsys):
    home = tmp_path / "bank"
    made, _ = Home.create(home, NodeConfig())
    made.finish()
    table = made_ledger()
    backend.create_table("monthly", table.rename_columns({"limit": "额度"}), overwrite=True)
    duckdb.from_arrow(table).write_parquet(str(tmp_path / "ledger.parquet"))
    named = tmp_path / "named.toml"
    named.write_text(LEDGER_SCHEMA.decode().replace("columns.limit", 'columns."额度"'))
    (tmp_path / "plain.toml").write_bytes(LEDGER_SCHEMA)

    def compute(where, schema, *more):
        status = run(["features", "compute", where, "--out", "f", "--home", str(home), "--schema", str(schema), *more])
        return status, capsys.readouterr()

    at = ("--at", "2024-12")
    remote = (address, named, "--table", "monthly", "--column", "limit=额度")
    assert compute(*remote, *at)[0] == 0
    assert compute(str(tmp_path / "ledger.parquet"), tmp_path / "plain.toml", *at)[0] == 0
    book = open_book(home)
    names = [column.name for column in book.get("f").schema.columns]
    first, second = (book.load("f", names, snapshot=book.get(version).snapshot) for version in ("f@1", "f"))
    assert list(first.ids) == list(second.ids) and len(first) > 100 and len(names) == 23
    for name in names:
        np.testing.assert_allclose(first.columns[name], second.columns[name], rtol=1e-9, atol=1e-12)
    for arguments, code in (
        (remote, "USAGE"),
        ((*remote, *at, "--with", "f"), "USAGE"),
        ((address, tmp_path / "plain.toml", "--table", "monthly", *at), "DATA_COLUMN"),
        ((address, named, "--table", "none", *at), "DATA_SOURCE"),
        ((*remote, "--at", "1990-01"), "DATA_SOURCE"),
    ):
        status, out = compute(*arguments)
        assert status == 2 and f"error {code}: " in out.err and "Traceback" not in out.err, out.err
    backend.raw_sql("INSERT INTO monthly SELECT * FROM monthly LIMIT 1")
    status, out = compute(*remote, *at)
    assert status == 2 and "DATA_DUPLICATE" in out.err
