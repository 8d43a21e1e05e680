//! The fleet server: registry, approvals, planner loop, ingest, REST API.
//!
//! | module | owns |
//! |---|---|
//! | [`server`] | puts the parts together: `run(config, shutdown)` |
//! | [`data`], [`config`] | the data folder; the configuration |
//! | [`ca`], [`tls`], [`director`] | certificates; TLS settings; the key that signs assignments |
//! | [`broker`] | the embedded MQTT broker, who may do what there, and the probe of it |
//! | [`link`] | the server's own client of the broker |
//! | [`ingest`] | reports: judged, stored once, acknowledged |
//! | [`planner`] | rollouts: read, decide, check, commit |
//! | [`assign`] | desired state: signed, published, published again |
//! | [`trust`] | trust root and revocations in force |
//! | [`store`], [`blobs`] | SQLite; the packages' sections |
//! | [`api`] | the REST API |
//!
//! The broker is a pipe: the database here and the outbox on each device are the truth. Nothing
//! here decides about a rollout (`bellwether_rollout` does), runs a model, or is trusted by a
//! device with more than the choice among approved releases. SQL stands in [`store`] only, topic
//! strings in `bellwether_protocol` only.

pub mod api;
pub mod app;
pub mod assign;
pub mod blobs;
pub mod broker;
pub mod ca;
pub mod config;
pub mod data;
pub mod director;
pub mod ingest;
pub mod link;
pub mod planner;
pub mod revoked;
pub mod server;
pub mod store;
pub mod tls;
pub mod trust;

mod clock;
mod content;
mod secret;
