//! The battery that the device runs on.

use std::path::Path;

use bellwether_protocol::{Battery, BatteryState};

use super::files;

/// The first battery that is the device's own: a mouse may have one too.
pub(super) fn read(root: &Path) -> Option<Battery> {
    let supplies = files::entries(&root.join("sys/class/power_supply"), "");
    supplies.iter().find_map(|supply| battery(supply))
}

fn battery(supply: &Path) -> Option<Battery> {
    let word = |name: &str| files::value::<String>(&supply.join(name));
    let own = word("type").as_deref() == Some("Battery")
        && word("scope").as_deref() != Some("Device")
        && word("present").as_deref() != Some("0");
    if !own {
        return None;
    }
    let state = match word("status").as_deref() {
        Some("Charging") => BatteryState::Charging,
        Some("Discharging") => BatteryState::Discharging,
        Some("Full" | "Not charging") => BatteryState::Idle,
        _ => BatteryState::Unknown,
    };
    let left = files::value(&supply.join("capacity"))
        .or_else(|| share(supply, "energy"))
        .or_else(|| share(supply, "charge"))?;
    Some(Battery {
        percent: left.min(100),
        state,
    })
}

/// For drivers that tell no capacity.
fn share(supply: &Path, what: &str) -> Option<u8> {
    let figure = |when: &str| files::value::<u64>(&supply.join(format!("{what}_{when}")));
    let (now, full) = (figure("now")?, figure("full").filter(|full| *full > 0)?);
    u8::try_from(now.saturating_mul(100) / full).ok()
}
