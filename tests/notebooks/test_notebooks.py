"""The notebooks run from top to bottom, without the network, and are kept without outputs."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
CELL_SECONDS = 240

# Runs in the kernel before anything else.
LOOPBACK_ONLY = """
import socket as _socket


class _Loopback(_socket.socket):
    def connect(self, address):
        if self.family != _socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise PermissionError(f"a notebook reached for {address[0]}")
        return super().connect(address)


_socket.socket = _Loopback
"""


@pytest.fixture
def folders(monkeypatch):
    """Settings and sockets of the kernel's own, under a short path: Unix sockets lie there."""
    root = Path(tempfile.mkdtemp(prefix="nb-"))
    startup = root / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-loopback-only.py").write_text(LOOPBACK_ONLY)
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        folder = root / name.removesuffix("DIR").strip("_").lower()
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv(name, str(folder))
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    yield root
    shutil.rmtree(root, ignore_errors=True)


def test_there_are_notebooks() -> None:
    assert {"csv-to-scorecard", "joining-a-federation"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_kept_without_outputs(name: str) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    for cell in notebook.cells:
        assert not cell.metadata, cell.id
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None, cell.id


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_runs_from_top_to_bottom(name: str, folders: Path) -> None:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    guard = nbformat.v4.new_code_cell(
        "try:\n    _socket.create_connection(('192.0.2.1', 80), timeout=1)\n    guarded = False\n"
        "except PermissionError:\n    guarded = True\nprint('guarded', guarded)"
    )
    notebook.cells.insert(0, guard)
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(folders / "kernel"))
    place = {"metadata": {"path": str(NOTEBOOKS)}}
    NotebookClient(notebook, km=kernel, timeout=CELL_SECONDS, resources=place).execute()  # raises where a cell does

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs[0].text == "guarded True\n"
    assert not [output for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    pages = [output.data.get("text/html", "") for output in outputs if "data" in output]
    assert sum("<svg" in page for page in pages) >= 2 and sum("<table" in page for page in pages) >= 5
