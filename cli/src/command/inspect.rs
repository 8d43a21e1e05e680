//! `bellwether inspect`: what a package says about itself. Approvers read the same lines.

use bellwether_drift::Bins;
use bellwether_features::Step;
use bellwether_package::approval::Approval;
use bellwether_package::pieces::shared;
use bellwether_package::sections::{
    Constant, Contract, DType, Field, FieldKind, GoldenOrigin, MissingRule, Port, Target,
};
use bellwether_package::{Decision, IntactPackage, Signed};
use bellwether_runtime::Tensor;
use serde_json::{Value, json};

use crate::arguments::Inspect;
use crate::failure::Result;
use crate::output::{Output, human_bytes};
use crate::pack::contract::dims_text;
use crate::packages;
use crate::time;

/// What is said wherever a package appears that was packed in spite of its golden outputs.
pub(crate) const MISMATCH_ALLOWED: &str = "GOLDEN MISMATCH ALLOWED: the packer saw the model differ from its golden outputs, and packed it";

/// Shows a package.
///
/// # Errors
/// When it is not intact.
pub(crate) fn inspect(request: &Inspect, output: &mut Output) -> Result<()> {
    let package = packages::open(&request.package)?.package;
    let against = match &request.against {
        Some(path) => Some(shared(&package, &packages::open(path)?.package)),
        None => None,
    };
    let mut facts = facts(&package);
    if let Some(shared) = against {
        facts["against"] = json!({
            "bytes_to_download": shared.bytes - shared.bytes_shared,
            "pieces": shared.pieces, "pieces_shared": shared.pieces_shared,
        });
    }
    output.show(&facts, |output| {
        for line in lines(&package) {
            output.line(line)?;
        }
        if let Some(shared) = against {
            output.line(format!(
                "  download      {} for a device that has the other: {} of {} sections and chunks \
                 differ",
                human_bytes(shared.bytes - shared.bytes_shared),
                shared.pieces - shared.pieces_shared,
                shared.pieces
            ))?;
        }
        output.line("approvals (unchecked: `bellwether verify` checks them)")?;
        for line in approvals(&package) {
            output.line(line)?;
        }
        Ok(())
    })
}

/// The package for programs.
pub(crate) fn facts(package: &IntactPackage) -> Value {
    let manifest = package.manifest();
    let golden = package.golden();
    let port = |port: &Port| {
        json!({
            "name": port.name, "dtype": dtype_word(port.dtype),
            "shape": dims_text(&port.shape), "fields": port.fields,
        })
    };
    json!({
        "id": package.id(),
        "model": manifest.model,
        "version": manifest.version.to_string(),
        "created": manifest.created,
        "bytes": package.header().package_bytes(),
        "golden_mismatch_allowed": manifest.golden_mismatch_allowed(),
        "inputs": package.contract().inputs.iter().map(port).collect::<Vec<_>>(),
        "outputs": package.contract().outputs.iter().map(port).collect::<Vec<_>>(),
        "steps": package.contract().steps,
        "states": package.contract().states.iter().map(|state| json!({
            "input": state.input, "output": state.output,
            "dtype": dtype_word(state.dtype), "shape": dims_text(&state.shape),
        })).collect::<Vec<_>>(),
        "constants": package.contract().constants.iter().map(|constant| json!({
            "name": constant.name, "dtype": dtype_word(constant.dtype), "shape": constant.shape,
            "values": constant_values(constant),
        })).collect::<Vec<_>>(),
        "golden": {
            "cases": golden.cases.len(), "origin": origin_word(golden.origin),
            "tolerance_abs": golden.tolerance_abs, "tolerance_rel": golden.tolerance_rel,
        },
        "budget": package.budget(),
        "card": package.card(),
        "provenance": package.provenance(),
        "activation": package.activation(),
        "opset": package.onnx().map(|onnx| onnx.opset),
        "operators": package.onnx().map(|onnx| onnx.operators.clone()),
        "targets": package.program().map(|program| program.targets.iter().map(|target| json!({
            "triple": target.triple, "agent": target.agent, "worker": target.worker,
        })).collect::<Vec<_>>()),
        "sections": manifest.sections.iter().map(|section| json!({
            "kind": section.kind.as_str(), "bytes": section.length, "digest": section.digest,
        })).collect::<Vec<_>>(),
        "approvals": package.header().approvals().filter_map(unchecked).collect::<Vec<_>>(),
    })
}

fn dtype_word(dtype: DType) -> String {
    format!("{dtype:?}").to_lowercase()
}

fn constant_values(constant: &Constant) -> Vec<f64> {
    let tensor = Tensor {
        name: constant.name.clone(),
        dtype: constant.dtype,
        shape: constant.shape.clone(),
        bytes: constant.bytes.clone(),
    };
    tensor.values().collect()
}

