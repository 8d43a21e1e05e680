//! The fleet: one server and twelve agents as processes of their own, and the operator's command line.
//!
//! Dropping it kills every process that it started; the agents' workers die with their agents.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

pub(crate) use super::example::SLOT;
use super::{
    example::{self, Workshop},
    programs::Programs,
    rest::Rest,
    view::View,
};

/// Devices of the fleet.
pub(crate) const DEVICES: usize = 12;
/// Marks every process of one demo in its environment, whoever started it.
const MARK: &str = "BELLWETHER_DEMO";
/// A program on a laden machine starts within this.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// A process that was killed is gone within this.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of a log that are shown when something is missing.
const LOG_LINES: usize = 12;

/// Server, agents, and what is needed to command them.
pub(crate) struct Fleet {
    programs: Programs,
    folder: PathBuf,
    server: Option<Child>,
    url: String,
    rest: Option<Rest>,
    agents: Vec<Agent>,
    workshop: Workshop,
}

/// One agent.
pub(crate) struct Agent {
    name: String,
    config: PathBuf,
    state: PathBuf,
    api: String,
    child: Option<Child>,
}

impl Agent {
    /// The device's id.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its configuration file.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// `host:port` of its local API.
    pub(crate) fn api(&self) -> &str {
        &self.api
    }
}

impl Fleet {
    /// Makes keys and trust root, starts the server, enrols the devices, starts their agents.
    pub(crate) fn start(view: &View, programs: &Programs, folder: &Path) -> anyhow::Result<Self> {
        let data = folder.join("server");
        // Workers run in an empty environment; a binary of their own makes them known as this demo's.
        let worker = programs.worker.clone();
        let programs = &Programs {
            worker: folder.join("bellwether-worker"),
            ..programs.clone()
        };
        std::fs::hard_link(&worker, &programs.worker).context("the worker's binary")?;
        let mut init = marked(&programs.server, folder);
        let made = output(init.arg("init").arg("--data").arg(&data))?;
        let director = made
            .lines()
            .filter(|line| line.contains("director"))
            .flat_map(|line| line.split(|letter: char| !letter.is_ascii_hexdigit()))
            .find(|word| word.len() == 64)
            .context("`bellwether-server init` names no director key")?;
        view.say(
            "operator",
            "a new server has made its certificate authority and its director key",
        );

        let keys = folder.join("keys");
        std::fs::create_dir(&keys)?;
        let workshop = Workshop::found(programs, &keys, Some(director))?;
        view.say(
            "operator",
            "a trust root names alice, bob and carol: any two of them approve a package. The server cannot",
        );
        let mut fleet = Self {
            programs: programs.clone(),
            folder: folder.to_owned(),
            server: None,
            url: String::new(),
            rest: None,
            agents: Vec::new(),
            workshop,
        };
        // Any free ports at first; those it got are kept, so that it can be killed and started again.
        fleet.configure_server("127.0.0.1:0", "127.0.0.1:0")?;
        fleet.start_server(&[])?;
        let endpoints = fleet.endpoints()?;
        fleet.configure_server(&endpoints["https"], &endpoints["mqtts"])?;
        view.say(
            "server",
            &format!(
                "listens on {}; the broker on {}",
                fleet.url, endpoints["mqtts"]
            ),
        );
        let revocations = fleet.workshop.revocations();
        fleet.cli(["publish".as_ref(), revocations.as_os_str()])?;
        fleet.start_agents(view)?;
        Ok(fleet)
    }

    fn configure_server(&self, https: &str, mqtts: &str) -> anyhow::Result<()> {
        let text = format!("https = \"{https}\"\nmqtts = \"{mqtts}\"\nplanner_period_ms = 500\n");
        std::fs::write(self.folder.join("server.toml"), text).context("the server's configuration")
    }

