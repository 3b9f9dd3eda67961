"""The node's audit log: appended inside the transaction that does the thing, published as signed tiles.

The database is the truth. `materialise` brings HOME/log up to it in this order: bundles and tiles, their
directories, then the checkpoint by one rename. A crash leaves an older checkpoint with all it needs; the next
`materialise` goes on from it. A database that is older than a published checkpoint is a restored backup, and one
that does not continue it a fork: both are LOG_INVALID, before anything is signed.
"""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Connection, bindparam, insert, select, update

from federation.errors import ChaotianError
from federation.primitives.entropy import Entropy, SystemEntropy
from federation.primitives.signing import Signer
from gateway.audit.events import (
    MAX_PARTIES,
    SALT_BYTES,
    Event,
    EventType,
    Leaf,
    commit,
    opening_of,
    payload_bytes,
    pseudonym_of,
)
from gateway.audit.merkle import Frontier, consistency_proof, inclusion_proof, leaf_hash
from gateway.audit.note import MAX_NOTE, Checkpoint, NoteKey
from gateway.audit.tiles import WIDTH, Levels, TileReader, TileWriter, encode_bundle, read_limited, tile_path
from gateway.storage.base import Database
from gateway.storage.hot import Hot
from gateway.storage.tables.audit import audit_head, audit_leaves

DISCLOSED_MOST = 10_000

# Built once: building a statement takes longer than running it. The lock changes nothing but takes the head's row; a
# caller that catches an error after it keeps a whole log.
_LOCK = Hot(
    update(audit_head)
    .where(audit_head.c.id == 1)
    .values(size=audit_head.c.size)
    .returning(audit_head.c.size, audit_head.c.frontier, audit_head.c.pseudonym_key)
)
_ADVANCE = Hot(update(audit_head).where(audit_head.c.id == 1).values(size=bindparam("to"), frontier=bindparam("edge")))
_LEAF = Hot(insert(audit_leaves), tuple(column.name for column in audit_leaves.columns))


class LogIdentity(Protocol):
    """Whose log it is: what `NodeIdentity` offers."""

    @property
    def space(self) -> str: ...
    @property
    def member(self) -> str: ...
    @property
    def signer(self) -> Signer: ...


def origin_of(space: str, member: str) -> str:
    """Return the origin line of a member's log."""
    return f"chaotian/{space}/{member}"


