//! Kernel modules out of a Debian package: the wanted ones with what they depend on, in the order to load them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian::{BuildError, XZ, require, run};

/// A module, unpacked.
pub(crate) struct Module {
    /// Its name as `insmod` takes it: `virtio_blk.ko`.
    pub(crate) file_name: String,
    pub(crate) content: Vec<u8>,
}

/// The modules `wanted` of the tree `/lib/modules/VERSION`, dependencies first. A name that the kernel has built in is
/// left out, one that it does not know at all is an error.
pub(crate) fn collect(tree: &Path, wanted: &[&str]) -> Result<Vec<Module>, BuildError> {
    require(&[XZ])?;
    let read = |name: &str| {
        let path = tree.join(name);
        std::fs::read_to_string(&path).map_err(|e| BuildError::file(&path, e))
    };
    let dependencies = Dependencies::parse(&read("modules.dep")?);
    let built_in = read("modules.builtin")?;
    let mut order = Vec::new();
    for name in wanted {
        if let Some(path) = dependencies.paths.get(*name) {
            dependencies.visit(path, &mut order);
        } else if !built_in.lines().any(|line| module_name(line) == *name) {
            return Err(BuildError::unexpected(tree, format!("this kernel has no module {name}")));
        }
    }
    order.into_iter().map(|path| load(&tree.join(path))).collect()
}

fn load(path: &Path) -> Result<Module, BuildError> {
    let file_name = format!("{}.ko", module_name(&path.to_string_lossy()));
    let content = if path.extension().is_some_and(|e| e == "xz") {
        run("unpack a kernel module", Command::new("xz").args(["--decompress", "--stdout"]).arg(path))?
    } else {
        std::fs::read(path).map_err(|e| BuildError::file(path, e))?
    };
    Ok(Module { file_name, content })
}

/// `kernel/drivers/block/virtio_blk.ko.xz` → `virtio_blk`; the kernel treats `-` and `_` as the same.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

/// `modules.dep`: each line names a module and all that it needs.
struct Dependencies {
    paths: HashMap<String, PathBuf>,
    needs: HashMap<PathBuf, Vec<PathBuf>>,
}

impl Dependencies {
    fn parse(text: &str) -> Self {
        let mut all = Self { paths: HashMap::new(), needs: HashMap::new() };
        for (module, needs) in text.lines().filter_map(|line| line.split_once(':')) {
            all.paths.insert(module_name(module), module.into());
            all.needs.insert(module.into(), needs.split_whitespace().map(PathBuf::from).collect());
        }
        all
    }

    /// Adds `module` to `order`, after everything that it needs.
    fn visit(&self, module: &Path, order: &mut Vec<PathBuf>) {
        if order.iter().any(|known| known == module) {
            return;
        }
        for need in self.needs.get(module).into_iter().flatten() {
            self.visit(need, order);
        }
        order.push(module.to_path_buf());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_loaded_before_it() {
        let text = "k/9p.ko.xz: k/9pnet.ko.xz k/netfs.ko.xz\nk/9pnet.ko.xz:\nk/netfs.ko.xz: k/9pnet.ko.xz\n";
        let dependencies = Dependencies::parse(text);
        let mut order = Vec::new();
        dependencies.visit(Path::new("k/9p.ko.xz"), &mut order);
        dependencies.visit(Path::new("k/netfs.ko.xz"), &mut order);
        assert_eq!(order, ["k/9pnet.ko.xz", "k/netfs.ko.xz", "k/9p.ko.xz"].map(PathBuf::from));
    }

    #[test]
    fn a_dash_in_a_file_name_is_an_underscore_in_the_module() {
        assert_eq!(module_name("kernel/arch/x86/kvm/kvm-amd.ko.xz"), "kvm_amd");
    }
}
