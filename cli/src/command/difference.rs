//! What changes from the package that serves now to the one that is to be approved.

use std::collections::BTreeSet;

use bellwether_drift::FieldBaseline;
use bellwether_package::IntactPackage;
use bellwether_package::sections::{Field, GoldenOrigin, Port};

use crate::output::human_bytes;
use crate::pack::contract::dims_text;

/// A mean that moved by less than this share of the old deviation is not worth a line.
const MEAN_MOVED_MIN: f64 = 0.25;

/// The differences, one a line.
pub(crate) fn lines(old: &IntactPackage, new: &IntactPackage) -> Vec<String> {
    let mut found = Vec::new();
    let (before, after) = (old.manifest(), new.manifest());
    if before.model != after.model {
        found.push(format!(
            "ANOTHER MODEL: {} instead of {}",
            after.model, before.model
        ));
    }
    if after.version <= before.version {
        found.push(format!(
            "the version does not rise: {} after {}",
            after.version, before.version
        ));
    }
    let parents = new
        .provenance()
        .map(|provenance| provenance.parents.clone())
        .unwrap_or_default();
    if !parents.is_empty() && !parents.contains(&old.id()) {
        found.push("the new package was not made from the champion".to_owned());
    }
    for (side, before, after) in [
        ("input", &old.contract().inputs, &new.contract().inputs),
        ("output", &old.contract().outputs, &new.contract().outputs),
    ] {
        ports(side, before, after, &mut found);
    }
    if old.contract().states != new.contract().states {
        found.push("what a run leaves for the next differs".to_owned());
    }
    if old.contract().constants != new.contract().constants {
        found.push("the constant inputs differ".to_owned());
    }
    if old.contract().steps != new.contract().steps {
        found.push("the feature steps differ".to_owned());
    }
    baselines(&old.baseline().inputs, &new.baseline().inputs, &mut found);
    baselines(&old.baseline().outputs, &new.baseline().outputs, &mut found);
    figures(old, new, &mut found);
    programs(old, new, &mut found);
    if found.is_empty() {
        found.push("only the model's weights differ".to_owned());
    }
    let head = format!("against the champion {} {}", before.model, before.version);
    std::iter::once(head)
        .chain(found.into_iter().map(|line| format!("  {line}")))
        .collect()
}

/// Programs of one machine that differ, or that only one of the packages has.
fn programs(old: &IntactPackage, new: &IntactPackage, found: &mut Vec<String>) {
    let targets = |package: &IntactPackage| {
        package
            .program()
            .map(|program| program.targets.clone())
            .unwrap_or_default()
    };
    let (before, after) = (targets(old), targets(new));
    for target in &after {
        let Some(old) = before.iter().find(|old| old.triple == target.triple) else {
            found.push(format!("new programs for {}", target.triple));
            continue;
        };
        for (what, was, is) in [
            ("agent", old.agent, target.agent),
            ("worker", old.worker, target.worker),
        ] {
            if was != is {
                found.push(format!("another {what} for {}", target.triple));
            }
        }
    }
    for target in &before {
        if !after.iter().any(|new| new.triple == target.triple) {
            found.push(format!("no programs for {} any more", target.triple));
        }
    }
}

fn ports(side: &str, before: &[Port], after: &[Port], found: &mut Vec<String>) {
    for port in after {
        let Some(old) = before.iter().find(|old| old.name == port.name) else {
            found.push(format!("new {side} `{}`", port.name));
            continue;
        };
        if (old.dtype, &old.shape) != (port.dtype, &port.shape) {
            found.push(format!(
                "{side} `{}` was {:?} {}, is {:?} {}",
                port.name,
                old.dtype,
                dims_text(&old.shape),
                port.dtype,
                dims_text(&port.shape)
            ));
        }
        fields(side, &old.fields, &port.fields, found);
    }
    for port in before {
        if !after.iter().any(|new| new.name == port.name) {
            found.push(format!("{side} `{}` is gone", port.name));
        }
    }
}

