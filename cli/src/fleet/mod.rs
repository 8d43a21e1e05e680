//! What operators and field staff ask of a fleet server. Only its REST API is known here; with
//! `--json` the server's own answer is passed on.

mod answers;
mod client;
mod device;
mod model;
mod publish;
mod rollout;

pub(crate) use client::Client;
pub(crate) use device::{
    claim, disable, list as device_list, revoke as device_revoke, show as device_show, why,
};
pub(crate) use model::{labels as model_labels, list as model_list, show as model_show};
pub(crate) use publish::publish;
pub(crate) use rollout::{new as rollout_new, order as rollout_order, status, watch};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::failure::{Failure, Result, Who};

/// Reads an answer as what the API promises.
fn parse<T: DeserializeOwned>(answer: &Value) -> Result<T> {
    T::deserialize(answer).map_err(|error| {
        Failure::new(
            Who::Server,
            "the server's answer is not what its API promises",
        )
        .next("check that server and command are of the same version: `bellwether --version`")
        .because(error)
    })
}

/// How long ago `then` was, for people.
fn ago(now: u64, then: Option<u64>) -> String {
    match then {
        None => "never".to_owned(),
        Some(then) if then > now.saturating_add(60) => "in the future: a clock is wrong".to_owned(),
        Some(then) => format!("{} ago", span(now.saturating_sub(then))),
    }
}

fn span(secs: u64) -> String {
    match secs {
        0..=119 => format!("{secs} s"),
        120..=7_199 => format!("{} min", secs / 60),
        7_200..=172_799 => format!("{} h", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}

/// The first digits of a package id.
fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// The first digits of a package id, or a dash.
fn short_or_none(id: Option<&str>) -> String {
    id.map_or_else(|| "-".to_owned(), short)
}
