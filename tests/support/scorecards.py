"""Data and specifications for tests of the scorecard job."""

import csv
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd

from federation.learning.frame import Frame, ScorecardSpec

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "compose" / "demo"
DATA = ROOT / "tests" / "data"
BANKS = ("bank-of-america", "capital-one", "us-bank", "wells-fargo")


def demo_spec(**changes):
    """The demo's parameters."""
    document = tomllib.loads((DEMO / "features.toml").read_text())
    return ScorecardSpec.from_document({**document, **changes})


def demo_rows(name):
    """One lender's loans as text."""
    return pd.read_csv(DEMO / "data" / f"{name}.csv", dtype=str)


def frame_of(rows, spec, identifier):
    """A frame of text columns with the types of `spec`."""
    columns = {
        f.name: rows[f.name].astype(float).to_numpy() if f.type == "numeric" else rows[f.name].to_numpy(dtype=object)
        for f in spec.features
    }
    columns[spec.label] = rows[spec.label].astype(float).to_numpy()
    return Frame(rows[identifier].tolist(), columns)


def demo_frames(spec):
    """The four lenders' frames."""
    return {name: frame_of(demo_rows(name), spec, "LoanNr_ChkDgt") for name in BANKS}


def credit_rows(name):
    """One bank's part (or `test`) of the default_credit sample, as text."""
    return pd.read_csv(DATA / f"default_credit_{name}.csv", dtype=str)


def make_frame(rows, *, seed=1, shift=0.0, features=3, levels=("a", "b", "c"), weights=(0.6, 0.3, 0.1)):
    """Made-up loans: numeric x0.. and one category, with an outcome that depends on them."""
    random = np.random.default_rng(seed)
    x = random.normal(shift, 1.0, (rows, features))
    category = random.choice(levels, size=rows, p=weights)
    logit = x @ np.linspace(0.8, -0.5, features) + (category == levels[1]) * 0.7 - 0.4
    label = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(float)
    columns = {f"x{i}": x[:, i] for i in range(features)}
    return Frame([f"{seed}-{i}" for i in range(rows)], {**columns, "kind": category.astype(object), "bad": label})


def made_spec(features=3, levels=("a", "b", "c"), **changes):
    """The parameters that fit `make_frame`."""
    listed = [{"name": f"x{i}", "type": "numeric"} for i in range(features)]
    listed.append({"name": "kind", "type": "category", "levels": list(levels)})
    return ScorecardSpec.from_document({"label": "bad", "features": listed, "holdout": 0.0, "penalty": 0.0, **changes})


def table_of(frames, mask=None):
    """Pooled rows of frames as a data frame, with text categories."""
    parts = []
    for name, frame in frames.items():
        part = pd.DataFrame(dict(frame.columns))
        parts.append(part if mask is None else part[mask[name]])
    return pd.concat(parts, ignore_index=True)


def write_csv(path, header, rows):
    """Write a CSV and return its path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path
