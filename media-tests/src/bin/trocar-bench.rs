//! Measures what the relay costs.
fn main() {}
