//! A broker of the device's own, as sensors in the field use it: real, in this process, plain MQTT.

use std::net::SocketAddr;
use std::time::Duration;

use rmqtt::context::ServerContext;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;
use rumqttc::{Client, Connection, Event, MqttOptions, NetworkOptions, Packet, Publish, QoS};
use serde_json::Value;

/// How long a message may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Messages that the broker keeps for one client.
const QUEUE_MAX: usize = 100_000;

/// Larger than what the agent takes.
const PACKET_BYTES_MAX: u32 = 1024 * 1024;

/// A running broker; it ends with this value, connections and all.
pub(crate) struct Broker {
    pub(crate) address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Broker {
    /// One on a free port. `BELLWETHER_BROKER=host:port` names another that runs already.
    pub(crate) fn start() -> Self {
        match std::env::var("BELLWETHER_BROKER") {
            Ok(other) => Self {
                address: other.parse().unwrap(),
                runtime: None,
            },
            Err(_) => Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0))),
        }
    }

    pub(crate) fn start_on(address: SocketAddr) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let address = runtime.block_on(async {
            let context = ServerContext::new()
                .busy_check_enable(false)
                .plugins_config_map_add("rmqtt-retainer", "storage.type = \"ram\"\n")
                .build()
                .await;
            let retainer = rmqtt_retainer::register(&context, true, false);
            retainer.await.unwrap();
            let builder = Builder::new().name("tcp").laddr(address);
            // A burst must not be lost here.
            let builder = builder
                .max_mqueue_len(QUEUE_MAX)
                .max_packet_size(PACKET_BYTES_MAX);
            let builder = builder
                .reuseaddr(Some(true))
                .nodelay(true)
                .allow_anonymous(true);
            let listener = builder.bind().unwrap().tcp().unwrap();
            let address = listener.local_addr().unwrap();
            let server = MqttServer::new(context).listener_by_id(listener, address.port());
            tokio::spawn(async move { server.build().run().await });
            address
        });
        Self {
            address,
            runtime: Some(runtime),
        }
    }

    /// A client that hears everything below `topic`.
    pub(crate) fn client(&self, topic: &str) -> Sensor {
        let id = format!("test-{}", getrandom::u64().unwrap());
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        let mut options = MqttOptions::new(id, host, port);
        options.set_max_packet_size(1 << 20, 1 << 20);
        let (client, mut connection) = Client::new(options, 10_000);
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        connection.eventloop.set_network_options(network);
        client
            .subscribe(format!("{topic}/#"), QoS::AtLeastOnce)
            .unwrap();
        while !matches!(
            poll(&mut connection),
            Some(Event::Incoming(Packet::SubAck(_)))
        ) {}
        Sensor { client, connection }
    }
}

/// A program that publishes readings and hears answers.
pub(crate) struct Sensor {
    client: Client,
    connection: Connection,
}

impl Sensor {
    pub(crate) fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        let sent = self.client.publish(topic, QoS::AtMostOnce, false, payload);
        sent.unwrap();
    }

    /// Publishes, and waits until the broker has it.
    pub(crate) fn publish_now(&mut self, topic: &str, payload: impl Into<Vec<u8>>) {
        let sent = self.client.publish(topic, QoS::AtLeastOnce, false, payload);
        sent.unwrap();
        while !matches!(
            poll(&mut self.connection),
            Some(Event::Incoming(Packet::PubAck(_)))
        ) {}
    }

    /// The next message on `topic`; what comes on others is passed over.
    pub(crate) fn hears(&mut self, topic: &str) -> Value {
        self.hears_within(topic, PATIENCE)
            .unwrap_or_else(|| panic!("nothing came on {topic}"))
    }

    pub(crate) fn hears_within(&mut self, topic: &str, within: Duration) -> Option<Value> {
        let until = std::time::Instant::now() + within;
        loop {
            let left = until.checked_duration_since(std::time::Instant::now())?;
            let event = self.connection.recv_timeout(left).ok()?;
            if let Ok(Event::Incoming(Packet::Publish(Publish {
                topic: on, payload, ..
            }))) = event
                && on == topic
            {
                return Some(serde_json::from_slice(&payload).unwrap());
            }
        }
    }

    /// The next message on `topic` of which `holds` is true.
    pub(crate) fn hears_that(&mut self, topic: &str, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.hears(topic);
            if holds(&message) {
                return message;
            }
        }
    }
}

fn poll(connection: &mut Connection) -> Option<Event> {
    connection.recv_timeout(PATIENCE).unwrap().ok()
}
