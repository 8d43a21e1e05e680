//! What the kernel says of a process's memory.

/// A figure of `/proc/PROCESS/status` in bytes, such as `VmRSS` (held now) or `VmHWM` (the most
/// held at once); `None` if the process is gone, or the kernel does not tell.
pub(crate) fn bytes(process: u32, figure: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let mut pairs = status.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(name, _)| *name == figure)?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_some_memory_and_no_process_none() {
        let this = std::process::id();
        assert!(bytes(this, "VmHWM").is_some_and(|bytes| bytes > 0));
        assert!(bytes(this, "VmRSS").is_some_and(|bytes| bytes > 0));
        assert_eq!(bytes(this, "Name"), None, "no figure");
        assert_eq!(bytes(u32::MAX, "VmRSS"), None);
    }
}
