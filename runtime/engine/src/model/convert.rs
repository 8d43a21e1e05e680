//! Tensors of the wire to tensors of the engine, and back.

use bellwether_package::sections::DType;
use bellwether_wire::{PortShape, Refusal, Tensor};
use tract_onnx::{
    prelude::{DatumType, IntoTValue, TValue, TVec, TractError},
    tract_hir::internal::Tensor as TractTensor,
};

use super::refuse::port_refusal;

/// Little-endian bytes are the engine's own on every target we build for.
#[cfg(target_endian = "big")]
compile_error!("tensor bytes are little-endian");

pub(super) fn to_tract(tensor: &Tensor) -> Result<TValue, Refusal> {
    if tensor.dtype == DType::Bool && tensor.bytes.iter().any(|byte| *byte > 1) {
        return Err(port_refusal(&tensor.name, "a bool is 0 or 1"));
    }
    let shape: TVec<usize> = tensor.shape.iter().map(|dim| *dim as usize).collect();
    let refuse = |error: TractError| port_refusal(&tensor.name, &error.to_string());
    let mut fed = TractTensor::zero_dt(datum_type(tensor.dtype), &shape).map_err(refuse)?;
    let mut plain = fed.try_as_plain_ram_mut().map_err(refuse)?;
    let bytes = plain.as_bytes_mut();
    if bytes.len() != tensor.bytes.len() {
        return Err(port_refusal(
            &tensor.name,
            "its bytes do not fill its shape",
        ));
    }
    bytes.copy_from_slice(&tensor.bytes);
    Ok(fed.into_tvalue())
}

pub(super) fn from_tract(port: &PortShape, value: &TValue) -> Result<Tensor, Refusal> {
    let refuse = |message: &str| port_refusal(&port.name, message);
    let wanted = datum_type(port.dtype);
    let found = value.datum_type();
    // The engine's own type for sizes stands where ONNX has i64; other types are not converted.
    let converted = if found == wanted {
        None
    } else if found == DatumType::TDim && wanted == DatumType::I64 {
        let sizes = value.cast_to_dt(DatumType::I64);
        Some(
            sizes
                .map_err(|error| refuse(&error.to_string()))?
                .into_owned(),
        )
    } else {
        return Err(refuse(&format!(
            "the model gives {found:?}, the contract has {wanted:?}"
        )));
    };
    let tensor = converted.as_ref().unwrap_or(value);
    let plain = tensor
        .try_as_plain_ram()
        .map_err(|error| refuse(&error.to_string()))?;
    let shape: Result<Vec<u32>, _> = tensor
        .shape()
        .iter()
        .map(|dim| u32::try_from(*dim))
        .collect();
    Ok(Tensor {
        name: port.name.clone(),
        dtype: port.dtype,
        shape: shape.map_err(|_| refuse("a dimension beyond u32"))?,
        bytes: plain.as_bytes().to_vec(),
    })
}

pub(super) fn datum_type(dtype: DType) -> DatumType {
    match dtype {
        DType::F32 => DatumType::F32,
        DType::F64 => DatumType::F64,
        DType::F16 => DatumType::F16,
        DType::U64 => DatumType::U64,
        DType::U32 => DatumType::U32,
        DType::I64 => DatumType::I64,
        DType::I32 => DatumType::I32,
        DType::I16 => DatumType::I16,
        DType::I8 => DatumType::I8,
        DType::U16 => DatumType::U16,
        DType::U8 => DatumType::U8,
        DType::Bool => DatumType::Bool,
    }
}
