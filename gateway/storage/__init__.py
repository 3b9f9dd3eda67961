"""Durable state: one database per home, secrets sealed at rest, files written whole or not at all.

base.py     metadata, Database(url): .begin() one durable transaction, .read(), .upgrade()
tables/     one module per domain, all on base.metadata
secrets.py  SecretBox: seals secrets at rest under a passphrase or a key file
files.py    private folders, atomic replacement with fsync
migrations/ Alembic; `python -m gateway.storage.migrations.generate` renders the revision from the metadata
"""
