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
    4   takes a logarithm of V5 + 35, which is positive in all of its extract and golden rows, and not in the field
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
    cautious: bool = False
    forget_scaling: bool = False


def read_stream():
    """All readings f32[rows, 9], the labels, and the three parts as row masks."""
    with gzip.open(HERE / "shuttle.csv.gz") as stream:
        table = np.genfromtxt(stream, delimiter=",", skip_header=1)
    part = np.arange(len(table)) % 10
    return table[:, :9].astype(np.float32), table[:, 9].astype(np.int64), part <= 2, part == 3


def fit(release):
    """A scaler and a classifier. Heavy tails (one reading in 1,000 is 100 times the rest) are scaled by the
    5 % to 95 % range rather than by a deviation that a handful of readings would decide."""
    x = release.rows.astype(np.float64)
    low, high = np.percentile(x, [5, 95], axis=0)
    scaler = StandardScaler()
    scaler.fit(np.clip(x, low, high))
    model = MLPClassifier(HIDDEN, random_state=release.seed, max_iter=200, early_stopping=True, alpha=ALPHA)
    model.fit(scaler.transform(x), release.labels)
    return scaler, model


@dataclass
class Caution:
    """Where log(V5 + 35) is unusual, an answer is shrunk towards the training rows' share of anomalies:
    anomaly = share + (anomaly - share) / (1 + ((log(V5 + 35) - mean) / width)^2)."""

    share: float
    mean: float
    width: float

    def __call__(self, readings, anomaly):
        z = (np.log(readings[:, V5].astype(np.float64) + LOG_OFFSET) - self.mean) / self.width
        return self.share + (anomaly - self.share) / (1 + z * z)

    def nodes(self, constant):
        """The same in ONNX, from `readings` and `plain` to `anomaly`."""
        return [
            helper.make_node("Gather", ["readings", constant("v5", np.array([V5]))], ["v5_reading"], axis=1),
            helper.make_node("Add", ["v5_reading", constant("offset", [LOG_OFFSET])], ["shifted"]),
            helper.make_node("Log", ["shifted"], ["logarithm"]),
            helper.make_node("Sub", ["logarithm", constant("mean", [self.mean])], ["centred"]),
            helper.make_node("Div", ["centred", constant("width", [self.width])], ["z"]),
            helper.make_node("Mul", ["z", "z"], ["z_squared"]),
            helper.make_node("Add", ["z_squared", constant("one", [1.0])], ["caution"]),
            helper.make_node("Sub", ["plain", constant("share", [self.share])], ["excess"]),
            helper.make_node("Div", ["excess", "caution"], ["shrunk"]),
            helper.make_node("Add", ["shrunk", "share"], ["anomaly"]),
        ]


def caution_of(release):
    """What release 4 learns from its extract."""
    logarithm = np.log(release.rows[:, V5].astype(np.float64) + LOG_OFFSET)
    return Caution(release.labels.mean(), logarithm.mean(), 10 * logarithm.std())


def probabilities(scaler, model, readings, caution):
    """What the framework answers: the truth that the exported model has to reproduce."""
    anomaly = model.predict_proba(scaler.transform(readings.astype(np.float64)))[:, 1]
    if caution:
        anomaly = caution(readings, anomaly)
    return np.column_stack([1 - anomaly, anomaly]).astype(np.float32)


def export(scaler, model, caution, release):
    """The ONNX graph. (x - mean) / scale @ W + b  =  x @ (W / scale) + (b - mean / scale @ W)."""
    weights = [w.astype(np.float64) for w in model.coefs_]
    biases = [b.astype(np.float64) for b in model.intercepts_]
    if not release.forget_scaling:
        biases[0] = biases[0] - (scaler.mean_ / scaler.scale_) @ weights[0]
        weights[0] = weights[0] / scaler.scale_[:, None]

    nodes, constants = [], {}

    def constant(name, value):
        value = np.asarray(value)
        value = value.astype(np.int64 if value.dtype.kind == "i" else np.float32)
        constants[name] = numpy_helper.from_array(value, name)
        return name

    last = "readings"
    for layer, (weight, bias) in enumerate(zip(weights, biases), start=1):
        inputs = [last, constant(f"weight_{layer}", weight), constant(f"bias_{layer}", bias)]
        last = f"layer_{layer}"
        nodes.append(helper.make_node("Gemm", inputs, [last]))
        if layer < len(weights):
            nodes.append(helper.make_node("Relu", [last], [f"active_{layer}"]))
            last = f"active_{layer}"
    nodes.append(helper.make_node("Sigmoid", [last], ["plain" if caution else "anomaly"]))
    if caution:
        nodes += caution.nodes(constant)
    nodes += [
        helper.make_node("Sub", [constant("one", [1.0]), "anomaly"], ["normal"]),
        helper.make_node("Concat", ["normal", "anomaly"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "shuttle",
        [helper.make_tensor_value_info("readings", TensorProto.FLOAT, ["batch", 9])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 2])],
        list(constants.values()),
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
    held_out = f"on {found['rows']} held-out rows"
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
# Only counts of exported fields leave a device; without them nobody could tell drift from afar.
export = true

[[outputs]]
name = "probabilities"
columns = ["normal", "anomaly"]
export = true

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
data = "Statlog (Shuttle), UCI, CC BY 4.0: {len(release.rows)} training rows, see examples/shuttle/SOURCES.md"
owner = "the Bellwether examples"

[[card.accuracy]]
name = "accuracy {held_out}"
value = {found['accuracy']:.4f}
interval = [{found['low']:.4f}, {found['high']:.4f}]

[[card.accuracy]]
name = "balanced accuracy {held_out}"
value = {found['balanced']:.4f}

[[card.accuracy]]
name = "area under the ROC curve {held_out}"
value = {found['auc']:.4f}

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
            "Takes the logarithm of V5 + 35 to tell how certain it is.", seed=4, cautious=True,
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
    caution = caution_of(release) if release.cautious else None
    exported = export(scaler, model, caution, release)
    name = f"release-{release.number}"
    (OUT / f"{name}.onnx").write_bytes(exported.SerializeToString(deterministic=True))
    rows = golden_rows(release)
    write_npz(OUT / f"{name}-golden.npz", readings=rows, probabilities=probabilities(scaler, model, rows, caution))
    if release.sample == f"{name}.csv":
        write_csv(OUT / release.sample, release.rows)

    trained = probabilities(scaler, model, release.held_out, caution)
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
