"""What the demo checks by other means than the product's own: a pooled solution, and a search for what leaked."""

from __future__ import annotations

import tomllib
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score

from bench.pooled import PooledScorecard
from compose.canary import Canary, Scan, patterns
from compose.space import Space
from federation.learning.frame import Frame, ScorecardSpec
from federation.learning.scorecard import Scorecard
from federation.primitives import fixed_point
from federation.primitives.entropy import SystemEntropy
from federation.secure_sum import coordinator as coordinator_module
from federation.secure_sum import member as member_module
from federation.secure_sum import transcript as transcript_module
from federation.secure_sum.coordinator import CoordinatorRound
from federation.secure_sum.local import LocalFederation

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"
ID, LABEL = "LoanNr_ChkDgt", "Default"


def job_parameters() -> dict[str, Any]:
    """Return what `features.toml` says."""
    return tomllib.loads((HERE / "features.toml").read_text())


def features() -> list[dict[str, Any]]:
    """Return the job's features as documents."""
    return list(job_parameters()["features"])


def loans(bank: str) -> pd.DataFrame:
    """Return a bank's loans."""
    return pd.read_csv(DATA / f"{bank}.csv")


def pooled(trained: list[str], counted: list[str]) -> PooledScorecard:
    """Return the independent solution from pooled loans.

    Args:
        trained: banks whose loans the last rounds held.
        counted: banks that took part in the first rounds, which fixed means, deviations and merging.
    """
    parameters = job_parameters()
    return PooledScorecard(
        pd.concat([loans(bank) for bank in trained]),
        label=LABEL,
        features=parameters["features"],
        penalty=parameters["penalty"],
        constants=pd.concat([loans(bank) for bank in counted]),
    )


def separation(label: NDArray[Any], score: NDArray[np.float64]) -> dict[str, float]:
    """Return AUC and KS by scikit-learn and SciPy, not by the product."""
    return {
        "auc": float(roc_auc_score(label, score)),
        "ks": float(ks_2samp(score[label == 1], score[label == 0]).statistic),
    }


def program(bank: str, members: int) -> Scorecard:
    """Return the bank's program as its node makes it."""
    parameters = job_parameters()
    known = {"label", "features", "penalty", "holdout", "seed", "max_rounds"}
    spec = ScorecardSpec.from_document({key: value for key, value in parameters.items() if key in known})
    rows = loans(bank)
    columns = {name: rows[name].to_numpy() for name in spec.columns}
    return Scorecard(spec, Frame([str(value) for value in rows[ID]], columns), members=members)


def wanted(banks: list[str]) -> dict[str, dict[str, bytes]]:
    """Return by bank what must not be found outside it: loan numbers, and its unmasked vectors of two rounds.

    The vectors are those of the moments and of the first Newton step, where the sums have many digits; the amounts of
    single loans are round numbers that stand in a gigabyte by accident (the tests plant some that are not).
    """
    programs = {bank: program(bank, len(banks)) for bank in banks}
    federation = LocalFederation(programs, SystemEntropy())
    federation.run_round(federation.plan(1, banks))
    sums: dict[str, list[bytes]] = {bank: [] for bank in banks}
    for round_ in (2, 3):
        for bank, own in programs.items():
            sums[bank] += [value.tobytes() for value in fixed_point.encode(own.layout(), own.local())]
        federation.run_round(federation.plan(round_, banks))
    out = {}
    for bank in banks:
        numbers = [str(value) for value in loans(bank)[ID].sample(12, random_state=1)]
        found = patterns(numbers, vectors=sums[bank])
        out[bank] = {f"{bank}: {name}": raw for name, raw in found.items()}
    return out


def canary(here: Space, out: Path) -> dict[str, int]:
    """Search for every bank's values wherever they must not be, and in the controls where they must be.

    What was found, by place and pattern, goes to `OUT/canary.txt`; values do not.
    """
    scan, control = Scan(), Scan()
    banks = list(here.members)
    values = wanted(banks)
    for place in (here.platform, *here.members.values()):
        look = Canary({name: raw for bank in banks if bank != place.name for name, raw in values[bank].items()})
        look.folder(place.home, scan)
        for log in place.logs:
            look.folder(log, scan)
            look.folder(log.with_suffix(".out"), scan)
        if place.process is not None and place.process.poll() is None:
            look.process(place.pid, scan)
    everything = Canary({name: raw for bank in banks for name, raw in values[bank].items()})
    everything.folder(out / "logs", scan)
    for bank in here.members.values():
        Canary(values[bank.name]).folder(bank.home, control)
    everything.data("a run with the masks off", unmasked(banks), control)
    lines = [f"{kind}\t{where}\t{name}" for kind, each in (("found", scan), ("control", control))
             for where, name in sorted(each.hits)]  # fmt: skip
    (out / "canary.txt").write_text("\n".join(lines) + "\n")
    return {"bytes_searched": scan.searched, "found": scan.found, "control_found": control.found}


def unmasked(banks: list[str]) -> bytes:
    """Return all messages of three rounds among the same banks with the masks taken out."""
    programs = {name: program(name, len(banks)) for name in banks}
    federation = LocalFederation(programs, SystemEntropy())
    sent: list[bytes] = []
    real_reply = CoordinatorRound.reply

    def overhear(self: CoordinatorRound, member: str, attempt: int, stage: str, reply: bytes) -> Any:
        sent.append(bytes(reply))
        return real_reply(self, member, attempt, stage, reply)

    with ExitStack() as without:
        for module in (member_module, coordinator_module, transcript_module):
            without.enter_context(patch.object(module, "add_streams", lambda vector, streams: None))
        without.enter_context(patch.object(CoordinatorRound, "reply", overhear))
        for round_ in (1, 2, 3):
            federation.run_round(federation.plan(round_, tuple(programs)))
    return b"".join(sent)
