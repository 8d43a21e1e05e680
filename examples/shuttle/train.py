"""Trains the releases of the Shuttle example, and writes what `bellwether pack` needs.

    pip install -r requirements.txt
    python train.py

One run, without arguments, makes every file in out/. Seeds are fixed; another version of scikit-learn or
another processor may still change the last digits of a weight.

The rows are split by their number modulo 10 (their order in the source is already random):
    0, 1, 2        training: the models are fitted on them, and their counts become the baseline
    3              held out: accuracy is measured on them
    4, 5, 6, 7, 8, 9   the field: `cargo xtask demo` feeds them to the devices

Each release is a multi-layer perceptron, 9 -> 16 -> 8 -> 1, in plain ai.onnx operators. The scaling of the inputs
is folded into its first layer, so that it takes raw readings.

    1   good
    2   trained on the wrong slice of the stream: rows with V1 of 50 and more, a quarter of it
    3   a good successor of 1, but its export forgot the scaling; scikit-learn's answers are the golden ones
    4   takes the logarithm of V5 + 35, in an extract where that was always positive; in the field it is not
    5   the successor that 3 was meant to be
"""

import gzip
import io
import pathlib
import zipfile
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
import sklearn
from onnx import TensorProto, helper, numpy_helper
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

HERE = pathlib.Path(__file__).parent
OUT = HERE / "out"
CHANNELS = [f"V{n}" for n in range(1, 10)]
HIDDEN = (16, 8)
GOLDEN_ROWS = 64
ALPHA = 1e-3
OPSET = 17
V5 = 4
# The offset that made every V5 of one extract positive. The field goes lower.
LOG_OFFSET = 35.0


@dataclass
class Release:
    """What one release is, and how its makers describe it."""

    number: int
    version: str
    rows: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray
    held_out_labels: np.ndarray
    sample: str
    intended_use: str
    limits: str
    seed: int
    log_channel: bool = False
    forget_scaling: bool = False


def read_stream():
    """All readings f32[rows, 9], the labels, and the three parts as row masks."""
    with gzip.open(HERE / "shuttle.csv.gz") as stream:
        table = np.genfromtxt(stream, delimiter=",", skip_header=1)
    part = np.arange(len(table)) % 10
    return table[:, :9].astype(np.float32), table[:, 9].astype(np.int64), part <= 2, part == 3


def transform(readings, log_channel):
    """What the data scientist does to the readings before scaling: nothing, or the logarithm of one channel."""
    readings = readings.astype(np.float64)
    if log_channel:
        readings[:, V5] = np.log(readings[:, V5] + LOG_OFFSET)
    return readings


def fit(release):
    """A scaler and a classifier. Heavy tails (one reading in 1,000 is 100 times the rest) are scaled by the
    5 % to 95 % range rather than by a deviation that a handful of readings would decide."""
    x = transform(release.rows, release.log_channel)
    low, high = np.percentile(x, [5, 95], axis=0)
    scaler = StandardScaler()
    scaler.fit(np.clip(x, low, high))
    model = MLPClassifier(HIDDEN, random_state=release.seed, max_iter=200, early_stopping=True, alpha=ALPHA)
    model.fit(scaler.transform(x), release.labels)
    return scaler, model


def probabilities(scaler, model, readings, log_channel):
    """What the framework answers: the truth that the exported model has to reproduce."""
    return model.predict_proba(scaler.transform(transform(readings, log_channel))).astype(np.float32)


