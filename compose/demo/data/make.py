"""Make the demo's files from the SBA sample: `python compose/demo/data/make.py SBA_CASE.csv.gz`.

The source is described in README.md beside this file. Columns that tell the outcome are left out, sparse codes are
merged into levels that hold enough loans, and loans are split by lender: the four largest, and all others as test set.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE_SHA256 = "b765e855c7fd05d302251c1829505df4bc205b79d2d7905741cf6a53a67817ae"  # of the unpacked CSV
LENDERS = {
    "BANK OF AMERICA NATL ASSOC": "bank-of-america",
    "WELLS FARGO BANK NATL ASSOC": "wells-fargo",
    "U.S. BANK NATIONAL ASSOCIATION": "us-bank",
    "CAPITAL ONE NATL ASSOC": "capital-one",
}
HEADER = [
    "LoanNr_ChkDgt",
    "ApprovalDate",
    "GrAppv",
    "SBA_Appv",
    "NoEmp",
    "RetainedJob",
    "New",
    "RevLineCr",
    "UrbanRural",
    "Created",
    "Portion",
    "Sector",
    "Default",
]


def sector(naics: str) -> str:
    """Return the branch of NAICS 53: offices of agents, other real-estate services, leasing (of land and of goods)."""
    if naics == "531210":
        return "agents"
    return "services" if naics.startswith("5313") else "leasing"


def row_of(loan: dict[str, str]) -> list[str]:
    """Return the demo's row of one loan."""
    return [
        loan["LoanNr_ChkDgt"],
        loan["ApprovalDate"],
        loan["GrAppv"],
        loan["SBA_Appv"],
        loan["NoEmp"],
        loan["RetainedJob"],
        "new" if loan["New"] == "1" else "existing",
        {"Y": "yes", "N": "no"}.get(loan["RevLineCr"], "other"),
        "urban" if loan["UrbanRural"] == "1" else "other",
        "none" if loan["CreateJob"] == "0" else "some",
        "half" if float(loan["Portion"]) == 0.5 else "other",
        sector(loan["NAICS"]),
        loan["Default"],
    ]


def loans(path: Path) -> Iterator[dict[str, str]]:
    """Return the loans of the source, after checking that it is the one the README names."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SOURCE_SHA256:
        sys.exit(f"{path} is not the file this script was written for (its SHA-256 differs)")
    yield from csv.DictReader(io.StringIO(data.decode()))


def main(source: str) -> None:
    """Write the five files beside this script."""
    here = Path(__file__).parent
    parts: dict[str, list[list[str]]] = {name: [] for name in (*LENDERS.values(), "others")}
    for loan in loans(Path(source)):
        parts[LENDERS.get(loan["Bank"], "others")].append(row_of(loan))
    for name, rows in parts.items():
        with (here / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            writer.writerows(rows)
        print(f"{name}.csv: {len(rows)} loans")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python compose/demo/data/make.py SBA_CASE.csv.gz")
    main(sys.argv[1])