/// Inputs of the model that no application feeds.
fn unfed_lines(contract: &Contract, lines: &mut Vec<String>) {
    /// More are a table, not a fact.
    const VALUES_SHOWN: usize = 8;
    for state in &contract.states {
        lines.push(format!(
            "  state  {} {} {}, fed back from {}",
            state.input,
            dtype_word(state.dtype),
            dims_text(&state.shape),
            state.output
        ));
    }
    for constant in &contract.constants {
        let values = constant_values(constant);
        let shown: Vec<String> = values
            .iter()
            .take(VALUES_SHOWN)
            .map(f64::to_string)
            .collect();
        let more = if values.len() > VALUES_SHOWN {
            " …"
        } else {
            ""
        };
        lines.push(format!(
            "  const  {} {} = {}{more}",
            constant.name,
            dtype_word(constant.dtype),
            shown.join(" ")
        ));
    }
}

/// The package for people, one fact a line.
pub(crate) fn lines(package: &IntactPackage) -> Vec<String> {
    let manifest = package.manifest();
    let mut lines = vec![
        format!("{} {}", manifest.model, manifest.version),
        format!("  id            {}", package.id()),
        format!("  packed        {}", time::stamp(manifest.created.0)),
        format!(
            "  size          {}",
            human_bytes(package.header().package_bytes())
        ),
    ];
    if manifest.golden_mismatch_allowed() {
        lines.push(format!("  {MISMATCH_ALLOWED}"));
    }
    card_lines(package, &mut lines);
    if let Some(program) = package.program() {
        lines.extend(program.targets.iter().map(target_line));
        return lines;
    }
    let contract = package.contract();
    let baseline = package.baseline();
    for (side, ports, baselines) in [
        ("input", &contract.inputs, &baseline.inputs),
        ("output", &contract.outputs, &baseline.outputs),
    ] {
        let mut baselines = baselines.iter();
        for port in ports {
            lines.push(format!(
                "  {side:<6} {} {} {}",
                port.name,
                dtype_word(port.dtype),
                dims_text(&port.shape)
            ));
            for (field, baseline) in port.fields.iter().zip(baselines.by_ref()) {
                lines.push(format!("    {}", field_line(side, field, baseline)));
            }
        }
    }
    unfed_lines(contract, &mut lines);
    let names: Vec<&str> = contract
        .input_fields()
        .map(|field| field.name.as_str())
        .collect();
    lines.extend(
        contract
            .steps
            .iter()
            .map(|step| format!("  step   {}", step_line(step, &names))),
    );
    let golden = package.golden();
    lines.push(format!(
        "  golden        {} cases, {}; tolerance {} + {} of the expected value",
        golden.cases.len(),
        match golden.origin {
            GoldenOrigin::Framework => "outputs from the training framework",
            GoldenOrigin::SelfComputed =>
                "outputs from the model itself: nothing independent has checked the numbers",
        },
        golden.tolerance_abs,
        golden.tolerance_rel
    ));
    let budget = package.budget();
    lines.push(format!(
        "  budget        p99 {} µs, {}, {} ppm of errors",
        budget.latency_us_p99,
        human_bytes(budget.memory_bytes),
        budget.error_share_max_ppm
    ));
    if let Some(onnx) = package.onnx() {
        lines.push(format!(
            "  onnx          {}, opset {}, operators {}",
            human_bytes(onnx.length),
            onnx.opset,
            onnx.operators.join(" ")
        ));
    }
    lines
}

fn target_line(target: &Target) -> String {
    format!(
        "  program       {}: agent {} (sha256 {}), worker {} (sha256 {})",
        target.triple,
        human_bytes(target.agent.length),
        target.agent.digest,
        human_bytes(target.worker.length),
        target.worker.digest
    )
}

