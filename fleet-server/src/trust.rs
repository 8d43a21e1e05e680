//! Trust root and revocation list in force.
//!
//! The server checks both so that an operator learns of a mistake at once. Devices check them for
//! themselves: a server that lies about them gains nothing.

use bellwether_package::chain::{join, split};
use bellwether_package::revocations::{Revocations, RevocationsError};
use bellwether_package::root::RootError;
use bellwether_package::{PublicKey, RootChain, TrustRoot, UnixSecs};

use crate::app::App;
use crate::store::documents::{self, Kind};
use crate::store::{Store, StoreError, records};

/// Trust root chain and revocation list, verified.
#[derive(Debug)]
pub struct Trust {
    chain: RootChain,
    chain_file: Vec<u8>,
    revocations: Option<(Revocations, Vec<u8>)>,
}

/// A document that was published is not taken.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Not a valid continuation of the trust root in force.
    #[error("the trust root chain is refused")]
    Root(#[source] RootError),
    /// The file's chain belongs to another trust root than the one this server serves.
    #[error("the file holds trust root {found}, and this server serves {held}")]
    OtherRoot {
        /// The root that the file holds.
        found: String,
        /// The root in force.
        held: String,
    },
    /// Not a valid revocation list.
    #[error("the revocation list is refused")]
    Revocations(#[source] RevocationsError),
    /// Not later than what is in force.
    #[error("version {found} is not higher than version {held}, which is in force")]
    NotNewer {
        /// The version offered.
        found: u64,
        /// The version in force.
        held: u64,
    },
    /// The database failed.
    #[error("the database failed")]
    Store(#[from] StoreError),
}

impl Trust {
    /// What is in force after `file` was given at start: the stored chain, continued by the file's
    /// if that has later versions.
    ///
    /// # Errors
    ///
    /// [`TrustError`] when the file is damaged or of another trust root.
    pub async fn at_start(store: &Store, file: &[u8], now: UnixSecs) -> Result<Self, TrustError> {
        let given = RootChain::verify_from_first(file).map_err(TrustError::Root)?;
        let chain_file = match store.document(Kind::TrustRoot).await? {
            None => file.to_vec(),
            Some(stored) => {
                let held = RootChain::verify_from_first(&stored).map_err(TrustError::Root)?;
                if held.id() != given.id() {
                    let (found, held) = (given.id().to_string(), held.id().to_string());
                    return Err(TrustError::OtherRoot { found, held });
                }
                continued(&held, &stored, file)?.unwrap_or(stored)
            }
        };
        let chain = RootChain::verify_from_first(&chain_file).map_err(TrustError::Root)?;
        let version = u64::from(chain.latest().version());
        let mut tx = store.write().await?;
        documents::put(&mut tx, Kind::TrustRoot, version, &chain_file, now).await?;
        tx.commit().await.map_err(StoreError::from)?;
        let revocations = store.document(Kind::Revocations).await?;
        Ok(Self::of(chain, chain_file, revocations))
    }

    fn of(chain: RootChain, chain_file: Vec<u8>, revocations: Option<Vec<u8>>) -> Self {
        let revocations = revocations.and_then(|bytes| {
            match Revocations::verify(&bytes, chain.latest()) {
                Ok(list) => Some((list, bytes)),
                Err(cause) => {
                    // After a rotation the old list may lack signatures; devices judge likewise.
                    tracing::warn!(
                        "the revocation list does not hold under the trust root: {cause}"
                    );
                    None
                }
            }
        });
        Self {
            chain,
            chain_file,
            revocations,
        }
    }

    /// The root in force.
    pub fn root(&self) -> &TrustRoot {
        self.chain.latest()
    }

    /// The chain, as its file's bytes.
    pub fn chain_file(&self) -> &[u8] {
        &self.chain_file
    }

    /// The revocation list in force.
    pub fn revocations(&self) -> Option<&Revocations> {
        self.revocations.as_ref().map(|(list, _)| list)
    }

    /// The revocation list in force, as it was signed.
    pub fn revocations_file(&self) -> Option<&[u8]> {
        self.revocations.as_ref().map(|(_, bytes)| bytes.as_slice())
    }

    /// Whether the root in force names this director key.
    pub fn trusts(&self, director: &PublicKey) -> bool {
        self.root().director_keys().contains(director)
    }
}

/// Puts a later chain in force, if it is a valid continuation of the present one.
///
/// # Errors
///
/// [`TrustError`]; then nothing has changed.
pub async fn publish_root(app: &App, file: &[u8], now: UnixSecs) -> Result<(), TrustError> {
    let held = app.trust();
    let next = continued(&held.chain, &held.chain_file, file)?;
    let Some(chain_file) = next else {
        let version = u64::from(held.root().version());
        return Err(TrustError::NotNewer {
            found: version,
            held: version,
        });
    };
    let chain = RootChain::verify_from_first(&chain_file).map_err(TrustError::Root)?;
    let version = chain.latest().version();
    let mut tx = app.store.write().await?;
    documents::put(
        &mut tx,
        Kind::TrustRoot,
        u64::from(version),
        &chain_file,
        now,
    )
    .await?;
    let subject = format!("version {version}");
    records::note(&mut tx, now, "operator", "trust-root-publish", &subject, "").await?;
    tx.commit().await.map_err(StoreError::from)?;
    let revocations = held.revocations_file().map(<[u8]>::to_vec);
    put_in_force(app, Trust::of(chain, chain_file, revocations));
    // Assignments carry the root's version in their sequence: all are signed anew.
    app.assignments_changed.notify_one();
    Ok(())
}

/// Puts a later revocation list in force.
///
/// # Errors
///
/// [`TrustError`]; then nothing has changed.
pub async fn publish_revocations(
    app: &App,
    signed: &[u8],
    now: UnixSecs,
) -> Result<(), TrustError> {
    let held = app.trust();
    let list = Revocations::verify(signed, held.root()).map_err(TrustError::Revocations)?;
    let version = list.version();
    let mut tx = app.store.write().await?;
    if !documents::put(&mut tx, Kind::Revocations, version, signed, now).await? {
        let held = held.revocations().map_or(0, Revocations::version);
        return Err(TrustError::NotNewer {
            found: version,
            held,
        });
    }
    let text = format!("{} packages revoked", list.list().packages.len());
    let subject = format!("version {version}");
    records::note(
        &mut tx,
        now,
        "operator",
        "revocations-publish",
        &subject,
        &text,
    )
    .await?;
    tx.commit().await.map_err(StoreError::from)?;
    let chain = held.chain.clone();
    put_in_force(
        app,
        Trust::of(chain, held.chain_file.clone(), Some(signed.to_vec())),
    );
    Ok(())
}

fn put_in_force(app: &App, trust: Trust) {
    *app.trust.write().expect("nobody panics while holding it") = trust.into();
    app.documents_changed.notify_one();
}

/// The held chain with the file's later versions; `None` if the file has none.
fn continued(
    held: &RootChain,
    held_file: &[u8],
    file: &[u8],
) -> Result<Option<Vec<u8>>, TrustError> {
    let latest = held.latest();
    let later = match RootChain::verify(file, &latest.fingerprint()) {
        Ok(later) => later,
        // A file that ends before our latest version has nothing new, and is no mistake.
        Err(RootError::PinMissing) => {
            let given = RootChain::verify_from_first(file).map_err(TrustError::Root)?;
            let known = held.version(given.latest().version());
            if known.is_some_and(|known| known.fingerprint() == given.latest().fingerprint()) {
                return Ok(None);
            }
            return Err(TrustError::Root(RootError::PinMissing));
        }
        Err(cause) => return Err(TrustError::Root(cause)),
    };
    if later.latest().version() == latest.version() {
        return Ok(None);
    }
    let new = later.versions().count() - 1;
    let mut versions = split(held_file).map_err(TrustError::Root)?;
    let given = split(file).map_err(TrustError::Root)?;
    versions.extend_from_slice(&given[given.len() - new..]);
    join(&versions).map(Some).map_err(TrustError::Root)
}
