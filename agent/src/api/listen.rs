//! Where the local API listens, and its connections.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};

use crate::config::Config;
use crate::program::Handed;
use crate::store::{Store, StoreError, remove_file};

/// The file in the state folder that tells where the API listens.
pub const ENDPOINTS: &str = "endpoints.json";
/// Connections at once; more wait to be accepted. An application that never closes any must not
/// use up the files that the agent may open.
const CONNECTIONS_MAX: usize = 128;
/// Longest wait for the next request of a connection, after which it is closed.
const IDLE_SECS_MAX: Duration = Duration::from_secs(300);
/// Connections of the page's own address at once: they take none of the applications'.
const PAGE_CONNECTIONS_MAX: usize = 16;
/// Longest wait for the next request of such a connection.
const PAGE_IDLE_SECS_MAX: Duration = Duration::from_secs(10);
/// Largest head of a request in bytes, and what is read at once.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Pause after a connection could not be accepted, such as when files have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Permissions of the Unix socket: owner and group may ask.
const SOCKET_MODE: u32 = 0o660;

/// The local API cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is taken, or not this device's.
    #[error(
        "cannot listen on {address} for the local {what}: it is in use or not this device's; \
         choose another [{}] listen, or port 0", what.to_ascii_lowercase()
    )]
    Listen {
        /// `API` or `page`.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The Unix socket cannot be made.
    #[error(
        "cannot listen on the socket {} for the local API: choose another [api] socket, in a \
         folder that the agent may write to", path.display()
    )]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The address cannot be written to the state folder.
    #[error("cannot tell where the local API listens")]
    Store(#[from] StoreError),
}

/// Where the local API listens, as `endpoints.json` tells.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoints {
    /// `host:port` of the local API.
    pub api: String,
    /// The Unix socket of the local API, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// `host:port` of the page, if it has an address of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// Process id of the agent that listens.
    pub pid: u32,
}

/// Bound, not yet answering.
#[derive(Debug)]
pub struct Listeners {
    tcp: TcpListener,
    unix: Option<Socket>,
    page: Option<TcpListener>,
}

