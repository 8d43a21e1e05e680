//! Packages on the server, by model.

use serde_json::Value;

use super::answers::Package;
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
    let empty = Vec::new();
    let all = answer.as_array().unwrap_or(&empty);
    let text = |value: &Value, key: &str| {
        value
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let is_id = model.len() >= ID_DIGITS_MIN && model.bytes().all(|byte| byte.is_ascii_hexdigit());
    let chosen: Vec<&Value> = all
        .iter()
        .filter(|package| {
            text(package, "model") == model || is_id && text(package, "id").starts_with(model)
        })
        .collect();
    match chosen[..] {
        [] => Err(
            Failure::operator(format!("the server has no model and no package `{model}`"))
                .next("`bellwether model list` shows what there is"),
        ),
        [one] => {
            let whole = client.read(&format!("/v1/packages/{}", segment(&text(one, "id"))))?;
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
