"""Writes log.json: `python -m tests.vectors.make_log_vectors`. Fixed keys, no randomness."""

from __future__ import annotations

import json
from pathlib import Path

from federation.primitives.signing import Signer
from gateway.audit.events import Leaf, commit, opening_of, pseudonym_of
from gateway.audit.merkle import consistency_proof, inclusion_proof, leaf_hash, subtree_of, tree_root
from gateway.audit.note import Checkpoint, NoteKey, sign_note

# The eight leaves of the test vectors that came with RFC 6962's reference implementation.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
FILE = Path(__file__).with_name("log.json")


def build() -> dict[str, object]:
    """Return all vectors."""
    hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES]
    read = subtree_of(hashes)
    roots = [tree_root(hashes[:size]) for size in range(len(hashes) + 1)]
    signer = Signer(bytes(range(32)))
    origin = "chaotian/vectors/bank-a"
    note = Checkpoint(origin, 8, roots[8]).sign(signer).decode()
    salt, payload = bytes(range(32)), b'{"round":1}'
    opening = opening_of(b"k" * 32, "bank-b")
    leaf = Leaf("round.released", 1_800_000_000_000, (pseudonym_of(opening, "bank-b"),), "ab" * 32, "cd" * 32,
                commit(salt, payload))  # fmt: skip
    entry = leaf.encode().decode()
    lines = note.split("\n")
    return {
        "leaves": LEAVES,
        "roots": [root.hex() for root in roots],
        "inclusion": [
            {"index": index, "size": size, "proof": [part.hex() for part in inclusion_proof(read, index, size)]}
            for size in range(1, 9)
            for index in range(size)
        ],
        "consistency": [
            {"old": old, "new": new, "proof": [part.hex() for part in consistency_proof(read, old, new)]}
            for new in range(1, 9)
            for old in range(1, new + 1)
        ],
        "key": NoteKey(origin, signer.verifier).encode(),
        "checkpoint": note,
        "leaf": {
            "entry": entry,
            "salt": salt.hex(),
            "payload": payload.decode(),
            "opening": opening.hex(),
            "party": "bank-b",
        },
        "bad_notes": {
            "empty": "",
            "no_signature": "\n".join(lines[:3]) + "\n\n",
            "no_blank_line": note.replace("\n\n", "\n"),
            "size_changed": note.replace("\n8\n", "\n9\n"),
            "size_leading_zero": sign_note(f"{origin}\n08\n{lines[2]}\n", origin, signer).decode(),
            "size_negative": sign_note(f"{origin}\n-8\n{lines[2]}\n", origin, signer).decode(),
            "size_other_digits": sign_note(f"{origin}\n٨\n{lines[2]}\n", origin, signer).decode(),
            "root_short": sign_note(f"{origin}\n8\nAAAA\n", origin, signer).decode(),
            "root_stray_bits": sign_note(
                f"{origin}\n8\n{lines[2][:-2]}{chr(ord(lines[2][-2]) + 1)}=\n", origin, signer
            ).decode(),
            "extension_line": sign_note(f"{origin}\n8\n{lines[2]}\nmore\n", origin, signer).decode(),
            "other_origin": sign_note(f"chaotian/vectors/bank-b\n8\n{lines[2]}\n", origin, signer).decode(),
            "other_signer": Checkpoint(origin, 8, roots[8]).sign(Signer(b"\x07" * 32)).decode(),
            "other_name": note.replace("— chaotian/vectors/bank-a", "— chaotian/vectors/bank-b"),
            "hyphen_for_dash": note.replace("—", "-"),
            "carriage_return": note.replace("\n", "\r\n"),
            "no_last_newline": note[:-1],
            "signature_cut": note[:-6] + "\n",
        },
        "bad_leaves": {
            "empty": "",
            "spaces": entry.replace(",", ", "),
            "extra_field": entry.replace('"v":1', '"v":1,"w":1'),
            "missing_field": entry.replace('"exchange":"' + "cd" * 32 + '",', ""),
            "doubled_key": entry.replace('"v":1', '"v":1,"v":1'),
            "other_version": entry.replace('"v":1', '"v":2'),
            "time_is_text": entry.replace("1800000000000", '"1800000000000"'),
            "time_is_fraction": entry.replace("1800000000000", "1800000000000.5"),
            "time_negative": entry.replace("1800000000000", "-1"),
            "upper_case_hex": entry.replace("abab", "ABAB"),
            "short_commitment": entry.replace(leaf.commitment, leaf.commitment[:-2]),
            "type_unicode": entry.replace("round.released", "rοund.released"),
            "escaped": entry.replace("round.released", "r\\u006fund.released"),
            "parties_is_text": entry.replace("[", "").replace("]", ""),
        },
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(build(), indent=1, ensure_ascii=False) + "\n")
