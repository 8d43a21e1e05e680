//! The device's next certificate.

use std::time::Duration;

use bellwether_agent::identity::Identity;
use bellwether_agent::store::Store;

use crate::bench::{Bench, wait};
use crate::server::Server;

/// Two thirds of it are over before a test loses patience.
const SHORT_LIFE: Duration = Duration::from_secs(9);

#[test]
fn a_certificate_is_renewed_at_two_thirds_of_its_life_while_the_link_is_up() {
    let server = Server::start();
    server.world().certificate_life = Some(SHORT_LIFE);
    let bench = Bench::with(server);
    let first = Identity::load(&Store::reader(&bench.state)).unwrap();
    assert_eq!(first.renew_at().0 - first.valid_from.0, 6);
    let agent = bench.start();
    wait("a link with another certificate", || {
        let world = bench.server.world();
        (world.shown.len() >= 2).then_some(())
    });
    let (shown, reports) = {
        let world = bench.server.world();
        assert_eq!(world.renewals, 1, "one renewal is enough");
        (world.shown.clone(), world.reports.len())
    };
    assert_ne!(shown[0], shown[1], "the certificate is another");
    assert_ne!(key(&shown[0]), key(&shown[1]), "and so is its key");
    wait("reports over the new link", || {
        (bench.server.world().reports.len() > reports).then_some(())
    });

    // The next run begins with the new one.
    drop(agent);
    let seen = bench.server.world().shown.len();
    let _agent = bench.start();
    wait("the link of the next run", || {
        (bench.server.world().shown.len() > seen).then_some(())
    });
    assert_eq!(bench.server.world().shown.last(), shown.get(1));
    assert_eq!(bench.server.world().renewals, 1);
}

fn key(certificate: &[u8]) -> Vec<u8> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    parsed.public_key().raw.to_vec()
}
