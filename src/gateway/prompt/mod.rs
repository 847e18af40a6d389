//! prompts
pub mod template;
