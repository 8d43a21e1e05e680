//! The device: link, outbox, download, slots, local API.
//!
//! | module | owns |
//! |---|---|
//! | [`config`] | the configuration file |
//! | [`store`] | small files that are whole or absent, whatever moment the power goes |
//! | [`outbox`] | reports until the server has them |
//! | [`identity`], [`enrol`], [`renewal`] | key, certificate, pinned server; how the device gets them, and the next ones |
//! | [`tls`] | TLS 1.3 under the pinned authority, whatever the clock says |
//! | [`trust`] | trust root and revocations on disk, and their renewal |
//! | [`remote`], [`link`] | the server by HTTP, the broker by MQTT |
//! | [`fetch`] | downloads that resume and verify as they come |
//! | `proving` | golden vectors, before a package may answer |
//! | [`serving`] | which session answers in which slot, and which runs beside it |
//! | [`program`] | the agent's own programs: which of them runs, how one hands over to the next |
//! | [`agent`] | the one task that owns the device's state and drives `rollout::device` |
//! | [`api`] | the Open Inference Protocol for applications |
//! | `readings` | readings by MQTT that are answered on another topic |
//! | [`labels`] | predictions that wait for their labels |
//! | [`view`], [`events`], [`page`], [`status`] | what people are told |
//! | [`health`], [`clock`] | the device itself |
//! | [`notify`], [`owner`] | what the service manager is told, and whose the state folder is |
//!
//! It decides nothing about releases: `rollout::device` does, `package` verifies, `runtime`
//! runs. It links no inference engine; models run in the worker process. Nothing here opens a
//! port but the local API, and the page if the configuration gives it one.

pub mod agent;
pub mod api;
mod causes;
pub mod clock;
pub mod config;
pub mod enrol;
pub mod events;
pub mod fetch;
pub mod health;
pub mod identity;
pub mod labels;
pub mod link;
pub mod notify;
pub mod outbox;
pub mod owner;
pub mod page;
pub mod program;
mod proving;
mod readings;
pub mod remote;
pub mod renewal;
pub mod serving;
pub mod status;
pub mod store;
pub mod tls;
pub mod trust;
pub mod view;
