//! What is signed: manifest, approvals, trust root, verification.
