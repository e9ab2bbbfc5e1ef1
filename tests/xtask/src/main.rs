//! The one helper of the project.
fn main() {}
