//! The file tree of an image, layer upon layer, in memory (pure).
//!
//! The rules are those of the OCI image specification 1.1, `layer.md`: entries of an upper layer replace those below,
//! `.wh.NAME` removes NAME of the layers below, `.wh..wh..opq` everything of the layers below in its directory.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Longest path, in bytes (Linux `PATH_MAX`).
const PATH_MAX_BYTES: usize = 4096;
/// Longest name in a path, in bytes (Linux `NAME_MAX`).
const NAME_MAX_BYTES: usize = 255;
/// Symbolic links that are followed on the way to one file (Linux `MAXSYMLINKS`).
const LINKS_MAX: usize = 40;
/// Starts the name of a whiteout.
const WHITEOUT: &str = ".wh.";
/// Whiteout of everything in its directory.
const OPAQUE: &str = ".wh..wh..opq";
/// Where a container disk is when the manifest does not say (KubeVirt).
const DISK_DIRECTORY: &str = "/disk";

/// A regular file: what it holds, not where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Its length in bytes.
    pub len_bytes: u64,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Node {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target.
    Link(String),
    /// A device, FIFO or socket.
    Special,
}

/// Why an entry of a layer is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// `..` in its name.
    #[error("the entry '{0}' leads out of the image")]
    Escapes(String),
    /// A name or path that no file system takes.
    #[error("an entry's path is longer than a path can be")]
    TooLong,
    /// Below a symbolic link, a file or a device of its own layer.
    #[error("the entry '{0}' is below '{1}', which is no directory")]
    NotBelowADirectory(String, String),
    /// A hard link without its target.
    #[error("the entry '{0}' is a hard link to '{1}', which is no file of the image")]
    HardLink(String, String),
}

/// Why a path of an image gives no file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing there.
    #[error("there is no {0} in the image")]
    Absent(String),
    /// Something else is there.
    #[error("{0} in the image is no regular file, but {1}")]
    NotAFile(String, &'static str),
    /// Links that lead to each other.
    #[error("{0} in the image goes through more than {LINKS_MAX} symbolic links")]
    Links(String),
    /// `/disk` does not hold exactly one file.
    #[error(
        "a container disk holds exactly one file in /disk; this image holds {}: give its path",
        if .0.is_empty() { "none".to_owned() } else { .0.join(", ") }
    )]
    NotOneDisk(Vec<String>),
}

/// The merged tree. Paths have no `/` at their start; the root is the empty path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// Each path with the number of the layer that it comes from.
    nodes: BTreeMap<String, (usize, Node)>,
}

impl Tree {
    /// A tree of `nodes` as [`Tree::nodes`] gives them.
    pub fn of(nodes: BTreeMap<String, Node>) -> Self {
        Self { nodes: nodes.into_iter().map(|(path, node)| (path, (0, node))).collect() }
    }

