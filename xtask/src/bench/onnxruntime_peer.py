"""Runs models by ONNX Runtime on one thread, on command: the peer of `cargo xtask bench runtime`.

Reads one command a line, words apart by tabs, and answers each with one line of JSON:

    load NAME ONNX NPZ TOML|- BATCH   the first rows of NPZ are the inputs, TOML names the states
    run NAME COUNT                    processor time of one run, in nanoseconds
"""

import json
import sys
import time
import tomllib

import numpy as np
import onnxruntime as ort

TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}


def session(path):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def inputs(loaded, rows, config, batch):
    """One case: a row of the archive for each input, zero for states, the value for constants."""
    states = {state["input"]: state.get("shape") for state in config.get("states", [])}
    constants = {constant["name"]: constant["value"] for constant in config.get("constants", [])}
    fed = {}
    for port in loaded.get_inputs():
        dtype = TYPES[port.type]
        if port.name in states:
            shape = states[port.name] or port.shape
            shape = [size if isinstance(size, int) and size > 0 else batch for size in shape]
            fed[port.name] = np.zeros(shape, dtype)
        elif port.name in constants:
            fed[port.name] = np.array(constants[port.name], dtype)
        else:
            array = rows[port.name]
            fed[port.name] = (array[0] if config else array[:batch]).astype(dtype)
    return fed


def main():
    models = {}
    for line in sys.stdin:
        command, name, *words = line.rstrip("\n").split("\t")
        if command == "load":
            path, archive, toml, batch = words
            config = {}
            if toml != "-":
                with open(toml, "rb") as file:
                    config = tomllib.load(file)
            loaded = session(path)
            models[name] = (loaded, inputs(loaded, np.load(archive), config, int(batch)))
            loaded.run(None, models[name][1])
            answer = {}
        else:
            loaded, fed = models[name]
            count = int(words[0])
            began = time.process_time_ns()
            for _ in range(count):
                loaded.run(None, fed)
            answer = {"cpu_ns": (time.process_time_ns() - began) / count}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
