//! Who is in which arm: at random, but repeatable.
//!
//! The order of a draw comes from the rollout's id, the release and the device's id, so that every
//! computation of it gives the same, and nobody picks favourites. A device's rank is
//! `mix(FNV-1a-64(rollout id, 8 bytes LE || package id, 32 bytes || device id))`, where `mix` is the
//! finaliser of SplitMix64; ties go by device id. FNV-1a: <http://www.isthe.com/chongo/tech/comp/fnv/>;
//! SplitMix64: Steele, Lea, Flood, OOPSLA 2014.

use alloc::vec::Vec;

use bellwether_package::ids::PackageId;
use bellwether_protocol::{DeviceId, RolloutId};

use super::snapshot::Arm;

/// The arms at the start of a rollout, in the order of the draw: everybody is control, and the
/// last `holdout` devices of the order are the holdout. Stages take devices from the front.
pub fn draw_arms(
    rollout: RolloutId,
    release: &PackageId,
    holdout: u32,
    devices: &[DeviceId],
) -> Vec<(DeviceId, Arm)> {
    let mut order = devices.to_vec();
    order.sort_by_cached_key(|device| (rank(rollout, release, device), device.clone()));
    order.dedup();
    let control = order.len().saturating_sub(holdout as usize);
    let arm = |place| {
        if place < control {
            Arm::Control
        } else {
            Arm::Holdout
        }
    };
    order
        .into_iter()
        .enumerate()
        .map(|(place, device)| (device, arm(place)))
        .collect()
}

/// A device's place in the draw: lower ones first.
pub fn rank(rollout: RolloutId, release: &PackageId, device: &DeviceId) -> u64 {
    let bytes = rollout.0.to_le_bytes();
    mix(fnv1a(&[&bytes, &release.0.0, device.as_str().as_bytes()]))
}

fn fnv1a(parts: &[&[u8]]) -> u64 {
    parts
        .iter()
        .copied()
        .flatten()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
