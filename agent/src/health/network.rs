//! The network interface that leads to the server: the one with the default route.

use std::path::Path;

use bellwether_protocol::{LinkKind, Network};

use super::files;

/// `RTF_UP` of `linux/route.h`.
const UP: u32 = 1;
/// `RTF_REJECT`: such a route leads nowhere.
const REJECT: u32 = 0x200;
/// `ARPHRD_ETHER` of `linux/if_arp.h`.
const ETHERNET: u32 = 1;
/// `ARPHRD_PPP`: what most modems look like.
const PPP: u32 = 512;
/// `ARPHRD_RAWIP`: what the others look like.
const RAW_IP: u32 = 519;

/// The interface's kind and counts; `None` while there is no default route.
pub(super) fn read(root: &Path) -> Option<Network> {
    let name = by_ipv4(root).or_else(|| by_ipv6(root))?;
    let folder = root.join("sys/class/net").join(&name);
    let count = |what: &str| files::value::<u64>(&folder.join("statistics").join(what));
    let errors = count("rx_errors").unwrap_or(0) + count("tx_errors").unwrap_or(0);
    Some(Network {
        link: kind(&folder, &name),
        signal_dbm: signal_dbm(root, &name),
        received_kib: count("rx_bytes")? / 1024,
        sent_kib: count("tx_bytes")? / 1024,
        errors: u32::try_from(errors).unwrap_or(u32::MAX),
    })
}

/// Of the default routes the one that the kernel prefers.
fn by_ipv4(root: &Path) -> Option<String> {
    let text = files::text(&root.join("proc/net/route"))?;
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [name, to, _, flags, _, _, metric, mask, ..] = columns[..] else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let default = to == "00000000" && mask == "00000000";
        let leads = default && flags & UP != 0 && flags & REJECT == 0;
        leads.then_some((metric.parse::<u32>().ok()?, name.to_owned()))
    };
    let best = text.lines().filter_map(route).min();
    best.map(|(_, name)| name)
}

fn by_ipv6(root: &Path) -> Option<String> {
    let text = files::text(&root.join("proc/net/ipv6_route"))?;
    let route = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [to, length, _, _, _, metric, _, _, flags, name] = columns[..] else {
            return None;
        };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let default = length == "00" && to.bytes().all(|digit| digit == b'0');
        let leads = default && flags & UP != 0 && flags & REJECT == 0 && name != "lo";
        leads.then_some((u32::from_str_radix(metric, 16).ok()?, name.to_owned()))
    };
    let best = text.lines().filter_map(route).min();
    best.map(|(_, name)| name)
}

fn kind(folder: &Path, name: &str) -> LinkKind {
    let wireless = folder.join("wireless").exists() || folder.join("phy80211").exists();
    let uevent = files::text(&folder.join("uevent")).unwrap_or_default();
    let modem = uevent.lines().any(|line| line == "DEVTYPE=wwan") || name.starts_with("wwan");
    match files::value::<u32>(&folder.join("type")) {
        _ if wireless => LinkKind::Wifi,
        _ if modem => LinkKind::Cellular,
        Some(PPP | RAW_IP) => LinkKind::Cellular,
        Some(ETHERNET) => LinkKind::Ethernet,
        _ => LinkKind::Other,
    }
}

/// The third figure of the interface's line in `/proc/net/wireless`.
fn signal_dbm(root: &Path, name: &str) -> Option<i8> {
    let text = files::text(&root.join("proc/net/wireless"))?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, figures) = lines.find(|(interface, _)| interface.trim() == name)?;
    let level = figures.split_whitespace().nth(2)?;
    level.trim_end_matches('.').parse().ok()
}
