//! `kubectl perennial …`: the plugin role by the name that kubectl looks for.

use std::process::ExitCode;

fn main() -> ExitCode {
    perennial::role::plugin(std::env::args_os())
}
