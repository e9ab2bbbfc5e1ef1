//! The VM fixture of the tests.
