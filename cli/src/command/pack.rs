//! `bellwether pack`: from ONNX file, sample and TOML to a package.

use std::fs::File;
use std::io::{BufWriter, Read, Seek};
use std::path::Path;

use bellwether_engine::ModelFacts;
use bellwether_package::digest::Hasher;
use bellwether_package::sections::{
    Activation, Baseline, Budget, Card, Contract, Golden, GoldenOrigin, Hours, Metric, Provenance,
};
use bellwether_package::std_io::FromStd;
use bellwether_package::write::{Draft, OnnxDraft, WriteError};
use bellwether_package::{Digest, PackageId, UnixSecs};
use bellwether_runtime::{Options, Proof, SealedBlob, prove_intact};
use serde_json::json;

use crate::arguments::Pack;
use crate::config::{self, Config, Loaded};
use crate::data::CELLS_MAX;
use crate::failure::{Failure, Result, Who};
use crate::files::{self, Existing, Readers};
use crate::output::{self, Output, human_bytes, remark};
use crate::pack::contract;
use crate::pack::golden::{self, Distance};
use crate::pack::sample::{self, Sample};
use crate::packages;
use crate::rehearsal::{self, Rehearsal};

/// Sample rows that go through the model at once.
const BATCH_ROWS: usize = 256;
/// Bytes of a sample that are hashed at a time.
const HASH_BYTES: usize = 64 * 1024;

/// What a run over the whole sample gave.
struct Answers {
    baseline: Baseline,
    outputs_nonfinite: u64,
}

/// What was packed.
struct Packed {
    id: PackageId,
    proof: Proof,
    bytes: u64,
}

/// Packs; nothing is written unless everything fits.
///
/// # Errors
/// Says whether configuration, model, sample or golden outputs are at fault.
pub(crate) fn pack(request: &Pack, now: UnixSecs, output: &mut Output) -> Result<()> {
    files::refuse_existing(&request.out)?;
    let loaded = Loaded::read(&request.config)?;
    let config = &loaded.config;
    let onnx = files::read(&loaded.onnx(), bellwether_engine::inspect::MODEL_BYTES_MAX)?;
    let facts = bellwether_engine::inspect(&onnx).map_err(|refusal| {
        Failure::new(
            Who::Package,
            format!("{} can't be run", loaded.onnx().display()),
        )
        .next("change the model or its export as the cause says")
        .because(refusal)
    })?;
    let contract = contract::build(config, &facts)?;
    let sample = read_sample(&loaded, &contract)?;
    let blob = SealedBlob::copy_from(&onnx[..]).map_err(|error| {
        Failure::new(Who::Machine, "there is no memory for the model").because(error)
    })?;
    let mut rehearsal = Rehearsal::open(&contract, &blob)?;
    // Golden rows first: they run one by one, as on a device, and so does their memory.
    let (golden, distance) = golden_vectors(request, config, &contract, &sample, &mut rehearsal)?;
    let memory_bytes = rehearsal.memory_bytes_peak();
    let answers = answer_sample(&contract, &sample, &mut rehearsal)?;
    drop(rehearsal);
    let origin = golden.origin;
    let mismatch = distance
        .as_ref()
        .is_some_and(|distance| distance.mismatches > 0);
    let draft = Draft {
        model: config.model.name.clone(),
        version: config.model.version,
        created: now,
        golden_mismatch_allowed: mismatch,
        contract,
        baseline: answers.baseline,
        golden,
        budget: budget(&config.budget),
        card: Some(card(&config.card)),
        provenance: Some(provenance(
            &config.provenance,
            sample_digest(&loaded.sample())?,
        )),
        activation: config.activation.as_ref().map(activation),
        onnx: Some(OnnxDraft {
            bytes: &onnx,
            opset: opset(&facts),
            memory_bytes,
            operators: facts.operators.clone(),
        }),
        micro: None,
    };
    let packed = write(&request.out, &draft)?;
    if facts.quantised {
        remark(
            "note: the model is quantised; it is computed in f32, rounded to its own steps between",
        );
    }
    if answers.outputs_nonfinite > 0 {
        remark(format!(
            "note: {} output values over the sample are NaN or infinite",
            answers.outputs_nonfinite
        ));
    }
    report(
        request,
        config,
        &sample,
        origin,
        distance.as_ref(),
        &packed,
        output,
    )
}

fn read_sample(loaded: &Loaded, contract: &Contract) -> Result<Sample> {
    let described = &loaded.config.inputs;
    let column_of = |port: &bellwether_package::sections::Port, place: usize| {
        let fields = described.iter().find(|one| one.name == port.name);
        let fields = fields.map(config::Port::all_fields).unwrap_or_default();
        fields
            .get(place)
            .map(|field| field.column().to_owned())
            .unwrap_or_default()
    };
    let sample = Sample::read(
        &loaded.sample(),
        contract,
        column_of,
        loaded.config.sample.rows_max,
    )?;
    sample.check()?;
    Ok(sample)
}

