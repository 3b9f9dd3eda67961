"""Every job of sums through the production state machines: signatures, masks and the transcript added up again."""

import pytest

from bench.plain import run_plain
from federation.learning.binning import Binning, BinningSpec
from federation.learning.evaluate import Evaluate, EvaluateSpec
from federation.learning.profile import Profile, ProfileSpec
from federation.learning.stability import Stability, StabilitySpec
from federation.learning.woe import scorecard_program
from federation.primitives.entropy import SystemEntropy
from federation.secure_sum.local import run_in_process
from tests.support.scorecards import made_spec, make_frame

FEATURES = [{"name": f"x{i}", "type": "numeric"} for i in range(3)]
FEATURES.append({"name": "kind", "type": "category", "levels": ["a", "b", "c"]})
FRAMES = {f"bank-{k}": make_frame(700, seed=k, shift=k / 4) for k in (1, 2, 3)}


def model():
    spec = made_spec(coding="woe", penalty=1.0)
    return run_plain({n: scorecard_program(spec, f) for n, f in FRAMES.items()})["bank-1"].model()


def jobs():
    found = model()
    return {
        "profile": lambda f: Profile(ProfileSpec.from_document({"features": FEATURES}), f),
        "binning": lambda f: Binning(BinningSpec.from_document({"label": "bad", "features": FEATURES}), f),
        "woe": lambda f: scorecard_program(made_spec(coding="woe", penalty=1.0), f),
        "raw": lambda f: scorecard_program(made_spec(impute="mean"), f),
        "evaluate": lambda f: Evaluate(EvaluateSpec(found.version), found, f),
        "stability": lambda f: Stability(StabilitySpec(model=found.version), f, make_frame(500, seed=9), model=found),
    }


@pytest.mark.parametrize("job", ["profile", "binning", "woe", "raw", "evaluate", "stability"])
def test_masked_rounds_give_what_plain_ones_give(job):
    make = jobs()[job]
    masked = {name: make(frame) for name, frame in FRAMES.items()}
    run_in_process(masked, entropy=SystemEntropy())
    plain = run_plain({name: make(frame) for name, frame in FRAMES.items()})
    assert {program.state() for program in masked.values()} == {plain["bank-1"].state()}


def test_a_member_lost_during_newton_is_gone_and_its_bins_stay():
    spec = made_spec(coding="woe", penalty=1.0)
    masked = {
        name: scorecard_program(spec, frame) for name, frame in {**FRAMES, "bank-4": make_frame(700, seed=4)}.items()
    }
    _, outcomes = run_in_process(
        masked,
        entropy=SystemEntropy(),
        lose=lambda round_, send: (round_, send.member, send.stage) == (4, "bank-4", "masked_input"),
    )
    assert outcomes[-1].survivors == ("bank-1", "bank-2", "bank-3")
    versions = {masked[name].model().version for name in outcomes[-1].survivors}
    assert len(versions) == 1 and masked["bank-1"].model().document["training"]["rows"] == 2800
