//! The people and the director of a test fleet, and the documents that they sign.

use bellwether_package::chain;
use bellwether_package::digest::sha256;
use bellwether_package::root::{Person, Role, RootDocument};
use bellwether_package::sign::public_key;
use bellwether_package::{
    Approval, Decision, Digest, DocumentType, PackageId, RevocationList, RootId, Selector,
    SignedBuf, SlotName, UnixSecs,
};
use bellwether_protocol::{
    Assignment, Desired, DeviceId, RolloutId, Sequence, SlotAssignment, TrialLimits, to_vec,
};
use ed25519_dalek::SigningKey;

/// Far enough away that no test waits for it.
pub(crate) const NEVER: UnixSecs = UnixSecs(4_000_000_000);
/// The slot that every test serves in.
pub(crate) const SLOT: &str = "anomaly";

/// Two approvers, both needed, and one director.
pub(crate) struct People {
    pub(crate) anna: SigningKey,
    pub(crate) ben: SigningKey,
    pub(crate) director: SigningKey,
}

impl People {
    pub(crate) fn new() -> Self {
        let key = |n: u8| SigningKey::from_bytes(&[n; 32]);
        Self {
            anna: key(1),
            ben: key(2),
            director: key(3),
        }
    }

    fn document(&self, version: u32) -> RootDocument {
        let person = |name: &str, key: &SigningKey| Person {
            name: name.try_into().unwrap(),
            keys: [public_key(key)].into_iter().collect(),
        };
        let both = Role {
            persons: [0, 1].into_iter().collect(),
            threshold: 2,
        };
        RootDocument {
            version,
            id: (version > 1).then(|| self.root()),
            expires: NEVER,
            persons: [person("anna", &self.anna), person("ben", &self.ben)]
                .into_iter()
                .collect(),
            root: both.clone(),
            approvers: both,
            director: [public_key(&self.director)].into_iter().collect(),
        }
    }

    /// The trust root's id, which is also version 1's fingerprint.
    pub(crate) fn root(&self) -> RootId {
        RootId(self.fingerprint())
    }

    pub(crate) fn fingerprint(&self) -> Digest {
        sha256(&self.document(1).encode().unwrap())
    }

    /// The `.bwt` file up to `version`.
    pub(crate) fn chain(&self, version: u32) -> Vec<u8> {
        let sign = |n| self.document(n).sign(&[&self.anna, &self.ben]).unwrap();
        chain::join(&(1..=version).map(sign).collect::<Vec<_>>()).unwrap()
    }

    pub(crate) fn revocations(&self, version: u64, packages: &[PackageId]) -> Vec<u8> {
        let mut list = RevocationList::genesis(self.root(), NEVER);
        list.version = version;
        list.packages = packages.iter().copied().collect();
        list.sign(&[&self.anna, &self.ben]).unwrap()
    }

    pub(crate) fn approvals(&self, package: PackageId) -> Vec<Vec<u8>> {
        self.approvals_for(package, SLOT)
    }

    pub(crate) fn approvals_for(&self, package: PackageId, slot: &str) -> Vec<Vec<u8>> {
        let approval = Approval {
            root: self.root(),
            package,
            decision: Decision::Approve,
            slots: [SlotName::new(slot).unwrap()].into_iter().collect(),
            selectors: [Selector::everything()].into_iter().collect(),
            not_before: UnixSecs(0),
            expires: NEVER,
            at: UnixSecs(1),
            reason: "it is good".try_into().unwrap(),
        };
        [&self.anna, &self.ben]
            .map(|key| approval.sign(key).unwrap())
            .into()
    }

    pub(crate) fn assignment(
        &self,
        device: &str,
        n: u64,
        desired: Desired,
        trial: TrialLimits,
    ) -> Vec<u8> {
        self.assignment_for(device, SLOT, n, desired, trial)
    }

    pub(crate) fn assignment_for(
        &self,
        device: &str,
        slot: &str,
        n: u64,
        desired: Desired,
        trial: TrialLimits,
    ) -> Vec<u8> {
        let slot = SlotAssignment {
            slot: SlotName::new(slot).unwrap(),
            ..Self::slot(desired, trial)
        };
        let sequence = Sequence { epoch: 1, n };
        self.assignment_of(device, sequence, slot, NEVER)
    }

    /// What one slot is ordered.
    pub(crate) fn slot(desired: Desired, trial: TrialLimits) -> SlotAssignment {
        SlotAssignment {
            slot: SlotName::new(SLOT).unwrap(),
            desired,
            also_baseline: None,
            trial,
            rollout: Some(RolloutId(1)),
            ordered_back: false,
            treated: Some(true),
        }
    }

    pub(crate) fn assignment_of(
        &self,
        device: &str,
        sequence: Sequence,
        slot: SlotAssignment,
        expires_at: UnixSecs,
    ) -> Vec<u8> {
        self.assignment_dated(device, sequence, slot, UnixSecs(1), expires_at)
    }

    pub(crate) fn assignment_dated(
        &self,
        device: &str,
        sequence: Sequence,
        slot: SlotAssignment,
        issued_at: UnixSecs,
        expires_at: UnixSecs,
    ) -> Vec<u8> {
        let assignment = Assignment {
            root: self.root(),
            device: DeviceId::new(device).unwrap(),
            sequence,
            issued_at,
            expires_at,
            slots: [slot].into_iter().collect(),
        };
        let payload = to_vec(&assignment).unwrap();
        SignedBuf::sign(DocumentType::Assignment, payload, &[&self.director])
            .encode()
            .unwrap()
    }
}

/// A trial that ends after `secs` seconds and `rows` rows.
pub(crate) fn trial(secs: u32, rows: u32) -> TrialLimits {
    TrialLimits {
        secs_min: secs,
        rows_min: rows,
        secs_max: 3600,
        error_share_max_ppm: 10_000,
        nonfinite_share_max_ppm: 0,
        worker_deaths_max: 0,
        latency_us_p99_max: None,
        shadow: None,
        drift: None,
    }
}
