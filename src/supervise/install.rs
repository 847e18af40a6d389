//! `perennial install DIR`: puts this binary where another container finds it.

use std::{os::unix::fs::PermissionsExt, path::Path, process::ExitCode};

use crate::data::{Error, Result};

/// Copies the running binary to `DIR/perennial`, executable for all.
///
/// # Errors
/// If it can't be written.
pub async fn run(directory: &Path) -> Result<ExitCode> {
    let target = directory.join("perennial");
    let partial = directory.join(".perennial.partial");
    let install = || -> std::io::Result<()> {
        std::fs::create_dir_all(directory)?;
        std::fs::copy(std::env::current_exe()?, &partial)?;
        std::fs::set_permissions(&partial, std::fs::Permissions::from_mode(0o755))?;
        std::fs::rename(&partial, &target)
    };
    install().map_err(|e| Error::file("installing", &target, &e))?;
    Ok(ExitCode::SUCCESS)
}
