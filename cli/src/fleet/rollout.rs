//! Rollouts: planned, started, watched, paused, taken back.

use std::time::Duration;

use serde_json::{Value, json};

use super::answers::{Decision, Rollout, RolloutCreated, RolloutSummary};
use super::{Client, ago, parse, short, short_or_none};
use crate::arguments::RolloutNew;
use crate::failure::{Failure, Result, Who};
use crate::files;
use crate::output::Output;
use crate::time;

/// Between two looks at a rollout that is watched.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// Plans a rollout.
///
/// # Errors
/// When the policy is no TOML, or those of the server.
pub(crate) fn new(client: &Client, request: &RolloutNew, output: &mut Output) -> Result<()> {
    let text = files::read_text(&request.policy)?;
    let policy: toml::Table = toml::from_str(&text).map_err(|error| {
        let failure = Failure::operator(format!("{} is not valid TOML", request.policy.display()))
            .next("docs/operating.md has a policy to start from, each key explained");
        match error.span() {
            Some(span) => failure.pointing_at(&request.policy, &text, span, error.message()),
            None => failure.because(error),
        }
    })?;
    let body = json!({
        "slot": request.slot,
        "release": request.release,
        "selector": request.cohort,
        "policy": policy,
        "start": request.start,
    });
    let answer = client.order("/v1/rollouts", &body)?;
    output.show(&answer, |output| {
        let created: RolloutCreated = parse(&answer)?;
        output.line(format!("rollout {} is {}", created.id, created.state))?;
        if !request.start {
            output.line(format!(
                "start it with: bellwether rollout start {}",
                created.id
            ))?;
        }
        Ok(())
    })
}

/// Orders `start`, `pause`, `resume` or `rollback`.
///
/// # Errors
/// Those of the server.
pub(crate) fn order(
    client: &Client,
    id: u64,
    what: &str,
    reason: &str,
    output: &mut Output,
) -> Result<()> {
    let answer = client.order(
        &format!("/v1/rollouts/{id}/{what}"),
        &json!({ "reason": reason }),
    )?;
    output.show(&answer, |output| {
        output.line(format!("rollout {id}: {what} ordered"))
    })
}

/// Shows one rollout, or all.
///
/// # Errors
/// Those of the server.
pub(crate) fn status(
    client: &Client,
    id: Option<u64>,
    now: u64,
    output: &mut Output,
) -> Result<()> {
    let Some(id) = id else {
        let answer = client.read("/v1/rollouts")?;
        return output.show(&answer, |output| {
            let rollouts: Vec<RolloutSummary> = parse(&answer)?;
            let rows: Vec<_> = rollouts.iter().map(row).collect();
            output.table(
                [
                    "id", "slot", "release", "cohort", "state", "stage", "treated",
                ],
                &rows,
            )
        });
    };
    let answer = client.read(&format!("/v1/rollouts/{id}"))?;
    output.show(&answer, |output| describe(&parse(&answer)?, now, output))
}

/// Prints each new decision until the rollout ends.
///
/// # Errors
/// When it ends in another way than complete, when `timeout_secs` pass, or those of the server.
pub(crate) fn watch(
    client: &Client,
    id: u64,
    timeout_secs: Option<u64>,
    output: &mut Output,
) -> Result<()> {
    let began = std::time::Instant::now();
    let mut shown = String::new();
    loop {
        let answer = client.read(&format!("/v1/rollouts/{id}"))?;
        let rollout: Rollout = parse(&answer)?;
        let summary = &rollout.summary;
        let line = progress_line(summary);
        if line != shown {
            if output.json() {
                let compact = slim(&answer).to_string();
                output.raw(compact.as_bytes())?;
                output.raw(b"\n")?;
            } else {
                output.line(&line)?;
            }
            output.flush()?;
            shown = line;
        }
        match summary.state.as_str() {
            "complete" => return Ok(()),
            "rolled_back" | "disabled" => {
                let text = summary
                    .decision
                    .as_ref()
                    .map(|decision| decision.text.clone());
                return Err(Failure::new(
                    Who::Package,
                    format!("rollout {id} ended {}", summary.state),
                )
                .next(
                    text.unwrap_or_else(|| format!("`bellwether rollout status {id}` says why")),
                ));
            }
            _ => {}
        }
        if timeout_secs.is_some_and(|limit| began.elapsed() >= Duration::from_secs(limit)) {
            return Err(Failure::new(
                Who::Server,
                format!(
                    "rollout {id} is still {} after the time given",
                    summary.state
                ),
            )
            .next(format!(
                "`bellwether rollout status {id}` says what it waits for"
            )));
        }
        std::thread::sleep(WATCH_PERIOD);
    }
}