fn card_lines(package: &IntactPackage, lines: &mut Vec<String>) {
    let mut say = |name: &str, text: &str| {
        if !text.is_empty() {
            lines.push(format!(
                "  {name:<12}  {}",
                text.replace('\n', "\n                ")
            ));
        }
    };
    match package.card() {
        None => say("card", "none"),
        Some(card) => {
            say("intended use", &card.intended_use);
            say("limits", &card.limits);
            say("data", &card.data);
            say("owner", &card.owner);
            for metric in &card.accuracy {
                let interval = metric.interval.map_or_else(
                    || "no interval".to_owned(),
                    |(least, most, share)| format!("{least} to {most} at {} %", share * 100.0),
                );
                say(
                    "accuracy",
                    &format!("{} {} ({interval})", metric.name, metric.value),
                );
            }
            say("prohibited", &card.prohibited_features.join(", "));
            say("fairness", &card.fairness);
        }
    }
    if let Some(provenance) = package.provenance() {
        say("framework", &provenance.framework);
        say("commit", &provenance.code_commit);
        if let Some(data) = provenance.data {
            say("data sha256", &data.to_string());
        }
        for (name, value) in &provenance.parameters {
            say("parameter", &format!("{name} = {value}"));
        }
        for parent in &provenance.parents {
            say("parent", &parent.to_string());
        }
    }
    if let Some(activation) = package.activation() {
        let texts = |selectors: &[bellwether_package::Selector]| {
            selectors
                .iter()
                .map(|one| one.to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        say("only on", &texts(&activation.regions));
        say("never on", &texts(&activation.excluded));
        for hours in &activation.hours {
            let clock = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
            let (from, until) = (clock(hours.from_minute), clock(hours.until_minute));
            say(
                "hours",
                &format!("days {:07b} (Sun…Mon), {from} to {until} UTC", hours.days),
            );
        }
    }
}

fn field_line(side: &str, field: &Field, baseline: &bellwether_drift::FieldBaseline) -> String {
    let verb = if side == "input" {
        "trained on"
    } else {
        "answered"
    };
    let mut parts = vec![field.name.clone()];
    if !field.unit.is_empty() {
        parts.push(format!("[{}]", field.unit));
    }
    if let Some((lo, hi)) = field.range {
        parts.push(format!("allowed {lo} to {hi}"));
    }
    match (&field.kind, baseline.bins()) {
        (FieldKind::Categorical { domain }, _) => parts.push(format!("codes {domain:?}")),
        (_, Bins::Numeric { lo, hi, .. }) => {
            parts.push(format!("{verb} {} to {}", short(*lo), short(*hi)))
        }
        _ => {}
    }
    if field.missing == MissingRule::Allow {
        parts.push("may be missing".to_owned());
    }
    if field.export {
        parts.push("values may leave the device".to_owned());
    }
    if !field.source.is_empty() {
        parts.push(format!("from {}", field.source));
    }
    parts.join(", ")
}

/// A figure without a long tail of digits.
fn short(value: f32) -> String {
    let size = value.abs();
    if size != 0.0 && !(1e-3..1e7).contains(&size) {
        format!("{value:.3e}")
    } else {
        value.to_string()
    }
}

fn step_line(step: &Step, names: &[&str]) -> String {
    let name = |field: &u16| names.get(usize::from(*field)).copied().unwrap_or("?");
    match step {
        Step::Unit {
            field,
            factor,
            offset,
        } => {
            format!("unit {}: × {factor} + {offset}", name(field))
        }
        Step::Fill { field, rule } => format!("fill {}: {rule:?}", name(field)),
        Step::Scale {
            field,
            centre,
            deviation,
        } => {
            format!("scale {}: − {centre}, ÷ {deviation}", name(field))
        }
        Step::Range { field, lo, hi } => {
            format!("range {}: {lo} to {hi} becomes 0 to 1", name(field))
        }
        Step::Clip { field, lo, hi } => format!("clip {}: {lo} to {hi}", name(field)),
        Step::Window { len, hop } => format!("window of {len} rows every {hop}"),
        Step::Resample { period_us, method } => {
            format!("resample every {period_us} µs, {method:?}")
        }
    }
}

/// What the approvals claim, for people.
fn approvals(package: &IntactPackage) -> Vec<String> {
    let mut lines: Vec<String> = package
        .header()
        .approvals()
        .map(|signed| match decode(signed) {
            None => "  damaged".to_owned(),
            Some(approval) => format!("  {}", approval_line(&approval)),
        })
        .collect();
    if lines.is_empty() {
        lines.push("  none".to_owned());
    }
    lines
}

/// One approval in a line.
pub(crate) fn approval_line(approval: &Approval) -> String {
    let slots: Vec<_> = approval.slots.iter().map(ToString::to_string).collect();
    let selectors: Vec<_> = approval.selectors.iter().map(ToString::to_string).collect();
    format!(
        "{} for slots {} and cohorts {}, {} to {}: {}",
        decision_word(approval.decision),
        slots.join(" "),
        selectors.join(" "),
        time::date(approval.not_before.0),
        time::date(approval.expires.0),
        approval.reason
    )
}

/// `approve` or `reject`.
pub(crate) fn decision_word(decision: Decision) -> &'static str {
    match decision {
        Decision::Approve => "approve",
        Decision::Reject => "reject",
    }
}

fn origin_word(origin: GoldenOrigin) -> &'static str {
    match origin {
        GoldenOrigin::Framework => "framework",
        GoldenOrigin::SelfComputed => "self-computed",
    }
}

fn decode(signed: &[u8]) -> Option<Approval> {
    let bytes_max = bellwether_package::approval::SIGNED_APPROVAL_BYTES_MAX;
    Approval::decode(Signed::decode(signed, bytes_max).ok()?.payload()).ok()
}

fn unchecked(signed: &[u8]) -> Option<Value> {
    let approval = decode(signed)?;
    Some(json!({
        "decision": decision_word(approval.decision),
        "slots": approval.slots,
        "selectors": approval.selectors,
        "not_before": approval.not_before,
        "expires": approval.expires,
        "at": approval.at,
        "reason": approval.reason.as_str(),
    }))
}
