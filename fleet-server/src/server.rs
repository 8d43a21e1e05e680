//! Puts the parts together, and runs them until it is told to stop.

use std::fs;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use bellwether_package::chain::CHAIN_BYTES_MAX;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::app::App;
use crate::blobs::{BlobError, Blobs};
use crate::broker::probe::{ProbeError, devices_are_kept_apart};
use crate::broker::{Broker, BrokerError, TlsFiles};
use crate::ca::{CaError, SERVER_CLIENT_NAME};
use crate::config::Config;
use crate::data::{DataDir, DataError, Endpoints};
use crate::link::{Arrival, LinkLoop};
use crate::revoked::Revoked;
use crate::store::StoreError;
use crate::tls::TlsError;
use crate::trust::{Trust, TrustError};
use crate::{api, assign, clock, ingest, link, planner, tls};

/// How long requests that are under way may take once the server shall stop.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How long a client may take from connecting to its first request's end of headers.
const FIRST_REQUEST_WITHIN: Duration = Duration::from_secs(30);

/// What `run` needs to know.
#[derive(Debug, Clone)]
pub struct Run {
    /// The data folder.
    pub data: PathBuf,
    /// The trust root chain (`.bwt`).
    pub trust_root: PathBuf,
    /// The configuration.
    pub config: Config,
    /// Offer releases that this server would refuse: a drill, to show that devices defend
    /// themselves.
    pub drill_offer_unapproved: bool,
}

