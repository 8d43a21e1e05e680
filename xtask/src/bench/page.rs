//! `docs/benchmarks.md` and the table in the console.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::{Report, Row};

/// Makes the page of every area's file, and gives its path.
pub(super) fn write(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut reports = reports(folder)?;
    reports.sort_by(|a, b| a.area.cmp(&b.area));
    let mut page = "# Benchmarks\n\nMade by `cargo xtask bench AREA`, never by hand. Each figure is measured beside its peer in one run, in \
        alternation; machines are noisy, so ratios and counts are given where they say more than seconds. A goal that is not met stays here.\n"
        .to_owned();
    for report in &reports {
        let Report {
            area,
            date,
            machine,
            rows,
        } = report;
        write!(page, "\n## {area}\n\n{date}; {machine}.\n")?;
        let (goals, figures): (Vec<_>, Vec<_>) = rows.iter().partition(|row| !row.goal.is_empty());
        page.push_str(&markdown(&goals, true));
        if !figures.is_empty() {
            page.push_str("\nWhat these are made of:\n");
            page.push_str(&markdown(&figures, false));
        }
        let mut commands: Vec<_> = rows.iter().map(|row| &row.command).collect();
        commands.sort();
        commands.dedup();
        page.push_str("\nBy");
        for command in commands {
            write!(page, " `{command}`")?;
        }
        page.push_str(".\n");
    }
    let path = folder.with_extension("md");
    std::fs::write(&path, page).with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(path)
}

/// The files that hold rows; others there have pages of their own.
fn reports(folder: &Path) -> anyhow::Result<Vec<Report>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "json") {
            let text = std::fs::read_to_string(&path)?;
            let value: serde_json::Value = serde_json::from_str(&text)
                .with_context(|| format!("{} is not JSON", path.display()))?;
            if value.get("rows").is_some() {
                found.push(serde_json::from_value(value)?);
            }
        }
    }
    Ok(found)
}

fn markdown(rows: &[&Row], with_goals: bool) -> String {
    let mut table = if with_goals {
        "\n| what | value | peer | goal | met |\n|---|---:|---|---|---|\n".to_owned()
    } else {
        "\n| what | value | peer |\n|---|---:|---|\n".to_owned()
    };
    for row in rows {
        let _ = write!(table, "| {} | {} | {} |", row.what, value(row), row.peer);
        if with_goals {
            let _ = write!(table, " {} | {} |", row.goal, met(row));
        }
        table.push('\n');
    }
    table
}

/// One area for the console.
pub(super) fn table(report: &Report) -> String {
    let width = report.rows.iter().map(|row| row.what.chars().count()).max();
    let width = width.unwrap_or(0);
    let mut table = format!("{}: {}, {}\n", report.area, report.date, report.machine);
    for row in &report.rows {
        let goal = if row.goal.is_empty() {
            String::new()
        } else {
            format!("goal {}: {}", row.goal, met(row))
        };
        let _ = writeln!(table, "{:width$}  {:>14}  {goal}", row.what, value(row));
    }
    table
}

fn met(row: &Row) -> &'static str {
    match row.met {
        Some(true) => "met",
        Some(false) => "**not met**",
        None => "",
    }
}

/// Three figures that count, and the unit.
fn value(row: &Row) -> String {
    let Row { value, unit, .. } = row;
    let number = match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 0.001 => format!("{value:.1e}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    if unit == "ratio" {
        number
    } else {
        format!("{number} {unit}")
    }
}