    /// Starts the server, with switches beside its configuration, and waits until it is well.
    pub(crate) fn start_server(&mut self, switches: &[&str]) -> anyhow::Result<()> {
        let endpoints = self.data().join("endpoints.json");
        // Those of an earlier run would be taken for this one's.
        let _ = std::fs::remove_file(&endpoints);
        let mut command = marked(&self.programs.server, &self.folder);
        command.arg("run").arg("--data").arg(self.data());
        command.arg("--trust-root").arg(self.workshop.root());
        command
            .arg("--config")
            .arg(self.folder.join("server.toml"))
            .args(switches);
        self.server = Some(self.spawn(&mut command, "server")?);
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(endpoints) = self.endpoints() {
                self.url = format!("https://{}", endpoints["https"]);
                let rest = Rest::new(&self.url, &self.data())?;
                if rest
                    .get("/healthz")
                    .is_ok_and(|health| health["status"] == "ok")
                {
                    self.rest = Some(rest);
                    return Ok(());
                }
            }
            if let Some(status) = self
                .server
                .as_mut()
                .and_then(|child| child.try_wait().ok()?)
            {
                bail!(
                    "the server ended with {status}: {}",
                    self.log("server").join("\n")
                );
            }
            ensure!(
                Instant::now() < deadline,
                "the server does not become well: {}",
                self.log("server").join("\n")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the server with SIGKILL: it gets no chance to write anything down.
    pub(crate) fn kill_server(&mut self) -> anyhow::Result<()> {
        let child = self.server.as_mut().context("no server runs")?;
        child.kill()?;
        child.wait()?;
        self.server = None;
        Ok(())
    }

    fn endpoints(&self) -> anyhow::Result<BTreeMap<String, String>> {
        Ok(serde_json::from_slice(&std::fs::read(
            self.data().join("endpoints.json"),
        )?)?)
    }

    fn start_agents(&mut self, view: &View) -> anyhow::Result<()> {
        let fingerprint = self.workshop.fingerprint()?;
        for number in 1..=DEVICES {
            ensure!(!view.interrupted(), "interrupted");
            view.progress(number - 1, DEVICES, "devices enrol");
            self.enrol(&format!("pump-{number:02}"), &fingerprint)?;
        }
        let deadline = Instant::now() + START_TIMEOUT;
        for place in 0..self.agents.len() {
            let state = self.agents[place].state.clone();
            self.agents[place].api = loop {
                if let Ok(bytes) = std::fs::read(state.join("endpoints.json"))
                    && let Ok(Value::String(api)) =
                        serde_json::from_slice(&bytes).map(|it: Value| it["api"].clone())
                {
                    break api;
                }
                let name = self.agents[place].name.clone();
                ensure!(
                    Instant::now() < deadline,
                    "{name} does not start: {}",
                    self.log(&name).join("\n")
                );
                std::thread::sleep(Duration::from_millis(20));
            };
        }
        view.progress(DEVICES, DEVICES, "devices enrol");
        view.say(
            "devices",
            &format!(
                "{DEVICES} agents have enrolled, each with a one-time claim and the trust root's fingerprint given by hand"
            ),
        );
        Ok(())
    }

    fn enrol(&mut self, name: &str, fingerprint: &str) -> anyhow::Result<()> {
        let folder = self.folder.join(name);
        std::fs::create_dir(&folder)?;
        let (config, state, claim) = (
            folder.join("agent.toml"),
            folder.join("state"),
            folder.join("claim"),
        );
        std::fs::write(&config, self.agent_config(name, &state))?;
        let made = self.cli([
            "device".as_ref(),
            "claim".as_ref(),
            "--device".as_ref(),
            name.as_ref(),
            "--out".as_ref(),
            claim.as_os_str(),
        ])?;
        let ca = made["ca_sha256"]
            .as_str()
            .context("the claim names no authority")?;
        let mut enrol = marked(&self.programs.agent, &self.folder);
        enrol
            .arg("enroll")
            .arg("--config")
            .arg(&config)
            .args(["--server", &self.url]);
        enrol
            .args(["--ca-sha256", ca, "--root-sha256", fingerprint])
            .arg("--claim-file")
            .arg(&claim);
        output(&mut enrol)?;
        let mut run = marked(&self.programs.agent, &self.folder);
        let child = self.spawn(run.arg("run").arg("--config").arg(&config), name)?;
        self.agents.push(Agent {
            name: name.to_owned(),
            config,
            state,
            api: String::new(),
            child: Some(child),
        });
        Ok(())
    }

    fn agent_config(&self, name: &str, state: &Path) -> String {
        format!(
            "device = \"{name}\"\nstate_dir = \"{}\"\nworker = \"{}\"\n\n[api]\nlisten = \"127.0.0.1:0\"\n\n\
             [attributes]\nclass = \"pump\"\nsite = \"lyon\"\n\n[report]\nwindow_secs = 1\nhealth_secs = 5\n\n\
             [link]\nspread_secs = 1\n",
            state.display(),
            self.programs.worker.display()
        )
    }

    fn spawn(&self, command: &mut Command, name: &str) -> anyhow::Result<Child> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path(name))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{name} could not be started"))
    }