/// A Unix socket, removed when it is dropped unless another program goes on with it.
#[derive(Debug)]
struct Socket {
    listener: UnixListener,
    path: PathBuf,
    stays: bool,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.stays {
            // What is left of a killed agent is removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listeners {
    /// Copies of the sockets, for the program that goes on with them. One that cannot be copied is
    /// made anew there.
    pub fn copies(&self) -> Handed {
        let copy = |socket: BorrowedFd<'_>| socket.try_clone_to_owned().ok();
        Handed {
            tcp: copy(self.tcp.as_fd()).map(Into::into),
            unix: self
                .unix
                .as_ref()
                .and_then(|unix| copy(unix.listener.as_fd()))
                .map(Into::into),
            page: self
                .page
                .as_ref()
                .and_then(|page| copy(page.as_fd()))
                .map(Into::into),
        }
    }
}

/// Binds what `config` says, unless it was `handed` over, and writes where that is to the state folder.
///
/// A full disk is no reason not to serve: then the file is absent, and the log tells the address.
///
/// # Errors
///
/// [`ApiError`] when an address is occupied.
pub async fn bind(config: &Config, store: &Store, handed: Handed) -> Result<Listeners, ApiError> {
    let (tcp, address) = bind_tcp("API", config.api.listen, handed.tcp).await?;
    let unix = config.api.socket.as_deref();
    let unix = unix.map(|path| match taken(path, handed.unix) {
        Some(socket) => Ok(socket),
        None => bind_socket(path),
    });
    let unix = unix.transpose()?;
    let (page, page_address) = match &config.page {
        Some(page) => bind_tcp("page", page.listen, handed.page)
            .await
            .map(|(listener, address)| (Some(listener), Some(address)))?,
        None => (None, None),
    };
    let endpoints = Endpoints {
        api: address.to_string(),
        socket: config.api.socket.clone(),
        page: page_address.map(|address| address.to_string()),
        pid: std::process::id(),
    };
    let text = serde_json::to_vec_pretty(&endpoints).expect("endpoints have plain fields");
    match store.write_file(ENDPOINTS, &text) {
        Err(error @ StoreError::DiskFull { .. }) => {
            tracing::error!(%error, "where the local API listens is told in this log alone");
            // One of an earlier run would mislead.
            remove_file(&store.path(ENDPOINTS))?;
        }
        other => other?,
    }
    let (socket, page_told) = (&endpoints.socket, &endpoints.page);
    tracing::info!(%address, ?socket, page = ?page_told, "local API listens");
    Ok(Listeners { tcp, unix, page })
}

async fn bind_tcp(
    what: &'static str,
    address: SocketAddr,
    handed: Option<std::net::TcpListener>,
) -> Result<(TcpListener, SocketAddr), ApiError> {
    let failed = |source| ApiError::Listen {
        what,
        address,
        source,
    };
    // One for another address is dropped: the configuration has changed.
    let fits = |handed: &std::net::TcpListener| {
        handed.local_addr().is_ok_and(|found| {
            found == address || (address.port() == 0 && found.ip() == address.ip())
        })
    };
    let taken = handed.filter(fits).and_then(|handed| {
        handed.set_nonblocking(true).ok()?;
        TcpListener::from_std(handed).ok()
    });
    let listener = match taken {
        Some(listener) => listener,
        None => TcpListener::bind(address).await.map_err(failed)?,
    };
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// A Unix socket that was handed over, if it is the one that the configuration names.
fn taken(path: &Path, handed: Option<std::os::unix::net::UnixListener>) -> Option<Socket> {
    let handed = handed?;
    if handed.local_addr().ok()?.as_pathname() != Some(path) || !path.exists() {
        return None;
    }
    handed.set_nonblocking(true).ok()?;
    Some(Socket {
        listener: UnixListener::from_std(handed).ok()?,
        path: path.to_owned(),
        stays: false,
    })
}

/// Binds a Unix socket in place of one that nobody listens on any more.
fn bind_socket(path: &Path) -> Result<Socket, ApiError> {
    let failed = |source| ApiError::Socket {
        path: path.to_owned(),
        source,
    };
    remove_stale(path).map_err(failed)?;
    let listener = UnixListener::bind(path).map_err(failed)?;
    let socket = Socket {
        listener,
        path: path.to_owned(),
        stays: false,
    };
    let mode = std::fs::Permissions::from_mode(SOCKET_MODE);
    std::fs::set_permissions(path, mode).map_err(failed)?;
    Ok(socket)
}

/// A socket outlives an agent that was killed. Anything else in its place is not ours to remove.
fn remove_stale(path: &Path) -> std::io::Result<()> {
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        let other = "something other than a socket is there";
        return Err(std::io::Error::new(ErrorKind::AlreadyExists, other));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(ErrorKind::AddrInUse.into()),
    }
}

/// Answers on `listeners` until it is dropped with its task: by `api` to applications, by `page` on
/// the page's own address. Once `stop` says so, no connection is taken any more, requests under way
/// are answered, and it ends; whoever connects then waits for the program that goes on.
pub async fn serve(
    listeners: Listeners,
    api: Router,
    page: Router,
    mut stop: watch::Receiver<bool>,
) {
    let Listeners {
        tcp,
        mut unix,
        page: own,
    } = listeners;
    let for_api = Rules {
        places: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        router: api,
        idle_max: IDLE_SECS_MAX,
        stop: stop.clone(),
    };
    let for_page = Rules {
        places: Arc::new(Semaphore::new(PAGE_CONNECTIONS_MAX)),
        router: page,
        idle_max: PAGE_IDLE_SECS_MAX,
        stop: stop.clone(),
    };
    tokio::select! {
        () = over_tcp(tcp, &for_api) => {}
        () = over_unix(unix.as_ref(), &for_api) => {}
        () = async {
            match own {
                Some(listener) => over_tcp(listener, &for_page).await,
                None => std::future::pending().await,
            }
        } => {}
        () = told(&mut stop) => {}
    }
    if let Some(unix) = &mut unix {
        unix.stays = true;
    }
    // Each connection holds its place until it has ended.
    for (places, all) in [
        (for_api.places, CONNECTIONS_MAX),
        (for_page.places, PAGE_CONNECTIONS_MAX),
    ] {
        let _ = places.acquire_many(all as u32).await;
    }
}

/// How one kind of connections is answered.
struct Rules {
    places: Arc<Semaphore>,
    router: Router,
    idle_max: Duration,
    stop: watch::Receiver<bool>,
}

async fn over_tcp(listener: TcpListener, rules: &Rules) {
    loop {
        let place = rules.places.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                // An answer is written whole: waiting for more to send only delays it.
                let _ = stream.set_nodelay(true);
                rules.answer(stream, place);
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn over_unix(socket: Option<&Socket>, rules: &Rules) {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    loop {
        let place = rules.places.clone().acquire_owned().await;
        match socket.listener.accept().await {
            Ok((stream, _)) => rules.answer(stream, place),
            Err(error) => pause(&error).await,
        }
    }
}

impl Rules {
    fn answer<P: Send + 'static>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        place: P,
    ) {
        let (router, stop) = (self.router.clone(), self.stop.clone());
        tokio::spawn(connection(stream, router, self.idle_max, place, stop));
    }
}

/// Ends once `stop` says so, or nobody can say it any more.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn pause(error: &std::io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Answers the requests of one connection. `place` is held until it ends.
async fn connection<P>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    idle_max: Duration,
    place: P,
    mut stop: watch::Receiver<bool>,
) {
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = told(&mut stop) => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_that_a_killed_agent_left_is_replaced_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api.sock");
        // Dropped as by a kill: the listener closes, the file stays.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = bind_socket(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, SOCKET_MODE);
        let taken = bind_socket(&path).unwrap_err();
        assert!(taken.to_string().contains("api.sock"), "{taken}");
        drop(socket);
        assert!(!path.exists());
        std::fs::write(&path, "notes").unwrap();
        assert!(bind_socket(&path).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"notes");
    }
}
