//! `bellwether pack-agent`: from built programs to a package for the slot `agent`.

use std::io::{BufWriter, Seek};
use std::path::Path;

use bellwether_package::manifest::PROGRAM_BLOB_BYTES_MAX;
use bellwether_package::sections::{Card, Provenance};
use bellwether_package::std_io::FromStd;
use bellwether_package::write::{ProgramDraft, TargetDraft, WriteError};
use bellwether_package::{PackageId, UnixSecs};
use serde_json::json;

use crate::arguments::PackAgent;
use crate::failure::{Failure, Result, Who};
use crate::files::{self, Existing, Readers};
use crate::output::{Output, human_bytes};
use crate::packages;

/// The name in the manifest, by which revocations name a least version.
const NAME: &str = "bellwether-agent";
/// What every executable of Linux begins with.
const ELF: &[u8] = b"\x7fELF";

/// Programs as they were read.
struct Built {
    triple: String,
    worker: Vec<u8>,
    agent: Vec<u8>,
}

/// Packs; nothing is written unless everything fits.
///
/// # Errors
/// When a program is missing or is none, or the package cannot be written.
pub(crate) fn pack_agent(request: &PackAgent, now: UnixSecs, output: &mut Output) -> Result<()> {
    files::refuse_existing(&request.out)?;
    let built = request.targets.iter().map(|text| read(text));
    let built: Vec<Built> = built.collect::<Result<_>>()?;
    let draft = ProgramDraft {
        name: NAME.parse().expect("a valid name"),
        version: request.release,
        created: now,
        card: (!request.notes.is_empty()).then(|| Card {
            intended_use: request.notes.clone(),
            ..Card::default()
        }),
        provenance: (!request.commit.is_empty()).then(|| Provenance {
            code_commit: request.commit.clone(),
            ..Provenance::default()
        }),
        targets: built
            .iter()
            .map(|built| TargetDraft {
                triple: built.triple.clone(),
                worker: &built.worker,
                agent: &built.agent,
            })
            .collect(),
    };
    let (id, bytes) = write(&request.out, &draft)?;
    let triples: Vec<&str> = built.iter().map(|built| built.triple.as_str()).collect();
    let shown = json!({
        "file": request.out.display().to_string(),
        "id": id,
        "model": NAME,
        "version": request.release.to_string(),
        "bytes": bytes,
        "targets": triples,
    });
    output.show(&shown, |output| {
        output.line(format!("{NAME} {}", request.release))?;
        output.line(format!("  id        {id}"))?;
        output.line(format!(
            "  file      {} ({})",
            request.out.display(),
            human_bytes(bytes)
        ))?;
        output.line(format!("  targets   {}", triples.join(" ")))?;
        if triples.len() > 1 {
            output.line(
                "  note      each device downloads all targets; a package for each costs less",
            )?;
        }
        Ok(())
    })
}

/// One target: `TRIPLE=FOLDER`.
fn read(text: &str) -> Result<Built> {
    let (triple, folder) = text.split_once('=').ok_or_else(|| {
        Failure::operator(format!("`{text}` is not TRIPLE=FOLDER"))
            .next("say what the programs were built for, and where they lie")
    })?;
    let program = |name: &str| {
        let path = Path::new(folder).join(name);
        let bytes = files::read(&path, PROGRAM_BLOB_BYTES_MAX)?;
        if bytes.starts_with(ELF) {
            return Ok(bytes);
        }
        Err(
            Failure::operator(format!("{} is no program for Linux", path.display()))
                .next("give the folder that `cargo build --profile device` fills"),
        )
    };
    Ok(Built {
        triple: triple.to_owned(),
        worker: program("bellwether-worker")?,
        agent: program("bellwether-agent")?,
    })
}

/// Writes the package and reads it back as a device would.
fn write(out: &Path, draft: &ProgramDraft<'_>) -> Result<(PackageId, u64)> {
    let mut packed = None;
    files::write_with(out, Existing::Keep, Readers::Everybody, |file| {
        let mut target = FromStd::new(BufWriter::new(&mut *file));
        let written = draft.write(&mut target);
        let cause = target.take_failure();
        let id = written.map_err(|error| match (cause, &error) {
            (Some(cause), WriteError::Target(_)) => Failure::io("write", out, cause),
            _ => Failure::operator("these programs can't be packed")
                .next("correct what the cause names")
                .because(error),
        })?;
        drop(target);
        let failed = |error| Failure::io("read back", out, error);
        let bytes = file.metadata().map_err(failed)?.len();
        file.rewind().map_err(failed)?;
        packages::read(out, file)?;
        packed = Some((id, bytes));
        Ok(())
    })?;
    packed.ok_or_else(|| Failure::new(Who::Bellwether, "nothing was packed"))
}
