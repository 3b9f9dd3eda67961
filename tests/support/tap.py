"""`chaotian` with an ear on the wire: python -m tests.support.tap FOLDER ARGS…

Every frame that a process sends goes to FOLDER/MEMBER-PID too, as it was before TLS.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from gateway.cli.main import main
from gateway.transport import wire


def tapped(folder: Path) -> list[str]:
    """Return the program to serve with."""
    return [sys.executable, "-m", "tests.support.tap", str(folder)]


def listen(folder: Path) -> None:
    """Copy each frame to a file as it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    name = Path(os.environ["CHAOTIAN_HOME"]).name
    file = (folder / f"{name}-{os.getpid()}").open("ab", buffering=0)
    plain = wire.Wire.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        plain(self, *args, **options)
        write = self._write

        async def heard(frame: Any) -> None:
            file.write(frame.SerializeToString())
            await write(frame)

        self._write = heard

    wire.Wire.__init__ = init  # type: ignore[method-assign]


if __name__ == "__main__":
    listen(Path(sys.argv[1]))
    main(sys.argv[2:])
