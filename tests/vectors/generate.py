"""Write test vectors: `python -m tests.vectors.generate secure-sum`.

A vector states inputs and outputs in hex, so that another implementation can be held against it. `bad_*` cases change
one field of a good message and say with which code, and blaming whom, it is refused. Sealing draws its own randomness,
so parcels differ each time the file is written; all else follows from the seed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from federation.primitives import fixed_point, masks, shamir
from federation.primitives.encoding import pack, pack_map, unpack, unpack_map
from federation.secure_sum import messages as m
from federation.secure_sum.local import LocalFederation
from federation.secure_sum.terms import STAGES, Claims, Field, Layout
from tests.support.entropy import SeededEntropy
from tests.support.programs import Adder

HERE = Path(__file__).resolve().parent
SEED, MEMBER = "vectors/secure-sum", "b"
VALUES = {"a": [1.5, -2.0], "b": [-0.25, 1000.0], "c": [3.0, 0.0]}


def federation() -> LocalFederation:
    """Return the federation of the vectors: three members, keys from the seed."""
    ours = LocalFederation({name: Adder(values, 2) for name, values in VALUES.items()}, SeededEntropy(SEED))
    for name, job in ours.members.items():
        job._entropy = SeededEntropy(f"{SEED}/{name}")  # its own, so that a member can be replayed alone
    return ours


def parts() -> dict[str, object]:
    """Return vectors of the building blocks, all of which follow from their inputs."""
    ours = federation()
    terms_hash, secret = bytes(range(32)), bytes(range(100, 132))
    fixed = []
    for ring, scale, bound in [(64, 16, 1 << 20), (32, 4, 1 << 10), (64, 32, 10**18), (32, 16, 10**12)]:
        layout = Layout(ring, (Field("x", 3, scale, bound),), 32)
        vector = fixed_point.encode(layout, {"x": [bound, -bound, "0.3"]})  # type: ignore[list-item]
        fixed.append({"layout": layout.document(), "values": [str(bound), str(-bound), "0.3"],
                      "slots": layout.slots, "vector": vector.tobytes().hex()})  # fmt: skip
    shares = shamir.split(secret, 3, 4, SeededEntropy("shamir"))
    return {
        "pack": [{"tag": tag, "fields": [f.hex() for f in fields], "bytes": pack(tag, fields).hex()}
                 for tag, fields in [("", []), ("t", [b""]), ("chaotian/x/v1", [b"ab", b"", b"c"])]],
        "derive": [{"secret": secret.hex(), "terms_hash": terms_hash.hex(), "label": label, "indices": indices,
                    "key": masks.derive(secret, terms_hash, label, indices).hex()}
                   for label, indices in [("self", [0]), ("pair", [0, 3]), ("group", [1, 2]), ("gk", [])]],
        "shamir": {"threshold": 3, "secret": secret.hex(), "shares": [share.hex() for share in shares]},
        "fixed_point": fixed,
        "claims": [{"members": n, "floor": f, "threshold": c.threshold, "curious": c.curious_colluding,
                    "active": c.active_colluding, "lost_at_unmask": c.lost_at_unmask, "one_total": c.one_total}
                   for n in range(3, 11) for f in (3, n) for c in [Claims.of(n, f)]],
        "identities": {name: ours.keys[name].public.hex() for name in VALUES},
    }  # fmt: skip


def record() -> list[dict[str, str]]:
    """Return one round as member b lived it: request and reply of each stage."""
    ours = federation()
    round_ = ours.coordinator(ours.plan(1, VALUES))
    queue, out = round_.begin(), []
    while queue:
        send = queue.pop(0)
        reply = ours.members[send.member].handle(send.stage, send.request)
        if send.member == MEMBER:
            out.append({"stage": send.stage, "request": send.request.hex(), "reply": reply.hex()})
        queue += round_.reply(send.member, send.attempt, send.stage, reply)
    return out


def _places(stage: str, request: bytes) -> dict[str, bytes]:
    """Return the fields of a request that must not change, by name: (name → the bytes as they stand in it)."""
    if stage == "advertise_keys":
        encoded, signature = unpack("terms", request, 2)
        document = json.loads(encoded)
        names = ("space", "job", "operation", "purpose", "state_hash", "result_to")
        fields = {f"terms_{name}": json.dumps(document[name]).encode()[1:-1] for name in names}
        return {**fields, "terms_fingerprint": document["roster"][0][1].encode(), "signature": signature}
    terms_hash, body = unpack("request", request, 2)
    out = {"terms_hash": terms_hash}
    if stage == "share_keys":
        inner, signature = unpack("advert", unpack_map(stage, body)["a"], 2)
        names = ("terms_hash", "member", "channel", "mask", "seed_commitment", "group_commitment", "last_result",
                 "state_hash", "layout_hash", "progress")  # fmt: skip
        fields = dict(zip(names, unpack(m.ADVERTISE, inner, 10), strict=True))
        del fields["terms_hash"]  # all zeros and repeats cannot be found by their bytes alone
        fields = {name: value for name, value in fields.items() if len(value) > 8 and value.strip(b"\x00")}
        out |= {f"advert_{name}": value for name, value in fields.items()} | {"advert_signature": signature}
    elif stage == "masked_input":
        names = ("sealed", "commitment", "signature")
        fields = dict(zip(names, unpack("parcel", unpack_map(stage, body)["a"], 3), strict=True))
        out |= {f"parcel_{name}": value for name, value in fields.items()}
    elif stage == "consistency":
        fields = dict(zip(("digest", "signature"), unpack("input", unpack_map(stage, body)["a"], 2), strict=True))
        out |= {f"input_{name}": value for name, value in fields.items()}
    elif stage == "unmask":
        out |= {f"statement_{name}": value for name, value in unpack_map(stage, body).items()}
    else:
        total, inputs, seeds = unpack("result", body, 3)
        out |= {"total": total, "input_a": unpack_map("inputs", inputs)["a"], "seed_c": unpack_map("seeds", seeds)["c"]}
    return out


def tampered(stages: list[dict[str, str]]) -> list[dict[str, object]]:
    """Return the bad cases: one byte of one field changed; what b answers to each is filled in by `replay`."""
    out: list[dict[str, object]] = []
    for entry in stages:
        request = bytes.fromhex(entry["request"])
        for name, value in _places(entry["stage"], request).items():
            at = request.index(value) + len(value) // 2
            out.append({"name": f"bad_{entry['stage']}_{name}", "stage": entry["stage"], "at": at, "xor": 1})
    return out


def patched(request: bytes, stage: str, own_parcel: bytes) -> bytes:
    """Return a recorded request with b's own parcel as b sealed it this time."""
    if stage != "masked_input":
        return request
    terms_hash, body = unpack("request", request, 2)
    parcels = unpack_map(stage, body)
    return pack("request", [terms_hash, pack_map(stage, {**parcels, MEMBER: own_parcel})])


def secure_sum() -> dict[str, object]:
    """Return the whole file."""
    from tests.vectors.replay import outcome_of

    stages = record()
    bad = tampered(stages)
    for case in bad:
        case["code"], case["member"] = outcome_of(stages, case)
    return {"seed": SEED, "member": MEMBER, "values": VALUES, **parts(), "round": stages, "bad": bad,
            "stages": list(STAGES)}  # fmt: skip


FILES = {"secure-sum": ("secure_sum.json", secure_sum)}


def main(names: list[str]) -> int:
    """Write the named files, all of them where none is named."""
    for name in names or list(FILES):
        if name not in FILES:
            print(f"unknown: {name}; known: {', '.join(FILES)}", file=sys.stderr)
            return 2
        file, make = FILES[name]
        (HERE / file).write_text(json.dumps(make(), indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
