//! From a configuration, an ONNX file and a sample to the sections of a package.

pub(crate) mod contract;
pub(crate) mod golden;
pub(crate) mod sample;
mod unfed;
