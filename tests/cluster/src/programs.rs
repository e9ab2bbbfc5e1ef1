//! The programs of the cluster, built from Go modules whose versions and hashes are pinned in `go/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use orlop_nested::cache::{self, Recipe, step};
use orlop_nested::{BuildError, RootTree, host, run};

/// The oldest Go that fetches the toolchain that a module asks for by itself.
const GO_MINOR: u32 = 21;

/// A folder of `go/`, and what is built there: a package and the name of its program.
struct Module {
    name: &'static str,
    programs: &'static [(&'static str, &'static str)],
}

/// Everything that runs in or for a cluster.
const MODULES: [Module; 4] = [
    Module { name: "kube", programs: &[(".", "kube")] },
    Module {
        name: "containerd",
        programs: &[
            ("github.com/containerd/containerd/v2/cmd/containerd", "containerd"),
            ("github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "containerd-shim-runc-v2"),
            ("github.com/containerd/containerd/v2/cmd/ctr", "ctr"),
            ("github.com/containernetworking/plugins/plugins/main/bridge", "cni/bridge"),
            ("github.com/containernetworking/plugins/plugins/main/loopback", "cni/loopback"),
            ("github.com/containernetworking/plugins/plugins/ipam/host-local", "cni/host-local"),
            ("github.com/containernetworking/plugins/plugins/meta/portmap", "cni/portmap"),
        ],
    },
    Module { name: "dns", programs: &[(".", "dns")] },
    Module { name: "pause", programs: &[(".", "pause")] },
];

/// The module whose version is the cluster's.
const KUBERNETES: &str = "k8s.io/kubernetes";

/// The directory with all programs, built if they are not there yet: about six minutes on two processors, once.
pub(crate) fn build() -> Result<PathBuf, BuildError> {
    let sources = host::checkout().join("tests/cluster/go");
    let mut recipe = Recipe::new().with("1");
    for module in &MODULES {
        for file in files(&sources.join(module.name))? {
            recipe = recipe.with(fs::read(&file).map_err(|e| BuildError::file(&file, e))?);
        }
    }
    cache::artifact("cluster-programs", &recipe.key(), |place| {
        let go = Go::find()?;
        for module in &MODULES {
            let source = sources.join(module.name);
            let what = format!("build {} from its Go modules", module.name);
            step(&what, || {
                module.programs.iter().try_for_each(|(package, name)| {
                    go.build(&what, &source, package, &place.join(name)).map(drop)
                })
            })?;
        }
        go.forget()
    })
}

/// What a module's programs are made of, in order.
fn files(directory: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let entries = fs::read_dir(directory).map_err(|e| BuildError::file(directory, e))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

/// The Go toolchain.
struct Go {
    program: PathBuf,
    /// Intermediate results: gigabytes, of no use once the programs are there.
    cache: PathBuf,
}

impl Go {
    /// This machine's own, or Debian's.
    fn find() -> Result<Self, BuildError> {
        let cache = cache::directory().join("go-build");
        if is_new_enough(Path::new("go")) {
            return Ok(Self { program: "go".into(), cache });
        }
        let tree = RootTree { name: "Go toolchain", packages: &["golang-go"], hooks: &[], initrd: false };
        let directory = cache::artifact("go", &Recipe::new().with(tree.recipe()).key(), |place| {
            tree.build(&place.join("root"))
        })?;
        let program = directory.join("root/usr/lib/go/bin/go");
        let program = program.canonicalize().map_err(|e| BuildError::file(&program, e))?;
        Ok(Self { program, cache })
    }

    fn build(&self, what: &str, module: &Path, package: &str, program: &Path) -> Result<Vec<u8>, BuildError> {
        let mut flags = "-s -w".to_owned();
        if let Some(version) = kubernetes_version(module) {
            let minor = version.split('.').nth(1).unwrap_or_default();
            for (name, value) in [
                ("gitVersion", version.as_str()),
                ("gitMajor", "1"),
                ("gitMinor", minor),
                ("gitTreeState", "clean"),
                ("gitCommit", "none"),
                ("buildDate", "1970-01-01T00:00:00Z"),
            ] {
                flags.push_str(&format!(" -X k8s.io/component-base/version.{name}={value}"));
            }
        }
        let mut command = Command::new(&self.program);
        command
            .current_dir(module)
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-trimpath -buildvcs=false")
            .env("GOTOOLCHAIN", "auto")
            .env("GOCACHE", &self.cache)
            .args(["build", "-ldflags", &flags, "-o"])
            .arg(program)
            .arg(package);
        run(what, &mut command)
    }

    fn forget(&self) -> Result<(), BuildError> {
        if self.cache.exists() {
            fs::remove_dir_all(&self.cache).map_err(|e| BuildError::file(&self.cache, e))?;
        }
        Ok(())
    }
}

/// Whether `go version` says go1.21 or newer.
fn is_new_enough(go: &Path) -> bool {
    let Ok(output) = Command::new(go).arg("version").output() else { return false };
    minor(&String::from_utf8_lossy(&output.stdout)).is_some_and(|minor| minor >= GO_MINOR)
}

fn minor(version: &str) -> Option<u32> {
    version.split_whitespace().find_map(|word| word.strip_prefix("go1."))?.split('.').next()?.parse().ok()
}

/// The version of Kubernetes that a module is pinned to, as in `v1.37.2`.
fn kubernetes_version(module: &Path) -> Option<String> {
    let text = fs::read_to_string(module.join("go.mod")).ok()?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix(KUBERNETES)?.strip_prefix(' '))?;
    line.split_whitespace().next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_toolchain_is_read() {
        assert_eq!(minor("go version go1.26.8 linux/amd64"), Some(26));
        assert_eq!(minor("go version go1.19 linux/amd64"), Some(19));
        assert_eq!(minor("gccgo"), None);
    }

    #[test]
    fn kubernetes_is_pinned_and_nothing_else_is_taken_for_it() {
        let go = host::checkout().join("tests/cluster/go");
        let version = kubernetes_version(&go.join("kube")).expect("a version");
        assert!(version.starts_with("v1."), "{version}");
        assert_eq!(kubernetes_version(&go.join("pause")), None);
    }
}