fn row(rollout: &RolloutSummary) -> [String; 7] {
    [
        rollout.id.to_string(),
        rollout.slot.clone(),
        short(&rollout.release),
        rollout.selector.clone(),
        rollout.state.clone(),
        stage_text(rollout),
        format!("{} of {}", rollout.treated, rollout.devices),
    ]
}

fn describe(rollout: &Rollout, now: u64, output: &mut Output) -> Result<()> {
    let summary = &rollout.summary;
    output.line(format!(
        "rollout {}: {} on slot {} of {}",
        summary.id,
        short(&summary.release),
        summary.slot,
        summary.selector
    ))?;
    output.line(format!(
        "  before  {}",
        short_or_none(summary.previous.as_deref())
    ))?;
    output.line(format!(
        "  state   {}, stage {}, {} of {} devices treated",
        summary.state,
        stage_text(summary),
        summary.treated,
        summary.devices
    ))?;
    if let Some(decision) = &summary.decision {
        say_decision(decision, output)?;
    }
    let rows: Vec<_> = rollout
        .device_states
        .iter()
        .map(|device| {
            let outcome = device.outcome.as_ref();
            [
                device.device.clone(),
                device.arm.clone(),
                device
                    .stage
                    .map_or_else(|| "-".to_owned(), |stage| (stage + 1).to_string()),
                short_or_none(device.serving.as_deref()),
                device.phase.clone().unwrap_or_else(|| "-".to_owned()),
                ago(now, device.last_seen),
                outcome.map_or_else(String::new, |outcome| {
                    format!("{}: {}", outcome.kind, outcome.text)
                }),
            ]
        })
        .collect();
    output.table(
        [
            "device",
            "arm",
            "stage",
            "serving",
            "phase",
            "last seen",
            "outcome",
        ],
        &rows,
    )
}

fn say_decision(decision: &Decision, output: &mut Output) -> Result<()> {
    output.line(format!(
        "  last    {} at {}{}: {}",
        decision.decision,
        time::stamp(decision.at),
        decision
            .stage
            .map_or_else(String::new, |stage| format!(" in stage {}", stage + 1)),
        decision.text
    ))?;
    for reason in &decision.reasons {
        output.line(format!("          because {reason}"))?;
    }
    Ok(())
}

fn progress_line(summary: &RolloutSummary) -> String {
    let decision = summary.decision.as_ref();
    format!(
        "{}, stage {}, {} of {} treated{}",
        summary.state,
        stage_text(summary),
        summary.treated,
        summary.devices,
        decision.map_or_else(String::new, |decision| format!(": {}", decision.text)),
    )
}

/// The stage as people count, or that none has begun.
fn stage_text(rollout: &RolloutSummary) -> String {
    match rollout.stage {
        Some(stage) => format!("{} of {}", stage + 1, rollout.stages),
        None => format!("none of {}", rollout.stages),
    }
}

/// A rollout without its policy and device list, for one line of JSON per change.
fn slim(answer: &Value) -> Value {
    let mut slim = answer.clone();
    if let Some(fields) = slim.as_object_mut() {
        fields.remove("policy");
        fields.remove("device_states");
    }
    slim
}