fn fields(side: &str, before: &[Field], after: &[Field], found: &mut Vec<String>) {
    for field in after {
        let Some(old) = before.iter().find(|old| old.name == field.name) else {
            found.push(format!("new {side} field `{}`", field.name));
            continue;
        };
        let mut say = |what: &str, was: String, is: String| {
            if was != is {
                found.push(format!(
                    "{side} field `{}`: {what} was {was}, is {is}",
                    field.name
                ));
            }
        };
        say(
            "unit",
            format!("`{}`", old.unit),
            format!("`{}`", field.unit),
        );
        say(
            "range",
            format!("{:?}", old.range),
            format!("{:?}", field.range),
        );
        say(
            "missing rule",
            format!("{:?}", old.missing),
            format!("{:?}", field.missing),
        );
        say("export", old.export.to_string(), field.export.to_string());
        say(
            "kind",
            format!("{:?}", old.kind),
            format!("{:?}", field.kind),
        );
    }
    for field in before {
        if !after.iter().any(|new| new.name == field.name) {
            found.push(format!("{side} field `{}` is gone", field.name));
        }
    }
}

/// Fields whose training data has another mean.
fn baselines(before: &[FieldBaseline], after: &[FieldBaseline], found: &mut Vec<String>) {
    for new in after {
        let Some(old) = before.iter().find(|old| old.name() == new.name()) else {
            continue;
        };
        let (Some(was), Some(is)) = (old.counts().mean(old), new.counts().mean(new)) else {
            continue;
        };
        let deviation = old.counts().deviation(old).unwrap_or(0.0);
        let moved = (is - was).abs() / deviation.max(f64::MIN_POSITIVE);
        if moved >= MEAN_MOVED_MIN {
            found.push(format!(
                "`{}` in training: mean was {was:.4}, is {is:.4} ({moved:.1} deviations)",
                new.name()
            ));
        }
    }
}

fn figures(old: &IntactPackage, new: &IntactPackage, found: &mut Vec<String>) {
    let mut say = |what: &str, was: String, is: String| {
        if was != is {
            found.push(format!("{what} was {was}, is {is}"));
        }
    };
    let (before, after) = (old.budget(), new.budget());
    say(
        "latency budget",
        format!("{} µs", before.latency_us_p99),
        format!("{} µs", after.latency_us_p99),
    );
    say(
        "memory budget",
        human_bytes(before.memory_bytes),
        human_bytes(after.memory_bytes),
    );
    say(
        "error budget",
        format!("{} ppm", before.error_share_max_ppm),
        format!("{} ppm", after.error_share_max_ppm),
    );
    let tolerance = |package: &IntactPackage| {
        format!(
            "{} + {} ×",
            package.golden().tolerance_abs,
            package.golden().tolerance_rel
        )
    };
    say("golden tolerance", tolerance(old), tolerance(new));
    let origin = |package: &IntactPackage| match package.golden().origin {
        GoldenOrigin::Framework => "the training framework",
        GoldenOrigin::SelfComputed => "the model itself",
    };
    say(
        "golden outputs' source",
        origin(old).to_owned(),
        origin(new).to_owned(),
    );
    let bytes = |package: &IntactPackage| {
        package
            .onnx()
            .map_or_else(|| "none".to_owned(), |onnx| human_bytes(onnx.length))
    };
    say("ONNX model", bytes(old), bytes(new));
    let operators = |package: &IntactPackage| -> BTreeSet<String> {
        package
            .onnx()
            .map(|onnx| onnx.operators.iter().cloned().collect())
            .unwrap_or_default()
    };
    let added: Vec<String> = operators(new)
        .difference(&operators(old))
        .cloned()
        .collect();
    if !added.is_empty() {
        found.push(format!("new operators: {}", added.join(" ")));
    }
}
