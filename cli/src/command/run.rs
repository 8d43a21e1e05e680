//! `bellwether run`: an approved package over a file of inputs.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use bellwether_drift::Special;
use bellwether_package::UnixSecs;
use bellwether_package::sections::{Contract, DType, Port};
use bellwether_runtime::{Options, Session, Tensor, Window};
use serde_json::{Value, json};

use super::verify::{Judge, refusal};
use crate::arguments::Run;
use crate::data::{self, Array, CELLS_MAX, Values};
use crate::failure::{Failure, Result, Who};
use crate::files::{self, Existing, Readers};
use crate::output::{self, Output};
use crate::pack::sample::Sample;
use crate::{packages, rehearsal};

/// Runs every row of the inputs; nothing is written unless all of them were answered.
///
/// # Errors
/// When the package is not approved, an input breaks the contract, or the model fails.
pub(crate) fn run(request: &Run, now: UnixSecs, output: &mut Output) -> Result<()> {
    files::refuse_existing(&request.outputs)?;
    let kind = OutputKind::of(&request.outputs)?;
    let judge = Judge::read(&request.scope)?;
    let opened = packages::open(&request.package)?;
    let package = judge
        .judge(opened.package, &request.scope, now)
        .map_err(|error| refusal(error, &request.scope))?;
    let contract = package.package().contract().clone();
    let name_of = |port: &Port, place: usize| {
        port.fields
            .get(place)
            .map(|field| field.name.clone())
            .unwrap_or_default()
    };
    let sample = Sample::read(&request.inputs, &contract, name_of, None)?;
    let options = Options::new(rehearsal::worker_program()?);
    let mut session = Session::open(package, opened.blob, options).map_err(|error| {
        Failure::new(Who::Package, "the package can't be run here")
            .next("`bellwether inspect` shows what it needs")
            .because(error)
    })?;
    let began = Instant::now();
    let answers = answer(request, &sample, &mut session, contract.outputs.len())?;
    let elapsed = began.elapsed();
    write(&request.outputs, kind, &contract, &answers)?;
    let window = session.take_window();
    report(request, &contract, &window, elapsed.as_secs_f64(), output)
}

/// All outputs, row after row, one buffer for each port.
fn answer(
    request: &Run,
    sample: &Sample,
    session: &mut Session,
    outputs: usize,
) -> Result<Vec<Answer>> {
    let batch = sample.batch(request.batch as usize);
    let mut answers: Vec<Answer> = (0..outputs).map(|_| Answer::default()).collect();
    let bar = output::progress(sample.rows() as u64, "running");
    for start in (0..sample.rows()).step_by(batch) {
        let end = (start + batch).min(sample.rows());
        let run = session.run(&sample.tensors(start..end)?).map_err(|error| {
            let who = if error.is_input_fault() {
                Who::Operator
            } else {
                Who::Package
            };
            Failure::new(
                who,
                format!("rows {} to {end} were not answered", start + 1),
            )
            .next("correct the inputs or the package as the cause says; nothing was written")
            .because(error)
        })?;
        for (answer, tensor) in answers.iter_mut().zip(run.outputs) {
            answer.take(tensor)?;
        }
        bar.inc((end - start) as u64);
    }
    bar.finish_and_clear();
    Ok(answers)
}

/// The answers of one port.
#[derive(Default)]
struct Answer {
    /// Of one call, its first dimension left out.
    rest: Vec<usize>,
    rows: usize,
    bytes: Vec<u8>,
}

