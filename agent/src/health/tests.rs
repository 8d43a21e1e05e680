//! Devices as the kernel would show them, in folders of their own.

use bellwether_protocol::{Battery, BatteryState, LinkKind, Network};

use super::*;

struct Device(tempfile::TempDir);

impl Device {
    fn with(files: &[(&str, &str)]) -> Self {
        let device = Self(tempfile::tempdir().unwrap());
        files
            .iter()
            .for_each(|(path, text)| device.write(path, text));
        device
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn sensors(&self) -> Sensors {
        Sensors::below(self.0.path())
    }

    fn measure(&self) -> Health {
        self.sensors().measure(self.0.path())
    }
}

const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
";

#[test]
fn a_board_tells_processor_memory_load_and_its_warmest_sensor() {
    let device = Device::with(&[
        (
            "proc/stat",
            "cpu  100 0 100 800 0 0 0 0 50 0\ncpu0 1 1 1 1\nintr 7\n",
        ),
        (
            "proc/meminfo",
            "MemTotal:  1926392 kB\nMemFree:  9 kB\nMemAvailable:  1104000 kB\n",
        ),
        ("proc/loadavg", "1.42 0.80 0.70 2/300 4242\n"),
        ("proc/uptime", "86400.52 160000.00\n"),
        (
            "proc/self/status",
            "Name:\tagent\nVmHWM:\t 9000 kB\nVmRSS:\t 7300 kB\n",
        ),
        ("sys/class/thermal/thermal_zone0/temp", "48500\n"),
        ("sys/class/thermal/cooling_device0/temp", "99000\n"),
        ("sys/class/hwmon/hwmon0/temp1_input", "51250\n"),
        ("sys/class/hwmon/hwmon0/temp1_max", "90000\n"),
        // Not connected.
        ("sys/class/hwmon/hwmon1/temp1_input", "-273000\n"),
        ("sys/class/hwmon/hwmon1/temp2_input", "2147483\n"),
    ]);
    let mut sensors = device.sensors();
    let health = sensors.measure(device.0.path());
    assert_eq!(health.cpu_permille, None, "it was only just looked at");
    device.write("proc/stat", "cpu  300 0 200 1400 100 0 0 0 150 0\n");
    assert_eq!(sensors.measure(device.0.path()).cpu_permille, Some(300));
    let memory = health.memory.unwrap();
    assert_eq!((memory.kib, memory.kib_used()), (1_926_392, 822_392));
    assert_eq!(health.load_centi, Some(142));
    assert_eq!(health.uptime_secs, 86_400);
    assert_eq!(health.agent_kib, Some(7_300));
    assert_eq!(health.temperature_centi_c, Some(5_125));
}

#[test]
fn the_interface_with_the_preferred_default_route_is_told() {
    let device = Device::with(&[
        ("proc/net/route", ROUTES),
        ("sys/class/net/eth0/type", "1\n"),
        ("sys/class/net/eth0/statistics/rx_bytes", "3072000\n"),
        ("sys/class/net/eth0/statistics/tx_bytes", "1024\n"),
        ("sys/class/net/eth0/statistics/rx_errors", "2\n"),
        ("sys/class/net/eth0/statistics/tx_errors", "1\n"),
        ("sys/class/net/wlan0/type", "1\n"),
        ("sys/class/net/wlan0/wireless/beacon", ""),
        ("sys/class/net/wlan0/statistics/rx_bytes", "5120\n"),
        ("sys/class/net/wlan0/statistics/tx_bytes", "6144\n"),
        (
            "proc/net/wireless",
            "Inter-| sta-|   Quality        |\n face | tus | link level noise |\n \
             wlan0: 0000   54.  -56.  -256        0      0      0      0      0        0\n",
        ),
    ]);
    let cable = Network {
        link: LinkKind::Ethernet,
        signal_dbm: None,
        received_kib: 3_000,
        sent_kib: 1,
        errors: 3,
    };
    assert_eq!(device.measure().network, Some(cable));
    // The cable is pulled.
    device.write(
        "proc/net/route",
        ROUTES
            .lines()
            .take(2)
            .collect::<Vec<_>>()
            .join("\n")
            .as_str(),
    );
    let radio = Network {
        link: LinkKind::Wifi,
        signal_dbm: Some(-56),
        received_kib: 5,
        sent_kib: 6,
        errors: 0,
    };
    assert_eq!(device.measure().network, Some(radio));
    device.write("proc/net/route", ROUTES.lines().next().unwrap());
    assert_eq!(device.measure().network, None);
}

#[test]
fn a_modem_is_told_by_its_type_also_with_ipv6_alone() {
    let zero = "0".repeat(32);
    let routes = format!(
        "{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n\
         {zero} 00 {zero} 00 fe80{} 00000400 00000003 00000000 00000003     ppp0\n",
        &zero[4..]
    );
    let device = Device::with(&[
        ("proc/net/ipv6_route", &routes),
        ("sys/class/net/ppp0/type", "512\n"),
        ("sys/class/net/ppp0/statistics/rx_bytes", "0\n"),
        ("sys/class/net/ppp0/statistics/tx_bytes", "0\n"),
    ]);
    assert_eq!(device.measure().network.unwrap().link, LinkKind::Cellular);
    device.write("sys/class/net/ppp0/type", "1\n");
    assert_eq!(device.measure().network.unwrap().link, LinkKind::Ethernet);
    device.write(
        "sys/class/net/ppp0/uevent",
        "DEVTYPE=wwan\nINTERFACE=ppp0\n",
    );
    assert_eq!(device.measure().network.unwrap().link, LinkKind::Cellular);
}

#[test]
fn the_devices_own_battery_is_told_and_no_others() {
    let device = Device::with(&[
        ("sys/class/power_supply/AC/type", "Mains\n"),
        ("sys/class/power_supply/AC/online", "1\n"),
        ("sys/class/power_supply/BAT0/type", "Battery\n"),
        ("sys/class/power_supply/BAT0/present", "0\n"),
        ("sys/class/power_supply/BAT0/capacity", "7\n"),
        ("sys/class/power_supply/BAT-mouse/type", "Battery\n"),
        ("sys/class/power_supply/BAT-mouse/scope", "Device\n"),
        ("sys/class/power_supply/BAT-mouse/capacity", "11\n"),
    ]);
    assert_eq!(device.measure().battery, None);
    device.write("sys/class/power_supply/BAT1/type", "Battery\n");
    assert_eq!(device.measure().battery, None, "it tells nothing");
    device.write("sys/class/power_supply/BAT1/energy_now", "30000000\n");
    device.write("sys/class/power_supply/BAT1/energy_full", "40000000\n");
    device.write("sys/class/power_supply/BAT1/status", "Discharging\n");
    let battery = |percent, state| Some(Battery { percent, state });
    let found = device.measure().battery;
    assert_eq!(found, battery(75, BatteryState::Discharging));
    device.write("sys/class/power_supply/BAT1/capacity", "104\n");
    device.write("sys/class/power_supply/BAT1/status", "Not charging\n");
    assert_eq!(device.measure().battery, battery(100, BatteryState::Idle));
}

#[test]
fn a_device_that_shows_nothing_or_nonsense_is_measured_as_far_as_it_goes() {
    let nothing = Device::with(&[]).measure();
    assert_eq!((nothing.uptime_secs, nothing.memory), (0, None));
    assert!(nothing.disk.is_some(), "there is a disk under the test");
    let nonsense = [
        "proc/stat",
        "proc/meminfo",
        "proc/loadavg",
        "proc/uptime",
        "proc/self/status",
        "proc/net/route",
        "proc/net/ipv6_route",
        "proc/net/wireless",
        "sys/class/thermal/thermal_zone0/temp",
        "sys/class/power_supply/BAT0/type",
    ];
    for text in ["", "\0\u{7f}", "cpu x\n:\n NaN kB", &"0 ".repeat(70_000)] {
        let device = Device::with(&nonsense.map(|path| (path, text)));
        let health = device.measure();
        assert_eq!((health.memory, health.network), (None, None), "{text:.20}");
        assert_eq!(
            (health.battery, health.cpu_permille),
            (None, None),
            "{text:.20}"
        );
    }
}

#[test]
fn this_machine_is_measured_in_a_moment() {
    let mut sensors = Sensors::default();
    let begun = std::time::Instant::now();
    let health = sensors.measure(Path::new("/"));
    let took = begun.elapsed();
    assert!(
        health
            .memory
            .is_some_and(|memory| memory.kib > memory.kib_free)
    );
    assert!(health.disk.is_some_and(|disk| disk.kib >= disk.kib_free));
    assert!(health.uptime_secs > 0 && health.agent_kib.is_some_and(|kib| kib > 0));
    // A fraction of a millisecond on an idle board; no test may depend on an idle machine.
    assert!(took.as_millis() < 1_000, "{took:?}");
}
