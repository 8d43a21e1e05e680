//! The warmest sensor.

use std::path::Path;

use super::files;

/// What a sensor can truly show on a device that runs, in thousandths of a degree Celsius. Those
/// that are not connected show much less or much more.
const PLAUSIBLE_MILLI_C: std::ops::RangeInclusive<i32> = -60_000..=200_000;

/// Of all thermal zones and hardware monitors, in hundredths of a degree Celsius.
pub(super) fn warmest_centi_c(root: &Path) -> Option<i32> {
    let zones = files::entries(&root.join("sys/class/thermal"), "thermal_zone");
    let zones = zones.into_iter().map(|zone| zone.join("temp"));
    let monitors = files::entries(&root.join("sys/class/hwmon"), "hwmon");
    let monitors = monitors.iter().flat_map(|it| files::entries(it, "temp"));
    let inputs = monitors.filter(|path| is_input(path));
    zones
        .chain(inputs)
        .filter_map(|path| files::value::<i32>(&path))
        .filter(|milli| PLAUSIBLE_MILLI_C.contains(milli))
        .max()
        .map(|milli| milli / 10)
}

/// `temp1_input`, and not `temp1_max`.
fn is_input(path: &Path) -> bool {
    path.to_string_lossy().ends_with("_input")
}
