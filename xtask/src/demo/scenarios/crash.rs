//! A server that is killed in mid-rollout.

use std::{thread, time::Duration};

use super::{Act, Play, releases::stage_sizes, rollout::Standing};
use crate::demo::fleet::DEVICES;

/// Four stages of a few seconds each; a laden machine takes several times that.
const ROLLOUT_SECS_MAX: u64 = 120;
/// How long the server is gone.
const GONE: Duration = Duration::from_secs(3);

/// h: SIGKILL, and on it goes.
pub(super) fn server_killed(play: &mut Play<'_>, act: &mut Act) -> anyhow::Result<()> {
    let release = play.release(5).clone();
    let rollout = play.roll_out(&release, &play.policy())?;
    let before = play.follow(&rollout, ROLLOUT_SECS_MAX, |standing| {
        standing.is_over() || standing.treated().len() >= 6
    })?;
    let in_the_middle = before.state == "running" && before.treated().len() == 6;
    act.check(
        play.view,
        in_the_middle,
        format!("{} devices are treated", before.treated().len()),
    );
    play.fleet.kill_server()?;
    play.view.say("server", "is killed with SIGKILL");

    let (asked, answered) = (play.feed.totals().asked, play.feed.totals().answered);
    thread::sleep(GONE);
    let totals = play.feed.totals();
    let (asked, answered) = (totals.asked - asked, totals.answered - answered);
    act.check(
        play.view,
        answered > 0 && answered == asked,
        format!("while it is gone, devices answer {answered} of {asked} rows"),
    );
    play.fleet.start_server(&[])?;
    play.view.say("server", "is started again");
    let standing = play.follow(&rollout, ROLLOUT_SECS_MAX, Standing::is_over)?;
    act.check(
        play.view,
        standing.state == "complete",
        format!("the rollout is {}", standing.state),
    );
    let kept = before.decisions.iter().all(|decision| {
        standing
            .decisions
            .iter()
            .any(|later| later["at"] == decision["at"] && later["text"] == decision["text"])
    });
    act.check(
        play.view,
        kept,
        "every decision from before is still on record",
    );
    let stages = stage_sizes(&standing);
    act.check(
        play.view,
        stages == [3, 6, DEVICES - 2, DEVICES],
        format!("no stage was skipped or repeated: {stages:?} devices"),
    );
    let all = play.all_serve(&release, 15)?;
    act.check(
        play.view,
        all,
        "all twelve agents themselves say that they serve release 5",
    );
    let known = play.server_knows(&release, 10)?;
    act.check(play.view, known, "and the server knows it of all twelve");
    act.figures =
        format!("stages of {stages:?} devices; {answered} rows answered while the server was gone");
    Ok(())
}
