//! The planner's loop: read a rollout's state, decide, check, commit.
//!
//! Decisions are made by `bellwether_rollout` alone. This shell reads everything from the
//! database each time, so that a crash or a repeat is harmless, and commits a decision only if the
//! rollout's generation is still the one that it was made for.

mod commit;
mod snapshot;
mod standing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellwether_package::UnixSecs;
use bellwether_protocol::TrialLimits;
use bellwether_rollout::fleet::{Illegal, RolloutState, check, plan};

pub(crate) use commit::{orders_back, put_decision};

use crate::app::App;
use crate::clock;
use crate::store::StoreError;
use crate::store::rollouts::RolloutRow;

/// Rounds of the planner between two looks at what serves outside of rollouts.
const STANDING_ROUNDS: u64 = 30;

/// A rollout could not be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// The decision is not legal. We are at fault.
    #[error("a decision was not legal, and was not carried out")]
    Illegal(#[from] Illegal),
    /// A rollout names a package that is gone. The database was changed by something else.
    #[error("a package of the rollout is gone")]
    PackageGone,
}

/// Plans every running rollout, again and again, until it is dropped.
pub async fn run(app: Arc<App>) {
    let period = Duration::from_millis(app.config.planner_period_ms);
    let mut round = 0_u64;
    loop {
        let now = clock::now();
        let began = Instant::now();
        match app.store.rollouts().await {
            Ok(rows) => {
                for row in rows.iter().filter(|row| row.state == RolloutState::Running) {
                    if let Err(cause) = step(&app, row, now).await {
                        let why = std::error::Error::source(&cause).map(ToString::to_string);
                        let why = why.unwrap_or_default();
                        tracing::error!(rollout = %row.id, "not planned: {cause}: {why}");
                    }
                }
                if round.is_multiple_of(STANDING_ROUNDS)
                    && let Err(cause) = standing::look(&app, &rows, now).await
                {
                    tracing::error!("the standing watch failed: {cause}");
                }
            }
            Err(cause) => tracing::error!("rollouts cannot be read: {cause}"),
        }
        round = round.wrapping_add(1);
        // Ingest and requests get at least as much time as the planner takes.
        let pause = period.max(began.elapsed());
        // A wake-up only shortens the wait.
        let _ = tokio::time::timeout(pause, app.plan_now.notified()).await;
    }
}

async fn step(app: &App, row: &RolloutRow, now: UnixSecs) -> Result<(), PlanError> {
    let (rollout, snapshot) = snapshot::read(app, row).await?;
    let decision = plan(&row.policy, &rollout, &snapshot, now);
    check(&decision, &row.policy, &rollout, &snapshot, now)?;
    commit::commit(app, row, &decision, now).await?;
    Ok(())
}

/// Limits for an order that no rollout makes: a release that served before is not tried again.
pub(crate) fn untried() -> TrialLimits {
    TrialLimits {
        secs_min: 0,
        rows_min: 0,
        secs_max: 0,
        error_share_max_ppm: 1_000_000,
        nonfinite_share_max_ppm: 1_000_000,
        worker_deaths_max: u32::MAX,
        latency_us_p99_max: None,
        shadow: None,
        drift: None,
    }
}
