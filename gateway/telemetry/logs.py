"""Structured logs: one JSON object a line on stderr. No payloads, no subjects, no secrets.

A record may carry only the fields named in `FIELDS`, so that nothing slips out by a careless `extra`. Of an exception
nobody foresaw, the type and the places it passed are written, never its text, which may quote values.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

FIELDS = frozenset(
    {
        "attempt",
        "bytes",
        "code",
        "count",
        "detail",
        "job",
        "kind",
        "member",
        "milliseconds",
        "peer",
        "port",
        "role",
        "round",
        "seconds",
        "serial",
        "stage",
        "stream",
        "version",
    }
)
_LONGEST = 300  # characters of one field


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_LONGEST],
        }
        for name, value in vars(record).items():
            if name in FIELDS and value not in ("", None):
                line[name] = value if isinstance(value, int | float) else str(value)[:_LONGEST]
        if record.exc_info and record.exc_info[0] is not None:
            line["exception"] = record.exc_info[0].__name__
            frames = traceback.extract_tb(record.exc_info[2])[-8:]
            line["places"] = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}:{frame.name}" for frame in frames]
        return json.dumps(line, ensure_ascii=True)


class _OursOnly(logging.Filter):
    """Libraries may warn, but their text is not ours to vouch for: only that they did is passed on."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("chaotian"):
            record.msg, record.args = "a library warned", ()
        return True


def configure(stream: TextIO | None = None, level: int = logging.INFO) -> logging.Logger:
    """Send all logs to `stream` (stderr) as JSON lines; return the product's logger."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    handler.addFilter(_OursOnly())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    ours = logging.getLogger("chaotian")
    ours.setLevel(level)
    return ours