class AuditLog:
    """One member's append-only log. Safe to share between threads.

    Args:
        database: holds the leaves and what they commit to.
        identity: space, member and the signer of checkpoints.
        folder: where tiles and checkpoint go, HOME/log.
        clock: seconds since the epoch, UTC.
        entropy: source of salts and of the pseudonym key.
    """

    def __init__(
        self,
        database: Database,
        identity: LogIdentity,
        folder: Path,
        *,
        clock: Callable[[], float],
        entropy: Entropy | None = None,
    ) -> None:
        self._database, self._folder, self._clock = database, folder, clock
        self._signer = identity.signer
        self._entropy = entropy or SystemEntropy()
        self.key = NoteKey(origin_of(identity.space, identity.member), identity.signer.verifier)
        self._files = threading.Lock()
        self._names: dict[tuple[bytes, str], str] = {}

    def append(self, connection: Connection, event: Event) -> int:
        """Add one leaf in the caller's transaction and return its index (0 for the first)."""
        return self.append_many(connection, [event])[0]

    def append_many(self, connection: Connection, events: Sequence[Event]) -> range:
        """Add leaves in the caller's transaction, in order, and return their indices.

        The head's row is locked from here to the end of the transaction, so that indices have no gaps.

        Raises:
            ChaotianError: BAD_DOCUMENT or OVERSIZED where an event has no leaf.
        """
        row = _LOCK.first(connection)
        if row is None:
            size, frontier, key = 0, Frontier(), self._entropy.bytes(32)
            connection.execute(insert(audit_head).values(id=1, size=0, frontier=b"", pseudonym_key=key))
        else:
            size, key = row.size, row.pseudonym_key
            frontier = Frontier.decode(size, row.frontier)
        rows = []
        for position, event in enumerate(events, size):
            values, entry = self._leaf(event, key)
            frontier.append(leaf_hash(entry))
            rows.append({"position": position, "entry": entry, **values})
        for row in rows:  # once all of them are good
            _LEAF.all(connection, row)
        _ADVANCE.all(connection, {"to": frontier.size, "edge": frontier.encode()})
        return range(size, size + len(events))

    def _leaf(self, event: Event, key: bytes) -> tuple[dict[str, Any], bytes]:
        payload, salt = payload_bytes(event.payload), self._entropy.bytes(SALT_BYTES)
        if not isinstance(event.type, EventType) or len(event.parties) > MAX_PARTIES:
            raise ChaotianError("BAD_DOCUMENT", f"an event has a known type and at most {MAX_PARTIES} parties")
        parties = []
        for party in event.parties:
            if (key, party) not in self._names:
                if len(self._names) > 4096:
                    self._names.clear()
                self._names[key, party] = pseudonym_of(opening_of(key, party), party)
            parties.append(self._names[key, party])
        leaf = Leaf(
            event.type.value,
            int(self._clock() * 1000),
            tuple(parties),
            event.grant,
            event.exchange.hex(),
            commit(salt, payload),
        )
        values = {
            "type": leaf.type,
            "time": leaf.time,
            "grant_id": event.grant,
            "parties": json.dumps(event.parties, ensure_ascii=False),
            "payload": payload,
            "salt": salt,
        }
        return values, leaf.encode()

    def head(self) -> Checkpoint:
        """Return size and root of what is committed now (not signed)."""
        with self._database.read() as connection:
            frontier = self._frontier(connection)
        return Checkpoint(self.key.name, frontier.size, frontier.root())

    @staticmethod
    def _frontier(connection: Connection) -> Frontier:
        row = connection.execute(select(audit_head.c.size, audit_head.c.frontier)).one_or_none()
        return Frontier.decode(row.size, row.frontier) if row is not None else Frontier()

    def published(self) -> Checkpoint | None:
        """Return the checkpoint in the folder, if there is one.

        Raises:
            ChaotianError: SIGNATURE or LOG_INVALID where it is not this member's.
        """
        if not (self._folder / "checkpoint").exists():
            return None
        return Checkpoint.open(read_limited(self._folder / "checkpoint", MAX_NOTE), self.key)

    def check_start(self) -> None:
        """Refuse to go on from a database that the published checkpoint has left behind; brings the files up to date.

        Raises:
            ChaotianError: LOG_INVALID for a restored backup or a fork.
        """
        self.materialise()

    def materialise(self, *, rebuild: bool = False) -> Checkpoint:
        """Write the tiles of all committed leaves, then the signed checkpoint, and return it.

        Args:
            rebuild: write every file again from the database, not only the new ones.

        Raises:
            ChaotianError: LOG_INVALID where the database does not continue the published checkpoint; STORAGE.
        """
        with self._files, self._exclusive():
            old = self.published()
            with self._database.read() as connection:
                frontier = self._frontier(connection)
                if old is not None and old.size > frontier.size:
                    raise ChaotianError(
                        "LOG_INVALID",
                        f"a checkpoint over {old.size} leaves was published, but the database holds {frontier.size}: "
                        "it was restored from a backup",
                        hint="Do not serve from this database; bring back the newest state.",
                    )
                new = Checkpoint(self.key.name, frontier.size, frontier.root())
                if old == new and not rebuild:
                    return new
                levels = Levels() if rebuild or old is None else self._resume(old)
                self._write(connection, levels, old, frontier)
        return new

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep two processes from writing the same folder at once."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = (self._folder / ".lock").open("ab")
        except OSError as error:
            raise ChaotianError("STORAGE", f"the log's folder cannot be written: {error.strerror}") from None
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _resume(self, old: Checkpoint) -> Levels:
        """Return the rightmost tiles of the published tree; nothing where they do not lead to its root."""
        try:
            levels = TileReader(self._folder, old.size).levels()
        except ChaotianError:
            return Levels()
        return levels if levels.root() == old.root else Levels()

    def _write(self, connection: Connection, levels: Levels, old: Checkpoint | None, frontier: Frontier) -> None:
        start = levels.size
        writer = TileWriter(self._folder)
        full: list[str] = []
        bundle: list[bytes] = []
        found = select(audit_leaves.c.position, audit_leaves.c.entry).where(
            audit_leaves.c.position >= start - start % WIDTH, audit_leaves.c.position < frontier.size
        )
        rows = connection.execution_options(yield_per=WIDTH).execute(found.order_by(audit_leaves.c.position))
        known = list(levels.lists[0]) if start % WIDTH else []  # of the bundle that is written again
        expected, forked = start - start % WIDTH, False
        for position, entry in rows:
            forked = position != expected or (position < start and leaf_hash(entry) != known[position % WIDTH])
            expected += 1
            bundle.append(entry)
            if position >= start:
                for level, index, hashes in levels.append(leaf_hash(entry)):
                    full.append(tile_path(level, index))
                    writer.write(full[-1], b"".join(hashes))
                forked |= old is not None and levels.size == old.size and levels.root() != old.root
            if forked:
                break
            if len(bundle) == WIDTH:
                full.append(tile_path("entries", position // WIDTH))
                writer.write(full[-1], encode_bundle(bundle))
                bundle = []
        if forked or expected != frontier.size or levels.frontier().encode() != frontier.encode():
            raise ChaotianError("LOG_INVALID", "the leaves in the database do not continue the published checkpoint")
        for level, hashes in enumerate(levels.lists):
            if hashes:
                index = frontier.size // WIDTH ** (level + 1)
                writer.write(tile_path(level, index, len(hashes)), b"".join(hashes))
        if bundle:
            writer.write(tile_path("entries", frontier.size // WIDTH, len(bundle)), encode_bundle(bundle))
        writer.write("key", f"{self.key.encode()}\n".encode())
        writer.sync()
        checkpoint = Checkpoint(self.key.name, frontier.size, frontier.root())
        writer.write("checkpoint", checkpoint.sign(self._signer))
        writer.sync()
        writer.drop_partials(full)
        writer.close()

    def prove(self, index: int) -> tuple[Checkpoint, list[bytes]]:
        """Return the published checkpoint and the inclusion proof of leaf `index` in it."""
        checkpoint = self.materialise()
        return checkpoint, inclusion_proof(TileReader(self._folder, checkpoint.size).subtree, index, checkpoint.size)

    def prove_consistency(self, old: int) -> tuple[Checkpoint, list[bytes]]:
        """Return the published checkpoint and the proof that it extends the tree of `old` leaves."""
        checkpoint = self.materialise()
        return checkpoint, consistency_proof(TileReader(self._folder, checkpoint.size).subtree, old, checkpoint.size)

    def events(self, *, after: int = -1, limit: int = 100, type_: str = "", grant: str = "") -> list[dict[str, Any]]:
        """Return leaves with their payloads, newest last: the `limit` newest ones where `after` is below 0."""
        query = select(audit_leaves).limit(max(1, min(limit, 10_000)))
        if type_:
            query = query.where(audit_leaves.c.type == type_)
        if grant:
            query = query.where(audit_leaves.c.grant_id == grant)
        forward = after >= 0
        if forward:
            query = query.where(audit_leaves.c.position > after).order_by(audit_leaves.c.position)
        else:
            query = query.order_by(audit_leaves.c.position.desc())
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        found = [
            {
                "index": row.position,
                "type": row.type,
                "time": row.time / 1000,
                "parties": json.loads(row.parties),
                "grant": row.grant_id,
                "exchange": Leaf.decode(row.entry).exchange,
                "payload": json.loads(row.payload),
            }
            for row in rows
        ]
        return found if forward else found[::-1]

    def disclose(self, indices: Sequence[int], *, parties: bool = False) -> dict[str, Any]:
        """Return payloads and salts of leaves, for somebody who holds a copy of the log.

        Args:
            indices: which leaves, at most 10,000.
            parties: whether the names behind their pseudonyms are opened too (in every leaf where they stand).
        """
        if len(indices) > DISCLOSED_MOST:
            raise ChaotianError("OVERSIZED", f"at most {DISCLOSED_MOST} leaves can be disclosed at once")
        leaves: list[dict[str, Any]] = []
        names: dict[str, str] = {}
        with self._database.read() as connection:
            key = connection.execute(select(audit_head.c.pseudonym_key)).scalar_one_or_none() or b""
            for index in sorted(set(indices)):
                row = connection.execute(select(audit_leaves).where(audit_leaves.c.position == index)).one_or_none()
                if row is None:
                    raise ChaotianError("NOT_FOUND", f"the log has no leaf {index}")
                leaves.append({"index": index, "payload": json.loads(row.payload), "salt": row.salt.hex()})
                if parties:
                    names |= {party: opening_of(key, party).hex() for party in json.loads(row.parties)}
        return {"v": 1, "origin": self.key.name, "leaves": leaves, "parties": names}
