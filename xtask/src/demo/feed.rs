//! The applications beside the agents: each asks its agent's local API for answers at a steady rate, and keeps
//! count of who answered. The sensors can be disturbed while they run.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::stream::{CHANNELS, Row};

/// Rows of one request.
const BATCH: usize = 20;
/// Between two requests of one application: 100 rows a second.
const PERIOD: Duration = Duration::from_millis(200);
/// An agent that is busy opening a model on a laden machine still answers within this.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer to a batch has a few kilobytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What is done to a reading before it reaches the model: nothing, a factor, or a shift.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Disturbance {
    /// Each channel is multiplied by this,
    pub(crate) factor: Row,
    /// and then this is added.
    pub(crate) shift: Row,
}

impl Disturbance {
    /// A sensor as it should be.
    pub(crate) const NONE: Self = Self {
        factor: [1.0; CHANNELS],
        shift: [0.0; CHANNELS],
    };

    fn apply(&self, row: &Row) -> Row {
        std::array::from_fn(|channel| row[channel] * self.factor[channel] + self.shift[channel])
    }
}

/// What one application was answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Rows asked.
    pub(crate) rows_asked: u64,
    /// Rows answered, by release.
    pub(crate) rows_answered: BTreeMap<String, u64>,
    /// Of those, rows whose answer was not finite, by release.
    pub(crate) rows_nonfinite: BTreeMap<String, u64>,
    /// What the agent said instead of answering, and how many rows that cost.
    pub(crate) refusals: BTreeMap<String, u64>,
}

impl Tally {
    /// Rows answered by anybody.
    pub(crate) fn answered(&self) -> u64 {
        self.rows_answered.values().sum()
    }
}

/// What all applications were answered.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Totals {
    /// Rows asked, from the moment that the device had a release at all.
    pub(crate) asked: u64,
    /// Rows answered.
    pub(crate) answered: u64,
    /// Of those, rows whose answer was not finite.
    pub(crate) nonfinite: u64,
}

struct Shared {
    disturbance: Mutex<Disturbance>,
    tally: Mutex<Tally>,
    stop: AtomicBool,
}

/// One application for each device; they end when this is dropped.
pub(crate) struct Feed {
    devices: Vec<(String, Arc<Shared>)>,
    threads: Vec<JoinHandle<()>>,
}

/// What one application needs.
pub(crate) struct Source {
    /// The device.
    pub(crate) device: String,
    /// `host:port` of its agent's local API.
    pub(crate) api: String,
    /// The slot that is asked.
    pub(crate) slot: String,
    /// Its share of the stream.
    pub(crate) rows: Vec<Row>,
}

impl Feed {
    /// Starts asking.
    pub(crate) fn start(sources: Vec<Source>) -> Self {
        let mut feed = Self {
            devices: Vec::new(),
            threads: Vec::new(),
        };
        let all = sources.len() as u32;
        for (place, source) in sources.into_iter().enumerate() {
            let shared = Arc::new(Shared {
                disturbance: Mutex::new(Disturbance::NONE),
                tally: Mutex::new(Tally::default()),
                stop: AtomicBool::new(false),
            });
            feed.devices.push((source.device.clone(), shared.clone()));
            // Spread over the period, so that they don't all ask at once.
            let delay = PERIOD / all * place as u32;
            feed.threads.push(std::thread::spawn(move || {
                std::thread::sleep(delay);
                ask_until_told(&source, &shared);
            }));
        }
        feed
    }

    /// Disturbs the sensors of one device, or of all.
    pub(crate) fn disturb(&self, device: Option<&str>, disturbance: Disturbance) {
        for (name, shared) in &self.devices {
            if device.is_none_or(|device| device == name) {
                *lock(&shared.disturbance) = disturbance;
            }
        }
    }

    /// What each application was answered so far.
    pub(crate) fn tallies(&self) -> BTreeMap<String, Tally> {
        self.devices
            .iter()
            .map(|(device, shared)| (device.clone(), lock(&shared.tally).clone()))
            .collect()
    }

    /// Rows that a release answered so far, and how many of these were not finite.
    pub(crate) fn answered_by(&self, release: &str) -> (u64, u64) {
        let of = |counts: &BTreeMap<String, u64>| counts.get(release).copied().unwrap_or(0);
        self.tallies()
            .values()
            .fold((0, 0), |(answered, nonfinite), tally| {
                (
                    answered + of(&tally.rows_answered),
                    nonfinite + of(&tally.rows_nonfinite),
                )
            })
    }

