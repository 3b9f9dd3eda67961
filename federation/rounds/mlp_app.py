"""An example of an installed app: a small multilayer perceptron of scikit-learn, one hidden layer, binary outcome.

Layers by name: `w1` (inputs × hidden), `b1` (hidden), `w2` (hidden × 1), `b2` (1). Inputs are the numeric columns, and
one column a level of each category, in the order of the job's features. Config of the job:

- `epochs`, `learning-rate`, `batch`, `penalty`: of plain stochastic gradient descent (1, 0.1, 64, 0.0001);
- `center`, `spread`: a number for each feature, by which numeric columns are shifted and divided (0 and 1), e.g. means
  and standard deviations of a `profile` job. A missing value counts as the centre.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.neural_network import MLPClassifier

from federation.rounds.flower import Array as FlowerArray
from federation.rounds.flower import ArrayRecord, ClientApp, Context, Message, MetricRecord, RecordDict, to_arrays
from federation.rounds.trainer import COLUMNS, local_rows

app = ClientApp()
LAYERS = ("w1", "b1", "w2", "b2")


def layers(inputs: int, hidden: int, clip: float) -> list[dict[str, Any]]:
    """Return the job's layers for so many inputs and hidden units, each with the clipping bound."""
    shapes = {"w1": [inputs, hidden], "b1": [hidden], "w2": [hidden, 1], "b2": [1]}
    return [
        {"name": name, "shape": shape, "clip": clip, "init": "glorot" if name.startswith("w") else "zeros"}
        for name, shape in shapes.items()
    ]


def inputs(context: Context, config: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scaled inputs and outcomes, shapes (rows, inputs) and (rows,)."""
    rows, label = local_rows(context)
    levels = [int(count) for count in context.state[COLUMNS]["levels"]]
    center, spread = (np.asarray(config.get(name, default)) for name, default in (("center", 0.0), ("spread", 1.0)))
    scaled = np.nan_to_num((rows - center) / spread)
    parts = [
        scaled[:, [at]] if not count else (rows[:, [at]] == np.arange(count)).astype(float)
        for at, count in enumerate(levels)
    ]
    return np.hstack(parts), label


def model(arrays: dict[str, NDArray[Any]], x: NDArray[np.float64], config: Any) -> MLPClassifier:
    """Return scikit-learn's model with these weights."""
    hidden = arrays["b1"].size
    batch = max(1, min(int(config.get("batch", 64)), len(x)))
    made = MLPClassifier(
        hidden_layer_sizes=(hidden,),
        solver="sgd",
        momentum=0.0,  # nothing is remembered from round to round
        learning_rate_init=float(config.get("learning-rate", 0.1)),
        batch_size=batch,
        alpha=float(config.get("penalty", 1e-4)),
        random_state=int(config["server-round"]),
    )
    # scikit-learn makes the arrays at the first call; then they are set.
    made.partial_fit(x[:batch], np.zeros(batch), classes=[0.0, 1.0])
    for target, names in ((made.coefs_, ("w1", "w2")), (made.intercepts_, ("b1", "b2"))):
        for array, name in zip(target, names, strict=True):
            if array.shape != arrays[name].shape:
                raise ValueError(f"layer {name} has the shape {arrays[name].shape}, the columns need {array.shape}")
            array[...] = arrays[name]
    return made


def log_odds(arrays: dict[str, NDArray[Any]], context: Context, config: Any) -> NDArray[np.float64]:
    """Return the log-odds that trained arrays give the rows of a context: rectifier, then linear."""
    x, _ = inputs(context, config)
    hidden = np.maximum(0.0, x @ arrays["w1"].astype(np.float64) + arrays["b1"])
    return np.asarray(hidden @ arrays["w2"].astype(np.float64) + arrays["b2"], dtype=np.float64)[:, 0]


@app.train()  # type: ignore[untyped-decorator]
def train(message: Message, context: Context) -> Message:
    """Train some epochs on the own rows, from the arrays of the round."""
    config, arrays = message.content["config"], to_arrays(message.content["arrays"])
    x, y = inputs(context, config)
    made = model(arrays, x, config)
    for _ in range(int(config.get("epochs", 1))):
        made.partial_fit(x, y)
    after = dict(zip(LAYERS, (made.coefs_[0], made.intercepts_[0], made.coefs_[1], made.intercepts_[1]), strict=True))
    record = ArrayRecord({name: FlowerArray(after[name].astype(arrays[name].dtype)) for name in arrays})
    content = RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": len(x)})})
    return Message(content, reply_to=message)


@app.evaluate()  # type: ignore[untyped-decorator]
def evaluate(message: Message, context: Context) -> Message:
    """Measure the arrays of the round on the own held-out rows."""
    config = message.content["config"]
    x, y = inputs(context, config)
    probability = model(to_arrays(message.content["arrays"]), x, config).predict_proba(x)[:, 1]
    figures = {"num-examples": len(x), "log-loss": float(log_loss(y, probability, labels=[0.0, 1.0]))}
    if 0 < y.sum() < len(y):
        figures["auc"] = float(roc_auc_score(y, probability))
    return Message(RecordDict({"metrics": MetricRecord(figures)}), reply_to=message)
