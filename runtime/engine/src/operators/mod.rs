//! The engine's operators: tract's own, and those of ONNX-ML that exporters need.
//!
//! The same map is the allowlist: what is not in it is refused before anything is built.

mod activation;
mod anew;
mod convolution;
pub(crate) mod division;
pub(crate) mod ml;
pub(crate) mod nan;
mod quantised;
pub(crate) mod recurrent;
mod sigmoid;

use tract_onnx::Onnx;

pub(crate) use anew::begin_anew;
pub(crate) use convolution::flatten;

/// The reader of models, with all operators.
pub(crate) fn onnx() -> Onnx {
    let mut onnx = tract_onnx::onnx();
    ml::register(&mut onnx);
    onnx.op_register.insert("Sigmoid", sigmoid::sigmoid);
    quantised::register(&mut onnx);
    division::register(&mut onnx);
    activation::register(&mut onnx);
    recurrent::register(&mut onnx);
    onnx
}
