//! Who may connect as whom, and touch which topic.
//!
//! The broker allows whatever no handler refuses, so every check here ends in a decision. A
//! device's client id must be its certificate's common name: otherwise it could take over another
//! device's session. It may have no last will: the broker publishes wills without asking anybody.

use async_trait::async_trait;
use bellwether_protocol::{DeviceId, Topic, topic::INGEST_FILTER};
use rmqtt::codec::v5::SubscribeAckReason;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType};
use rmqtt::types::{
    AuthResult, ConnectInfo, Publish, PublishAclResult, Subscribe, SubscribeAclResult,
};

use crate::ca::SERVER_CLIENT_NAME;

/// Ties each client to its own topics.
pub(crate) struct OwnTopicsOnly;

#[async_trait]
impl Handler for OwnTopicsOnly {
    async fn hook(&self, parameter: &Parameter, acc: Option<HookResult>) -> ReturnType {
        match parameter {
            Parameter::ClientAuthenticate(client) => {
                let result = if may_connect(client) {
                    AuthResult::Allow(false, None)
                } else {
                    tracing::warn!(client = %client.client_id(), "refused an MQTT client");
                    AuthResult::NotAuthorized
                };
                (false, Some(HookResult::AuthResult(result)))
            }
            Parameter::MessagePublishCheckAcl(session, message) => {
                let result = if may_publish(&session.id.client_id, message) {
                    PublishAclResult::allow()
                } else {
                    tracing::warn!(client = %session.id.client_id, "refused a publication");
                    PublishAclResult::rejected(false, None)
                };
                (false, Some(HookResult::PublishAclResult(result)))
            }
            Parameter::ClientSubscribeCheckAcl(session, subscription) => {
                let result = if may_subscribe(&session.id.client_id, subscription) {
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

fn may_connect(client: &ConnectInfo) -> bool {
    let Some(name) = client.cert().and_then(|cert| cert.common_name.as_deref()) else {
        return false;
    };
    let known = name == SERVER_CLIENT_NAME || DeviceId::new(name).is_ok();
    known && client.client_id() == name && client.last_will().is_none()
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
