//! Tiny ONNX models, written byte by byte: no exporter, no file.

/// A message's bytes.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }
}

/// `scores = operator(readings, factor)`, both f32[batch, 2].
pub(crate) fn times(factor: f32) -> Vec<u8> {
    let weights = [factor, factor]
        .into_iter()
        .flat_map(f32::to_le_bytes)
        .collect::<Vec<_>>();
    let weights = Message::default()
        .number(1, 2)
        .number(2, 1)
        .bytes(8, "factor")
        .bytes(9, weights)
        .0;
    let node = Message::default()
        .bytes(1, "readings")
        .bytes(1, "factor")
        .bytes(2, "scores");
    let node = node.bytes(3, "times").bytes(4, "Mul").0;
    model(&[node], Some(weights))
}

/// `scores = sqrt(readings)`: NaN for a negative reading.
pub(crate) fn root() -> Vec<u8> {
    let node = Message::default().bytes(1, "readings").bytes(2, "scores");
    model(&[node.bytes(3, "root").bytes(4, "Sqrt").0], None)
}

fn model(nodes: &[Vec<u8>], initializer: Option<Vec<u8>>) -> Vec<u8> {
    let mut graph = Message::default();
    for node in nodes {
        graph = graph.bytes(1, node);
    }
    graph = graph.bytes(2, "tiny");
    if let Some(initializer) = initializer {
        graph = graph.bytes(5, initializer);
    }
    graph = graph.bytes(11, port("readings")).bytes(12, port("scores"));
    let opset = Message::default().bytes(1, "").number(2, 13).0;
    Message::default()
        .number(1, 8)
        .bytes(7, graph.0)
        .bytes(8, opset)
        .0
}

fn port(name: &str) -> Vec<u8> {
    let batch = Message::default().bytes(2, "batch").0;
    let two = Message::default().number(1, 2).0;
    let shape = Message::default().bytes(1, batch).bytes(1, two).0;
    let tensor = Message::default().number(1, 1).bytes(2, shape).0;
    let kind = Message::default().bytes(1, tensor).0;
    Message::default().bytes(1, name).bytes(2, kind).0
}
