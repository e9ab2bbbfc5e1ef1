//! The path of a field, as it is shown: `spec.domain.devices.disks[0].disk.bus`.

use super::node::shorten;

/// A path that grows and shrinks while a tree is walked.
#[derive(Default)]
pub(super) struct Path(String);

/// The end of a path, to return to.
pub(super) struct Mark(usize);

impl Path {
    /// One key deeper. Keys that are no plain names stand in brackets and quotes; endless ones are cut.
    pub fn push_key(&mut self, key: &str) -> Mark {
        let mark = Mark(self.0.len());
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if key.is_empty() || !key.chars().all(plain) {
            self.0.push_str(&format!("[{:?}]", shorten(key)));
        } else {
            if !self.0.is_empty() {
                self.0.push('.');
            }
            self.0.push_str(&shorten(key));
        }
        mark
    }

    /// One element of a list deeper.
    pub fn push_index(&mut self, index: usize) -> Mark {
        let mark = Mark(self.0.len());
        self.0.push_str(&format!("[{index}]"));
        mark
    }

    /// Back to where it was.
    pub fn pop(&mut self, mark: Mark) {
        self.0.truncate(mark.0);
    }

    /// The path as text.
    pub fn text(&self) -> String {
        self.0.clone()
    }
}
