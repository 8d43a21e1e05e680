//! Signed steps from sensor readings to tensors.