    /// Runs the `bellwether` command against this server; gives what it printed.
    pub(crate) fn cli<A: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Value> {
        let mut command = marked(&self.programs.cli, &self.folder);
        command
            .args(arguments)
            .env("BELLWETHER_SERVER", &self.url)
            .env("BELLWETHER_CA", self.data().join("ca.pem"))
            .env("BELLWETHER_TOKEN_FILE", self.data().join("api-token"));
        example::command_line(&mut command)
    }

    /// `GET` on the server's REST API.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.rest.as_ref().context("no server runs")?.get(path)
    }

    /// What each agent tells of itself on its local API, or null.
    pub(crate) fn statuses(&self) -> BTreeMap<String, Value> {
        self.agents
            .iter()
            .map(|agent| {
                let status = ureq::get(format!("http://{}/status", agent.api))
                    .config()
                    .timeout_global(Some(Duration::from_secs(5)))
                    .build()
                    .call()
                    .ok()
                    .and_then(|mut answer| answer.body_mut().read_json().ok());
                (agent.name.clone(), status.unwrap_or(json!(null)))
            })
            .collect()
    }

    /// The release that each agent says it serves.
    pub(crate) fn serving(&self) -> BTreeMap<String, String> {
        let serving = |status: &Value| {
            let slots = status["slots"].as_array()?;
            let slot = slots.iter().find(|slot| slot["slot"] == SLOT)?;
            slot["serving"].as_str().map(str::to_owned)
        };
        self.statuses()
            .into_iter()
            .map(|(device, status)| (device, serving(&status).unwrap_or_default()))
            .collect()
    }

    /// The agents.
    pub(crate) fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// Keys, trust root, packages.
    pub(crate) fn workshop(&self) -> &Workshop {
        &self.workshop
    }

    /// The binaries.
    pub(crate) fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The server's address.
    pub(crate) fn server_url(&self) -> &str {
        &self.url
    }

    /// The server's data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("server")
    }

    /// The demo's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Shows what the server and one agent said last.
    pub(crate) fn show_logs(&self, view: &View) {
        for name in ["server", self.agents.first().map_or("server", Agent::name)] {
            view.log(name, &self.log(name));
        }
    }

    fn log_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn log(&self, name: &str) -> Vec<String> {
        let text = std::fs::read(self.log_path(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].to_vec()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let agents = self
            .agents
            .iter_mut()
            .filter_map(|agent| agent.child.take());
        let children: Vec<_> = self.server.take().into_iter().chain(agents).collect();
        for mut child in children {
            let _ = child.kill();
            let _ = child.wait();
        }
        // The workers notice that their agents are gone; nobody waits for them but this.
        let deadline = Instant::now() + END_TIMEOUT;
        while !processes_of(&self.folder).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Processes that run for the demo in this folder, whoever started them: they are marked in their environment, or,
/// as the workers, whose environment is empty, run a binary that lies there.
pub(crate) fn processes_of(folder: &Path) -> Vec<u32> {
    let wanted = format!("{MARK}={}", folder.display());
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|id| {
            let runs_there = std::fs::read_link(format!("/proc/{id}/exe"))
                .is_ok_and(|exe| exe.starts_with(folder));
            let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
            runs_there
                || environment
                    .split(|byte| *byte == 0)
                    .any(|variable| variable == wanted.as_bytes())
        })
        .collect()
}

fn marked(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env(MARK, folder);
    command
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let program = command.get_program().display();
        bail!(
            "{program} failed: {} {text}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(text)
}
