//! What verification finds, in the words of the wire.

use bellwether_package::ids::UnixSecs;
use bellwether_package::verify;
use bellwether_protocol::*;

#[test]
fn what_approvals_lack_is_told_in_the_words_of_the_wire() {
    let short = |counted, out_of_scope, out_of_time| {
        Refusal::from(&verify::Refusal::UnderApproved(verify::Shortfall {
            needed: 2,
            counted,
            rejected: 0,
            out_of_scope,
            out_of_time,
            invalid: 1,
        }))
    };
    assert_eq!(
        short(1, 0, 0),
        Refusal::NotApproved {
            persons: 1,
            threshold: 2
        }
    );
    assert_eq!(short(1, 1, 0), Refusal::OutOfScope);
    assert_eq!(short(0, 1, 2), Refusal::OutOfTime);
    let stale = verify::Refusal::RevocationsExpired { at: UnixSecs(1) };
    assert_eq!(Refusal::from(&stale), Refusal::RevocationsStale);
}