    /// What all applications were answered so far.
    pub(crate) fn totals(&self) -> Totals {
        self.tallies()
            .values()
            .fold(Totals::default(), |totals, tally| Totals {
                asked: totals.asked + tally.rows_asked,
                answered: totals.answered + tally.answered(),
                nonfinite: totals.nonfinite + tally.rows_nonfinite.values().sum::<u64>(),
            })
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        for (_, shared) in &self.devices {
            shared.stop.store(true, Ordering::Relaxed);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn ask_until_told(source: &Source, shared: &Shared) {
    let mut connection = None;
    let mut next = Instant::now();
    let mut place = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let disturbance = *lock(&shared.disturbance);
        let batch: Vec<Row> = (0..BATCH)
            .map(|offset| disturbance.apply(&source.rows[(place + offset) % source.rows.len()]))
            .collect();
        place = (place + BATCH) % source.rows.len();
        let answer = ask(source, &mut connection, &batch);
        note(&mut lock(&shared.tally), &answer);
        if answer.is_err() {
            connection = None;
        }
        next += PERIOD;
        // Behind by more than a period: the readings in between are lost, as a sensor's would be.
        next = next.max(Instant::now().checked_sub(PERIOD).unwrap_or(next));
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn note(tally: &mut Tally, answer: &anyhow::Result<(u16, Value)>) {
    let rows = BATCH as u64;
    let refusal = match answer {
        Ok((200, body)) => {
            tally.rows_asked += rows;
            let release = body["parameters"]["release"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let data = body["outputs"][0]["data"]
                .as_array()
                .map_or(&[][..], Vec::as_slice);
            let width = (data.len() / BATCH).max(1);
            // JSON has no NaN: the protocol writes null.
            let bad = data
                .chunks(width)
                .filter(|row| row.iter().any(Value::is_null))
                .count();
            *tally.rows_answered.entry(release.clone()).or_default() += rows;
            *tally.rows_nonfinite.entry(release).or_default() += bad as u64;
            return;
        }
        Ok((status, body)) => format!("{status} {}", body["error"].as_str().unwrap_or_default()),
        Err(error) => format!("{error:#}"),
    };
    // Before its first release a device has nothing to answer with.
    if tally.answered() > 0 {
        tally.rows_asked += rows;
        *tally.refusals.entry(refusal).or_default() += rows;
    }
}

fn ask(
    source: &Source,
    connection: &mut Option<BufReader<TcpStream>>,
    batch: &[Row],
) -> anyhow::Result<(u16, Value)> {
    if connection.is_none() {
        let stream = TcpStream::connect(&source.api).context("the agent does not listen")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        *connection = Some(BufReader::new(stream));
    }
    let connection = connection.as_mut().context("just connected")?;
    let data: Vec<f32> = batch.iter().flatten().copied().collect();
    let body = json!({ "inputs": [{
        "name": "readings", "shape": [batch.len(), CHANNELS], "datatype": "FP32", "data": data,
    }]})
    .to_string();
    let request = format!(
        "POST /v2/models/{}/infer HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        source.slot,
        source.api,
        body.len()
    );
    connection
        .get_mut()
        .write_all(request.as_bytes())
        .context("the agent hung up")?;
    read_answer(connection)
}

/// One HTTP/1.1 answer with a stated length, which is all that the agent sends.
fn read_answer(connection: &mut BufReader<TcpStream>) -> anyhow::Result<(u16, Value)> {
    let mut line = String::new();
    connection
        .read_line(&mut line)
        .context("the agent does not answer")?;
    let status: u16 = line
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .context("no HTTP")?;
    let mut length = 0;
    loop {
        line.clear();
        ensure!(connection.read_line(&mut line)? > 0, "the agent hung up");
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    ensure!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// What is guarded stays sound when a thread panics between two counts.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(data: &Value) -> Value {
        json!({ "parameters": { "release": "ab" }, "outputs": [{ "data": data }] })
    }

    #[test]
    fn rows_with_null_answers_are_counted_as_not_finite() {
        let mut data = vec![json!(0.5); BATCH * 2];
        (data[0], data[1], data[7]) = (Value::Null, Value::Null, Value::Null);
        let mut tally = Tally::default();
        note(&mut tally, &Ok((200, answered(&data.into()))));
        assert_eq!(tally.rows_answered["ab"], BATCH as u64);
        assert_eq!(tally.rows_nonfinite["ab"], 2);
    }

    #[test]
    fn refusals_count_only_once_a_release_has_answered() {
        let mut tally = Tally::default();
        note(&mut tally, &Ok((404, Value::Null)));
        assert_eq!(tally.rows_asked, 0);
        note(&mut tally, &Ok((200, answered(&json!([0.5])))));
        note(&mut tally, &Ok((503, json!({ "error": "disabled" }))));
        assert_eq!(tally.rows_asked, 2 * BATCH as u64);
        assert_eq!(tally.refusals["503 disabled"], BATCH as u64);
    }
}
