//! The path of a field, as it is shown: `spec.domain.devices.disks[0].disk.bus`.

/// A path that grows and shrinks while a tree is walked.
#[derive(Default)]
pub(super) struct Path(String);

impl Path {
    /// Does something one key deeper.
    pub fn key<T>(&mut self, key: &str, then: impl FnOnce(&mut Self) -> T) -> T {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let step = match (key.chars().all(plain) && !key.is_empty(), self.0.is_empty()) {
            (true, true) => key.to_owned(),
            (true, false) => format!(".{key}"),
            (false, _) => format!("[{key:?}]"),
        };
        self.deeper(&step, then)
    }

    /// Does something at one element of a list.
    pub fn index<T>(&mut self, index: usize, then: impl FnOnce(&mut Self) -> T) -> T {
        self.deeper(&format!("[{index}]"), then)
    }

    fn deeper<T>(&mut self, step: &str, then: impl FnOnce(&mut Self) -> T) -> T {
        let len = self.0.len();
        self.0.push_str(step);
        let result = then(self);
        self.0.truncate(len);
        result
    }

    pub fn text(&self) -> String {
        self.0.clone()
    }
}
