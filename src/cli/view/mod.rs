//! What the plugin shows, as pure text from objects and their status.

mod diff;
mod drift;
mod evaluation;
mod history;
mod lineage;
mod release;
mod tree;
mod words;

pub use diff::diff;
pub use drift::drift;
pub use evaluation::evaluation;
pub use history::history;
pub use lineage::{Version, lineage};
pub use release::Release;
pub use tree::tree;

/// A line with what hangs below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The line.
    pub text: String,
    /// What hangs below it.
    pub children: Vec<Node>,
}

impl Node {
    /// A line with nothing below it.
    pub fn leaf(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            children: Vec::new(),
        }
    }

    /// The tree as lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.text.clone()];
        let last = self.children.len().saturating_sub(1);
        for (index, child) in self.children.iter().enumerate() {
            let (first, rest) = if index == last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            for (number, line) in child.lines().into_iter().enumerate() {
                lines.push(format!("{}{line}", if number == 0 { first } else { rest }));
            }
        }
        lines
    }
}
