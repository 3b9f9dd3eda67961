"""Render a revision from the live tables: `python -m gateway.storage.migrations.generate [MESSAGE]`.

With a message: the next revision, from what the migrated schema lacks. Without: the first revision anew, which is
right only as long as no released version has written a database.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection

import gateway.storage.tables  # noqa: F401  (registers every table)
from gateway.storage.base import Database, metadata

VERSIONS = Path(__file__).parent / "versions"
_TEMPLATE = '''"""{message}

Rendered by `python -m gateway.storage.migrations.generate`.
"""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {down}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    {upgrade}


def downgrade() -> None:
    """Undo; data in what is dropped is lost."""
    {downgrade}
'''


def difference(connection: Connection) -> MigrationScript:
    """Return the operations that lead from the schema of `connection` to the live tables."""
    context = MigrationContext.configure(connection, opts={"compare_type": True, "render_as_batch": True})
    return produce_migrations(context, metadata)


def render(message: str, revision: str, down: str | None, script: MigrationScript) -> str:
    """Return the text of a revision."""
    assert script.upgrade_ops is not None
    assert script.downgrade_ops is not None
    bodies = (render_python_code(ops, render_as_batch=True) for ops in (script.upgrade_ops, script.downgrade_ops))
    upgrade, downgrade = ("\n".join(x for x in b.splitlines() if "# ###" not in x).strip() for b in bodies)
    return _TEMPLATE.format(message=message, revision=revision, down=repr(down), upgrade=upgrade, downgrade=downgrade)


def main(arguments: list[str]) -> int:
    """Write the revision and say where."""
    existing = sorted(VERSIONS.glob("[0-9]*.py"))
    database = Database("sqlite://")
    if arguments:
        database.upgrade()
        message, number = " ".join(arguments), len(existing) + 1
        slug = re.sub(r"[^a-z0-9]+", "_", message.lower()).strip("_")[:40]
        path, down = VERSIONS / f"{number:04}_{slug}.py", f"{number - 1:04}"
    else:
        if len(existing) > 1:
            sys.stderr.write("there are later revisions: give a message to add one more\n")
            return 2
        message, number, path, down = "The first schema.", 1, VERSIONS / "0001_initial.py", None
    with database.read() as connection:
        script = difference(connection)
        if script.upgrade_ops is None or script.upgrade_ops.is_empty():
            sys.stdout.write("nothing to change\n")
            return 0
        path.write_text(render(message, f"{number:04}", down, script))
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff:
        for verb in (["check", "--fix-only"], ["format"]):
            subprocess.run([ruff, *verb, "--quiet", str(path)], check=False)  # noqa: S603
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
