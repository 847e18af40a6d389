//! `kubectl perennial …`: the plugin role by the name that kubectl looks for.

fn main() {}
