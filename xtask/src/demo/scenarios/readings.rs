//! Readings that change while the releases stay: one device's sensor, and the whole world.

use serde_json::Value;

use super::{Act, Play, rollout::Standing, text};
use crate::demo::feed::Disturbance;

/// Windows have to fill, and be looked at.
const FLAG_SECS_MAX: u64 = 45;
/// The device whose sensor jumps.
const DEVICE: &str = "pump-07";

/// e: one sensor jumps in scale.
pub(super) fn one_sensor(play: &mut Play<'_>, act: &mut Act) -> anyhow::Result<()> {
    let release = play.release(1).clone();
    let rollouts_before = states(play)?;
    let mut factor = Disturbance::NONE.factor;
    factor[6..].fill(10.0);
    play.feed.disturb(
        Some(DEVICE),
        Disturbance {
            factor,
            ..Disturbance::NONE
        },
    );
    play.view.say(
        "field",
        &format!("{DEVICE}: V7 to V9 jump to ten times their value"),
    );

    let found = play.wait(FLAG_SECS_MAX, || {
        let device = play.fleet.get(&format!("/v1/devices/{DEVICE}"))?;
        let flags = device["flags"].as_array().cloned().unwrap_or_default();
        play.view.progress(flags.len(), 1, "flags");
        Ok(flags.into_iter().find(|flag| flag["kind"] == "sensor"))
    })?;
    let flag = found.unwrap_or_default();
    act.check(
        play.view,
        !flag.is_null(),
        format!("{DEVICE} is flagged: {}", text(&flag, "text")),
    );
    let fields: Vec<&str> = flag["fields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    act.check(
        play.view,
        fields
            .iter()
            .any(|field| ["V7", "V8", "V9"].contains(field)),
        format!("the flag names {}", fields.join(", ")),
    );
    let others = flagged(play)?
        .into_iter()
        .filter(|device| device != DEVICE)
        .count();
    act.check(
        play.view,
        others == 0,
        format!("{others} other devices are flagged"),
    );
    act.check(
        play.view,
        states(play)? == rollouts_before && play.all_serve(&release, 1)?,
        "nothing was rolled back: all twelve still serve release 1",
    );
    act.figures = text(&flag, "text").to_owned();
    play.feed.disturb(None, Disturbance::NONE);
    play.view
        .say("field", &format!("{DEVICE}: the sensor is set right"));
    Ok(())
}

/// g: the inputs of the whole fleet move.
pub(super) fn the_world(play: &mut Play<'_>, act: &mut Act) -> anyhow::Result<()> {
    let (champion, release) = (play.release(1).clone(), play.release(5).clone());
    let rollout = play.roll_out(&release, &play.policy())?;
    play.follow(&rollout, FLAG_SECS_MAX, |standing| {
        !standing.treated().is_empty()
    })?;
    let mut shift = Disturbance::NONE.shift;
    (shift[0], shift[2]) = (12.0, 9.0);
    play.feed.disturb(
        None,
        Disturbance {
            shift,
            ..Disturbance::NONE
        },
    );
    play.view.say(
        "field",
        "on all devices V1 rises by 12 and V3 by 9: another season, say",
    );

    let mut flag = Value::Null;
    let standing = play.follow(&rollout, FLAG_SECS_MAX, |standing| {
        flag = retraining(play).unwrap_or_default();
        standing.is_over() || (blamed(standing) == Some("world") && !flag.is_null())
    })?;
    act.check(
        play.view,
        blamed(&standing) == Some("world"),
        format!(
            "the server attributes it to the {}",
            blamed(&standing).unwrap_or("nobody")
        ),
    );
    let fields: Vec<&str> = flag["fields"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    act.check(
        play.view,
        fields.contains(&"V1") && fields.contains(&"V3"),
        format!(
            "retraining is asked for, with the features named: {}",
            fields.join(", ")
        ),
    );
    let taken_back = standing.decided("roll_back").count();
    act.check(
        play.view,
        taken_back == 0 && standing.state == "running",
        format!(
            "no release is blamed: the rollout is {}, held where it was",
            standing.state
        ),
    );
    act.figures = text(&flag, "text").to_owned();
    play.take_back(&rollout, "retrain first")?;
    play.feed.disturb(None, Disturbance::NONE);
    play.view.say("field", "the inputs are as they were");
    let all = play.all_serve(&champion, 20)?;
    act.check(
        play.view,
        all,
        "taken back by a person, all twelve serve release 1",
    );
    Ok(())
}

/// Who the last decision that blames somebody blames.
fn blamed(standing: &Standing) -> Option<&str> {
    standing
        .decisions
        .iter()
        .rev()
        .find_map(|decision| decision["figures"]["attribution"].as_str())
}

fn retraining(play: &Play<'_>) -> anyhow::Result<Value> {
    let flags = play.fleet.get("/v1/flags")?;
    let found = flags
        .as_array()
        .into_iter()
        .flatten()
        .find(|flag| flag["kind"] == "retrain");
    Ok(found.cloned().unwrap_or_default())
}

fn flagged(play: &Play<'_>) -> anyhow::Result<Vec<String>> {
    let flags = play.fleet.get("/v1/flags")?;
    Ok(flags
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|flag| flag["device"].as_str().map(str::to_owned))
        .collect())
}

fn states(play: &Play<'_>) -> anyhow::Result<Vec<String>> {
    let rollouts = play.fleet.get("/v1/rollouts")?;
    Ok(rollouts
        .as_array()
        .into_iter()
        .flatten()
        .map(|rollout| format!("{} {}", rollout["id"], rollout["state"]))
        .collect())
}
