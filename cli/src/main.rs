//! The bellwether command for operators, engineers and field staff.
fn main() {}
