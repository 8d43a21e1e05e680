//! Who may connect as whom, and touch which topic.
//!
//! The broker allows whatever no handler refuses, so every check here ends in a decision. A
//! device's client id must be its certificate's common name: otherwise it could take over another
//! device's session. The broker publishes a last will without asking anybody, so it is looked at when
//! the client connects: a device may say that it is gone, and nothing else.

use std::sync::Arc;

use async_trait::async_trait;
use bellwether_protocol::topic::{GONE_FILTER, INGEST_FILTER};
use bellwether_protocol::{DeviceId, Topic};
use rmqtt::codec::v5::SubscribeAckReason;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType};
use rmqtt::types::{
    AuthResult, ConnectInfo, LastWill, Publish, PublishAclResult, Subscribe, SubscribeAclResult,
};

use crate::ca::SERVER_CLIENT_NAME;
use crate::revoked::Revoked;

/// Longest last will, in bytes: a boot id.
const WILL_BYTES_MAX: usize = 8;

/// Ties each client to its own topics, and lets nobody in who was shut out.
pub(crate) struct OwnTopicsOnly {
    pub(crate) revoked: Arc<Revoked>,
}

#[async_trait]
impl Handler for OwnTopicsOnly {
    async fn hook(&self, parameter: &Parameter, acc: Option<HookResult>) -> ReturnType {
        match parameter {
            Parameter::ClientAuthenticate(client) => {
                let result = if self.may_connect(client) {
                    AuthResult::Allow(false, None)
                } else {
                    tracing::warn!(client = %client.client_id(), "refused an MQTT client");
                    AuthResult::NotAuthorized
                };
                (false, Some(HookResult::AuthResult(result)))
            }
            Parameter::MessagePublishCheckAcl(session, message) => {
                let shut_out = self.is_shut_out(&session.id.client_id);
                let result = if !shut_out && may_publish(&session.id.client_id, message) {
                    PublishAclResult::allow()
                } else {
                    tracing::warn!(client = %session.id.client_id, "refused a publication");
                    PublishAclResult::rejected(shut_out, None)
                };
                (false, Some(HookResult::PublishAclResult(result)))
            }
            Parameter::ClientSubscribeCheckAcl(session, subscription) => {
                let client: &str = &session.id.client_id;
                let result = if !self.is_shut_out(client) && may_subscribe(client, subscription) {
                    SubscribeAclResult::new_success(subscription.opts.qos(), None)
                } else {
                    tracing::warn!(client = %session.id.client_id, "refused a subscription");
                    SubscribeAclResult::new_failure(SubscribeAckReason::NotAuthorized)
                };
                (false, Some(HookResult::SubscribeAclResult(result)))
            }
            _ => (true, acc),
        }
    }
}

impl OwnTopicsOnly {
    fn may_connect(&self, client: &ConnectInfo) -> bool {
        let Some(certificate) = client.cert() else {
            return false;
        };
        let Some(name) = certificate.common_name.as_deref() else {
            return false;
        };
        let known = match DeviceId::new(name) {
            Ok(device) => !self.revoked.holds(&device, certificate.serial.as_deref()),
            Err(_) => name == SERVER_CLIENT_NAME,
        };
        known
            && client.client_id() == name
            && client.last_will().is_none_or(|will| may_leave(name, &will))
    }

    /// A device that was shut out while it was connecting is found out by what it does next.
    fn is_shut_out(&self, client: &str) -> bool {
        DeviceId::new(client).is_ok_and(|device| self.revoked.holds_device(&device))
    }
}

/// Whether the client may have this last will.
fn may_leave(client: &str, will: &LastWill<'_>) -> bool {
    let (topic, message) = match will {
        LastWill::V3(will) => (&will.topic, &will.message),
        LastWill::V5(will) => (&will.topic, &will.message),
    };
    let own = |topic: Topic| matches!(topic, Topic::Gone(device) if device.as_str() == client);
    !will.retain() && message.len() <= WILL_BYTES_MAX && Topic::parse(topic).is_ok_and(own)
}

fn may_publish(client: &str, message: &Publish) -> bool {
    let Ok(topic) = Topic::parse(&message.topic) else {
        return false;
    };
    if client == SERVER_CLIENT_NAME {
        return topic.device_subscribes();
    }
    topic.device_publishes() && topic.device().as_str() == client && !message.retain
}

fn may_subscribe(client: &str, subscription: &Subscribe) -> bool {
    let filter: &str = &subscription.topic_filter;
    let shared = subscription.opts.has_shared_group();
    if client == SERVER_CLIENT_NAME {
        // The broker has taken the prefix of the shared subscription off.
        let suffix = format!("/{filter}");
        let ours = [INGEST_FILTER, GONE_FILTER];
        return shared && ours.iter().any(|ours| ours.ends_with(&suffix));
    }
    // A filter with a wildcard is no topic, so it is refused here too.
    let own = |topic: Topic| topic.device_subscribes() && topic.device().as_str() == client;
    !shared && Topic::parse(filter).is_ok_and(own)
}
