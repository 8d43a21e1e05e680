//! The only crate that links tract: worker binary, operators.
