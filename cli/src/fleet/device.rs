//! Devices: their state, their claims, and the question that field staff ask.

use std::path::Path;

use serde_json::{Value, json};

use super::answers::{Claim, Device, Health, Network, OrderAccepted, Served, Slot, Why};
use super::client::segment;
use super::{Client, ago, parse, short, short_or_none};
use crate::arguments::{self, DeviceClaim, DeviceRevoke};
use crate::failure::{Failure, Result};
use crate::files::{self, Existing, Readers};
use crate::output::{self, Output, human_bytes};
use crate::time;

/// All devices.
///
/// # Errors
/// Those of the server.
pub(crate) fn list(client: &Client, now: u64, output: &mut Output) -> Result<()> {
    let answer = client.read("/v1/devices")?;
    output.show(&answer, |output| {
        let devices: Vec<Device> = parse(&answer)?;
        let rows: Vec<_> = devices
            .iter()
            .map(|device| {
                let slots: Vec<_> = device.slots.iter().map(slot_in_short).collect();
                let flags: Vec<_> = device.flags.iter().map(|flag| flag.kind.as_str()).collect();
                [
                    device.device.clone(),
                    ago(now, device.last_seen),
                    slots.join(", "),
                    flags.join(", "),
                ]
            })
            .collect();
        output.table(["device", "last seen", "slots", "flags"], &rows)
    })
}

/// One device.
///
/// # Errors
/// Those of the server.
pub(crate) fn show(client: &Client, device: &str, now: u64, output: &mut Output) -> Result<()> {
    let answer = client.read(&format!("/v1/devices/{}", segment(device)))?;
    output.show(&answer, |output| {
        let device: Device = parse(&answer)?;
        let attributes: Vec<_> = device
            .attributes
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        output.line(format!(
            "{}, last seen {}",
            device.device,
            ago(now, device.last_seen)
        ))?;
        if let Some(revoked) = &device.revoked {
            let since = ago(now, Some(revoked.at));
            output.line(format!("  shut out    {since}: {}", revoked.reason))?;
        }
        output.line(format!("  attributes  {}", attributes.join(" ")))?;
        if let Some(health) = &device.health {
            output.line(format!("  health      {}", health_line(health)))?;
            if let Some(served) = &health.served {
                output.line(format!("  served      {}", served_line(served)))?;
            }
        }
        for slot in &device.slots {
            output.line(format!("  slot {}", slot_in_short(slot)))?;
            output.line(format!(
                "    shall serve  {}",
                short_or_none(slot.desired.as_deref())
            ))?;
            if let Some(reason) = &slot.disabled {
                output.line(format!("    disabled     {reason}"))?;
            }
            if let Some(candidate) = &slot.candidate {
                output.line(format!("    candidate    {}", short(candidate)))?;
            }
            if let Some(outcome) = &slot.outcome {
                output.line(format!(
                    "    last order   {}: {}",
                    outcome.kind, outcome.text
                ))?;
            }
        }
        for flag in &device.flags {
            output.line(format!("  flag {}: {}", flag.kind, flag.text))?;
        }
        Ok(())
    })
}

/// Makes a claim; the secret goes to a file, or is printed once.
///
/// # Errors
/// When the file exists, or those of the server.
pub(crate) fn claim(client: &Client, request: &DeviceClaim, output: &mut Output) -> Result<()> {
    if let Some(out) = &request.out {
        files::refuse_existing(out)?;
    }
    let tags: serde_json::Map<String, Value> = request
        .tags
        .iter()
        .map(|tag| (tag.key.to_string(), Value::from(tag.value.as_str())))
        .collect();
    let body = json!({ "device": request.device, "ttl_secs": request.ttl_secs, "tags": tags });
    let answer = client.order("/v1/claims", &body)?;
    let claim: Claim = parse(&answer)?;
    if let Some(out) = &request.out {
        write_claim(out, &claim.claim)?;
        let shown = json!({
            "claim_file": out.display().to_string(),
            "ca_sha256": claim.ca_sha256,
            "expires": claim.expires,
        });
        return output.show(&shown, |output| {
            output.line(format!("claim      in {}", out.display()))?;
            claim_rest(&claim, output)
        });
    }
    output.show(&answer, |output| {
        output.line(format!("claim      {}", claim.claim))?;
        claim_rest(&claim, output)
    })
}

/// Shuts a device out.
///
/// # Errors
/// When nobody consents, or those of the server.
pub(crate) fn revoke(client: &Client, request: &DeviceRevoke, output: &mut Output) -> Result<()> {
    let device = &request.device;
    let question = format!(
        "{device} will not reach the server any more, until it is enrolled again with a new claim."
    );
    if !request.yes && !output::confirm(&question, "--yes")? {
        return Err(Failure::operator("not shut out: nobody said yes").next("nothing was changed"));
    }
    let path = format!("/v1/devices/{}/revoke", segment(device.as_str()));
    let answer = client.order(&path, &json!({ "reason": request.reason }))?;
    output.show(&answer, |output| {
        output.line(format!("{device} is shut out"))
    })
}