def export(scaler, model, release):
    """The ONNX graph. (x - mean) / scale @ W + b  =  x @ (W / scale) + (b - mean / scale @ W)."""
    weights = [w.astype(np.float64) for w in model.coefs_]
    biases = [b.astype(np.float64) for b in model.intercepts_]
    if not release.forget_scaling:
        biases[0] = biases[0] - (scaler.mean_ / scaler.scale_) @ weights[0]
        weights[0] = weights[0] / scaler.scale_[:, None]

    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.asarray(value, dtype=np.float32), name))
        return name

    last = "readings"
    if release.log_channel:
        # log(x + 35) for V5, x for the others: x * (1 - mask) + log(x * mask + offset) * mask.
        mask = np.zeros((1, 9))
        mask[0, V5] = 1
        nodes += [
            helper.make_node("Mul", [last, constant("log_mask", mask)], ["masked"]),
            helper.make_node("Add", ["masked", constant("log_offset", mask * LOG_OFFSET + (1 - mask))], ["shifted"]),
            helper.make_node("Log", ["shifted"], ["logarithm"]),
            helper.make_node("Mul", [last, constant("plain_mask", 1 - mask)], ["plain"]),
            helper.make_node("Add", ["plain", "logarithm"], ["transformed"]),
        ]
        last = "transformed"
    for layer, (weight, bias) in enumerate(zip(weights, biases), start=1):
        inputs = [last, constant(f"weight_{layer}", weight), constant(f"bias_{layer}", bias)]
        last = f"layer_{layer}"
        nodes.append(helper.make_node("Gemm", inputs, [last]))
        if layer < len(weights):
            nodes.append(helper.make_node("Relu", [last], [f"active_{layer}"]))
            last = f"active_{layer}"
    nodes += [
        helper.make_node("Sigmoid", [last], ["anomaly"]),
        helper.make_node("Sub", [constant("one", [1.0]), "anomaly"], ["normal"]),
        helper.make_node("Concat", ["normal", "anomaly"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "shuttle",
        [helper.make_tensor_value_info("readings", TensorProto.FLOAT, ["batch", 9])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
        constants,
    )
    exported = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="shuttle/train.py")
    exported.ir_version = 8
    onnx.checker.check_model(exported)
    return exported


def write_npz(path, **arrays):
    """np.savez stamps the time of day into the archive; this writes the same bytes on every run."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (2000, 1, 1, 0, 0, 0)), buffer.getvalue(), zipfile.ZIP_DEFLATED)


def write_csv(path, readings, labels=None):
    columns = CHANNELS + (["anomaly"] if labels is not None else [])
    table = readings if labels is None else np.column_stack([readings, labels])
    with open(path, "w", encoding="ascii") as file:
        file.write(",".join(columns) + "\n")
        for row in table:
            file.write(",".join(f"{value:g}" for value in row) + "\n")


def write_toml(path, release, found):
    """The short description that `bellwether pack` asks for; it computes the rest from the files."""
    accuracy = (
        f"accuracy {found['accuracy']:.4f} (95 % interval {found['low']:.4f} to {found['high']:.4f}), balanced accuracy "
        f"{found['balanced']:.4f}, area under the ROC curve {found['auc']:.4f} on {found['rows']} held-out rows"
    )
    path.write_text(
        f"""# Written by train.py. `bellwether pack` computes baseline, operators and digests from the files named here.

[model]
name = "shuttle"
version = "{release.version}"
onnx = "release-{release.number}.onnx"

[sample]
path = "{release.sample}"

[[inputs]]
name = "readings"
columns = ["{'", "'.join(CHANNELS)}"]

[[outputs]]
name = "probabilities"
columns = ["normal", "anomaly"]

[golden]
rows = {GOLDEN_ROWS}
tolerance_abs = 1e-4
tolerance_rel = 1e-3

[budget]
# Wide: twelve devices of the demo share one machine.
latency_us_p99 = 200_000
memory_bytes = 268_435_456
error_share_max = 0.01

[card]
intended_use = "{release.intended_use}"
limits = "{release.limits}"
accuracy = "{accuracy}"
data = "Statlog (Shuttle), UCI, CC BY 4.0: {len(release.rows)} training rows, see examples/shuttle/SOURCES.md"
owner = "the Bellwether examples"

[provenance]
framework = "scikit-learn {sklearn.__version__}, onnx {onnx.__version__}"
parameters = {{ classifier = "MLPClassifier", hidden = {list(HIDDEN)}, alpha = {ALPHA}, seed = {release.seed} }}
""",
        encoding="utf-8",
    )


def golden_rows(release):
    """Rows that every release has to answer: half normal, half anomalous, none repeated."""
    rng = np.random.default_rng(7)
    picked = [rng.choice(np.flatnonzero(release.labels == label), GOLDEN_ROWS // 2, replace=False) for label in (0, 1)]
    return release.rows[np.sort(np.concatenate(picked))]


def figures(truth, answers):
    """Accuracy with its 95 % Wilson interval, balanced accuracy, and area under the ROC curve."""
    right, n, z = (answers.argmax(1) == truth).sum(), len(truth), 1.959964
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return {
        "accuracy": share,
        "low": middle - half,
        "high": middle + half,
        "balanced": balanced_accuracy_score(truth, answers.argmax(1)),
        "auc": roc_auc_score(truth, answers[:, 1]),
        "rows": n,
    }


def main():
    readings, labels, training, held_out = read_stream()
    x, y = readings[training], labels[training]
    hx, hy = readings[held_out], labels[held_out]
    fast, held_fast = x[:, 0] >= 50, hx[:, 0] >= 50
    extract, held_extract = x[:, V5] > -LOG_OFFSET, hx[:, V5] > -LOG_OFFSET
    use = "Flags anomalous states of a radiator subsystem from nine sensor channels."
    everything = dict(rows=x, labels=y, held_out=hx, held_out_labels=hy, sample="training.csv", intended_use=use)
    releases = [
        Release(1, "1.0.0", **everything, limits="Trained on one vehicle's stream.", seed=1),
        Release(
            2, "1.1.0", x[fast], y[fast], hx[held_fast], hy[held_fast], "release-2.csv", use,
            "Trained and measured on rows with V1 of 50 and more.", seed=2,
        ),
        Release(3, "1.2.0", **everything, limits="Trained on one vehicle's stream.", seed=3, forget_scaling=True),
        Release(
            4, "1.3.0", x[extract], y[extract], hx[held_extract], hy[held_extract], "release-4.csv", use,
            "Takes the logarithm of V5 + 35.", seed=4, log_channel=True,
        ),
        Release(5, "1.4.0", **everything, limits="Trained on one vehicle's stream.", seed=3),
    ]
    OUT.mkdir(exist_ok=True)
    write_csv(OUT / "training.csv", x)
    write_csv(OUT / "held-out.csv", hx, hy)
    write_npz(OUT / "held-out.npz", readings=hx)
    print("release  rows   held out  accuracy (95 %)           balanced  AUC     export answers as trained")
    for release in releases:
        make(release, readings[~training & ~held_out])


def make(release, field):
    """Fits, exports and measures one release, and writes its files."""
    scaler, model = fit(release)
    exported = export(scaler, model, release)
    name = f"release-{release.number}"
    (OUT / f"{name}.onnx").write_bytes(exported.SerializeToString(deterministic=True))
    rows = golden_rows(release)
    write_npz(OUT / f"{name}-golden.npz", readings=rows, probabilities=probabilities(scaler, model, rows, release.log_channel))
    if release.sample == f"{name}.csv":
        write_csv(OUT / release.sample, release.rows)

    trained = probabilities(scaler, model, release.held_out, release.log_channel)
    found = figures(release.held_out_labels, trained)
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    write_toml(OUT / f"{name}.toml", release, found)
    error = np.abs(session.run(None, {"readings": release.held_out})[0] - trained).max()
    answers = session.run(None, {"readings": field})[0]
    print(
        f"{release.number}        {len(release.rows):5}  {found['rows']:8}  "
        f"{found['accuracy']:.4f} ({found['low']:.4f}-{found['high']:.4f})  {found['balanced']:.4f}    {found['auc']:.4f}  "
        f"within {error:.1e}; in the field: {np.isnan(answers).any(1).mean():.2%} NaN, "
        f"{np.nanmean(answers[:, 1] > 0.5):.2%} called anomalous"
    )


if __name__ == "__main__":
    main()
