//! `bellwether drift`: two files of data, feature by feature.

use std::collections::BTreeSet;

use bellwether_drift::{
    Counter, Counts, Field, FieldBaseline, FieldLook, Look, Side, Special, Thresholds, Verdict,
    look,
};

use crate::arguments::Drift;
use crate::data::{Column, Table};
use crate::failure::{Failure, Result, Who};
use crate::output::{Output, remark};

/// Codes of a categorical column at most: what a baseline holds.
const CODES_MAX: usize = bellwether_drift::baseline::BINS_MAX;
/// Fields whose histogram is drawn in full; the others have their sparkline.
const PLOTS_MAX: usize = 4;
/// Characters of the longest bar.
const BAR_CHARS: f64 = 40.0;

struct Feature {
    baseline: FieldBaseline,
    live: Counts,
}

/// Compares two files; `true` if all is healthy.
///
/// # Errors
/// When a file can't be read, or the files have no column of numbers in common.
pub(crate) fn drift(request: &Drift, output: &mut Output) -> Result<bool> {
    let wanted: Option<Vec<&str>> =
        (!request.columns.is_empty()).then(|| request.columns.iter().map(String::as_str).collect());
    let base = Table::read(&request.baseline, wanted.as_deref())?;
    let live = Table::read(&request.live, wanted.as_deref())?;
    let names = columns(&base, &live, request)?;
    let mut features = Vec::new();
    for name in &names {
        let categorical = request.categorical.contains(name);
        features.push(feature(
            base.column(name)?,
            live.column(name)?,
            categorical,
        )?);
    }
    let thresholds = Thresholds {
        false_discovery_rate: request.false_discovery_rate,
        psi_min: request.psi_min,
        rate_change_min: request.rate_change_min,
        values_min: request.values_min,
    };
    let fields: Vec<Field<'_>> = features
        .iter()
        .map(|feature| Field {
            baseline: &feature.baseline,
            counts: &feature.live,
            side: Side::Input,
        })
        .collect();
    let seen = look(&fields, &thresholds);
    output.show(&seen, |output| {
        describe(&seen, &features, &thresholds, output)
    })?;
    Ok(seen.verdict == Verdict::Healthy)
}

/// The columns to compare: the ones asked for, or all of numbers that both files have.
fn columns(base: &Table, live: &Table, request: &Drift) -> Result<Vec<String>> {
    if !request.columns.is_empty() {
        return Ok(request.columns.clone());
    }
    let in_live: BTreeSet<&str> = live
        .columns()
        .iter()
        .map(|column| column.name.as_str())
        .collect();
    let mut names = Vec::new();
    for column in base.columns() {
        if !in_live.contains(column.name.as_str()) {
            remark(format!(
                "note: `{}` is only in the baseline, and left out",
                column.name
            ));
        } else if column.not_a_number.is_some() {
            remark(format!(
                "note: `{}` holds text, and is left out",
                column.name
            ));
        } else {
            names.push(column.name.clone());
        }
    }
    if names.is_empty() {
        return Err(
            Failure::operator("the two files have no column of numbers in common")
                .next("check that both have a head row with the same names"),
        );
    }
    Ok(names)
}

fn feature(base: &Column, live: &Column, categorical: bool) -> Result<Feature> {
    let refuse = |cause: String| {
        Failure::new(
            Who::Operator,
            format!("column `{}` can't be compared", base.name),
        )
        .next("leave it out with --columns, or declare it with --categorical")
        .because(cause)
    };
    let readings = base
        .values
        .iter()
        .zip(&base.missing)
        .filter(|(_, missing)| !**missing);
    let baseline = if categorical {
        let codes: Vec<i64> = readings.map(|(value, _)| *value as i64).collect();
        let domain: Vec<i64> = codes
            .iter()
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        if domain.len() > CODES_MAX {
            return Err(refuse(format!(
                "{} codes; at most {CODES_MAX} are possible",
                domain.len()
            )));
        }
        FieldBaseline::categorical(&base.name, &codes, &domain)
    } else {
        let values: Vec<f32> = readings.map(|(value, _)| *value as f32).collect();
        FieldBaseline::numeric(&base.name, &values, bellwether_drift::baseline::BINS_MAX)
    };
    let baseline = baseline.map_err(|error| refuse(error.to_string()))?;
    let baseline = with_missing(baseline, base)?;
    let live = count(&baseline, live);
    Ok(Feature { baseline, live })
}

/// The same baseline, with the readings that were missing counted too.
fn with_missing(baseline: FieldBaseline, column: &Column) -> Result<FieldBaseline> {
    if !column.missing.contains(&true) {
        return Ok(baseline);
    }
    let counts = count(&baseline, column);
    FieldBaseline::new(
        baseline.name(),
        baseline.bins().clone(),
        counts,
        baseline.centre(),
        baseline.quantum(),
    )
    .map_err(|error| {
        Failure::new(Who::Bellwether, format!("can't count `{}`", column.name)).because(error)
    })
}

fn count(baseline: &FieldBaseline, column: &Column) -> Counts {
    let mut counts = Counts::new(baseline.bins());
    for (value, missing) in column.values.iter().zip(&column.missing) {
        // A counter is full after four thousand million values; files end at ten million rows.
        if *missing {
            counts.observe_missing();
        } else {
            counts.observe(baseline, *value as f32);
        }
    }
    counts
}

