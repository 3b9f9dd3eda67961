"""The other side of a federation, for a notebook: a platform and three lenders, each a process with its own home.

What this module does, people at those lenders do in earnest: load their loans, compare fingerprints, sign grants, look
at jobs and accept them. Everything goes over TLS between real nodes on this machine; homes lie in a private folder that
is removed at the end.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from pathlib import Path

import pandas as pd

from gateway.client import ChaotianError, Client, Job, connect
from gateway.lab.processes import Space

ROOT = Path(__file__).resolve().parents[1]
LOANS = ROOT / "compose" / "demo" / "data"
ME, OTHERS = "capital-one", ("bank-of-america", "us-bank", "wells-fargo")
IDENTIFIER = "LoanNr_ChkDgt"


def loans(member: str) -> pd.DataFrame:
    """Return the loans of a lender: those it has closed, with their outcome."""
    return pd.read_csv(LOANS / f"{member}.csv", dtype={IDENTIFIER: str})


def new_loans(member: str) -> pd.DataFrame:
    """Return later loans of a lender to measure on: here every fourth of 1,268 loans of 150 other banks."""
    members = (ME, *OTHERS)
    return loans("others").iloc[members.index(member) :: len(members)]


class Neighbours:
    """A space with a platform and four lenders; the first is yours.

    Attributes:
        home: the home folder of your node.
        fingerprints: of all lenders, as each reads it off its own node.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="chaotian-notebook-"))  # mode 0700
        self._space = Space(self._folder / "space", "california")
        atexit.register(self.stop)
        self._space.start_platform()
        self._space.each(lambda name: self._space.add(name, "bank", "San Francisco"), (ME, *OTHERS))
        self._space.each(self._space.serve, self._space.members.values())
        self.home = self._space.members[ME].home
        self.fingerprints = {
            name: self._space.json(member, "node", "show")["fingerprint"]
            for name, member in self._space.members.items()
        }
        self._each(self._approve)

    def load(self, schema: dict) -> None:
        """The other lenders describe their tables by the same schema, and load them."""
        for name in OTHERS:
            data = Client(self._space.members[name].home).data
            data.add("loans", loans(name), schema, progress=False)
            data.add("new-loans", new_loans(name), schema, progress=False)

    def grant(self, *documents: dict) -> None:
        """The other lenders sign grants for you and send them."""
        self._each(lambda client: [client.grants.propose(document) for document in documents])

    def accept(self, job: Job) -> None:
        """The other lenders look at a job and accept it."""
        self._each(lambda client: client.jobs.get(job.id).accept())

    def stop(self) -> None:
        """Stop all processes and remove their homes."""
        self._space.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _each(self, action) -> None:
        for name in OTHERS:
            action(connect(self._space.members[name].home))

    def _approve(self, client: Client) -> None:
        me = client.status()["member"]
        for name, fingerprint in self.fingerprints.items():
            if name != me:
                _arrived(lambda name=name, fingerprint=fingerprint: client.members.approve(name, fingerprint))


def _arrived(action, seconds: float = 30.0) -> None:
    """Do `action`, again while what it needs is still on its way to the node."""
    end = time.monotonic() + seconds
    while True:
        try:
            action()
            return
        except ChaotianError as error:
            if error.code != "NOT_FOUND" or time.monotonic() > end:
                raise
            time.sleep(0.2)
