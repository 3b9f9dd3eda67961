"""Statements on the driver's own cursor do what SQLAlchemy does with them."""

import pytest
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError

from gateway.storage.base import Database
from gateway.storage.hot import Hot
from gateway.storage.tables.audit import audit_head
from gateway.storage.tables.jobs import job_answers

INSERT = Hot(insert(job_answers), tuple(column.name for column in job_answers.columns))
ROW = {"job": "j", "round": 1, "attempt": 2, "position": bytes(range(256)), "answered": 1.25}


@pytest.fixture
def database(tmp_path):
    database = Database.at(tmp_path / "state.db")
    database.upgrade()
    return database


def test_rows_come_as_sqlalchemy_gives_them(database):
    statement = select(job_answers).where(job_answers.c.job == bindparam("job"), job_answers.c.attempt > 1)
    hot = Hot(statement)
    with database.begin() as connection:
        INSERT.all(connection, ROW)
        assert hot.first(connection, {"job": "other"}) is None
        for _ in range(2):  # compiled, then kept
            row = hot.first(connection, {"job": "j"})
            assert row._asdict() == ROW == dict(connection.execute(statement, {"job": "j"}).mappings().one())


def test_an_update_returns_rows_and_is_undone_with_its_transaction(database):
    advance = Hot(
        update(audit_head).where(audit_head.c.id == 1).values(size=audit_head.c.size + 1).returning(audit_head.c.size)
    )
    with database.begin() as connection:
        connection.execute(insert(audit_head).values(id=1, size=7, frontier=b"", pseudonym_key=b"k"))
    with pytest.raises(ZeroDivisionError), database.begin() as connection:
        assert advance.first(connection).size == 8
        raise ZeroDivisionError
    with database.begin() as connection:
        assert advance.first(connection).size == 8


def test_faults_are_those_of_sqlalchemy_and_quote_no_value(database):
    with database.begin() as connection:
        INSERT.all(connection, ROW)
    with pytest.raises(IntegrityError) as caught, database.begin() as connection:
        INSERT.all(connection, {**ROW, "answered": 987654321.0})
    assert "987654321" not in str(caught.value)
    with database.begin() as connection:
        connection.exec_driver_sql("DROP TABLE job_answers")
        with pytest.raises(OperationalError):
            INSERT.all(connection, ROW)


def test_a_missing_parameter_is_noticed(database):
    with database.begin() as connection, pytest.raises(KeyError):
        INSERT.all(connection, {"job": "j"})
