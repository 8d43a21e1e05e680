//! The data folder: what lies where, and how it is made.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use bellwether_package::{Digest, PublicKey};
use serde::{Deserialize, Serialize};

use crate::ca::{Ca, CaError, Identity};
use crate::director::Director;
use crate::secret;
use crate::store::{Store, StoreError};

/// The folder that holds everything the server knows. Whoever reads it is the server.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
}

/// Where the server really listens: `endpoints.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoints {
    /// `host:port` of the REST API.
    pub https: String,
    /// `host:port` of the broker.
    pub mqtts: String,
}

/// What `init` made, to be told to the operator. No secret among it.
#[derive(Debug, Clone)]
pub struct Made {
    /// Public key of the director: the trust root must name it.
    pub director: PublicKey,
    /// SHA-256 of the CA's certificate (DER).
    pub ca: Digest,
    /// File that holds the API token.
    pub token_file: PathBuf,
}

/// The data folder cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// There is a server in it already.
    #[error("{0} holds a server already; choose another folder, or remove it first")]
    Taken(PathBuf),
    /// There is none in it.
    #[error("{0} holds no server; make one with `bellwether-server init --data {0}`")]
    Empty(PathBuf),
    /// Another process serves from it.
    #[error("another process serves from {0}; stop it first")]
    InUse(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot use {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// A key file does not hold a key.
    #[error("{0} does not hold a key of 64 hexadecimal digits")]
    Key(PathBuf),
    /// No certificate.
    #[error("the certificate authority failed")]
    Ca(#[from] CaError),
    /// No database.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// No randomness.
    #[error("the system gives no random numbers")]
    Random(#[source] getrandom::Error),
}

impl DataDir {
    /// The folder at `root`; nothing is read yet.
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Makes a new server: CA, director key, API token, database.
    ///
    /// # Errors
    ///
    /// [`DataError::Taken`] if one is there already, or whatever failed.
    pub async fn init(&self) -> Result<Made, DataError> {
        if self.ca_key().exists() || self.database().exists() {
            return Err(DataError::Taken(self.root.clone()));
        }
        for folder in [self.root.clone(), self.blobs(), self.incoming(), self.tls()] {
            private_folder(&folder)?;
        }
        let (ca_pem, ca_key) = Ca::generate()?;
        let (director, director_seed) = Director::generate().map_err(DataError::Random)?;
        let token = secret::token().map_err(DataError::Random)?;
        private(
            &self.director_key(),
            format!("{director_seed}\n").as_bytes(),
        )?;
        private(&self.token(), format!("{token}\n").as_bytes())?;
        replace(&self.ca(), ca_pem.as_bytes())?;
        Store::open(&self.database(), true).await?.close().await;
        let database = self.database();
        fs::set_permissions(&database, fs::Permissions::from_mode(0o600)).map_err(of(&database))?;
        // The CA's key comes last: a folder that has it is complete.
        private(&self.ca_key(), ca_key.as_bytes())?;
        let ca = Ca::open(ca_pem, &ca_key)?;
        Ok(Made {
            director: director.public_key(),
            ca: ca.fingerprint(),
            token_file: self.token(),
        })
    }

    /// Takes the folder for this process alone. The lock lasts as long as the file that is given.
    ///
    /// # Errors
    ///
    /// [`DataError::Empty`] or [`DataError::InUse`].
    pub fn lock(&self) -> Result<fs::File, DataError> {
        if !self.ca_key().exists() {
            return Err(DataError::Empty(self.root.clone()));
        }
        let path = self.root.join("lock");
        let file = fs::File::create(&path).map_err(of(&path))?;
        file.try_lock()
            .map_err(|_| DataError::InUse(self.root.clone()))?;
        Ok(file)
    }

    /// Opens the certificate authority.
    ///
    /// # Errors
    ///
    /// [`DataError`].
    pub fn open_ca(&self) -> Result<Ca, DataError> {
        Ok(Ca::open(read(&self.ca())?, &read(&self.ca_key())?)?)
    }

    /// Opens the director's key.
    ///
    /// # Errors
    ///
    /// [`DataError`].
    pub fn open_director(&self) -> Result<Director, DataError> {
        let path = self.director_key();
        Director::open(read(&path)?.trim()).ok_or(DataError::Key(path))
    }

    /// Digest of the API token.
    ///
    /// # Errors
    ///
    /// [`DataError`].
    pub fn token_digest(&self) -> Result<Digest, DataError> {
        Ok(secret::digest(read(&self.token())?.trim()))
    }

    /// Opens the database.
    ///
    /// # Errors
    ///
    /// [`DataError`].
    pub async fn open_store(&self) -> Result<Store, DataError> {
        Ok(Store::open(&self.database(), false).await?)
    }

    /// Writes the certificate and key that the broker reads; made anew at each start.
    ///
    /// # Errors
    ///
    /// [`DataError::File`].
    pub fn write_server(&self, identity: &Identity) -> Result<(PathBuf, PathBuf), DataError> {
        private_folder(&self.tls())?;
        let (certificate, key) = (
            self.tls().join("server.pem"),
            self.tls().join("server-key.pem"),
        );
        replace(&certificate, identity.certificate_pem.as_bytes())?;
        // A temporary file is made for its owner alone, and so is what it becomes.
        replace(&key, identity.key_pem.as_bytes())?;
        Ok((certificate, key))
    }

    /// Writes where the server listens.
    ///
    /// # Errors
    ///
    /// [`DataError::File`].
    pub fn write_endpoints(&self, endpoints: &Endpoints) -> Result<(), DataError> {
        let text = serde_json::to_vec(endpoints).expect("two texts are JSON");
        replace(&self.root.join("endpoints.json"), &text)
    }

    /// Takes away where the server listened, once it does not any more.
    pub fn remove_endpoints(&self) {
        let _ = fs::remove_file(self.root.join("endpoints.json"));
    }

    /// Where uploads are written before they are understood. Emptied at start.
    ///
    /// # Errors
    ///
    /// [`DataError::File`].
    pub fn empty_incoming(&self) -> Result<PathBuf, DataError> {
        let path = self.incoming();
        if path.exists() {
            fs::remove_dir_all(&path).map_err(of(&path))?;
        }
        private_folder(&path)?;
        Ok(path)
    }

    /// The CA's certificate in PEM.
    pub fn ca(&self) -> PathBuf {
        self.root.join("ca.pem")
    }

    /// Folder of the packages' sections.
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    fn ca_key(&self) -> PathBuf {
        self.root.join("ca-key.pem")
    }

    fn director_key(&self) -> PathBuf {
        self.root.join("director.key")
    }

    fn token(&self) -> PathBuf {
        self.root.join("api-token")
    }

    fn database(&self) -> PathBuf {
        self.root.join("bellwether.db")
    }

    fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    fn tls(&self) -> PathBuf {
        self.root.join("tls")
    }
}

fn of(path: &Path) -> impl Fn(io::Error) -> DataError {
    let path = path.to_owned();
    move |cause| DataError::File {
        path: path.clone(),
        cause,
    }
}

fn read(path: &Path) -> Result<String, DataError> {
    fs::read_to_string(path).map_err(of(path))
}

fn private(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    secret::write_private(path, bytes).map_err(of(path))
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    secret::replace(path, bytes).map_err(of(path))
}

fn private_folder(path: &Path) -> Result<(), DataError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(of(path))
}