fn golden_vectors(
    request: &Pack,
    config: &Config,
    contract: &Contract,
    sample: &Sample,
    rehearsal: &mut Rehearsal,
) -> Result<(Golden, Option<Distance>)> {
    let Some(path) = &request.golden else {
        if request.allow_mismatch {
            return Err(
                Failure::operator("--allow-mismatch needs --golden to mismatch with")
                    .next("leave it out, or give the framework's outputs with --golden"),
            );
        }
        let golden = golden::self_computed(sample, rehearsal, &config.golden)?;
        return Ok((golden, None));
    };
    let (golden, distance) = golden::from_framework(path, contract, rehearsal, &config.golden)?;
    match distance.refusal() {
        Some(refusal) if !request.allow_mismatch => Err(refusal),
        _ => Ok((golden, Some(distance))),
    }
}

/// Runs the whole sample and counts what goes in and comes out.
fn answer_sample(
    contract: &Contract,
    sample: &Sample,
    rehearsal: &mut Rehearsal,
) -> Result<Answers> {
    // Where a run leaves something for the next, the sample's rows are one stream, in their order.
    let batch = match contract.states[..] {
        [] => sample.batch(BATCH_ROWS),
        _ => 1,
    };
    rehearsal.begin_anew();
    let watched: Vec<bool> = contract
        .outputs
        .iter()
        .map(|port| !port.fields.is_empty())
        .collect();
    let mut values: Vec<Vec<f64>> = vec![Vec::new(); contract.outputs.len()];
    let mut outputs_nonfinite = 0;
    let bar = output::progress(sample.rows() as u64, "running the sample");
    for start in (0..sample.rows()).step_by(batch) {
        let end = (start + batch).min(sample.rows());
        let outputs = rehearsal.run(&sample.tensors(start..end)?)?;
        for ((tensor, values), watched) in outputs.iter().zip(&mut values).zip(&watched) {
            outputs_nonfinite += tensor.values().filter(|value| !value.is_finite()).count() as u64;
            if *watched {
                values.extend(tensor.values());
            }
        }
        if values.iter().map(Vec::len).sum::<usize>() > CELLS_MAX {
            return Err(
                Failure::operator("the sample's outputs do not fit this machine")
                    .next("set `rows_max` in [sample]: a baseline needs thousands of rows"),
            );
        }
        bar.inc((end - start) as u64);
    }
    bar.finish_and_clear();
    let mut outputs = Vec::new();
    for (port, values) in contract.outputs.iter().zip(&values) {
        outputs.extend(sample::baselines_of(port, values)?);
    }
    let baseline = Baseline {
        inputs: sample.baselines()?,
        outputs,
    };
    Ok(Answers {
        baseline,
        outputs_nonfinite,
    })
}

/// Writes the package, reads it back as a device would, and proves it.
fn write(out: &Path, draft: &Draft<'_>) -> Result<Packed> {
    let mut packed = None;
    files::write_with(out, Existing::Keep, Readers::Everybody, |file| {
        let mut target = FromStd::new(BufWriter::new(&mut *file));
        let written = draft.write(&mut target);
        let cause = target.take_failure();
        let id = written.map_err(|error| match (cause, &error) {
            (Some(cause), WriteError::Target(_)) => Failure::io("write", out, cause),
            _ => Failure::new(Who::Package, "this can't be packed")
                .next("correct what the cause names")
                .because(error),
        })?;
        drop(target);
        let failed = |error| Failure::io("read back", out, error);
        let bytes = file.metadata().map_err(failed)?.len();
        file.rewind().map_err(failed)?;
        let (package, blob) = packages::read(out, file)?;
        let options = Options::new(rehearsal::worker_program()?);
        let proof = prove_intact(&package, blob, options).map_err(|error| {
            Failure::new(Who::Package, "the finished package can't be proved")
                .next("a device would refuse it for the same reason")
                .because(error)
        })?;
        packed = Some(Packed { id, proof, bytes });
        Ok(())
    })?;
    packed.ok_or_else(|| Failure::new(Who::Bellwether, "nothing was packed"))
}

