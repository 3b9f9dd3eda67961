"""One catalogue of errors: a stable code, its cause, its remedy, and whom it blames.

Every failure that a person can cause or meet is a `ChaotianError` whose code stands in `CATALOGUE`.
The text of an error says what was expected and what came; it never holds a secret, a raw value or a subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Blame(Enum):
    """Who has to act, which is also the exit status of the command line."""

    USE = 2  # the person who typed or wrote it
    POLICY = 3  # refused by a grant, a floor, a quota or a rule
    NETWORK = 4  # a peer is away, late or lost
    INTEGRITY = 5  # a peer or the platform sent something that cannot be right
    INTERNAL = 1  # anything else: ours


@dataclass(frozen=True)
class Entry:
    """One row of the catalogue."""

    blame: Blame
    cause: str
    remedy: str


CATALOGUE: dict[str, Entry] = {}


def define(code: str, blame: Blame, cause: str, remedy: str) -> None:
    """Add one code to the catalogue; a code is defined once and never changes its meaning."""
    if code in CATALOGUE:
        raise ValueError(f"error code {code} is defined twice")
    CATALOGUE[code] = Entry(blame, cause, remedy)


class ChaotianError(Exception):
    """A failure with a stable code.

    Args:
        code: a key of `CATALOGUE`.
        detail: what was expected and what came, in one sentence, free of secrets and subjects.
        hint: what to do next; the catalogue's remedy where left out.
        member: the member this failure names, where it names one.
    """

    def __init__(self, code: str, detail: str = "", *, hint: str = "", member: str = "") -> None:
        entry = CATALOGUE.get(code) or CATALOGUE["INTERNAL"]
        self.code = code if code in CATALOGUE else "INTERNAL"
        self.detail = detail or entry.cause
        self.hint = hint or entry.remedy
        self.member = member
        super().__init__(f"{self.code}: {self.detail}")

    @property
    def blame(self) -> Blame:
        """Who has to act."""
        return CATALOGUE[self.code].blame

    @property
    def exit_status(self) -> int:
        """The command line's exit status for this error (1 to 5)."""
        return self.blame.value

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook shows in place of a traceback: IPython asks exceptions for this."""
        return [f"{type(self).__name__}: {self.code}: {self.detail}", f"hint: {self.hint}"]


_U, _P, _N, _I, _X = Blame.USE, Blame.POLICY, Blame.NETWORK, Blame.INTEGRITY, Blame.INTERNAL

# fmt: off
for _code, _blame, _cause, _remedy in (
    # --- use -------------------------------------------------------------------------------------------
    ("USAGE", _U, "The command line was not understood.", "See `chaotian --help`."),
    ("CONFIG", _U, "A configuration file is missing or wrong.", "Correct the named key and try again."),
    ("NOT_FOUND", _U, "There is nothing of that name here.", "List what there is with the matching `list` verb."),
    ("EXISTS", _U, "That already exists and would be overwritten.", "Choose another name, or remove it first."),
    ("BAD_DOCUMENT", _U, "A document has an unknown, missing or wrong field.", "Correct the named field; unknown fields are refused on purpose."),
    ("PASSPHRASE", _U, "The keys of this node cannot be opened.", "Give the passphrase or key file the node was made with."),
    ("NODE_NOT_RUNNING", _U, "The node is not running, or its socket cannot be reached.", "Start it with `chaotian node serve` (or `platform serve`)."),
    ("JOB_STATE", _U, "The job is not in a state in which that can be done.", "See `chaotian job list`."),
    ("DATA_SOURCE", _U, "The data source cannot be read.", "Check the path, the format and the permissions."),
    ("DATA_COLUMN", _U, "A column is missing, doubled or unknown.", "Name columns exactly as in the file's header line."),
    ("DATA_TYPE", _U, "A value does not have its column's type.", "Correct the value in the named file, row and column."),
    ("DATA_DOMAIN", _U, "A value lies outside its column's range or is none of its levels.", "Correct the value in the named file, row and column, or the schema's domain."),
    ("DATA_KEY", _U, "A credit code or a loan number is not as it must be.", "Export the column as text, not by way of a spreadsheet, and correct the named rows."),
    ("DATA_MISSING", _U, "A value is missing where none may be.", "Fill it, or choose how missing values are treated."),
    ("DATA_DUPLICATE", _U, "The same identifier stands in two rows.", "Keep one row for each identifier."),
    ("FEW_VALUES", _U, "A numeric column has at most ten different values.", "Declare it as a category with its levels."),
    ("CONSTANT_FEATURE", _U, "A column has the same value in every pooled row.", "Leave the column out of the job."),
    ("SEPARABLE", _U, "The outcome is separated perfectly, so no finite optimum exists.", "Set a penalty above 0, or leave the separating column out."),
    ("SINGULAR", _U, "Columns of the job depend on each other linearly.", "Leave one of them out, or set a penalty above 0."),
    ("NOT_CONVERGED", _U, "The solver did not converge in the agreed number of rounds.", "Raise max_rounds or the penalty."),
    ("MODEL_MISSING", _U, "The model that a job names is not held by this member.", "Get its file from a member that holds it, compare its version, and add it: `chaotian model import FILE`."),
    ("ONE_CLASS", _U, "All pooled training rows have the same outcome.", "Bring rows of both outcomes."),
    ("NOT_ENFORCED", _U, "A grant asks for a rule that this version does not enforce.", "Leave the named field out, or upgrade: a rule is never accepted and then ignored."),
    ("APP_UNKNOWN", _U, "The app that a job names is not installed here, or is not the one that was agreed.", "Install the app with the digest that the job names; see `chaotian app list`."),
    ("APP_FAILED", _U, "An installed app failed, or answered with something else than arrays.", "Try the app on the same rows in the lab; its own log says more."),
    # --- policy ----------------------------------------------------------------------------------------
    ("NO_GRANT", _P, "No grant of this owner covers the request.", "Ask the owner for a grant: `chaotian grant propose`."),
    ("GRANT_DENIED", _P, "A clause of the grant refuses the request.", "See `chaotian grant explain` for the clause and what is left."),
    ("GRANT_REVOKED", _P, "The grant has been revoked.", "Ask the owner for a new grant."),
    ("GRANT_EXPIRED", _P, "The grant is not valid at this time.", "Ask the owner for a grant that is valid now."),
    ("QUOTA", _P, "The grant's quota is used up.", "Wait for the next period, or ask the owner for more."),
    ("NOT_ACCEPTED", _P, "The job has not been accepted by this member.", "Look at it with `chaotian job show`, then `chaotian job accept`."),
    ("NOT_APPROVED", _P, "A peer has not been approved by this node's owner.", "Compare its fingerprint, then `chaotian member approve`."),
    ("NOT_PERMITTED", _P, "This role may not use that service.", "Ask the operator which role it needs."),
    ("MIN_ROWS", _P, "Fewer rows than the floor allows.", "Bring more rows, or merge cells; floors are not lowered."),
    ("MIN_MEMBERS", _P, "Fewer members than the floor allows.", "Wait for more members, or propose a job with other members."),
    ("ROUND_SPENT", _P, "This round has been released already; it is never released twice.", "Go on with the next round, or propose a new job."),
    ("RELEASE_DIFFERENCE", _P, "Together with an earlier release, this one would single somebody out.", "Ask the exposed member for its exposure consent: `chaotian job consent`."),
    ("ROSTER_CHANGES", _P, "More members were lost in this job than the grant allows.", "Propose a new job."),
    ("FLOOR_LOST", _P, "After the loss of a member a cell may hold too few rows.", "Propose a job with fewer columns or with more members."),
    ("CANCELLED", _P, "The job was cancelled.", "Propose a new job if it is still wanted."),
    ("BUDGET", _P, "The privacy budget of the grant is used up.", "Propose fewer rounds or more noise, or ask the owner for a larger budget."),
    # --- peers and network -----------------------------------------------------------------------------
    ("PLATFORM_UNREACHABLE", _N, "The platform cannot be reached.", "Check the address and the network; the node keeps trying by itself."),
    ("PEER_UNREACHABLE", _N, "The member is not connected.", "Wait until it is back; `chaotian member list` shows who is."),
    ("DEADLINE", _N, "No answer came in time.", "Try again; if it repeats, look at the peer's log."),
    ("BACKPRESSURE", _N, "The queue to this member is full.", "Wait and try again."),
    ("LOST", _N, "The member no longer has the state this attempt needs.", "The round goes on without it in a new attempt."),
    ("TOO_FEW_MEMBERS", _N, "Too few members are left to go on.", "Bring the lost members back and propose a new job."),
    ("INVITATION", _N, "The invitation is unknown, expired or used.", "Ask the operator for a new one: `chaotian platform invite`."),
    ("CERT_REVOKED", _N, "The certificate of this member has been revoked.", "Ask the operator; enrol again with a new invitation."),
    ("CERT_EXPIRED", _N, "A certificate is not valid at this time.", "Check the clock; renew with `chaotian node renew`."),
    ("VERSION", _N, "The peers speak no version in common.", "Upgrade the older one."),
    # --- integrity -------------------------------------------------------------------------------------
    ("MALFORMED", _I, "A message does not have the form it must have.", "Keep the log and tell the operator; nothing was released."),
    ("OVERSIZED", _I, "A message is larger than allowed.", "Split it, or ask for a smaller result."),
    ("SIGNATURE", _I, "A signature does not verify.", "Do not trust the sender until this is explained; nothing was released."),
    ("REPLAY", _I, "A message came a second time or out of order.", "Nothing to do if it stays single; otherwise tell the operator."),
    ("DIRECTORY", _I, "The member directory is expired, older than known, or not signed as pinned.", "Ask the operator for the current directory."),
    ("WRONG_TERMS", _I, "The terms of this attempt differ from what this member agreed to.", "Nothing was released; tell the operator."),
    ("STATE_MISMATCH", _I, "Members have not derived the same state.", "Nothing was released; the transcript shows where they part."),
    ("WRONG_ARRAYS", _I, "Arrays were offered that do not follow from the last released total.", "Nothing was trained on them; tell the operator, or agree on noise."),
    ("SHARE_INVALID", _I, "A share does not open or does not match its commitment.", "The named sender is left out; tell the operator."),
    ("TRANSCRIPT", _I, "The reported total is not the sum of the signed inputs.", "The round is void; keep the transcript as proof."),
    ("UNVERIFIABLE", _I, "The transcript is too large to be added up again.", "Use smaller vectors, or agree on an unverified round in the terms."),
    ("OVERFLOW", _I, "A value lies outside the range the layout allows.", "Check the column's unit and range; values are refused, never clipped."),
    ("NOT_FINITE", _I, "A value is not a finite number.", "Find the NaN or infinity in the named column."),
    ("MODEL_HASH", _I, "A model does not have the version hash it states.", "Get the model again from whom it came; do not score with it."),
    ("LOG_INVALID", _I, "The log does not verify.", "Keep the copy; compare with the member's signed checkpoints."),
    ("STORAGE", _X, "The state could not be written.", "Check disk space and permissions; nothing was released."),
    ("INTERRUPTED", _X, "The command was interrupted before it was done.", "Run it again; what was not committed did not happen."),
    ("INTERNAL", _X, "An error that nobody foresaw.", "Run again with `--debug` and report it with the output."),
):
    define(_code, _blame, _cause, _remedy)
# fmt: on