    /// Every path and what is there.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, (_, node))| (path.as_str(), node))
    }

    /// Puts what layer number `layer` has at `path`; a whiteout takes away instead.
    pub fn apply(&mut self, layer: usize, path: &str, node: Node) -> Result<(), EntryError> {
        let path = normalize(path)?;
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if name == OPAQUE {
                self.remove_below(parent, layer);
            } else if !hidden.starts_with(WHITEOUT) && !hidden.is_empty() {
                let target = if parent.is_empty() { hidden.to_owned() } else { format!("{parent}/{hidden}") };
                self.remove_older(&target, layer);
            }
            return Ok(());
        }
        if path.is_empty() {
            return Ok(());
        }
        self.clear_way(layer, &path)?;
        if node != Node::Directory {
            self.remove_below(&path, usize::MAX);
        }
        self.nodes.insert(path, (layer, node));
        Ok(())
    }

    /// A hard link: `path` shows the file `target`, of this layer or one below.
    pub fn hard_link(&mut self, layer: usize, path: &str, target: &str) -> Result<(), EntryError> {
        match self.nodes.get(&normalize(target)?) {
            Some((_, node @ (Node::File(_) | Node::Link(_) | Node::Special))) => {
                let node = node.clone();
                self.apply(layer, path, node)
            }
            _ => Err(EntryError::HardLink(path.to_owned(), target.to_owned())),
        }
    }

    /// Every directory on the way to `path` is one: what a layer below has there gives way.
    fn clear_way(&mut self, layer: usize, path: &str) -> Result<(), EntryError> {
        for (at, _) in path.match_indices('/') {
            let way = &path[..at];
            match self.nodes.get(way) {
                None | Some((_, Node::Directory)) => {}
                Some((older, _)) if *older < layer => drop(self.nodes.remove(way)),
                Some(_) => return Err(EntryError::NotBelowADirectory(path.to_owned(), way.to_owned())),
            }
        }
        Ok(())
    }

    /// Removes `path` and what is below it, as far as it is of layers before `layer`.
    fn remove_older(&mut self, path: &str, layer: usize) {
        if self.nodes.get(path).is_some_and(|(older, _)| *older < layer) {
            self.nodes.remove(path);
        }
        self.remove_below(path, layer);
    }

    fn remove_below(&mut self, path: &str, layer: usize) {
        let start = if path.is_empty() { String::new() } else { format!("{path}/") };
        let gone: Vec<String> = self
            .nodes
            .range(start.clone()..)
            .take_while(|(below, _)| below.starts_with(&start))
            .filter(|(_, (older, _))| *older < layer)
            .map(|(below, _)| below.clone())
            .collect();
        for below in gone {
            self.nodes.remove(&below);
        }
    }

    /// The regular file at `path`; symbolic links are followed, and their `/` is the image's.
    pub fn file(&self, path: &str) -> Result<&Content, PathError> {
        let found = self.resolve(path)?;
        match self.nodes.get(&found) {
            Some((_, Node::File(content))) => Ok(content),
            Some((_, Node::Special)) => Err(PathError::NotAFile(path.to_owned(), "a device, FIFO or socket")),
            _ => Err(PathError::NotAFile(path.to_owned(), "a directory")),
        }
    }

    /// The disk of a container disk: the file at `path`, else the only file in `/disk`; with its path in the image.
    pub fn disk(&self, path: Option<&str>) -> Result<(String, &Content), PathError> {
        if let Some(path) = path {
            return self.file(path).map(|content| (path.to_owned(), content));
        }
        let none = || PathError::NotOneDisk(Vec::new());
        let directory = self.resolve(DISK_DIRECTORY).map_err(|_| none())?;
        let start = format!("{directory}/");
        let files: Vec<(String, &Content)> = self
            .nodes
            .range(start.clone()..)
            .take_while(|(path, _)| path.starts_with(&start))
            .filter(|(path, _)| !path[start.len()..].contains('/'))
            .filter_map(|(path, _)| Some((format!("/{path}"), self.file(path).ok()?)))
            .collect();
        match <[_; 1]>::try_from(files) {
            Ok([file]) => Ok(file),
            Err(files) => Err(PathError::NotOneDisk(files.into_iter().map(|(path, _)| path).collect())),
        }
    }

    /// Whether anything is at `path` or below it.
    fn is_there(&self, path: &str) -> bool {
        let below = format!("{path}/");
        path.is_empty()
            || self.nodes.contains_key(path)
            || self.nodes.range(below.clone()..).next().is_some_and(|(next, _)| next.starts_with(&below))
    }

    /// The path that `path` leads to, links followed.
    fn resolve(&self, path: &str) -> Result<String, PathError> {
        let mut left: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
        let mut found = String::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    found.truncate(found.rfind('/').unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let here = if found.is_empty() { name } else { format!("{found}/{name}") };
            match self.nodes.get(&here) {
                Some((_, Node::Link(target))) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(PathError::Links(path.to_owned()));
                    }
                    if target.starts_with('/') {
                        found.clear();
                    }
                    left.extend(target.split('/').rev().map(str::to_owned));
                }
                Some(_) => found = here,
                None if self.is_there(&here) => found = here,
                None => return Err(PathError::Absent(path.to_owned())),
            }
        }
        Ok(found)
    }
}

