//! The second way in: readings that sensors publish on a broker of their own, answered on another
//! topic of it.
//!
//! Each topic has a connection, a short queue and one reading at work, so answers come in the order
//! of the readings. What comes faster than the model answers is counted and left out: a sensor's
//! next reading is worth more than its last. Nothing is kept over a lost connection.
//!
//! It speaks MQTT 3.1.1, which every broker does, and knows nothing of the link to the server.

mod answer;
mod connection;
mod reading;
mod seen;
mod work;

use std::sync::Arc;
use std::time::Duration;

use bellwether_protocol::DeviceId;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Readings;
use crate::labels::Labels;
use crate::serving::Slots;
use crate::view::ReadingsView;

use seen::Seen;

/// How long saying goodbye to all brokers may take.
const GOODBYE_WITHIN: Duration = Duration::from_secs(3);

/// What one topic's task needs.
struct Topic {
    /// The client id, as its broker knows it.
    client: String,
    readings: Readings,
    slots: Arc<Slots>,
    labels: Arc<Labels>,
    seen: Arc<Seen>,
}

/// All topics that readings come from.
#[derive(Default)]
pub(crate) struct Topics {
    tasks: JoinSet<()>,
    seen: Vec<Arc<Seen>>,
    stop: watch::Sender<bool>,
}

impl Topics {
    /// Starts to listen on all of them.
    pub(crate) fn start(
        device: &DeviceId,
        all: &[Readings],
        slots: &Arc<Slots>,
        labels: &Arc<Labels>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut topics = Self {
            tasks: JoinSet::new(),
            seen: Vec::new(),
            stop,
        };
        for (place, readings) in all.iter().enumerate() {
            let seen = Arc::new(Seen::of(readings));
            topics.seen.push(seen.clone());
            let topic = Topic {
                client: format!("{device}-readings-{place}"),
                readings: readings.clone(),
                slots: slots.clone(),
                labels: labels.clone(),
                seen,
            };
            topics.tasks.spawn(connection::run(topic, stopped.clone()));
        }
        topics
    }

    /// Whether one of them has ended by itself; a fault of ours.
    pub(crate) fn any_ended(&mut self) -> bool {
        self.tasks.try_join_next().is_some()
    }

    pub(crate) fn view(&self) -> Vec<ReadingsView> {
        self.seen.iter().map(|seen| seen.view()).collect()
    }

    /// Tells every broker that nothing answers any more.
    pub(crate) async fn stop(&mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GOODBYE_WITHIN, ended).await;
    }
}
