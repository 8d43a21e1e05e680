//! Outputs that are text, which contracts do not have.

use bellwether_wire::Refusal;
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, tensor_proto::DataType, type_proto};

use crate::inspect::{node_name, operator};

/// Refuses an output that is text, and says which node makes it so.
///
/// The engine knows such an output as the number of a class, which is not what the contract's
/// reader expects a label to be.
pub(crate) fn refuse(proto: &ModelProto, output: &str) -> Result<(), Refusal> {
    let Some(graph) = &proto.graph else {
        return Ok(());
    };
    let maker = graph.node.iter().find(|node| makes(node, output));
    let is_text = declared_text(graph, output) || maker.is_some_and(|node| labels(node, output));
    if !is_text {
        return Ok(());
    }
    Err(Refusal::Unsupported {
        node: maker.map(node_name),
        operator: maker.map(operator),
        stage: "load".to_owned(),
        message: format!(
            "output `{output}` is text, which contracts do not have; leave it out of the contract \
             and take the class from the probabilities, or train on classes that are whole numbers"
        ),
    })
}

fn makes(node: &NodeProto, output: &str) -> bool {
    node.output.iter().any(|name| name == output)
}

fn declared_text(graph: &GraphProto, output: &str) -> bool {
    let declared = graph.output.iter().find(|port| port.name == output);
    let value = declared.and_then(|port| port.r#type.as_ref()?.value.as_ref());
    value.is_some_and(|type_proto::Value::TensorType(tensor)| {
        tensor.elem_type == DataType::String as i32
    })
}

/// The output is the label of a classifier whose classes are text.
fn labels(node: &NodeProto, output: &str) -> bool {
    let mut attributes = node.attribute.iter();
    let texts = attributes.any(|a| a.name == "classlabels_strings" && !a.strings.is_empty());
    let classifier = node.op_type.ends_with("Classifier");
    texts && classifier && node.output.first().is_some_and(|name| name == output)
}