/// The server cannot start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data folder cannot be used.
    #[error("the data folder cannot be used")]
    Data(#[from] DataError),
    /// The database cannot be read.
    #[error("the database failed")]
    Store(#[from] StoreError),
    /// The trust root's file cannot be read.
    #[error(
        "the trust root {path} cannot be read; name the file that `bellwether trust init` made"
    )]
    TrustFile {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// The trust root is not valid.
    #[error("the trust root cannot be served")]
    Trust(#[from] TrustError),
    /// The blob folder cannot be used.
    #[error("the blob folder cannot be used")]
    Blobs(#[from] BlobError),
    /// Somebody else listens there, or we may not.
    #[error(
        "cannot listen for HTTPS on {address}. Stop what listens there, or set `https` in the configuration"
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        cause: std::io::Error,
    },
    /// The broker cannot start.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The broker cannot be trusted.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// No certificate.
    #[error("no certificate for the server")]
    Certificate(#[from] CaError),
    /// No TLS.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The HTTPS listener stopped by itself.
    #[error("the HTTPS listener stopped")]
    Https(#[source] std::io::Error),
    /// A part that never ends ended. We are at fault.
    #[error("a part of the server stopped; its log says why")]
    Part,
}

/// Serves until `shutdown` is ready; `ready` is told where.
///
/// # Errors
///
/// [`ServerError`] when the server cannot start, or a part of it fails.
pub async fn run(
    run: Run,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(&Endpoints),
) -> Result<(), ServerError> {
    let data = DataDir::at(&run.data);
    let _lock = data.lock()?;
    let started = start(run, &data).await?;
    let Started {
        app,
        broker,
        https,
        tls,
        link,
        arrivals,
    } = started;

    let mut parts = JoinSet::new();
    parts.spawn(link.run());
    parts.spawn(ingest::run(app.clone(), arrivals));
    parts.spawn(assign::run(app.clone()));
    parts.spawn(planner::run(app.clone()));

    let handle = Handle::new();
    let address = https.local_addr().map_err(ServerError::Https)?;
    let endpoints = Endpoints {
        https: address.to_string(),
        mqtts: broker.address.to_string(),
    };
    let router = api::router(app.clone()).into_make_service();
    let server = axum_server::from_tcp_rustls(https, RustlsConfig::from_config(tls))
        .map_err(ServerError::Https)?
        .first_request_timeout(FIRST_REQUEST_WITHIN)
        .handle(handle.clone())
        .serve(router);
    app.ready.store(true, Ordering::Relaxed);
    data.write_endpoints(&endpoints)?;
    tracing::info!(
        "serving: https {}, mqtts {}",
        endpoints.https,
        endpoints.mqtts
    );
    ready(&endpoints);

    let server = tokio::spawn(server);
    tokio::pin!(server);
    let result = tokio::select! {
        () = shutdown => Ok(()),
        _ = parts.join_next() => Err(ServerError::Part),
        stopped = &mut server => match stopped {
            Ok(Err(cause)) => Err(ServerError::Https(cause)),
            Ok(Ok(())) | Err(_) => Err(ServerError::Part),
        },
    };
    tracing::info!("stopping");
    data.remove_endpoints();
    handle.graceful_shutdown(Some(STOP_WITHIN));
    if result.is_ok() {
        let _ = tokio::time::timeout(STOP_WITHIN * 2, &mut server).await;
    }
    parts.shutdown().await;
    drop(broker);
    app.store.close().await;
    result
}

struct Started {
    app: Arc<App>,
    broker: Broker,
    https: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    link: LinkLoop,
    arrivals: mpsc::Receiver<Arrival>,
}

async fn start(run: Run, data: &DataDir) -> Result<Started, ServerError> {
    let Run {
        trust_root,
        config,
        drill_offer_unapproved,
        ..
    } = run;
    let chain = read_chain(&trust_root)?;
    let ca = data.open_ca()?;
    let director = data.open_director()?;
    let store = data.open_store().await?;
    let trust = Trust::at_start(&store, &chain, clock::now()).await?;
    if !trust.trusts(&director.public_key()) {
        tracing::warn!(
            "the trust root does not name this server's director key {}: devices will not obey. \
             Rotate the root with `bellwether trust rotate`",
            director.public_key()
        );
    }
    if drill_offer_unapproved {
        tracing::warn!(
            "DRILL: releases are offered that this server would refuse. Never in production"
        );
    }

    let https = listen(config.https)?;
    let (names, addresses) = names(&config);
    let identity = ca.server(&names, &addresses)?;
    let tls = tls::server(&ca, &identity)?;
    let (certificate, key) = data.write_server(&identity)?;
    let files = TlsFiles {
        certificate: &certificate,
        key: &key,
        ca: &data.ca(),
    };
    let revoked = Arc::new(Revoked::default());
    revoked.look(&store).await?;
    let broker = Broker::start(config.mqtts, files, revoked.clone()).await?;
    devices_are_kept_apart(broker.address, &ca).await?;
    tracing::info!("the broker keeps devices apart");

    let own = ca.client(SERVER_CLIENT_NAME)?;
    let (link, link_loop, arrivals) = link::open(broker.address, tls::client(&ca, Some(&own))?);
    let mqtts = match &config.mqtts_host {
        Some(host) => format!("{host}:{}", broker.address.port()),
        None => broker.address.to_string(),
    };
    let app = App {
        store,
        blobs: Blobs::local(&data.blobs())?,
        incoming: data.empty_incoming()?,
        token: data.token_digest()?,
        ca,
        director,
        mqtts,
        link,
        sessions: broker.sessions.clone(),
        revoked,
        drill_offer_unapproved,
        trust: RwLock::new(Arc::new(trust)),
        assignments_changed: Notify::new(),
        documents_changed: Notify::new(),
        plan_now: Notify::new(),
        ready: AtomicBool::new(false),
        config,
    };
    Ok(Started {
        app: Arc::new(app),
        broker,
        https,
        tls,
        link: link_loop,
        arrivals,
    })
}

fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    let of = |cause| ServerError::Listen { address, cause };
    let listener = TcpListener::bind(address).map_err(of)?;
    listener.set_nonblocking(true).map_err(of)?;
    Ok(listener)
}

/// Names and addresses that clients reach the server by.
fn names(config: &Config) -> (Vec<String>, Vec<IpAddr>) {
    let mut names = vec!["localhost".to_owned()];
    let mut addresses = vec![
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    for name in config.names.iter().chain(&config.mqtts_host) {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name.clone()),
        }
    }
    for listening in [config.https.ip(), config.mqtts.ip()] {
        if !listening.is_unspecified() && !addresses.contains(&listening) {
            addresses.push(listening);
        }
    }
    (names, addresses)
}

fn read_chain(path: &Path) -> Result<Vec<u8>, ServerError> {
    let of = |cause| ServerError::TrustFile {
        path: path.to_owned(),
        cause,
    };
    let length = fs::metadata(path).map_err(of)?.len();
    if length > CHAIN_BYTES_MAX as u64 {
        return Err(of(std::io::Error::other(
            "it is longer than any chain of trust roots",
        )));
    }
    fs::read(path).map_err(of)
}
