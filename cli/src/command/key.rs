//! `bellwether key`: keys of persons.

use bellwether_package::PublicKey;
use serde_json::json;

use crate::arguments::KeyNew;
use crate::failure::Result;
use crate::keys::{self, PrivateKey};
use crate::output::Output;
use crate::{files, secret};

/// Makes a key and writes both halves.
///
/// # Errors
/// When one of the files exists, or nobody can be asked for a passphrase.
pub(crate) fn new(request: &KeyNew, output: &mut Output) -> Result<()> {
    // Before the passphrase is asked for: nobody likes to type one for nothing.
    files::refuse_existing(&request.out)?;
    files::refuse_existing(&keys::public_path(&request.out)?)?;
    let passphrase = secret::new_passphrase(&request.out, request.passphrase_file.as_deref())?;
    let key = PrivateKey::generate()?;
    let public_path = key.write(&request.out, &passphrase)?;
    let public = PublicKey(key.public_bytes());
    let shown = json!({
        "key_file": request.out.display().to_string(),
        "public_file": public_path.display().to_string(),
        "public_key": public,
    });
    output.show(&shown, |output| {
        output.line(format!(
            "private key  {} (encrypted, keep it)",
            request.out.display()
        ))?;
        output.line(format!(
            "public key   {} (hand it out)",
            public_path.display()
        ))?;
        output.line(format!("             {public}"))
    })
}