/// An entry's name as a path below the root.
fn normalize(path: &str) -> Result<String, EntryError> {
    if path.len() > PATH_MAX_BYTES {
        return Err(EntryError::TooLong);
    }
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => return Err(EntryError::Escapes(path.to_owned())),
            _ if name.len() > NAME_MAX_BYTES => return Err(EntryError::TooLong),
            _ => names.push(name),
        }
    }
    Ok(names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Node {
        Node::File(Content { sha256: text.to_owned(), len_bytes: 1 })
    }

    fn tree(entries: &[(usize, &str, Node)]) -> Tree {
        let mut tree = Tree::default();
        for (layer, path, node) in entries {
            tree.apply(*layer, path, node.clone()).unwrap();
        }
        tree
    }

    fn paths(tree: &Tree) -> Vec<&str> {
        tree.nodes().map(|(path, _)| path).collect()
    }

    #[test]
    fn upper_layers_replace_and_whiteouts_remove_what_is_below() {
        let lower = [
            (0, "./disk/old.img", file("old")),
            (0, "disk/", Node::Directory),
            (0, "etc/a", file("a")),
            (0, "etc/deep/b", file("b")),
            (0, "opt/c", file("c")),
        ];
        let with = |upper: &[(usize, &str, Node)]| tree(&[&lower, upper].concat());
        let replaced = with(&[(1, "disk/old.img", file("new"))]);
        assert_eq!(replaced.file("/disk/old.img").unwrap().sha256, "new");
        let removed = with(&[(1, "etc/.wh.deep", file("")), (1, "disk/.wh.old.img", file(""))]);
        assert_eq!(paths(&removed), ["disk", "etc/a", "opt/c"]);
        let opaque = with(&[(1, "etc/new", file("n")), (1, "etc/.wh..wh..opq", file(""))]);
        assert_eq!(paths(&opaque), ["disk", "disk/old.img", "etc/new", "opt/c"], "of its own layer it stays");
        let directory_becomes_file = with(&[(1, "etc", file("x"))]);
        assert_eq!(paths(&directory_becomes_file), ["disk", "disk/old.img", "etc", "opt/c"]);
        let root = with(&[(1, ".wh..wh..opq", file(""))]);
        assert_eq!(root.nodes().count(), 0);
        let strange = with(&[(1, ".wh.", file("")), (1, ".wh..wh.plnk", Node::Directory)]);
        assert_eq!(strange.nodes().count(), 5);
    }

    #[test]
    fn nothing_leads_out_of_the_image() {
        let mut tree = tree(&[
            (0, "disk/../x".trim_start_matches("disk/../"), file("x")),
            (0, "out", Node::Link("/etc".into())),
            (0, "up", Node::Link("../../../../x".into())),
            (0, "loop", Node::Link("loop".into())),
            (0, "null", Node::Special),
        ]);
        for bad in ["../x", "a/../../x", "/.."] {
            assert_eq!(tree.apply(0, bad, file("y")), Err(EntryError::Escapes(bad.into())));
        }
        assert!(matches!(
            tree.apply(0, "out/passwd", file("y")),
            Err(EntryError::NotBelowADirectory(_, way)) if way == "out"
        ));
        assert!(matches!(tree.hard_link(0, "hard", "/etc/shadow"), Err(EntryError::HardLink(..))));
        assert!(matches!(tree.hard_link(0, "hard", "../x"), Err(EntryError::Escapes(_))));
        assert_eq!(tree.apply(0, &"a/".repeat(3000), file("y")), Err(EntryError::TooLong));
        assert_eq!(tree.apply(0, &"a".repeat(300), file("y")), Err(EntryError::TooLong));
        assert_eq!(tree.file("/out/passwd"), Err(PathError::Absent("/out/passwd".into())));
        assert_eq!(tree.file("/up").unwrap().sha256, "x", "the root has no parent");
        assert_eq!(tree.file("loop"), Err(PathError::Links("loop".into())));
        assert!(matches!(tree.file("null"), Err(PathError::NotAFile(..))));
        assert!(matches!(tree.file("/"), Err(PathError::NotAFile(..))));
    }

    #[test]
    fn an_upper_layer_puts_a_directory_where_a_link_was() {
        let tree = tree(&[
            (0, "disk", Node::Link("/data".into())),
            (0, "data/a.img", file("a")),
            (1, "disk/b.img", file("b")),
        ]);
        assert_eq!(tree.disk(None).unwrap().0, "/disk/b.img");
    }

    #[test]
    fn the_disk_is_the_only_file_in_its_directory_or_the_one_that_is_named() {
        let one = tree(&[(0, "disk/a.img", file("a")), (0, "disk/sub/b", file("b"))]);
        assert_eq!(one.disk(None).unwrap().0, "/disk/a.img");
        assert_eq!(one.disk(Some("disk/sub/b")).unwrap().1.sha256, "b");
        assert!(matches!(one.disk(Some("/c")), Err(PathError::Absent(_))));
        let linked = tree(&[
            (0, "disk", Node::Link("d".into())),
            (0, "d/x", Node::Link("/y".into())),
            (0, "y", file("y")),
        ]);
        assert_eq!(linked.disk(None).unwrap().1.sha256, "y");
        let mut two = one.clone();
        two.hard_link(1, "disk/again", "disk/a.img").unwrap();
        let error = two.disk(None).unwrap_err().to_string();
        assert!(error.contains("/disk/a.img, /disk/again"), "{error}");
        assert!(tree(&[]).disk(None).unwrap_err().to_string().contains("holds none"));
    }
}