fn describe(
    seen: &Look,
    features: &[Feature],
    thresholds: &Thresholds,
    output: &mut Output,
) -> Result<()> {
    let rows: Vec<_> = seen
        .fields
        .iter()
        .zip(features)
        .map(|(field, feature)| {
            [
                field.name.clone(),
                verdict_word(field.verdict).to_owned(),
                field
                    .psi
                    .map_or_else(dash, |psi| format!("{:.3}", psi.excess())),
                field.psi_p_adjusted.map_or_else(dash, p_text),
                field.values.to_string(),
                rates_text(field),
                spark(feature.baseline.counts()),
                spark(&feature.live),
            ]
        })
        .collect();
    let head = [
        "feature",
        "verdict",
        "PSI",
        "p (BH)",
        "values",
        "rates, then and now",
        "then",
        "now",
    ];
    output.table(head, &rows)?;
    let moved = seen.fields.iter().zip(features).filter(|(field, _)| {
        matches!(field.verdict, Verdict::Drifted | Verdict::Failing) && field.psi.is_some()
    });
    for (field, feature) in moved.take(PLOTS_MAX) {
        output.line("")?;
        plot(&field.name, feature, output)?;
    }
    output.line("")?;
    output.line(format!(
        "{}: drift is a false discovery rate of at most {} and a PSI of at least {} beyond chance, \
         or a rate that moved by at least {}",
        verdict_word(seen.verdict),
        thresholds.false_discovery_rate,
        thresholds.psi_min,
        thresholds.rate_change_min
    ))
}

fn plot(name: &str, feature: &Feature, output: &mut Output) -> Result<()> {
    output.line(format!(
        "{name}: share of values by bin, then (-) and now (#)"
    ))?;
    let (base, live) = (feature.baseline.counts(), &feature.live);
    let labels = labels(feature);
    let shares: Vec<(f64, f64)> = base
        .bins()
        .iter()
        .zip(live.bins())
        .map(|(then, now)| (share(*then, base), share(*now, live)))
        .collect();
    let most = shares.iter().fold(f64::MIN_POSITIVE, |most, (then, now)| {
        most.max(*then).max(*now)
    });
    let width = labels
        .iter()
        .map(|label| label.chars().count())
        .max()
        .unwrap_or(0);
    let bar = |share: f64, mark: &str| mark.repeat((share / most * BAR_CHARS).round() as usize);
    for (label, (then, now)) in labels.iter().zip(&shares) {
        output.line(format!(
            "  {label:>width$}  {:>5.1} %  {}",
            then * 100.0,
            bar(*then, "-")
        ))?;
        output.line(format!(
            "  {:>width$}  {:>5.1} %  {}",
            "",
            now * 100.0,
            bar(*now, "#")
        ))?;
    }
    Ok(())
}

fn labels(feature: &Feature) -> Vec<String> {
    match feature.baseline.bins() {
        bellwether_drift::Bins::Categorical { domain } => {
            domain.iter().map(i64::to_string).collect()
        }
        bellwether_drift::Bins::Numeric { edges, lo, hi } => {
            let bounds: Vec<f32> = [*lo]
                .into_iter()
                .chain(edges.iter().copied())
                .chain([*hi])
                .collect();
            bounds
                .windows(2)
                .map(|pair| format!("{} … {}", pair[0], pair[1]))
                .collect()
        }
    }
}

/// A histogram of a few characters.
fn spark(counts: &Counts) -> String {
    const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = counts.bins().iter().copied().max().unwrap_or(0).max(1);
    counts
        .bins()
        .iter()
        .map(|count| match count {
            0 => ' ',
            count => LEVELS[(u64::from(*count) * 7 / u64::from(most)) as usize],
        })
        .collect()
}

fn rates_text(field: &FieldLook) -> String {
    let text = |share: f64| format!("{:.1}", share * 100.0);
    let rates: Vec<_> = field
        .rates
        .iter()
        .map(|(rate, _)| {
            let part = |(count, of): (u64, u64)| count as f64 / of.max(1) as f64;
            format!(
                "{} {}→{} %",
                counter_word(rate.counter),
                text(part(rate.base)),
                text(part(rate.live))
            )
        })
        .collect();
    rates.join(", ")
}

fn counter_word(counter: Counter) -> &'static str {
    match counter {
        Counter::Special(Special::Below) => "below",
        Counter::Special(Special::Above) => "above",
        Counter::Special(Special::Missing) => "missing",
        Counter::Special(Special::Nan) => "NaN",
        Counter::Special(Special::Infinite) => "infinite",
        Counter::Special(Special::Other) => "other",
        Counter::Unseen => "unseen",
    }
}

pub(crate) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "healthy",
        Verdict::Drifted => "drifted",
        Verdict::Failing => "failing",
        Verdict::Insufficient => "insufficient",
        Verdict::Invalid => "invalid",
    }
}

fn share(count: u32, counts: &Counts) -> f64 {
    f64::from(count) / counts.in_bins().max(1) as f64
}

fn p_text(p_value: f64) -> String {
    if p_value < 0.0001 {
        "<0.0001".to_owned()
    } else {
        format!("{p_value:.4}")
    }
}

fn dash() -> String {
    "-".to_owned()
}
