//! One enrolled device on a bench: its folder, its server, its people, and its process.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use bellwether_agent::api::{ENDPOINTS, Endpoints};
use bellwether_agent::config::Config;
use bellwether_agent::enrol::{Request, enrol};
use bellwether_agent::view::{DeviceView, SlotView};
use bellwether_package::ids::AGENT_SLOT;
use bellwether_package::{PackageId, SlotName};
use bellwether_protocol::{Desired, OutcomeKind, Record, Sequence, SlotAssignment, TrialLimits};
use serde_json::Value;

use crate::package::Package;
use crate::people::{NEVER, People, SLOT, trial};
use crate::server::Server;

/// The device's name.
pub(crate) const DEVICE: &str = "pump-1";
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Bench {
    pub(crate) people: People,
    pub(crate) server: Server,
    pub(crate) config: PathBuf,
    pub(crate) state: PathBuf,
    folder: tempfile::TempDir,
    sequence: u64,
    /// The local API's address when the configuration fixes it.
    fixed: Option<String>,
}

/// A running agent, ended when dropped.
pub(crate) struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Agent {
    /// SIGKILL: no time for anything.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// SIGTERM, as a service manager stops it; waits for its end.
    pub(crate) fn stop(&mut self) -> std::process::ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn exited(&mut self) -> Option<std::process::ExitStatus> {
        self.0.try_wait().unwrap()
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Server::start())
    }

    /// A device that enrolled with that server.
    pub(crate) fn with(server: Server) -> Self {
        let bench = Self::unenrolled(server);
        let claim_file = bench.folder.path().join("claim");
        std::fs::write(&claim_file, "claim").unwrap();
        let request = Request {
            server: format!("https://{}", bench.server.https),
            authority: bench.server.authority,
            root: bench.people.fingerprint(),
            claim_file,
        };
        enrol(&Config::read(&bench.config).unwrap(), &request).unwrap();
        bench
    }

    /// A device that is still to be enrolled.
    pub(crate) fn unenrolled(server: Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let people = People::new();
        {
            let mut world = server.world();
            world.chain = people.chain(1);
            world.files.insert("/v1/trust-root".into(), people.chain(1));
            world
                .files
                .insert("/v1/revocations".into(), people.revocations(1, &[]));
        }
        let (config, state) = (
            folder.path().join("agent.toml"),
            folder.path().join("state"),
        );
        let worker = worker();
        let text = format!(
            "device = \"{DEVICE}\"\nstate_dir = {state:?}\nworker = {worker:?}\n\
             [attributes]\nclass = \"pump\"\n\
             [report]\nwindow_secs = 1\nhealth_secs = 1\n\
             [link]\nspread_secs = 1\nkeep_alive_secs = 30\n\
             [limits]\ndisk_bytes_free_min = 0\n"
        );
        std::fs::write(&config, text).unwrap();
        Self {
            people,
            server,
            config,
            state,
            folder,
            sequence: 0,
            fixed: None,
        }
    }

    /// Has the local API listen on one address from the next start on.
    pub(crate) fn listen_on(&mut self, address: &str) {
        self.configure(&format!("[api]\nlisten = \"{address}\"\n"));
        self.fixed = Some(address.to_owned());
    }

    /// Appends to the configuration, for the next start.
    pub(crate) fn configure(&self, more: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        std::fs::write(&self.config, format!("{text}{more}")).unwrap();
    }

    /// `host:port` of the local API.
    pub(crate) fn address(&self) -> String {
        let address = self.url("").unwrap();
        address.trim_start_matches("http://").to_owned()
    }

    /// Adds lines to the configuration's limits from the next start on.
    pub(crate) fn configure_limits(&self, lines: &str) {
        let text = std::fs::read_to_string(&self.config).unwrap();
        let text = text.replacen("[limits]\n", &format!("[limits]\n{lines}\n"), 1);
        std::fs::write(&self.config, text).unwrap();
    }

    /// Starts the agent's process and waits until its API answers.
    pub(crate) fn start(&self) -> Agent {
        let _ = std::fs::remove_file(self.state.join(ENDPOINTS));
        let mut agent = self.spawn();
        wait("the local API", || {
            assert!(agent.exited().is_none(), "the agent ended: {}", self.log());
            self.status()
        });
        agent
    }

    /// Starts the agent's process.
    pub(crate) fn spawn(&self) -> Agent {
        self.spawn_under(&[])
    }

    /// Starts the agent's process with more in its environment.
    pub(crate) fn spawn_with(&self, variables: &[(&str, &str)]) -> Agent {
        let variables: Vec<_> = variables
            .iter()
            .map(|(name, value)| (*name, OsString::from(value)))
            .collect();
        self.spawn_under(&variables)
    }

    /// The same with values that are paths, say.
    pub(crate) fn spawn_under(&self, variables: &[(&str, OsString)]) -> Agent {
        let mut command = Command::new(agent_program());
        command.arg("run").arg("--config").arg(&self.config);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.log_path());
        command.stderr(log.unwrap());
        Agent(command.spawn().unwrap())
    }

    /// `bellwether-agent enroll`, with the claim from that file.
    pub(crate) fn enroll_command(&self, claim_file: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether-agent"));
        command.arg("enroll").arg("--config").arg(&self.config);
        command.args(["--server", &format!("https://{}", self.server.https)]);
        command.args(["--ca-sha256", &self.server.authority.to_string()]);
        command.args(["--root-sha256", &self.people.fingerprint().to_string()]);
        command.arg("--claim-file").arg(claim_file);
        command
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("agent.log")
    }

    /// What the agent has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Uploads a package and orders it.
    pub(crate) fn order(&mut self, package: &Package, secs: u32, rows: u32) {
        self.upload(package);
        self.order_desired(package.desired(), secs, rows);
    }

    pub(crate) fn order_desired(&mut self, desired: Desired, secs: u32, rows: u32) {
        self.order_under(desired, trial(secs, rows));
    }

    /// Orders under limits of its own.
    pub(crate) fn order_under(&mut self, desired: Desired, limits: TrialLimits) {
        self.sequence += 1;
        let assignment = self
            .people
            .assignment(DEVICE, self.sequence, desired, limits);
        self.server.assign(assignment);
    }

    /// Orders the device's own programs, whose trial lasts no longer than `secs_max`.
    pub(crate) fn order_programs(&mut self, desired: Desired, secs_max: u32) {
        self.sequence += 1;
        let limits = TrialLimits {
            secs_max,
            ..trial(0, 1)
        };
        let n = self.sequence;
        let signed = self
            .people
            .assignment_for(DEVICE, AGENT_SLOT, n, desired, limits);
        self.server.assign(signed);
    }

    /// Orders the device's own programs back to these.
    pub(crate) fn order_programs_back(&mut self, desired: Desired) {
        self.sequence += 1;
        let slot = SlotAssignment {
            slot: SlotName::new(AGENT_SLOT).unwrap(),
            ordered_back: true,
            ..People::slot(desired, trial(0, 1))
        };
        let sequence = Sequence {
            epoch: 1,
            n: self.sequence,
        };
        let signed = self.people.assignment_of(DEVICE, sequence, slot, NEVER);
        self.server.assign(signed);
    }

    /// Uploads a package without ordering it.
    pub(crate) fn upload(&self, package: &Package) {
        let mut world = self.server.world();
        world.files.insert(package.path(), package.bytes.clone());
    }

    /// Waits until the slot is in this phase.
    pub(crate) fn wait_phase(&self, phase: &str) {
        wait(phase, || self.slot().filter(|slot| slot.phase == phase));
    }

    /// Installs a first release and waits until it has committed.
    pub(crate) fn install(&mut self, package: &Package) {
        self.order(package, 0, 0);
        self.wait_committed(package.id);
    }

    pub(crate) fn wait_committed(&self, release: PackageId) {
        let text = release.to_string();
        wait("the commit", || {
            // A trial commits only on answers.
            self.ask([1.0, 2.0]);
            let slot = self.slot()?;
            let serves = slot.serving.as_deref() == Some(text.as_str());
            (serves && slot.phase == "serving" && slot.model.is_some()).then_some(())
        });
    }

    /// Waits for an outcome about `release` at the server.
    pub(crate) fn wait_outcome(&self, release: PackageId) -> OutcomeKind {
        wait("an outcome at the server", || {
            let world = self.server.world();
            world
                .reports
                .iter()
                .rev()
                .find_map(|report| match &report.record {
                    Record::Outcome(outcome) if outcome.release == Some(release) => {
                        Some(outcome.kind.clone())
                    }
                    _ => None,
                })
        })
    }

    pub(crate) fn status(&self) -> Option<DeviceView> {
        let view: DeviceView = serde_json::from_value(self.get("/status")?.1).ok()?;
        (!view.device.is_empty()).then_some(view)
    }

    /// The slot of the device's own programs.
    pub(crate) fn own_slot(&self) -> Option<SlotView> {
        let slots = self.status()?.slots;
        slots.into_iter().find(SlotView::is_own)
    }

    /// `host:port` of the page.
    pub(crate) fn page_address(&self) -> String {
        let text = std::fs::read(self.state.join(ENDPOINTS)).unwrap();
        let endpoints: Endpoints = serde_json::from_slice(&text).unwrap();
        endpoints.page.unwrap()
    }

    /// The process that answers.
    pub(crate) fn answering_pid(&self) -> Option<u32> {
        let text = std::fs::read(self.state.join(ENDPOINTS)).ok()?;
        let endpoints: Endpoints = serde_json::from_slice(&text).ok()?;
        Some(endpoints.pid)
    }

    pub(crate) fn slot(&self) -> Option<SlotView> {
        self.status()?
            .slots
            .into_iter()
            .find(|slot| slot.slot == SLOT)
    }

    /// Asks the slot for one row; status and answer.
    pub(crate) fn ask(&self, row: [f32; 2]) -> Option<(u16, Value)> {
        let path = format!("/v2/models/{SLOT}/infer");
        self.post(&path, body(row).as_bytes())
    }

    /// The scores of one row, and the release that gave them; waits until something serves.
    pub(crate) fn scores(&self, row: [f32; 2]) -> (Vec<Option<f64>>, String) {
        let answer = wait("an answer", || {
            self.ask(row)
                .filter(|(status, _)| *status == 200)
                .map(|(_, answer)| answer)
        });
        let data = answer["outputs"][0]["data"].as_array().unwrap();
        let scores = data.iter().map(Value::as_f64).collect();
        (
            scores,
            answer["parameters"]["release"].as_str().unwrap().to_owned(),
        )
    }

    pub(crate) fn get(&self, path: &str) -> Option<(u16, Value)> {
        let answer = http().get(self.url(path)?).call().ok()?;
        read(answer)
    }

    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Option<(u16, Value)> {
        read(http().post(self.url(path)?).send(body).ok()?)
    }

    fn url(&self, path: &str) -> Option<String> {
        if let Some(address) = &self.fixed {
            return Some(format!("http://{address}{path}"));
        }
        let text = std::fs::read(self.state.join(ENDPOINTS)).ok()?;
        let endpoints: Endpoints = serde_json::from_slice(&text).ok()?;
        Some(format!("http://{}{path}", endpoints.api))
    }

    /// The files in the packages folder, by extension.
    pub(crate) fn packages(&self, extension: &str) -> Vec<String> {
        let files = std::fs::read_dir(self.state.join("packages")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(extension)).collect()
    }
}

