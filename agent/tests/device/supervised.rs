//! The agent under a service manager: a real socket, a real process, and a loop that hangs.

use std::fs::File;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::bench::{Agent, Bench, wait};
use crate::model;
use crate::package::Package;

/// Pings are due every 0.7 s and come with the loop's ticks, once a second.
const WATCHDOG: &str = "2000000";
/// No ping for so long, and a manager would have acted.
const PERIOD: Duration = Duration::from_secs(2);

pub(crate) struct Manager {
    socket: UnixDatagram,
    name: String,
}

impl Manager {
    pub(crate) fn at_a_path(bench: &Bench) -> Self {
        let path = bench.state.with_file_name("notify");
        Self {
            socket: UnixDatagram::bind(&path).unwrap(),
            name: path.to_str().unwrap().to_owned(),
        }
    }

    fn abstract_one() -> Self {
        let name = format!("bellwether-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self {
            socket: UnixDatagram::bind_addr(&address).unwrap(),
            name: format!("@{name}"),
        }
    }

    pub(crate) fn start(&self, bench: &Bench) -> Agent {
        bench.spawn_with(&[("NOTIFY_SOCKET", &self.name), ("WATCHDOG_USEC", WATCHDOG)])
    }

    /// The next datagram, if one comes in time.
    pub(crate) fn hears(&self, within: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(within)).unwrap();
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).ok()?;
        Some(String::from_utf8(bytes[..length].to_vec()).unwrap())
    }

    pub(crate) fn hears_of(&self, what: &str) -> String {
        wait(what, || {
            self.hears(Duration::from_secs(1))
                .filter(|text| text.lines().any(|line| line.starts_with(what)))
        })
    }
}

#[test]
fn ready_is_told_once_the_api_answers_and_then_how_the_device_is() {
    let mut bench = Bench::new();
    let manager = Manager::at_a_path(&bench);
    let mut agent = manager.start(&bench);
    let first = manager.hears(Duration::from_secs(20)).unwrap();
    assert!(first.starts_with("READY=1\n"), "{first}");
    // Nothing is waited for: who was told `ready` may ask at once.
    assert_eq!(bench.get("/v2/health/live").unwrap().0, 200);
    assert!(
        first.contains("STATUS=Waiting for a first release;"),
        "{first}"
    );
    bench.install(&Package::approved(
        &bench.people,
        0,
        &model::times(2.0),
        |x| 2.0 * x,
    ));
    manager.hears_of("STATUS=Well.");
    assert!(agent.stop().success());
    manager.hears_of("STOPPING=1");
}

#[test]
fn a_loop_that_hangs_pings_no_more_though_the_api_answers() {
    let bench = Bench::new();
    let manager = Manager::abstract_one();
    let _agent = manager.start(&bench);
    manager.hears_of("READY=1");
    manager.hears_of("WATCHDOG=1");
    // Whoever opens this for writing waits for a reader, as on a disk that answers no more.
    let trap = bench.state.join("status.json.tmp");
    mkfifoat(CWD, &trap, Mode::RUSR | Mode::WUSR).unwrap();
    // The loop notes that the link is down.
    bench.server.world().down = true;
    let hung = wait("a period without a ping", || {
        let begun = Instant::now();
        manager.hears(PERIOD).is_none().then_some(begun)
    });
    assert_eq!(bench.get("/v2/health/live").unwrap().0, 200);
    assert_eq!(manager.hears(PERIOD), None);
    assert!(hung.elapsed() >= 2 * PERIOD);
    let reader = File::open(&trap).unwrap();
    manager.hears_of("WATCHDOG=1");
    drop(reader);
}