fn report(
    request: &Pack,
    config: &Config,
    sample: &Sample,
    origin: GoldenOrigin,
    distance: Option<&Distance>,
    packed: &Packed,
    output: &mut Output,
) -> Result<()> {
    let mismatches = distance.map_or(0, |distance| distance.mismatches);
    let worst = distance.and_then(|distance| distance.worst.as_ref());
    let watched = is_watched(config);
    let shown = json!({
        "file": request.out.display().to_string(),
        "id": packed.id,
        "model": config.model.name,
        "version": config.model.version.to_string(),
        "bytes": packed.bytes,
        "sample_rows": sample.rows(),
        "golden": {
            "origin": match origin {
                GoldenOrigin::Framework => "framework",
                GoldenOrigin::SelfComputed => "self-computed",
            },
            "cases": packed.proof.cases,
            "mismatches": mismatches,
            "mismatch_allowed": mismatches > 0,
            "worst_tolerances": worst.map(|worst| worst.tolerances),
        },
        "latency_us_p99": packed.proof.latency_us_p99,
        "memory_bytes": packed.proof.memory_bytes,
        "watched": watched,
    });
    output.show(&shown, |output| {
        output.line(format!("{} {}", config.model.name, config.model.version))?;
        output.line(format!("  id        {}", packed.id))?;
        output.line(format!(
            "  file      {} ({})",
            request.out.display(),
            human_bytes(packed.bytes)
        ))?;
        output.line(format!("  baseline  {} rows of {}", sample.rows(), config.sample.path.display()))?;
        output.line(match worst {
            Some(worst) if mismatches > 0 => format!(
                "  golden    MISMATCH ALLOWED: {mismatches} elements differ, worst {:.1} tolerances; the package says so for ever",
                worst.tolerances
            ),
            Some(worst) => format!(
                "  golden    {} rows from the training framework, worst {:.3} tolerances",
                packed.proof.cases, worst.tolerances
            ),
            None => format!(
                "  golden    {} rows computed by the model itself: nothing independent has checked the numbers (see --golden)",
                packed.proof.cases
            ),
        })?;
        output.line(format!(
            "  here      p99 {} µs (budget {}), memory {} (budget {})",
            packed.proof.latency_us_p99,
            packed.proof.budget_latency_us_p99,
            human_bytes(packed.proof.memory_bytes),
            human_bytes(packed.proof.budget_memory_bytes)
        ))?;
        for shortfall in packed.proof.shortfalls() {
            output.line(format!("  note      {shortfall}"))?;
        }
        if !watched {
            output.line("  note      devices may not tell counts of its inputs and outputs, so a fleet can't compare it and holds its rollouts (see export)")?;
        }
        Ok(())
    })
}

/// Whether devices may tell counts of at least one input and one output: less can't be compared.
fn is_watched(config: &Config) -> bool {
    let told = |ports: &[config::Port]| ports.iter().any(config::Port::exports);
    told(&config.inputs) && told(&config.outputs)
}

fn budget(budget: &config::Budget) -> Budget {
    Budget {
        latency_us_p99: budget.latency_us_p99,
        memory_bytes: budget.memory_bytes,
        error_share_max_ppm: (budget.error_share_max * 1e6).round() as u32,
    }
}

fn card(card: &config::Card) -> Card {
    Card {
        intended_use: card.intended_use.clone(),
        limits: card.limits.clone(),
        data: card.data.clone(),
        owner: card.owner.clone(),
        accuracy: card
            .accuracy
            .iter()
            .map(|metric| Metric {
                name: metric.name.clone(),
                value: metric.value,
                interval: metric
                    .interval
                    .map(|[least, most]| (least, most, metric.confidence)),
            })
            .collect(),
        prohibited_features: card.prohibited_features.clone(),
        fairness: card.fairness.clone(),
    }
}

fn provenance(provenance: &config::Provenance, data: Digest) -> Provenance {
    let text = |value: &toml::Value| match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Provenance {
        data: Some(data),
        code_commit: provenance.code_commit.clone(),
        framework: provenance.framework.clone(),
        parameters: provenance
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
        parents: provenance.parents.clone(),
    }
}

fn activation(activation: &config::Activation) -> Activation {
    let hours = |hours: &config::Hours| Hours {
        days: hours
            .days
            .iter()
            .fold(0, |days, day| days | 1 << (*day as u8)),
        from_minute: hours.from_minute,
        until_minute: hours.until_minute,
    };
    Activation {
        regions: activation.regions.clone(),
        excluded: activation.excluded.clone(),
        hours: activation.hours.iter().map(hours).collect(),
    }
}

fn opset(facts: &ModelFacts) -> u32 {
    let own = facts
        .opset_imports
        .iter()
        .find(|(domain, _)| matches!(domain.as_str(), "" | "ai.onnx"));
    own.and_then(|(_, version)| u32::try_from(*version).ok())
        .unwrap_or(0)
}

fn sample_digest(path: &Path) -> Result<Digest> {
    let mut file: File = files::open(path)?;
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; HASH_BYTES];
    loop {
        let count = file
            .read(&mut buffer)
            .map_err(|error| Failure::io("read", path, error))?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}