/// Asks the slot for one row at `address`; the status of the answer.
pub(crate) fn ask_at(address: &str, row: [f32; 2]) -> Option<u16> {
    let url = format!("http://{address}/v2/models/{SLOT}/infer");
    let answer = http().post(url).send(body(row).as_bytes()).ok()?;
    Some(answer.status().as_u16())
}

fn body(row: [f32; 2]) -> String {
    let body = serde_json::json!({
        "inputs": [{"name": "readings", "shape": [1, 2], "datatype": "FP32", "data": row}],
    });
    body.to_string()
}

fn http() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None);
    config
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .new_agent()
}

fn read(mut answer: ureq::http::Response<ureq::Body>) -> Option<(u16, Value)> {
    let status = answer.status().as_u16();
    let body = answer.body_mut().read_to_vec().ok()?;
    Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// Polls until there is something; panics when it takes too long.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The agent's binary: this build's, unless another one is named to be measured.
fn agent_program() -> PathBuf {
    let named = std::env::var_os("BELLWETHER_AGENT").map(PathBuf::from);
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_bellwether-agent").into())
}

/// The worker's binary, built if it is not there yet, or the one that is named to be measured.
pub(crate) fn worker() -> PathBuf {
    if let Some(named) = std::env::var_os("BELLWETHER_WORKER") {
        return named.into();
    }
    static WORKER: OnceLock<PathBuf> = OnceLock::new();
    WORKER
        .get_or_init(|| {
            let agent = PathBuf::from(env!("CARGO_BIN_EXE_bellwether-agent"));
            let worker = agent.with_file_name("bellwether-worker");
            if !worker.exists() {
                let built = Command::new(env!("CARGO"))
                    .args([
                        "build",
                        "-p",
                        "bellwether-engine",
                        "--bin",
                        "bellwether-worker",
                    ])
                    .status();
                assert!(
                    built.is_ok_and(|status| status.success()),
                    "cannot build the worker"
                );
            }
            worker
        })
        .clone()
}
