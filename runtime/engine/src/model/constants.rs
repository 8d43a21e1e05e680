//! Inputs that are always the same, folded into the graph as if they were its weights.

use bellwether_package::sections::DType;
use bellwether_wire::{Refusal, Tensor};
use tract_onnx::pb::{ModelProto, TensorProto, tensor_proto::DataType};

use super::refuse::port_refusal;
use crate::inspect::{self, PortFacts};

/// Gives each constant its input's place.
pub(super) fn fold(proto: &mut ModelProto, constants: &[Tensor]) -> Result<(), Refusal> {
    if constants.is_empty() {
        return Ok(());
    }
    let (declared, _) = inspect::ports(proto)?;
    for constant in constants {
        check(constant, &declared)?;
        let Some(graph) = proto.graph.as_mut() else {
            return Err(inspect::malformed("it holds no graph"));
        };
        graph.input.retain(|input| input.name != constant.name);
        graph.initializer.push(TensorProto {
            name: constant.name.clone(),
            dims: constant.shape.iter().map(|dim| i64::from(*dim)).collect(),
            data_type: data_type(constant.dtype) as i32,
            raw_data: constant.bytes.clone(),
            ..TensorProto::default()
        });
    }
    Ok(())
}

fn check(constant: &Tensor, declared: &[PortFacts]) -> Result<(), Refusal> {
    let found = declared.iter().find(|facts| facts.name == constant.name);
    let found = found.ok_or_else(|| {
        let names: Vec<_> = declared.iter().map(|facts| facts.name.as_str()).collect();
        let message = format!("the graph has no such input; it has {}", names.join(", "));
        port_refusal(&constant.name, &message)
    })?;
    if found.dtype != Some(constant.dtype) {
        let message = format!(
            "the graph's type is {:?}, the constant's {:?}",
            found.dtype, constant.dtype
        );
        return Err(port_refusal(&constant.name, &message));
    }
    if !constant.fills_shape() {
        return Err(port_refusal(
            &constant.name,
            "its bytes do not fill its shape",
        ));
    }
    Ok(())
}

fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::I64 => DataType::Int64,
        DType::I32 => DataType::Int32,
        DType::I16 => DataType::Int16,
        DType::I8 => DataType::Int8,
        DType::U16 => DataType::Uint16,
        DType::U8 => DataType::Uint8,
        DType::Bool => DataType::Bool,
        DType::F16 => DataType::Float16,
        DType::U32 => DataType::Uint32,
        DType::U64 => DataType::Uint64,
    }
}
