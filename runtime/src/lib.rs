//! Runs one verified package in a confined process: the parent's API.
