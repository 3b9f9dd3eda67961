"""The audit log: appended in the transaction that does the thing, published as C2SP tiles, checked offline.

events.py  EventType, Event(type, parties, grant, exchange, payload), Leaf
log.py     AuditLog(database, identity, folder, clock=): .append(connection, event) -> index, .append_many(...),
           .materialise() -> Checkpoint, .check_start(), .head(), .events(...), .disclose(indices), .prove(index)
verify.py  verify_copy(path, key, known=, disclosure=) -> Report
export.py  export_log(log folder, target): a consistent copy while the log grows
local.py   register_audit(local, log): methods audit.show, audit.publish, audit.disclose
note.py    Checkpoint, NoteKey, sign_note, open_note (c2sp.org/signed-note, c2sp.org/tlog-checkpoint)
merkle.py  RFC 9162 hashes and proofs; tiles.py  c2sp.org/tlog-tiles layout
"""
