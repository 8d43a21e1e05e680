//! Who may connect as whom, and touch which topic.
//!
//! The broker allows whatever no handler refuses, so every check here ends in a decision. A
//! device's client id must be its certificate's common name: otherwise it could take over another
//! device's session. It may have no last will: the broker publishes wills without asking anybody.

use std::sync::Arc;

use async_trait::async_trait;
use bellwether_protocol::{DeviceId, Topic, topic::INGEST_FILTER};
use rmqtt::codec::v5::SubscribeAckReason;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType};
use rmqtt::types::{
    AuthResult, ConnectInfo, Publish, PublishAclResult, Subscribe, SubscribeAclResult,
};

use crate::ca::SERVER_CLIENT_NAME;
use crate::revoked::Revoked;

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
        known && client.client_id() == name && client.last_will().is_none()
    }

    /// A device that was shut out while it was connecting is found out by what it does next.
    fn is_shut_out(&self, client: &str) -> bool {
        DeviceId::new(client).is_ok_and(|device| self.revoked.holds_device(&device))
    }
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
        return shared && INGEST_FILTER.ends_with(&format!("/{filter}"));
    }
    // A filter with a wildcard is no topic, so it is refused here too.
    let own = |topic: Topic| topic.device_subscribes() && topic.device().as_str() == client;
    !shared && Topic::parse(filter).is_ok_and(own)
}
