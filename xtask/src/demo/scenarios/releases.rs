//! What becomes of four releases: good, trained on the wrong slice, exported without scaling, failing in the field.

use serde_json::Value;

use super::{Act, Play, rollout::Standing, text};
use crate::demo::fleet::DEVICES;

/// Four stages of a few seconds each; a laden machine takes several times that.
const ROLLOUT_SECS_MAX: u64 = 120;
/// One stage, and the way back.
const STAGE_SECS_MAX: u64 = 60;

/// a: release 1 goes out in stages.
pub(super) fn good(play: &mut Play<'_>, act: &mut Act) -> anyhow::Result<()> {
    let release = play.release(1).clone();
    let package = play.fleet.get(&format!("/v1/packages/{}", release.id))?;
    let persons = names(&package["approved_by"]);
    act.check(
        play.view,
        persons == ["alice", "bob"],
        format!("approved by {}", persons.join(" and ")),
    );

    let rollout = play.roll_out(&release, &play.policy())?;
    let standing = play.follow(&rollout, ROLLOUT_SECS_MAX, Standing::is_over)?;
    let stages = stage_sizes(&standing);
    act.check(
        play.view,
        stages == [3, 6, DEVICES - 2, DEVICES],
        format!("it went to {} devices, stage by stage", list(&stages)),
    );
    act.check(
        play.view,
        standing.state == "complete",
        format!("the rollout is {}", standing.state),
    );
    let all = play.all_serve(&release, 10)?;
    act.check(
        play.view,
        all,
        "all twelve agents themselves say that they serve release 1",
    );
    let known = play.server_knows(&release, 10)?;
    act.check(play.view, known, "and the server knows it of all twelve");
    let answering = play
        .feed
        .tallies()
        .values()
        .filter(|tally| tally.rows_answered.contains_key(&release.id))
        .count();
    act.check(
        play.view,
        answering == DEVICES,
        format!("the applications of {answering} devices are answered by release 1"),
    );
    act.figures = format!("stages of {} devices", list(&stages));
    Ok(())
}

/// b: release 2 comes back by itself.
pub(super) fn wrong_slice(play: &mut Play<'_>, act: &mut Act) -> anyhow::Result<()> {
    let (champion, release) = (play.release(1).clone(), play.release(2).clone());
    let rollout = play.roll_out(&release, &play.policy())?;
    let standing = play.follow(&rollout, STAGE_SECS_MAX, Standing::is_over)?;
    act.check(
        play.view,
        standing.state == "rolled_back",
        format!("the rollout is {}", standing.state),
    );
    let decision = standing
        .decided("roll_back")
        .last()
        .cloned()
        .unwrap_or_default();
    let whose = text(&decision["figures"], "attribution").to_owned();
    act.check(
        play.view,
        whose == "baseline",
        format!("the server itself decided it, and blames the release's {whose}"),
    );
    let p_value = p_value(&decision["figures"]);
    act.check(
        play.view,
        p_value.is_some_and(|p| p <= 0.02),
        format!(
            "p = {} over devices, where the policy asks for 0.02",
            shown(p_value)
        ),
    );
    let treated = standing.treated().len();
    act.check(
        play.view,
        treated == 3,
        format!("{treated} devices ever got it"),
    );
    only_champion_serves(play, act, &champion)?;
    act.figures = reason(&decision);
    Ok(())
}

/// c: release 3 is refused by each device before it answers.
pub(super) fn lost_scaling(play: &mut Play<'_>, act: &mut Act) -> anyhow::Result<()> {
    let (champion, release) = (play.release(1).clone(), play.release(3).clone());
    let rollout = play.roll_out(&release, &play.policy())?;
    let standing = play.follow(&rollout, STAGE_SECS_MAX, Standing::is_over)?;
    let failed = play.told(&rollout, &release, "failed before serving", 3)?;
    act.check(
        play.view,
        failed.len() == 3,
        format!(
            "{} devices of the first stage refused it on their golden vectors",
            failed.len()
        ),
    );
    act.check(
        play.view,
        standing.state == "rolled_back",
        format!("the rollout is {}", standing.state),
    );
    let (answered, _) = play.feed.answered_by(&release.id);
    act.check(
        play.view,
        answered == 0,
        format!("it answered {answered} rows of any application"),
    );
    act.figures = failed.first().cloned().unwrap_or_default();
    only_champion_serves(play, act, &champion)
}

/// d: release 4 fails on trial.
pub(super) fn fails_in_the_field(play: &mut Play<'_>, act: &mut Act) -> anyhow::Result<()> {
    let (champion, release) = (play.release(1).clone(), play.release(4).clone());
    let rollout = play.roll_out(&release, &play.policy())?;
    let standing = play.follow(&rollout, STAGE_SECS_MAX, Standing::is_over)?;
    let (answered, nonfinite) = play.feed.answered_by(&release.id);
    act.check(
        play.view,
        nonfinite > 0 && nonfinite < answered,
        format!("it answered {answered} rows on trial, {nonfinite} of them with NaN"),
    );
    let back = play.told(&rollout, &release, "rolled back by the device", 3)?;
    act.check(
        play.view,
        back.len() == 3,
        format!("{} of 3 devices went back by themselves", back.len()),
    );
    act.check(
        play.view,
        standing.state == "rolled_back",
        format!("the rollout is {}", standing.state),
    );
    let treated = standing.treated().len();
    act.check(
        play.view,
        treated == 3,
        format!("it stopped after {treated} devices"),
    );
    act.figures = back.first().cloned().unwrap_or_default();
    only_champion_serves(play, act, &champion)
}

/// Each agent itself says that it serves the champion again.
fn only_champion_serves(
    play: &Play<'_>,
    act: &mut Act,
    champion: &super::Package,
) -> anyhow::Result<()> {
    let all = play.all_serve(champion, 20)?;
    let name = play.name_of(&champion.id);
    act.check(
        play.view,
        all,
        format!("all twelve agents themselves say that they serve {name}"),
    );
    Ok(())
}

/// Devices treated in all after each stage, from the decisions that began them.
pub(super) fn stage_sizes(standing: &Standing) -> Vec<usize> {
    let mut all = 0;
    standing
        .decided("advance")
        .map(|decision| {
            let devices = decision["figures"]["action"]["advance"]["devices"].as_array();
            all += devices.map_or(0, Vec::len);
            all
        })
        .collect()
}

/// The p-value of the first reason that has one.
fn p_value(figures: &Value) -> Option<f64> {
    let reasons = figures["reasons"].as_array()?;
    reasons.iter().find_map(|reason| {
        let figures = reason.as_object()?.values().next()?;
        figures["p_value"]
            .as_f64()
            .or_else(|| figures["comparison"]["p_value"].as_f64())
    })
}

fn shown(p_value: Option<f64>) -> String {
    p_value.map_or_else(|| "unknown".to_owned(), |p| format!("{p:.4}"))
}

fn reason(decision: &Value) -> String {
    let first = decision["reasons"]
        .as_array()
        .and_then(|reasons| reasons.first());
    first.and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn names(list: &Value) -> Vec<String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    let mut names: Vec<_> = list
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

fn list(numbers: &[usize]) -> String {
    let words: Vec<_> = numbers.iter().map(usize::to_string).collect();
    words.join(", ")
}
