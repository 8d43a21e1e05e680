"""Asks a real agent by tritonclient, unchanged. The test `tritonclient.rs` starts the agent.

    check.py HOST:PORT       the slot `anomaly` serves `scores = 2 * readings`, version 1.1.0
"""

import sys

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException


def refused(status, text, ask):
    try:
        ask()
    except InferenceServerException as error:
        assert error.status() == status, error
        assert text in error.message(), error
    else:
        raise AssertionError(f"not refused: {text}")


def readings(values, binary):
    tensor = triton.InferInput("readings", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values, binary_data=binary)
    return [tensor]


def doubled(client, values, binary_in, outputs):
    result = client.infer("anomaly", readings(values, binary_in), outputs=outputs)
    np.testing.assert_array_equal(result.as_numpy("scores"), values * 2)


def infer(client):
    one = np.array([[1, 2]], dtype=np.float32)
    many = np.random.default_rng(1).normal(size=(500, 2)).astype(np.float32)
    missing = np.array([[np.nan, 0.1]], dtype=np.float32)
    for values in (one, many, missing):
        for binary_in in (True, False):
            for binary_out in (None, True, False):
                outputs = None
                if binary_out is not None:
                    outputs = [triton.InferRequestedOutput("scores", binary_data=binary_out)]
                doubled(client, values, binary_in, outputs)
    result = client.infer(
        "anomaly", readings(one, True), request_id="7", model_version="1.1.0", priority=1
    )
    answer = result.get_response()
    assert answer["id"] == "7" and answer["model_name"] == "anomaly", answer
    assert answer["model_version"] == "1.1.0", answer
    # An answer may be asked for compressed; the agent sends it as it is.
    client.infer("anomaly", readings(one, True), response_compression_algorithm="gzip")
    asked = [client.async_infer("anomaly", readings(one, True)) for _ in range(8)]
    for answer in asked:
        np.testing.assert_array_equal(answer.get_result().as_numpy("scores"), one * 2)


def refusals(client):
    one = np.array([[1, 2]], dtype=np.float32)
    inputs = readings(one, True)
    refused("404", "no such slot", lambda: client.infer("nothing", inputs))
    refused("404", "1.1.0", lambda: client.get_model_metadata("anomaly", "9"))
    wrong = triton.InferInput("x", [1], "FP32")
    wrong.set_data_from_numpy(np.array([1], dtype=np.float32))
    refused("400", "`x`", lambda: client.infer("anomaly", [wrong]))
    missing = [triton.InferRequestedOutput("nothing")]
    refused("400", "nothing", lambda: client.infer("anomaly", inputs, outputs=missing))
    classes = [triton.InferRequestedOutput("scores", class_count=1)]
    refused("400", "classification", lambda: client.infer("anomaly", inputs, outputs=classes))
    shared = triton.InferInput("readings", [1, 2], "FP32")
    shared.set_shared_memory("region", 8)
    refused("400", "shared memory", lambda: client.infer("anomaly", [shared]))
    gzip = {"request_compression_algorithm": "gzip"}
    refused("415", "compressed", lambda: client.infer("anomaly", inputs, **gzip))
    refused("404", "there is no", lambda: client.get_log_settings())


def check(url):
    client = triton.InferenceServerClient(url, concurrency=4)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("anomaly") and client.is_model_ready("anomaly", "1.1.0")
    assert not client.is_model_ready("anomaly", "9") and not client.is_model_ready("nothing")
    assert client.get_server_metadata()["extensions"][0] == "binary_tensor_data"
    metadata = client.get_model_metadata("anomaly")
    assert metadata["inputs"] == [{"name": "readings", "datatype": "FP32", "shape": [-1, 2]}]
    assert metadata == client.get_model_metadata("anomaly", "1.1.0")
    infer(client)
    refusals(client)
    client.close()


async def check_aio(url):
    client = tritonclient.http.aio.InferenceServerClient(url)
    assert await client.is_server_ready()
    one = np.array([[1, 2]], dtype=np.float32)
    result = await client.infer("anomaly", readings(one, True))
    np.testing.assert_array_equal(result.as_numpy("scores"), one * 2)
    await client.close()


if __name__ == "__main__":
    import asyncio

    check(sys.argv[1])
    asyncio.run(check_aio(sys.argv[1]))
    print("tritonclient", triton.__name__, "is content")