/// Takes the model of a slot out of service on a cohort.
///
/// # Errors
/// When nobody consents, or those of the server.
pub(crate) fn disable(
    client: &Client,
    request: &arguments::Disable,
    output: &mut Output,
) -> Result<()> {
    let question = format!(
        "Slot {} of every device that matches {} will answer nothing any more.",
        request.slot, request.cohort
    );
    if !request.yes && !output::confirm(&question, "--yes")? {
        return Err(Failure::operator("not disabled: nobody said yes").next("nothing was changed"));
    }
    let body = json!({
        "slot": request.slot,
        "selector": request.cohort,
        "reason": request.reason,
    });
    let answer = client.order("/v1/disable", &body)?;
    output.show(&answer, |output| {
        let accepted: OrderAccepted = parse(&answer)?;
        output.line(format!("ordered on {} devices", accepted.devices))
    })
}

/// Is it well, and if not, why.
///
/// # Errors
/// When the device has several slots and none was named, or those of the server.
pub(crate) fn why(
    client: &Client,
    device: &str,
    slot: Option<&str>,
    output: &mut Output,
) -> Result<()> {
    let slot = match slot {
        Some(slot) => slot.to_owned(),
        None => only_slot(client, device)?,
    };
    let path = format!(
        "/v1/devices/{}/why?slot={}",
        segment(device),
        segment(&slot)
    );
    let answer = client.read(&path)?;
    output.show(&answer, |output| {
        let why: Why = parse(&answer)?;
        output.line(&why.sentence)?;
        for step in &why.chain {
            output.line(format!(
                "  {}  {:<10}  {}",
                time::stamp(step.at),
                step.kind,
                step.text
            ))?;
        }
        Ok(())
    })
}

fn only_slot(client: &Client, device: &str) -> Result<String> {
    let answer = client.read(&format!("/v1/devices/{}", segment(device)))?;
    let device: Device = parse(&answer)?;
    match &device.slots[..] {
        [] => Err(
            Failure::operator(format!("{} has no slot yet", device.device))
                .next("nothing was ever assigned to it: start a rollout for its cohort"),
        ),
        [slot] => Ok(slot.slot.clone()),
        slots => {
            let names: Vec<_> = slots.iter().map(|slot| slot.slot.as_str()).collect();
            Err(
                Failure::operator(format!("{} has {} slots", device.device, slots.len()))
                    .next(format!("name one with --slot: {}", names.join(", "))),
            )
        }
    }
}

fn slot_in_short(slot: &Slot) -> String {
    let phase = slot.phase.as_deref().unwrap_or("unknown");
    format!(
        "{}: {phase} {}",
        slot.slot,
        short_or_none(slot.serving.as_deref())
    )
}

fn health_line(health: &Health) -> String {
    let mut parts = Vec::new();
    if let Some(permille) = health.cpu_permille {
        parts.push(format!("cpu {} %", permille / 10));
    }
    if let (Some(used), Some(all)) = (health.memory_bytes_used, health.memory_bytes) {
        parts.push(format!(
            "memory {} of {}",
            human_bytes(used),
            human_bytes(all)
        ));
    }
    if let Some(free) = health.disk_bytes_free {
        parts.push(format!("disk {} free", human_bytes(free)));
    }
    if let Some(centi) = health.temperature_centi_c {
        parts.push(format!("{:.1} °C", f64::from(centi) / 100.0));
    }
    parts.push(format!("up {}", super::span(health.uptime_secs)));
    if let Some(network) = &health.network {
        parts.push(network_words(network));
    }
    if let Some(battery) = &health.battery {
        parts.push(format!("battery {} %, {}", battery.percent, battery.state));
    }
    if let Some(version) = &health.agent_version {
        parts.push(format!("agent {version}"));
    }
    parts.push(match health.clock_offset_secs {
        Some(secs) => format!("clock {} ({:+} s)", health.clock, -secs),
        None => format!("clock {}", health.clock),
    });
    parts.join(", ")
}

fn network_words(network: &Network) -> String {
    let (received, sent) = (
        human_bytes(network.received_bytes),
        human_bytes(network.sent_bytes),
    );
    let signal = network.signal_dbm.map(|dbm| format!(" at {dbm} dBm"));
    let errors = (network.errors > 0).then(|| format!(" and {} errors", network.errors));
    format!(
        "{}{} ({received} in, {sent} out{})",
        network.link,
        signal.unwrap_or_default(),
        errors.unwrap_or_default()
    )
}

/// What the models did since the health report before.
fn served_line(served: &Served) -> String {
    let mut parts = vec![format!(
        "{} rows, {} failed",
        served.rows, served.rows_failed
    )];
    if let Some(us) = served.latency_us_p99 {
        parts.push(format!("p99 {} µs", us));
    }
    if served.worker_deaths > 0 {
        parts.push(format!("{} workers died", served.worker_deaths));
    }
    if let Some(bytes) = served.workers_bytes {
        parts.push(format!("workers hold {}", human_bytes(bytes)));
    }
    parts.join(", ")
}

fn write_claim(out: &Path, claim: &str) -> Result<()> {
    files::write(
        out,
        format!("{claim}\n").as_bytes(),
        Existing::Keep,
        Readers::Owner,
    )
}

fn claim_rest(claim: &Claim, output: &mut Output) -> Result<()> {
    output.line(format!("ca sha256  {}", claim.ca_sha256))?;
    output.line(format!("expires    {}", time::stamp(claim.expires)))
}
