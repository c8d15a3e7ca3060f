"""Migration scripts that are not there yet: copies of the real ones, with a next one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from downloader.store.migrate import migrations_folder
from downloader.store.schema import SCHEMA_REVISION

if TYPE_CHECKING:
    from pathlib import Path

NEXT = "9999"
ADD_A_TABLE = "op.create_table('of_the_future', sa.Column('answer', sa.Integer))"


def next_version(folder: Path, *statements: str) -> Path:
    """Return a folder of scripts with one more, that runs these statements."""
    scripts = folder / "scripts"
    shutil.copytree(migrations_folder(), scripts, ignore=shutil.ignore_patterns("__pycache__"))
    body = "\n    ".join(statements)
    (scripts / "versions" / f"{NEXT}_of_the_future.py").write_text(
        f"import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision = {NEXT!r}\ndown_revision = {SCHEMA_REVISION!r}\n"
        f"def upgrade():\n    {body}\ndef downgrade():\n    pass\n",
        encoding="utf-8",
    )
    return scripts
