//! Late labels: what the application learned after it asked, held against what it was answered.
//!
//! Each answer has an id, and the last few thousand predictions of exported fields are remembered
//! with it. A label names the id, and the prediction and it become counts; neither of them is kept
//! or sent. Memory alone holds the predictions: a restart forgets them, and labels that come later
//! are told as unknown.

mod request;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellwether_package::sections::{FieldKind, Port};
use bellwether_package::{PackageId, SlotName, UnixSecs};
use bellwether_protocol::{self as protocol, Confusion, Errors, Tally};
use bellwether_runtime::Tensor;

pub use request::{LABELS_MAX, Label, LabelError, LabelsRequest};

use crate::serving::Serving;

/// Predictions that are remembered.
const PREDICTIONS_MAX: usize = 4096;
/// Numbers that are remembered over all predictions: a quarter of a megabyte.
const VALUES_MAX: usize = 32 * 1024;
/// Fields with labels between two reports, over all slots and releases.
const TALLIES_MAX: usize = 256;

/// Names one answer. It is written as sixteen hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PredictionId(u64);

/// Predictions that wait for labels, and what labels have said since the last report.
#[derive(Debug)]
pub struct Labels(Mutex<Inner>);

/// What became of a request's labels, in values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counted {
    /// Held against their predictions.
    pub counted: u32,
    /// Given before, and not counted again.
    pub repeated: u32,
    /// For predictions that are not remembered any more, or never were made in this slot.
    pub unknown: u32,
}

#[derive(Debug)]
struct Inner {
    next: u64,
    predictions: VecDeque<Prediction>,
    values: usize,
    schemas: BTreeMap<SlotName, Arc<Schema>>,
    tallies: BTreeMap<Key, Tallied>,
}

/// The fields of one release that can have labels.
#[derive(Debug)]
struct Schema {
    slot: SlotName,
    release: PackageId,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    /// Among all output fields of the contract.
    place: u16,
    name: String,
    /// The codes of a categorical field.
    domain: Option<Vec<i64>>,
    /// Where its values stand: port, elements of a row, element.
    port: usize,
    width: usize,
    element: usize,
}

#[derive(Debug)]
struct Prediction {
    id: u64,
    schema: Arc<Schema>,
    /// Row by row, in each row the schema's fields.
    values: Vec<f64>,
    /// Which of them have had their label.
    labelled: Vec<bool>,
}

type Key = (SlotName, PackageId, u16);

#[derive(Debug)]
struct Tallied {
    since: UnixSecs,
    tally: Tally,
}

impl Labels {
    /// Nothing remembered. Ids begin at `start`, which differs between runs of the agent, so that
    /// a label of an earlier one finds no prediction.
    pub fn new(start: u64) -> Self {
        Self(Mutex::new(Inner {
            next: start,
            predictions: VecDeque::new(),
            values: 0,
            schemas: BTreeMap::new(),
            tallies: BTreeMap::new(),
        }))
    }

    /// Remembers an answer. `None` if no field of it can have a label, or it is too long.
    pub fn remember(
        &self,
        slot: &SlotName,
        serving: &Serving,
        outputs: &[Tensor],
    ) -> Option<PredictionId> {
        let mut inner = self.inner();
        let schema = inner.schema(slot, serving.release(), &serving.contract().outputs);
        let values = schema.values(outputs)?;
        Some(inner.remember(schema, values))
    }

    /// Holds labels against their predictions. If one of them cannot be a label of its field, none
    /// is counted.
    ///
    /// # Errors
    ///
    /// [`LabelError`], the first thing found.
    pub fn take(
        &self,
        slot: &SlotName,
        labels: &[Label],
        now: UnixSecs,
    ) -> Result<Counted, LabelError> {
        let mut inner = self.inner();
        let found = labels
            .iter()
            .map(|label| inner.find(slot, label))
            .collect::<Result<Vec<_>, _>>()?;
        inner.check_room(found.iter().flatten().flatten())?;
        let mut counted = Counted::default();
        for (label, values) in labels.iter().zip(found) {
            let Some(values) = values else {
                counted.unknown += label.values.len() as u32;
                continue;
            };
            for value in values {
                if inner.count(&value, now) {
                    counted.counted += 1;
                } else {
                    counted.repeated += 1;
                }
            }
        }
        Ok(counted)
    }

