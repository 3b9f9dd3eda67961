"""Schema changes, by Alembic. Revisions import nothing from the live tables: what they did stays what they do."""
