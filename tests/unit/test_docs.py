"""Documents are true: commands parse, links lead somewhere, TOML is read, codes are in the catalogue."""

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest
import typer

from federation.errors import CATALOGUE
from federation.primitives.entropy import SystemEntropy
from gateway.cli.main import GROUPS
from gateway.datasets.schema import parse_schema
from gateway.grants.catalogue import STEPS
from gateway.grants.proposal import Surroundings, grant_from_toml
from gateway.jobs.document import from_written
from gateway.jobs.kinds import KINDS
from gateway.jobs.writing import Lookups, Training
from parties.bank.features import catalogue

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text()) if kind == language]


def commands() -> list[tuple[Path, str]]:
    found = []
    for page in PAGES:
        for block in blocks(page, "sh"):
            found += [(page, line.strip()) for line in block.splitlines() if line.strip()]
        inline = re.findall(r"`(chaotian [a-z]+ [a-z]+[^`]*|make [a-z-]+[^`]*)`", page.read_text())
        found += [(page, line.replace("\n", " ")) for line in inline]
    return found


def parses(words: list[str]) -> None:
    """Take `words` apart as the command line does, without running anything."""
    if words[0] in ("--version", "--help"):
        return
    group = typer.main.get_command(import_module(f"gateway.cli.{words[0]}").app)
    assert words[0] in GROUPS
    verbs = words[1].split("|") if isinstance(group, click.Group) else [words[0]]  # `job show|accept` stands for each
    for verb in verbs:
        command = group.commands[verb] if isinstance(group, click.Group) else group
        words_left = words[2:] if isinstance(group, click.Group) else words[1:]
        words_left = [word for word in words_left if not re.fullmatch(r"\[.*\]|…", word)]
        context = click.Context(command, info_name=verb, resilient_parsing=True)
        command.parse_args(context, words_left)
        if len(words) > 2 or not any(isinstance(p, click.Argument) and p.required for p in command.params):
            unknown = [w for w in context.args if w.startswith("-")]
            options = {name for parameter in command.params for name in parameter.opts}
            assert not unknown and {w.split("=")[0] for w in words_left if w.startswith("--")} <= options | {"--debug"}


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda value: str(value)[-60:])
def test_commands_parse(page: Path, line: str) -> None:
    words = shlex.split(line, comments=True)
    if not words:
        return
    if words[0] == "make":
        targets = [word for word in words[1:] if not re.fullmatch(r"(PYTHON|NAME)=\S+", word)]
        assert targets and set(targets) <= TARGETS
    elif words[0] in ("chaotian", ".venv/bin/chaotian"):
        parses(words[1:])
    elif words[0] in ("export", "head", "chmod", "python", "."):
        return
    else:
        pytest.fail(f"{page.name}: nobody tests the command {line!r}")


def test_links_lead_somewhere() -> None:
    missing = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                missing.append((page.name, target))
    assert not missing


def test_what_the_banks_page_writes_fits_together() -> None:
    ledger_text, outcome_text, grant_text, job_text, evaluate_text = blocks(ROOT / "docs/users/bank.md", "toml")
    ledger, schema = (parse_schema(text.encode()) for text in (ledger_text, outcome_text))
    own = {"schema": schema.digest, "grade": 3}
    around = Surroundings("s", "bank-b", 0.0, lambda _member: ["0" * 64], {"loans": own}.get)
    grant = grant_from_toml(grant_text, around, SystemEntropy())
    job = from_written(tomllib.loads(job_text), space="s", proposer="bank-a", nonce="0" * 32, created=0)
    assert len(job.members) == 4 and (grant.owner, grant.grantee) == ("bank-b", job.proposer)
    assert grant.dataset.id == job.dataset and job.purpose in grant.purposes
    features = catalogue.plan([column.name for column in ledger.columns]).features
    described = {column.name for column in schema.columns} | {feature.name for feature in features}
    columns = set(job.plan.columns(None))
    assert columns <= described and columns <= set(grant.columns)
    assert all(grant.operation(operation) for operation in job.plan.operations())
    assert schema.label == job.params["label"]
    evaluate = tomllib.loads(evaluate_text.replace("JOB", "0" * 64))
    evaluate["params"] |= {"holdout": job.params["holdout"], "seed": job.params["seed"]}
    second = from_written(evaluate, space="s", proposer="bank-a", nonce="0" * 32, created=0)
    assert (second.members, second.dataset, second.purpose) == (job.members, job.dataset, job.purpose)
    assert all(grant.operation(operation) for operation in second.plan.operations())


def test_jobs_in_documents_are_read() -> None:
    lookups = Lookups(model=lambda _: Training("a" * 64, 0.2, "1"), edges=lambda _: {"amount": [1.0, 2.0]})
    kinds = set()
    for page in PAGES:
        for block in blocks(page, "toml"):
            written = tomllib.loads(block)
            if "kind" in written:
                given = {"space": "s", "proposer": "bank-a", "nonce": "0" * 32, "created": 0}
                kinds.add(from_written(written, **given, lookups=lookups).kind)
    assert kinds >= set(KINDS)


def test_every_kind_has_a_page_and_says_what_a_grant_needs() -> None:
    index = (ROOT / "docs/jobs/README.md").read_text()
    grants = (ROOT / "docs/grants.md").read_text()
    for kind in KINDS:
        assert f"[{kind}]({kind}.md)" in index
    for op, steps in STEPS.items():
        assert f"| `{op}` |" in grants and all(f"`{step}`" in grants for step in steps)


def test_error_codes_in_documents_are_in_the_catalogue() -> None:
    known = set(CATALOGUE)
    for page in PAGES:
        codes = set(re.findall(r"`([A-Z]{4,}(?:_[A-Z]+)+)`", page.read_text()))
        others = {code for code in codes - known if not _in_code(code)}  # environment variables and constants are
        assert not others, page.name


def _in_code(word: str) -> bool:
    grep = ["git", "grep", "-qwI", "-e", word, "--", "*.py", "Makefile"]
    return subprocess.run(grep, cwd=ROOT, check=False).returncode == 0


def test_every_code_that_is_raised_is_in_the_catalogue() -> None:
    raised = set()
    for room in ("federation", "gateway", "parties"):
        for path in (ROOT / room).rglob("*.py"):
            raised |= set(re.findall(r"ChaotianError\(\s*\"([A-Z_]+)\"", path.read_text()))
    assert raised and raised <= set(CATALOGUE)
    for code, entry in CATALOGUE.items():
        assert entry.cause.endswith(".") and entry.remedy.endswith("."), code


DISTRIBUTIONS = {
    "argon2": "argon2-cffi", "google": "protobuf", "grpc": "grpcio", "grpc_health": "grpcio-health-checking",
    "ibis": "ibis-framework", "nacl": "pynacl", "sklearn": "scikit-learn", "tomli_w": "tomli-w",
}  # fmt: skip


def test_what_the_product_imports_it_depends_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[\[<>=]", name)[0] for name in project["dependencies"]}
    imported = set()
    for room in ("federation", "gateway", "parties"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.add(node.module.split(".")[0])
    outside = imported - sys.stdlib_module_names - {"federation", "gateway", "parties", "protos"}
    assert {DISTRIBUTIONS.get(name, name) for name in outside} <= declared
