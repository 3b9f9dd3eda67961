"""Merkle trees, notes and leaves against published and recorded vectors."""

from __future__ import annotations

import json

import pytest

from federation.errors import ChaotianError
from gateway.audit.events import Leaf, commit, pseudonym_of
from gateway.audit.merkle import leaf_hash, tree_root, verify_consistency, verify_inclusion
from gateway.audit.note import Checkpoint, NoteKey, open_note
from tests.vectors.make_log_vectors import FILE, LEAVES, build

VECTORS = json.loads(FILE.read_text())

# Published with the reference implementation of RFC 6962 (the hashing is that of RFC 9162).
PUBLISHED_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# The well-known note of Go's golang.org/x/mod/sumdb/note, signed by Go's implementation.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_SIGNATURE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_the_file_is_what_the_script_writes() -> None:
    assert build() == VECTORS


def test_published_roots() -> None:
    hashes = [leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES]
    assert [tree_root(hashes[:size]).hex() for size in range(9)] == PUBLISHED_ROOTS == VECTORS["roots"]


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda c: f"{c['index']}of{c['size']}")
def test_inclusion(case: dict) -> None:
    leaf = leaf_hash(bytes.fromhex(LEAVES[case["index"]]))
    proof = [bytes.fromhex(part) for part in case["proof"]]
    root = bytes.fromhex(PUBLISHED_ROOTS[case["size"]])
    verify_inclusion(leaf, case["index"], case["size"], proof, root)
    bad = [
        (leaf_hash(b"other"), case["index"], case["size"], proof, root),
        (leaf, case["index"], case["size"], proof, leaf_hash(b"other")),
        (leaf, case["index"], case["size"], [*proof, root], root),
        (leaf, case["size"], case["size"], proof, root),
        (leaf, -1, case["size"], proof, root),
        (leaf, case["index"], case["size"], [*proof[:-1], proof[-1][:31]] if proof else [b""], root),
    ]
    if proof:
        bad += [
            (leaf, case["index"], case["size"], proof[1:], root),
            (leaf, case["index"] ^ 1, case["size"], proof, root),
            (leaf, case["index"], case["size"], [leaf_hash(b"x"), *proof[1:]], root),
        ]
    for arguments in bad:
        with pytest.raises(ChaotianError, match="LOG_INVALID"):
            verify_inclusion(*arguments)


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda c: f"{c['old']}to{c['new']}")
def test_consistency(case: dict) -> None:
    old, new = case["old"], case["new"]
    proof = [bytes.fromhex(part) for part in case["proof"]]
    before, after = bytes.fromhex(PUBLISHED_ROOTS[old]), bytes.fromhex(PUBLISHED_ROOTS[new])
    verify_consistency(old, before, new, after, proof)
    bad = [
        (old, leaf_hash(b"x"), new, after, proof),
        (old, before, new, leaf_hash(b"x"), proof),
        (new + 1, before, new, after, proof),
        (old, before, new, after, [*proof, before]),
    ]
    if proof:
        bad += [(old, before, new, after, proof[:-1]), (old, before, new, after, [leaf_hash(b"x"), *proof[1:]])]
    for arguments in bad:
        with pytest.raises(ChaotianError, match="LOG_INVALID"):
            verify_consistency(*arguments)


def test_a_note_of_another_implementation() -> None:
    key = NoteKey.decode(GO_KEY)
    assert key.encode() == GO_KEY
    assert open_note(f"{GO_TEXT}\n{GO_SIGNATURE}".encode(), key) == GO_TEXT
    with pytest.raises(ChaotianError, match="SIGNATURE"):
        open_note(f"{GO_TEXT.replace('answer', 'Answer')}\n{GO_SIGNATURE}".encode(), key)


def test_checkpoint_vector() -> None:
    key = NoteKey.decode(VECTORS["key"])
    checkpoint = Checkpoint.open(VECTORS["checkpoint"].encode(), key)
    assert (checkpoint.size, checkpoint.root.hex()) == (8, PUBLISHED_ROOTS[8])
    # Signatures of unknown keys are ignored, before and after the known one.
    head, _, signature = VECTORS["checkpoint"].partition("\n\n")
    witness = "— witness.example AAAAAQID\n"
    for lines in (witness + signature, signature + witness):
        assert Checkpoint.open(f"{head}\n\n{lines}".encode(), key) == checkpoint


@pytest.mark.parametrize("name", sorted(VECTORS["bad_notes"]))
def test_bad_notes(name: str) -> None:
    with pytest.raises(ChaotianError) as caught:
        Checkpoint.open(VECTORS["bad_notes"][name].encode(), NoteKey.decode(VECTORS["key"]))
    assert caught.value.code in ("LOG_INVALID", "SIGNATURE")


def test_leaf_vector() -> None:
    vector = VECTORS["leaf"]
    leaf = Leaf.decode(vector["entry"].encode())
    assert leaf.encode().decode() == vector["entry"]
    assert commit(bytes.fromhex(vector["salt"]), vector["payload"].encode()) == leaf.commitment
    assert leaf.parties == (pseudonym_of(bytes.fromhex(vector["opening"]), vector["party"]),)


@pytest.mark.parametrize("name", sorted(VECTORS["bad_leaves"]))
def test_bad_leaves(name: str) -> None:
    assert VECTORS["bad_leaves"][name] != VECTORS["leaf"]["entry"]
    with pytest.raises(ChaotianError, match="LOG_INVALID"):
        Leaf.decode(VECTORS["bad_leaves"][name].encode())