    /// What labels have said since the last call, to be reported.
    pub fn tallies(&self, now: UnixSecs) -> Vec<protocol::Labels> {
        let tallies = std::mem::take(&mut self.inner().tallies);
        let told = |((slot, release, field), tallied): (Key, Tallied)| protocol::Labels {
            slot,
            release,
            field,
            started_at: tallied.since,
            secs: u32::try_from(now.secs_since(tallied.since)).unwrap_or(u32::MAX),
            tally: tallied.tally,
        };
        tallies.into_iter().map(told).collect()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One value of a label that has found its prediction.
#[derive(Debug)]
struct Found {
    /// Place of the prediction.
    prediction: usize,
    /// Place of its value.
    value: usize,
    key: Key,
    truth: Truth,
}

#[derive(Debug, Clone, Copy)]
enum Truth {
    /// Place of the code, and how many codes there are.
    Class {
        truth: usize,
        classes: usize,
    },
    Number(f64),
}

impl Inner {
    /// The fields of what serves in `slot`, put together once for each release.
    fn schema(&mut self, slot: &SlotName, release: PackageId, outputs: &[Port]) -> Arc<Schema> {
        if let Some(schema) = self.schemas.get(slot).filter(|it| it.release == release) {
            return schema.clone();
        }
        let schema = Arc::new(Schema::new(slot, release, outputs));
        self.schemas.insert(slot.clone(), schema.clone());
        schema
    }

    fn remember(&mut self, schema: Arc<Schema>, values: Vec<f64>) -> PredictionId {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.values += values.len();
        let labelled = vec![false; values.len()];
        self.predictions.push_back(Prediction {
            id,
            schema,
            values,
            labelled,
        });
        while self.predictions.len() > PREDICTIONS_MAX || self.values > VALUES_MAX {
            let Some(oldest) = self.predictions.pop_front() else {
                break;
            };
            self.values -= oldest.values.len();
        }
        PredictionId(id)
    }

    /// Where the values of a label belong; `None` if its prediction is not remembered.
    fn find(&self, slot: &SlotName, label: &Label) -> Result<Option<Vec<Found>>, LabelError> {
        // Ids rise by one, so the place follows from the id.
        let first = self.predictions.front().map(|oldest| oldest.id);
        let place = first.map(|first| label.prediction.0.wrapping_sub(first));
        let place = place.and_then(|place| usize::try_from(place).ok());
        let found = place.and_then(|place| Some((place, self.predictions.get(place)?)));
        let Some((place, prediction)) = found.filter(|(_, it)| it.schema.slot == *slot) else {
            return Ok(None);
        };
        let value = |(field, value): (&String, &f64)| prediction.find(place, label, field, *value);
        label
            .values
            .iter()
            .map(value)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn check_room<'a>(&self, found: impl Iterator<Item = &'a Found>) -> Result<(), LabelError> {
        let mut new: Vec<&Key> = found
            .map(|found| &found.key)
            .filter(|key| !self.tallies.contains_key(*key))
            .collect();
        new.sort_unstable();
        new.dedup();
        if self.tallies.len() + new.len() > TALLIES_MAX {
            return Err(LabelError::Full);
        }
        Ok(())
    }

    /// Counts one value; `false` if it had its label before.
    fn count(&mut self, found: &Found, now: UnixSecs) -> bool {
        let Some(prediction) = self.predictions.get_mut(found.prediction) else {
            return false;
        };
        if std::mem::replace(&mut prediction.labelled[found.value], true) {
            return false;
        }
        let predicted = prediction.values[found.value];
        let domain = prediction.schema.domain(found.key.2).unwrap_or_default();
        let code = |code: &i64| *code as f64 == predicted;
        let class = domain.iter().position(code);
        let tallied = self.tallies.entry(found.key.clone());
        let tallied = tallied.or_insert_with(|| Tallied {
            since: now,
            tally: found.truth.empty(),
        });
        match (&mut tallied.tally, found.truth) {
            (Tally::Classes(confusion), Truth::Class { truth, .. }) => {
                confusion.count(truth, class);
            }
            // A prediction that is no number is counted by its window, and has no error.
            (Tally::Numbers(errors), Truth::Number(label)) if predicted.is_finite() => {
                errors.count(predicted, label);
            }
            _ => {}
        }
        true
    }
}

impl Truth {
    fn empty(self) -> Tally {
        match self {
            Self::Class { classes, .. } => Tally::Classes(Confusion::new(classes)),
            Self::Number(_) => Tally::Numbers(Errors::NONE),
        }
    }
}

impl Schema {
    /// Of a field that is not exported nothing leaves the device, so it takes no labels.
    fn new(slot: &SlotName, release: PackageId, outputs: &[Port]) -> Self {
        let mut fields = Vec::new();
        let mut place = 0_u16;
        for (port_place, port) in outputs.iter().enumerate() {
            for (element, field) in port.fields.iter().enumerate() {
                if field.export {
                    let domain = match &field.kind {
                        FieldKind::Numeric => None,
                        FieldKind::Categorical { domain } => Some(domain.clone()),
                    };
                    fields.push(Field {
                        place,
                        name: field.name.clone(),
                        domain,
                        port: port_place,
                        width: port.fields.len(),
                        element,
                    });
                }
                place = place.saturating_add(1);
            }
        }
        Self {
            slot: slot.clone(),
            release,
            fields,
        }
    }

    fn domain(&self, place: u16) -> Option<&[i64]> {
        let field = self.fields.iter().find(|field| field.place == place)?;
        field.domain.as_deref()
    }

    /// The values of the fields, row by row; `None` if there are none, or too many, or a port has
    /// more than one value of a field in a row.
    fn values(&self, outputs: &[Tensor]) -> Option<Vec<f64>> {
        let first = self.fields.first()?;
        let rows = outputs.get(first.port)?.len() / first.width;
        if rows.saturating_mul(self.fields.len()) > VALUES_MAX {
            return None;
        }
        let fits = |field: &Field| {
            outputs
                .get(field.port)
                .is_some_and(|tensor| tensor.len() == rows * field.width)
        };
        if rows == 0 || !self.fields.iter().all(fits) {
            return None;
        }
        let mut values = vec![0.0; rows * self.fields.len()];
        for (column, field) in self.fields.iter().enumerate() {
            let picked = outputs[field.port].values().skip(field.element);
            for (row, value) in picked.step_by(field.width).enumerate() {
                values[row * self.fields.len() + column] = value;
            }
        }
        Some(values)
    }
}

impl Prediction {
    fn find(
        &self,
        place: usize,
        label: &Label,
        field: &str,
        value: f64,
    ) -> Result<Found, LabelError> {
        let fields = &self.schema.fields;
        let rows = self.values.len() / fields.len();
        if label.row >= rows {
            let row = label.row;
            return Err(LabelError::Row { row, rows });
        }
        let column = fields.iter().position(|known| known.name == field);
        let column = column.ok_or_else(|| LabelError::field(field))?;
        let truth = match &fields[column].domain {
            None if value.is_finite() => Truth::Number(value),
            None => return Err(LabelError::value(field)),
            Some(domain) => {
                let truth = domain.iter().position(|code| *code as f64 == value);
                let truth = truth.ok_or_else(|| LabelError::value(field))?;
                let classes = domain.len();
                Truth::Class { truth, classes }
            }
        };
        let schema = &self.schema;
        Ok(Found {
            prediction: place,
            value: label.row * fields.len() + column,
            key: (schema.slot.clone(), schema.release, fields[column].place),
            truth,
        })
    }
}

impl fmt::Display for PredictionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests;
