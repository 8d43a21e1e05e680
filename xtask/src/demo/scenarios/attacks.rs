//! Packages that devices refuse although the server, told to misbehave, offers them.

use super::{Act, Package, Play, rollout::Standing};

/// A device looks at a package within seconds.
const REFUSAL_SECS_MAX: u64 = 45;

/// f: one approval, another slot, revoked.
pub(super) fn refused_by_devices(play: &mut Play<'_>, act: &mut Act) -> anyhow::Result<()> {
    let champion = play.release(1).clone();
    let attacks = [
        (
            play.attacks.one_approval.clone(),
            "one approval where two must",
            "1 of the 2 persons needed approved it",
        ),
        (
            play.attacks.other_slot.clone(),
            "approved for another slot",
            "not for this slot",
        ),
        (
            play.attacks.revoked.clone(),
            "revoked by alice and bob",
            "revoked",
        ),
    ];
    for (package, _, _) in &attacks {
        play.fleet
            .cli(["publish".as_ref(), package.path.as_os_str()])?;
    }
    let revocations = play.fleet.workshop().revoke(&attacks[2].0)?;
    play.fleet
        .cli(["publish".as_ref(), revocations.as_os_str()])?;
    play.view.say(
        "operator",
        "alice and bob revoke one package; the new revocation list is published",
    );
    let offered = attacks
        .iter()
        .filter(|(package, _, _)| play.roll_out(package, &play.policy()).is_ok())
        .count();
    act.check(
        play.view,
        offered == 0,
        "an honest server offers none of the three",
    );

    play.fleet.kill_server()?;
    play.fleet.start_server(&["--drill-offer-unapproved"])?;
    play.view
        .say("server", "started again with --drill-offer-unapproved");
    let mut figures = Vec::new();
    for (package, what, words) in &attacks {
        let said = refused(play, act, package, what, words)?;
        figures.push(format!("{what}: {said}"));
    }
    let all = play.all_serve(&champion, 10)?;
    act.check(
        play.view,
        all,
        "all twelve agents themselves say that they still serve release 1",
    );
    act.figures = figures.join("; ");
    play.fleet.kill_server()?;
    play.fleet.start_server(&[])?;
    play.view.say("server", "started again as it should be");
    Ok(())
}

fn refused(
    play: &Play<'_>,
    act: &mut Act,
    package: &Package,
    what: &str,
    words: &str,
) -> anyhow::Result<String> {
    let rollout = play.roll_out(package, &play.policy())?;
    play.follow(&rollout, REFUSAL_SECS_MAX, Standing::is_over)?;
    let refused = play.told(&rollout, package, "refused", 3)?;
    let told = refused.first().cloned().unwrap_or_default();
    let (answered, _) = play.feed.answered_by(&package.id);
    act.check(
        play.view,
        refused.len() == 3 && told.contains(words) && answered == 0,
        format!(
            "{what}: {} of 3 devices refused it themselves, it answered {answered} rows",
            refused.len()
        ),
    );
    Ok(told)
}
