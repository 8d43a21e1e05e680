use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

use super::*;

/// The certificate is good through this year.
const YEAR: i32 = 2030;
const DAY: u64 = 24 * 3600;
/// 2030-07-01, in seconds since 1970.
const MIDSUMMER: u64 = 1_909_094_400;

struct Fleet {
    authority: CertificateDer<'static>,
    server: CertificateDer<'static>,
}

fn fleet() -> Fleet {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2050, 1, 1);
    let authority = params.self_signed(&key).unwrap().der().clone();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::new(vec!["fleet.example".to_owned()]).unwrap();
    params.not_before = date_time_ymd(YEAR, 1, 1);
    params.not_after = date_time_ymd(YEAR + 1, 1, 1);
    let key = KeyPair::generate().unwrap();
    let server = params.signed_by(&key, &issuer).unwrap().der().clone();
    Fleet { authority, server }
}

fn verify(fleet: &Fleet, server: &CertificateDer<'_>, now: u64, floor: u64) -> bool {
    let pinned = Pinned::new(&fleet.authority).unwrap();
    let name = ServerName::try_from("fleet.example").unwrap();
    let at = |now| {
        pinned
            .verifier
            .verify_server_cert(server, &[], &name, &[], now)
    };
    in_time(at, moment(now), moment(floor)).is_ok()
}

#[test]
fn a_clock_a_year_off_either_way_reaches_the_server() {
    let fleet = fleet();
    for now in [
        MIDSUMMER,
        MIDSUMMER - 365 * DAY,
        MIDSUMMER + 365 * DAY,
        0,
        u64::from(u32::MAX) * 2,
    ] {
        assert!(verify(&fleet, &fleet.server, now, 0), "{now}");
    }
}

#[test]
fn a_certificate_that_ended_before_the_floor_is_refused_whatever_the_clock_says() {
    let fleet = fleet();
    let floor = MIDSUMMER + 365 * DAY;
    for now in [floor, floor + DAY] {
        assert!(!verify(&fleet, &fleet.server, now, floor), "{now}");
    }
    // As of its own time it was good; the clock is behind the floor, so it is not asked.
    assert!(verify(&fleet, &fleet.server, MIDSUMMER, MIDSUMMER));
}

#[test]
fn another_authority_is_refused_whatever_the_clock_says() {
    let (ours, theirs) = (fleet(), fleet());
    for now in [MIDSUMMER, 0, MIDSUMMER + 1000 * DAY] {
        assert!(!verify(&ours, &theirs.server, now, 0), "{now}");
    }
}

#[test]
fn nothing_but_tls_1_3_is_offered() {
    let provider = provider();
    assert!(!provider.cipher_suites.is_empty());
    assert!(
        provider
            .cipher_suites
            .iter()
            .all(|suite| suite.tls13().is_some())
    );
}
