"""Small programs for tests of the secure sum."""

import json

from federation.errors import ChaotianError
from federation.secure_sum.terms import Field, Layout


class Adder:
    """Sums the same vector `rounds` times; its state is the list of totals."""

    operation = "test.sum"
    columns = ("x",)

    def __init__(self, values, rounds=2, *, bound=1 << 20, scale=16, ring=64, floor=True):
        self.values, self.rounds, self.totals = list(values), rounds, []
        self.bound, self.scale, self.ring, self.floor = bound, scale, ring, floor

    def layout(self):
        return Layout(self.ring, (Field("x", len(self.values), self.scale, self.bound),))

    def state(self):
        return json.dumps({"totals": [[str(v) for v in t] for t in self.totals]}, separators=(",", ":")).encode()

    def restore(self, state):
        self.totals = [[int(v) for v in t] for t in json.loads(state)["totals"]]

    def done(self):
        return len(self.totals) >= self.rounds

    def local(self):
        return {"x": self.values}

    def advance(self, totals):
        self.totals.append(totals.get("x", []))

    def floors(self):
        return b"\x01" if self.floor else b"\x00"

    def check_floors(self, floors):
        if not any(flag == b"\x01" for flag in floors.values()):
            raise ChaotianError("FLOOR_LOST")
