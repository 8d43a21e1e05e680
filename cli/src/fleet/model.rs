//! Packages on the server, by model.

use serde_json::Value;

use super::answers::{FieldLabels, NumberLabels, Package};
use super::client::segment;
use super::{Client, parse, short};
use crate::failure::{Failure, Result};
use crate::output::{Output, human_bytes};
use crate::time;

/// Digits of an id that are enough to mean one package.
const ID_DIGITS_MIN: usize = 6;

/// All packages.
///
/// # Errors
/// Those of the server.
pub(crate) fn list(client: &Client, output: &mut Output) -> Result<()> {
    let answer = client.read("/v1/packages")?;
    output.show(&answer, |output| {
        let packages: Vec<Package> = parse(&answer)?;
        let rows: Vec<_> = packages.iter().map(row).collect();
        output.table(["model", "version", "id", "size", "state"], &rows)
    })
}

/// One package by its id, or all versions of a model by its name.
///
/// # Errors
/// Those of the server, and when nothing has this name or id.
pub(crate) fn show(client: &Client, model: &str, output: &mut Output) -> Result<()> {
    let answer = client.read("/v1/packages")?;
    let chosen = chosen(&answer, model);
    match chosen[..] {
        [] => Err(unknown(model)),
        [one] => {
            let whole = client.read(&format!("/v1/packages/{}", segment(text(one, "id"))))?;
            output.show(&whole, |output| describe(&parse(&whole)?, output))
        }
        _ => output.show(&chosen, |output| {
            for package in &chosen {
                describe(&parse(package)?, output)?;
                output.line("")?;
            }
            Ok(())
        }),
    }
}

/// What labels that came late say of one package, over the fleet or of one device.
///
/// # Errors
/// Those of the server, and when not exactly one package has this name or id.
pub(crate) fn labels(
    client: &Client,
    package: &str,
    device: Option<&str>,
    output: &mut Output,
) -> Result<()> {
    let packages = client.read("/v1/packages")?;
    let id = match chosen(&packages, package)[..] {
        [] => return Err(unknown(package)),
        [one] => text(one, "id"),
        _ => {
            return Err(
                Failure::operator(format!("the model `{package}` has several versions"))
                    .next("name one by its id: `bellwether model list`"),
            );
        }
    };
    let of = device.map(|device| format!("?device={}", segment(device)));
    let path = format!(
        "/v1/packages/{}/labels{}",
        segment(id),
        of.unwrap_or_default()
    );
    let answer = client.read(&path)?;
    output.show(&answer, |output| {
        let fields: Vec<FieldLabels> = parse(&answer)?;
        if fields.is_empty() {
            return output.line("no labels have come for this package");
        }
        let rows: Vec<_> = fields.iter().map(labels_row).collect();
        output.table(["slot", "field", "labels", "devices", "predictions"], &rows)
    })
}

fn labels_row(field: &FieldLabels) -> [String; 5] {
    let right = field.classes.as_ref().and_then(|classes| classes.right);
    let right = right.map(|right| format!("{:.1} % right", right * 100.0));
    let off = field.numbers.as_ref().map(|numbers| {
        let NumberLabels { mean_abs, bias } = numbers;
        format!("off by {mean_abs:.4} on average, bias {bias:+.4}")
    });
    [
        field.slot.clone(),
        field.field.clone(),
        field.labels.to_string(),
        field.devices.to_string(),
        right.or(off).unwrap_or_else(|| "-".to_owned()),
    ]
}

/// The packages that a model's name or the first digits of an id mean.
fn chosen<'a>(answer: &'a Value, model: &str) -> Vec<&'a Value> {
    let is_id = model.len() >= ID_DIGITS_MIN && model.bytes().all(|byte| byte.is_ascii_hexdigit());
    let all = answer.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .filter(|package| {
            text(package, "model") == model || is_id && text(package, "id").starts_with(model)
        })
        .collect()
}

fn text<'a>(package: &'a Value, key: &str) -> &'a str {
    package.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn unknown(model: &str) -> Failure {
    Failure::operator(format!("the server has no model and no package `{model}`"))
        .next("`bellwether model list` shows what there is")
}

fn row(package: &Package) -> [String; 5] {
    [
        package.model.clone(),
        package.version.clone(),
        short(&package.id),
        human_bytes(package.bytes),
        state(package),
    ]
}

pub(super) fn state(package: &Package) -> String {
    let mut state = if package.revoked {
        "revoked".to_owned()
    } else if package.is_release {
        format!("release, approved by {}", package.approved_by.join(", "))
    } else {
        let by = match &package.approved_by[..] {
            [] => String::new(),
            persons => format!(" ({})", persons.join(", ")),
        };
        format!(
            "{} of {} approvals{by}",
            package.approved_by.len(),
            package.approvals_needed
        )
    };
    if package.golden_mismatch_allowed {
        state.push_str("; PACKED IN SPITE OF A GOLDEN MISMATCH");
    }
    state
}

fn describe(package: &Package, output: &mut Output) -> Result<()> {
    output.line(format!("{} {}", package.model, package.version))?;
    output.line(format!("  id        {}", package.id))?;
    output.line(format!("  size      {}", human_bytes(package.bytes)))?;
    output.line(format!("  state     {}", state(package)))?;
    if !package.rejected_by.is_empty() {
        output.line(format!("  rejected  by {}", package.rejected_by.join(", ")))?;
    }
    for approval in &package.approvals {
        output.line(format!(
            "  {:<9} {} for slots {} and cohorts {}, until {} ({}): {}",
            approval.decision,
            approval.person,
            approval.slots.join(" "),
            approval.selectors.join(" "),
            time::date(approval.expires),
            approval.standing,
            approval.reason
        ))?;
    }
    Ok(())
}