impl Answer {
    fn take(&mut self, tensor: Tensor) -> Result<()> {
        let (first, rest) = match &tensor.shape[..] {
            [] => (1, Vec::new()),
            [first, rest @ ..] => (
                *first as usize,
                rest.iter().map(|size| *size as usize).collect(),
            ),
        };
        self.rest = rest;
        self.rows += first;
        self.bytes.extend_from_slice(&tensor.bytes);
        if self.bytes.len() / tensor.dtype.bytes() > CELLS_MAX {
            return Err(Failure::operator("the outputs do not fit this machine")
                .next("split the inputs into several files"));
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum OutputKind {
    Npz,
    Csv,
}

impl OutputKind {
    fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("npz") => Ok(Self::Npz),
            Some("csv") => Ok(Self::Csv),
            _ => Err(
                Failure::operator(format!("can't tell how to write {}", path.display()))
                    .next("name it .npz or .csv"),
            ),
        }
    }
}

fn write(path: &Path, kind: OutputKind, contract: &Contract, answers: &[Answer]) -> Result<()> {
    let arrays: Vec<Array> = contract
        .outputs
        .iter()
        .zip(answers)
        .map(|(port, answer)| {
            let mut shape = vec![answer.rows];
            shape.extend(&answer.rest);
            Array {
                name: port.name.clone(),
                shape,
                values: values(port.dtype, &answer.bytes),
            }
        })
        .collect();
    files::write_with(
        path,
        Existing::Keep,
        Readers::Everybody,
        |sink| match kind {
            OutputKind::Npz => data::write_arrays(path, sink, &arrays),
            OutputKind::Csv => write_csv(path, sink, contract, &arrays),
        },
    )
}

fn write_csv(
    path: &Path,
    sink: &mut std::fs::File,
    contract: &Contract,
    arrays: &[Array],
) -> Result<()> {
    let failed = |error: csv::Error| Failure::io("write", path, std::io::Error::other(error));
    let mut writer = csv::Writer::from_writer(std::io::BufWriter::new(sink));
    let widths: Vec<usize> = arrays
        .iter()
        .map(|array| array.shape[1..].iter().product::<usize>())
        .collect();
    let mut head = Vec::new();
    for (port, width) in contract.outputs.iter().zip(&widths) {
        for place in 0..*width {
            head.push(match port.fields.get(place) {
                Some(field) if port.fields.len() == *width => field.name.clone(),
                _ => format!("{}.{place}", port.name),
            });
        }
    }
    writer.write_record(&head).map_err(failed)?;
    for row in 0..arrays.first().map_or(0, |array| array.shape[0]) {
        let cells = arrays.iter().zip(&widths).flat_map(|(array, width)| {
            (0..*width).map(move |place| cell(&array.values, row * width + place))
        });
        writer.write_record(cells).map_err(failed)?;
    }
    writer
        .flush()
        .map_err(|error| Failure::io("write", path, error))?;
    let mut buffer = writer
        .into_inner()
        .map_err(|error| Failure::io("write", path, std::io::Error::other(error.to_string())))?;
    buffer
        .flush()
        .map_err(|error| Failure::io("write", path, error))
}

/// The shortest text that reads back as the same number.
fn cell(values: &Values, index: usize) -> String {
    match values {
        Values::F32(vector) => vector[index].to_string(),
        Values::I64(vector) => vector[index].to_string(),
        Values::U64(vector) => vector[index].to_string(),
        Values::Bool(vector) => u8::from(vector[index]).to_string(),
        other => other.number(index).to_string(),
    }
}

fn values(dtype: DType, bytes: &[u8]) -> Values {
    /// Little-endian elements of a fixed size.
    fn each<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
        let (chunks, _) = bytes.as_chunks::<N>();
        chunks.iter().map(|chunk| read(*chunk)).collect()
    }
    match dtype {
        DType::F32 => Values::F32(each(bytes, f32::from_le_bytes)),
        DType::F64 => Values::F64(each(bytes, f64::from_le_bytes)),
        // Neither table nor archive has a half; a single holds every half exactly.
        DType::F16 => Values::F32(each(bytes, |half| half::f16::from_le_bytes(half).to_f32())),
        DType::U64 => Values::U64(each(bytes, u64::from_le_bytes)),
        DType::U32 => Values::U32(each(bytes, u32::from_le_bytes)),
        DType::I64 => Values::I64(each(bytes, i64::from_le_bytes)),
        DType::I32 => Values::I32(each(bytes, i32::from_le_bytes)),
        DType::I16 => Values::I16(each(bytes, i16::from_le_bytes)),
        DType::U16 => Values::U16(each(bytes, u16::from_le_bytes)),
        DType::I8 => Values::I8(each(bytes, i8::from_le_bytes)),
        DType::U8 => Values::U8(bytes.to_vec()),
        DType::Bool => Values::Bool(bytes.iter().map(|byte| *byte != 0).collect()),
    }
}

fn report(
    request: &Run,
    contract: &Contract,
    window: &Window,
    secs: f64,
    output: &mut Output,
) -> Result<()> {
    let p99 = window.latency.p99_us();
    let outside: Vec<(String, Vec<(&str, u32)>)> = contract
        .input_fields()
        .chain(contract.output_fields())
        .zip(window.inputs.iter().chain(&window.outputs))
        .map(|(field, counts)| {
            let specials = Special::ALL
                .into_iter()
                .map(|special| (word(special), counts.special(special)))
                .filter(|(_, count)| *count > 0);
            (field.name.clone(), specials.collect::<Vec<_>>())
        })
        .filter(|(_, specials)| !specials.is_empty())
        .collect();
    let shown = json!({
        "outputs": request.outputs.display().to_string(),
        "rows": window.rows,
        "runs": window.runs,
        "secs": secs,
        "latency_us_p99": p99,
        "outputs_nonfinite": window.outputs_nonfinite,
        "memory_bytes_peak": window.memory_bytes_peak,
        "outside_training": outside.iter().map(|(name, specials)| json!({
            "field": name,
            "counts": specials.iter().map(|(word, count)| ((*word).to_owned(), Value::from(*count)))
                .collect::<serde_json::Map<_, _>>(),
        })).collect::<Vec<_>>(),
    });
    output.show(&shown, |output| {
        output.line(format!(
            "{} rows in {} runs, {:.2} s, p99 {} µs a run; outputs in {}",
            window.rows,
            window.runs,
            secs,
            p99.map_or_else(|| "-".to_owned(), |us| us.to_string()),
            request.outputs.display()
        ))?;
        if window.outputs_nonfinite > 0 {
            output.line(format!(
                "{} output values are NaN or infinite: no answers to act on",
                window.outputs_nonfinite
            ))?;
        }
        for (name, specials) in &outside {
            let counts: Vec<_> = specials
                .iter()
                .map(|(word, count)| format!("{count} {word}"))
                .collect();
            output.line(format!(
                "  {name}: {} what it was trained on",
                counts.join(", ")
            ))?;
        }
        Ok(())
    })
}

fn word(special: Special) -> &'static str {
    match special {
        Special::Below => "below",
        Special::Above => "above",
        Special::Missing => "missing in",
        Special::Nan => "NaN in",
        Special::Infinite => "infinite in",
        Special::Other => "foreign to",
    }
}
