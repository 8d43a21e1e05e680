//! The fields of ONNX that the survey looks at.
//! <https://github.com/onnx/onnx/blob/v1.19.0/onnx/onnx.proto3>

/// A message of ONNX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Dimension,
    Function,
    /// Pairs of strings and the like: counted, and passed over.
    Entry,
}

impl Kind {
    /// What people call it, if it has a name to be called by.
    pub(super) fn noun(self) -> Option<&'static str> {
        Some(match self {
            Self::Tensor => "tensor",
            Self::ValueInfo => "value",
            Self::Node => "node",
            Self::Attribute => "attribute",
            Self::Function => "function",
            _ => return None,
        })
    }
}

/// What the survey does with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// Walks into it; it may stand here many times.
    Message(Kind),
    /// Walks into it; it may stand here once.
    OneMessage(Kind),
    /// A name, bounded and kept.
    Name,
    /// A formula for a dimension, bounded.
    Formula,
    /// A text, bounded.
    Text,
    /// One of many strings, bounded and counted.
    Texts,
    /// Type, dimensions or data of a tensor.
    Tensor,
    /// The size of a dimension.
    Size,
    /// Nothing that the engine reads; the rest of a sentence on it.
    Refused(&'static str),
    /// Passed over.
    Other,
}

/// What field `tag` of a message is.
pub(super) fn field(kind: Kind, tag: u32) -> Field {
    match kind {
        Kind::Model => model(tag),
        Kind::Graph => graph(tag),
        Kind::Node => node(tag),
        Kind::Attribute => attribute(tag),
        Kind::Tensor => tensor(tag),
        Kind::ValueInfo => match tag {
            1 => Field::Name,
            2 => Field::OneMessage(Kind::Type),
            _ => Field::Other,
        },
        Kind::Type => match tag {
            1 => Field::OneMessage(Kind::TensorType),
            _ => Field::Other,
        },
        Kind::TensorType => match tag {
            2 => Field::OneMessage(Kind::Shape),
            _ => Field::Other,
        },
        Kind::Shape => match tag {
            1 => Field::Message(Kind::Dimension),
            _ => Field::Other,
        },
        Kind::Dimension => match tag {
            1 => Field::Size,
            2 => Field::Formula,
            3 => Field::Name,
            _ => Field::Other,
        },
        Kind::Function => match tag {
            1 | 4 | 5 | 6 | 10 => Field::Name,
            7 => Field::Message(Kind::Node),
            9 => Field::Message(Kind::Entry),
            _ => Field::Other,
        },
        Kind::Entry => Field::Other,
    }
}

/// The field that holds a message's own name.
pub(super) fn name(kind: Kind) -> Option<u32> {
    Some(match kind {
        Kind::Node => 3,
        Kind::Tensor => 8,
        Kind::Attribute | Kind::ValueInfo | Kind::Function => 1,
        _ => return None,
    })
}

/// True for the field that lists a node's outputs.
pub(super) fn is_output(kind: Kind, tag: u32) -> bool {
    kind == Kind::Node && tag == 2
}

fn model(tag: u32) -> Field {
    match tag {
        4 => Field::Name,
        7 => Field::OneMessage(Kind::Graph),
        8 | 14 => Field::Message(Kind::Entry),
        20 => Field::Refused("holds graphs for training; export it for inference"),
        25 => Field::Message(Kind::Function),
        _ => Field::Other,
    }
}

fn graph(tag: u32) -> Field {
    match tag {
        1 => Field::Message(Kind::Node),
        2 => Field::Name,
        5 => Field::Message(Kind::Tensor),
        11..=13 => Field::Message(Kind::ValueInfo),
        14 => Field::Message(Kind::Entry),
        15 => Field::Refused("keeps weights as sparse tensors; save them dense"),
        _ => Field::Other,
    }
}

fn node(tag: u32) -> Field {
    match tag {
        1..=4 | 7 => Field::Name,
        5 => Field::Message(Kind::Attribute),
        _ => Field::Other,
    }
}

fn attribute(tag: u32) -> Field {
    match tag {
        1 | 21 => Field::Name,
        4 => Field::Text,
        5 => Field::OneMessage(Kind::Tensor),
        6 => Field::OneMessage(Kind::Graph),
        9 => Field::Texts,
        10 => Field::Message(Kind::Tensor),
        11 => Field::Message(Kind::Graph),
        15 => Field::Message(Kind::Type),
        22 | 23 => Field::Refused("is a sparse tensor; save it dense"),
        _ => Field::Other,
    }
}

fn tensor(tag: u32) -> Field {
    match tag {
        1 | 2 | 4 | 5 | 7 | 9..=11 | 14 => Field::Tensor,
        3 => Field::Refused("is one segment of a tensor; save it whole"),
        6 => Field::Texts,
        8 => Field::Name,
        13 => Field::Message(Kind::Entry),
        _ => Field::Other,
    }
}
