//! Uploading what was packed and signed.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ureq::http::Method;

use super::answers::Package;
use super::client::segment;
use super::{Client, model, parse};
use crate::failure::{Failure, Result};
use crate::output::{Output, progress_bytes};
use crate::{documents, files};

/// Uploads a `.bwp`, `.bwa`, `.bwr` or `.bwt` file; `package` names what an approval is about.
///
/// # Errors
/// When the file is none of these, or those of the server.
pub(crate) fn publish(
    client: &Client,
    path: &Path,
    package: Option<&str>,
    output: &mut Output,
) -> Result<()> {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    let (method, route) = match extension {
        "bwp" => (Method::POST, "/v1/packages".to_owned()),
        "bwa" => {
            let id = match package {
                Some(id) => id.to_owned(),
                None => documents::approval_subject(path)?.to_string(),
            };
            (
                Method::POST,
                format!("/v1/packages/{}/approvals", segment(&id)),
            )
        }
        "bwr" => (Method::PUT, "/v1/revocations".to_owned()),
        "bwt" => (Method::POST, "/v1/trust-root".to_owned()),
        _ => {
            return Err(
                Failure::operator(format!("can't tell what {} is", path.display()))
                    .next("name it .bwp, .bwa, .bwr or .bwt"),
            );
        }
    };
    let file = files::open(path)?;
    let length = file
        .metadata()
        .map_err(|error| Failure::io("look at", path, error))?
        .len();
    let answer = send(client, method, &route, file, length)?;
    output.show(&answer, |output| match extension {
        "bwp" | "bwa" => {
            let package: Package = parse(&answer)?;
            output.line(format!(
                "{} {} is on the server",
                package.model, package.version
            ))?;
            output.line(format!("  id     {}", package.id))?;
            output.line(format!("  state  {}", model::state(&package)))
        }
        _ => {
            output.line(format!("{} is in force on the server", path.display()))?;
            let version = answer.get("version").cloned().unwrap_or_default();
            let untrusted = answer.get("director_trusted") == Some(&false.into());
            if untrusted {
                output.line(
                    "  this root does not name this server's director key: no device will obey it",
                )?;
            }
            output.line(format!("  version  {version}"))
        }
    })
}

fn send(
    client: &Client,
    method: Method,
    route: &str,
    file: File,
    length: u64,
) -> Result<serde_json::Value> {
    let bar = progress_bytes(length, "uploading");
    // What grows while it is read is cut at the length that was announced.
    let mut source = bar.wrap_read(file.take(length));
    let answer = client.send(method, route, length, &mut source);
    bar.finish_and_clear();
    answer
}
