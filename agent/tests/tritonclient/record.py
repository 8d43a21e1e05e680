"""Records what tritonclient puts on the wire, byte by byte, into requests/*.http.

A socket that answers every request with an empty object keeps what came. The test
`tritonclient.rs` sends the recorded bytes to a real agent, so that no Python is needed there.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python record.py
"""

import socket
import threading
from pathlib import Path

import numpy as np
import tritonclient.http as triton

REQUESTS = Path(__file__).parent / "requests"


def receive(connection):
    """One request: head, then as many bytes as it tells."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def record(name, ask):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        kept = []

        def answer():
            connection, _ = listener.accept()
            with connection:
                kept.append(receive(connection))
                body = b'{"outputs":[]}'
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                connection.sendall(head + body)

        thread = threading.Thread(target=answer)
        thread.start()
        client = triton.InferenceServerClient(f"127.0.0.1:{port}")
        ask(client)
        client.close()
        thread.join()
    # The port is the only part that differs from run to run.
    request = kept[0].replace(f"127.0.0.1:{port}".encode(), b"device")
    (REQUESTS / f"{name}.http").write_bytes(request)


def readings(values, binary):
    values = np.array(values, dtype=np.float32).reshape(-1, 2)
    tensor = triton.InferInput("readings", list(values.shape), "FP32")
    tensor.set_data_from_numpy(values, binary_data=binary)
    return [tensor]


def scores(**how):
    return [triton.InferRequestedOutput("scores", **how)]


def main():
    REQUESTS.mkdir(exist_ok=True)
    nan = float("nan")
    record("live", lambda c: c.is_server_live())
    record("ready", lambda c: c.is_server_ready())
    record("server", lambda c: c.get_server_metadata())
    record("model_ready", lambda c: c.is_model_ready("anomaly"))
    record("version_ready", lambda c: c.is_model_ready("anomaly", "1.1.0"))
    record("model", lambda c: c.get_model_metadata("anomaly"))
    record("version", lambda c: c.get_model_metadata("anomaly", "1.1.0"))
    record("binary", lambda c: c.infer("anomaly", readings([1, 2, 3, 4], True)))
    record(
        "json",
        lambda c: c.infer(
            "anomaly", readings([1, 2], False), outputs=scores(binary_data=False)
        ),
    )
    record(
        "json_nan_binary_out",
        lambda c: c.infer("anomaly", readings([nan, 2.5], False), outputs=scores()),
    )
    record(
        "versioned",
        lambda c: c.infer(
            "anomaly",
            readings([1, 2], True),
            model_version="1.1.0",
            request_id="request 7",
            priority=1,
            timeout=1000,
            parameters={"site": "lyon"},
        ),
    )
    record(
        "classification",
        lambda c: c.infer("anomaly", readings([1, 2], True), outputs=scores(class_count=1)),
    )


if __name__ == "__main__":
    main()
