//! A panic of the engine, made an error.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use bellwether_wire::bounded_message;

/// Does `work`; a panic in it becomes what it said. Drop whatever `work` was changing then: it may
/// be half done.
///
/// # Errors
/// The panic's message, bounded.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| bounded_message(said(&*panic)))
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("the engine gave no reason")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_what_it_said() {
        let node = std::hint::black_box(7);
        let said = caught(|| -> u32 { panic!("node {node} has no shape") });
        assert_eq!(said, Err("node 7 has no shape".to_owned()));
        assert_eq!(caught(|| 1), Ok(1));
    }
}
