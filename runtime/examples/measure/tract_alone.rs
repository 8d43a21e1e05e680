//! The same model by tract alone, as its documentation would have it: concrete shapes, optimised.

use std::io::Read;

use bellwether_package::sections::{DType, Dim};
use bellwether_runtime::{
    SealedBlob, Tensor,
    wire::{ModelPorts, PortShape},
};
use tract_onnx::{pb, prelude::*};

pub(crate) struct Alone {
    state: TypedSimpleState,
    fed: TVec<TValue>,
}

impl Alone {
    pub(crate) fn load(
        blob: &SealedBlob,
        ports: &ModelPorts,
        inputs: &[Tensor],
    ) -> TractResult<Self> {
        let mut onnx = Vec::new();
        blob.reopen()?.read_to_end(&mut onnx)?;
        let reader = tract_onnx::onnx()
            .with_ignore_value_info(true)
            .with_ignore_output_shapes(true)
            .with_ignore_output_types(true);
        let mut proto = reader.proto_model_for_read(&mut &onnx[..])?;
        fold(&mut proto, &ports.constants)?;
        let mut graph = reader.model_for_proto_model(&proto)?;
        let states = ports.states.iter().map(|state| &state.input);
        let mut fed = TVec::new();
        for port in ports.inputs.iter().chain(states) {
            let given = inputs.iter().find(|tensor| tensor.name == port.name);
            let value = match given {
                Some(tensor) => value(tensor)?,
                None => zeros(port)?,
            };
            let at = graph
                .inputs
                .iter()
                .position(|outlet| graph.node(outlet.node).name == port.name)
                .ok_or_else(|| TractError::msg(format!("no input {}", port.name)))?;
            let fact = InferenceFact::dt_shape(value.datum_type(), value.shape());
            graph.set_input_fact(at, fact)?;
            fed.push((at, value));
        }
        fed.sort_by_key(|(at, _)| *at);
        let state = graph.into_optimized()?.into_runnable()?.spawn()?;
        let fed = fed.into_iter().map(|(_, value)| value).collect();
        Ok(Self { state, fed })
    }

    pub(crate) fn run(&mut self) {
        self.state.run(self.fed.clone()).unwrap();
    }
}

/// An input that never changes is a constant to tract too.
fn fold(proto: &mut pb::ModelProto, constants: &[Tensor]) -> TractResult<()> {
    let graph = proto.graph.as_mut();
    let graph = graph.ok_or_else(|| TractError::msg("the model has no graph"))?;
    for constant in constants {
        graph.input.retain(|input| input.name != constant.name);
        graph.initializer.push(pb::TensorProto {
            name: constant.name.clone(),
            dims: constant.shape.iter().map(|size| i64::from(*size)).collect(),
            data_type: match constant.dtype {
                DType::F32 => 1,
                DType::I32 => 6,
                DType::I64 => 7,
                other => return Err(TractError::msg(format!("a constant of {other:?}"))),
            },
            raw_data: constant.bytes.clone(),
            ..pb::TensorProto::default()
        });
    }
    Ok(())
}

fn value(tensor: &Tensor) -> TractResult<TValue> {
    let shape: Vec<usize> = tensor.shape.iter().map(|size| *size as usize).collect();
    let mut value = tract_onnx::prelude::Tensor::zero_dt(datum_type(tensor.dtype)?, &shape)?;
    let mut plain = value.try_as_plain_ram_mut()?;
    plain.as_bytes_mut().copy_from_slice(&tensor.bytes);
    Ok(value.into())
}

fn zeros(port: &PortShape) -> TractResult<TValue> {
    let shape: Vec<usize> = port
        .shape
        .iter()
        .map(|dim| match dim {
            Dim::Batch => 1,
            Dim::Fixed(size) => *size as usize,
        })
        .collect();
    Ok(tract_onnx::prelude::Tensor::zero_dt(datum_type(port.dtype)?, &shape)?.into())
}

fn datum_type(dtype: DType) -> TractResult<DatumType> {
    match dtype {
        DType::F32 => Ok(DatumType::F32),
        DType::F64 => Ok(DatumType::F64),
        DType::I32 => Ok(DatumType::I32),
        DType::I64 => Ok(DatumType::I64),
        other => Err(TractError::msg(format!("a port of {other:?}"))),
    }
}
