//! Seeded simulator, reference model, end-to-end tests.
