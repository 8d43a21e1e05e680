//! How the device itself is: processor, memory, storage, warmth, clock.

use std::path::Path;

use bellwether_protocol::{ClockState, Health};
use sysinfo::{Components, System};

/// Sensors that are read at most; a server board has dozens, a device a few.
const SENSORS_MAX: usize = 64;

/// The sensors, kept open between readings: processor use is a difference of two.
#[derive(Default)]
pub struct Sensors {
    system: Option<System>,
    components: Option<Components>,
}

impl Sensors {
    /// Opens what the device has.
    pub fn open() -> Self {
        Self {
            system: System::new().ok(),
            components: Components::new_with_refreshed_list().ok(),
        }
    }

    /// One reading. What cannot be measured is `None`.
    pub fn read(&mut self, state_dir: &Path, clock: ClockState) -> Health {
        let mut health = Health {
            cpu_permille: None,
            memory_bytes_used: None,
            memory_bytes: None,
            disk_bytes_free: None,
            disk_bytes: None,
            temperature_centi_c: self.warmest_centi_c(),
            load_centi: System::load_average()
                .ok()
                .map(|load| (load.one * 100.0) as u32),
            uptime_secs: System::uptime().unwrap_or(0),
            agent_version: env!("CARGO_PKG_VERSION").try_into().unwrap_or_default(),
            clock,
        };
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            let share = system.global_cpu_usage().clamp(0.0, 100.0);
            health.cpu_permille = Some((share * 10.0) as u16);
            health.memory_bytes_used = Some(system.used_memory());
            health.memory_bytes = Some(system.total_memory());
        }
        if let Some((free, all)) = storage(state_dir) {
            health.disk_bytes_free = Some(free);
            health.disk_bytes = Some(all);
        }
        health
    }

    fn warmest_centi_c(&mut self) -> Option<i32> {
        let components = self.components.as_mut()?;
        components.refresh(false);
        components
            .iter()
            .take(SENSORS_MAX)
            .filter_map(|component| component.temperature())
            .filter(|celsius| celsius.is_finite())
            .map(|celsius| (celsius * 100.0) as i32)
            .max()
    }
}

/// Free and all bytes of the disk that holds `folder`.
pub fn storage(folder: &Path) -> Option<(u64, u64)> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some((
        disk.f_bavail.saturating_mul(disk.f_frsize),
        disk.f_blocks.saturating_mul(disk.f_frsize),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_has_memory_and_storage() {
        let health = Sensors::open().read(Path::new("/"), ClockState::Plausible);
        assert!(health.memory_bytes.is_some_and(|bytes| bytes > 0));
        assert!(health.disk_bytes.is_some_and(|bytes| bytes > 0));
        assert!(health.disk_bytes_free <= health.disk_bytes);
    }
}
