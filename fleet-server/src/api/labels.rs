//! How a release's predictions compare with the labels that came late, over the fleet.

// utoipa's macro qualifies the query's type.
#![allow(unused_qualifications)]

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use bellwether_package::SlotName;
use bellwether_package::sections::{Contract, FieldKind};
use bellwether_protocol::{Confusion, DeviceId, Errors, Tally};
use serde::Deserialize;
use utoipa::IntoParams;

use super::auth::Operator;
use super::devices::find as find_device;
use super::error::ApiError;
use super::packages::find;
use super::types::{ClassLabels, ErrorBody, FieldLabels, NumberLabels};
use crate::app::App;
use crate::store::reports::LabelsRow;

/// Records that are read at once.
const PAGE: u32 = 500;

/// Whose labels.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelsQuery {
    /// One device's alone; absent: the whole fleet's.
    device: Option<String>,
}

/// What labels say of a release, a field of a slot at a time. Every label weighs the same; what
/// cannot be true is left out.
#[utoipa::path(get, path = "/v1/packages/{id}/labels", params(("id" = String, Path), LabelsQuery),
    responses((status = 200, body = [FieldLabels]), (status = "4XX", body = ErrorBody)))]
pub(super) async fn labels(
    _: Operator,
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    query: Query<LabelsQuery>,
) -> Result<Json<Vec<FieldLabels>>, ApiError> {
    let release = find(&app, &id).await?.id;
    let device = match &query.device {
        Some(device) => Some(find_device(&app, device).await?.device),
        None => None,
    };
    let mut sums: BTreeMap<(SlotName, u16), Sum> = BTreeMap::new();
    let mut after = 0;
    loop {
        let rows = app
            .store
            .labels_after(&release, device.as_ref(), after, PAGE);
        let rows = rows.await?;
        let Some(last) = rows.last() else { break };
        after = last.id;
        for row in rows {
            let key = (row.labels.slot.clone(), row.labels.field);
            sums.entry(key).or_default().add(row);
        }
    }
    let Some(expect) = app.store.expectations(&release).await? else {
        return Ok(Json(Vec::new()));
    };
    let show =
        |((slot, field), sum): ((SlotName, u16), Sum)| sum.show(&slot, field, &expect.contract);
    Ok(Json(sums.into_iter().filter_map(show).collect()))
}

/// Labels of one field, added up.
#[derive(Default)]
struct Sum {
    devices: Vec<DeviceId>,
    first_at: u64,
    last_at: u64,
    /// By true class and predicted class, as in [`Confusion`].
    cells: Vec<u64>,
    numbers: f64,
    errors: [f64; 3],
}

impl Sum {
    fn add(&mut self, row: LabelsRow) {
        if let Err(place) = self.devices.binary_search(&row.device) {
            self.devices.insert(place, row.device);
        }
        let (at, labels) = (row.received_at.0, row.labels);
        self.last_at = self.last_at.max(at);
        self.first_at = match self.first_at {
            0 => at,
            first => first.min(at),
        };
        match labels.tally {
            Tally::Classes(Confusion { cells, .. }) => {
                self.cells.resize(self.cells.len().max(cells.len()), 0);
                let added = self.cells.iter_mut().zip(&cells);
                added.for_each(|(sum, cell)| *sum += u64::from(*cell));
            }
            Tally::Numbers(Errors {
                labels,
                sum,
                sum_abs,
                sum_sq,
            }) => {
                self.numbers += f64::from(labels);
                let added = self.errors.iter_mut().zip([sum, sum_abs, sum_sq]);
                added.for_each(|(sum, of_device)| *sum += of_device);
            }
        }
    }

    /// `None` for a field that the contract does not have; ingest lets none of them in.
    fn show(&self, slot: &SlotName, place: u16, contract: &Contract) -> Option<FieldLabels> {
        let field = contract.output_fields().nth(place.into())?;
        let (labels, classes, numbers) = match &field.kind {
            FieldKind::Categorical { domain } => {
                let labels: u64 = self.cells.iter().sum();
                (labels, Some(self.classes(domain, labels)), None)
            }
            FieldKind::Numeric => (self.numbers as u64, None, Some(self.numbers())),
        };
        Some(FieldLabels {
            slot: slot.to_string(),
            field: field.name.clone(),
            devices: u32::try_from(self.devices.len()).unwrap_or(u32::MAX),
            labels,
            first_at: self.first_at,
            last_at: self.last_at,
            classes,
            numbers: numbers.flatten(),
        })
    }

    fn classes(&self, domain: &[i64], labels: u64) -> ClassLabels {
        // A row for each true class; the last column counts predictions of no class.
        let columns = domain.len() + 1;
        let right: u64 = self.cells.iter().step_by(columns + 1).sum();
        ClassLabels {
            codes: domain.to_vec(),
            confusion: self.cells.chunks(columns).map(<[u64]>::to_vec).collect(),
            right: (labels > 0).then(|| right as f64 / labels as f64),
        }
    }

    fn numbers(&self) -> Option<NumberLabels> {
        let [bias, mean_abs, mean_sq] = self.errors.map(|sum| sum / self.numbers);
        (self.numbers > 0.0).then_some(NumberLabels {
            bias,
            mean_abs,
            root_mean_sq: mean_sq.max(0.0).sqrt(),
        })
    }
}
