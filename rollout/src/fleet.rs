//! The fleet's decisions: stages, arms, verdicts.
