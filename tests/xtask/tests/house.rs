//! The rules of the house that no compiler checks: who may know whom, and how big things may grow.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};

const KVM: &[&str] = &["kvm-ioctls", "kvm-bindings", "vfio-ioctls", "vfio-bindings"];
const ASYNC: &[&str] = &["tokio", "hyper", "axum", "async-std", "smol"];
const KUBERNETES: &[&str] = &["k8s-openapi", "kube", "kube-core", "kube-client", "orlop-crd"];

/// Crates that we name ourselves and that are linked in two versions all the same, with the reason.
const TWO_VERSIONS: &[(&str, &str)] = &[
    ("bitflags", "vmm-sys-util 0.15 is still at 1, everybody else at 2"),
    ("getrandom", "ring 0.17, under TLS, is still at 0.2, everybody else at 0.4"),
];

/// Dependencies that no source file names, with the reason.
const UNNAMED: &[(&str, &str)] = &[];

struct House {
    metadata: Metadata,
    root: PathBuf,
}

impl House {
    fn look_around() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.toml");
        let metadata = MetadataCommand::new().manifest_path(manifest).exec().unwrap();
        let root = metadata.workspace_root.clone().into_std_path_buf();
        Self { metadata, root }
    }

    /// Our packages with the directory that each is in, as seen from the root: `devices/virtio`.
    fn rooms(&self) -> impl Iterator<Item = (&cargo_metadata::Package, String)> {
        self.metadata.workspace_packages().into_iter().map(|package| {
            let directory = package.manifest_path.parent().unwrap().as_std_path();
            (package, directory.strip_prefix(&self.root).unwrap().display().to_string())
        })
    }

    /// Everything that a package links, itself left out.
    fn links(&self, package: &PackageId) -> BTreeSet<&PackageId> {
        let nodes: BTreeMap<_, _> =
            self.metadata.resolve.as_ref().unwrap().nodes.iter().map(|node| (&node.id, node)).collect();
        let mut seen = BTreeSet::new();
        let mut open = vec![package];
        while let Some(id) = open.pop() {
            for dependency in &nodes[id].deps {
                let linked = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
                if linked && seen.insert(&dependency.pkg) {
                    open.push(&dependency.pkg);
                }
            }
        }
        seen
    }

    /// The names of everything that a package links.
    fn linked_names(&self, package: &PackageId) -> BTreeSet<&str> {
        self.links(package).into_iter().map(|id| self.metadata[id].name.as_str()).collect()
    }

    /// Packages in the rooms `under` must link none of `forbidden`.
    fn must_not_link(&self, under: &[&str], forbidden: &[&[&str]]) {
        for (package, room) in
            self.rooms().filter(|(_, room)| under.iter().any(|u| Path::new(room).starts_with(u)))
        {
            let links = self.linked_names(&package.id);
            let found: Vec<_> =
                forbidden.iter().copied().flatten().filter(|name| links.contains(**name)).collect();
            assert!(found.is_empty(), "{room} must not know {found:?} (see the arrows in README.md)");
        }
    }

    /// The files that git keeps, or would keep.
    fn files(&self) -> Vec<PathBuf> {
        let output = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(&self.root)
            .output()
            .unwrap();
        assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect()
    }
}

/// Rooms that may know everything and that nothing may know.
fn is_outside(room: &str) -> bool {
    Path::new(room).starts_with("tests") || Path::new(room).starts_with("benches")
}

#[test]
fn devices_and_firmware_know_no_kvm_no_async_runtime_and_no_kubernetes() {
    House::look_around().must_not_link(&["devices", "firmware"], &[KVM, ASYNC, KUBERNETES, &["orlop-api"]]);
}

#[test]
fn the_ground_floor_of_the_api_knows_neither_devices_nor_kvm() {
    House::look_around()
        .must_not_link(&["api"], &[KVM, &["orlop-bus", "orlop-pci", "orlop-virtio", "orlop-vmm"]]);
}

#[test]
fn the_agent_and_the_controller_never_link_the_vmm() {
    House::look_around()
        .must_not_link(&["agent", "controller"], &[KVM, &["orlop-vmm", "orlop-bus", "orlop-virtio"]]);
}

#[test]
fn the_vmm_knows_no_kubernetes() {
    House::look_around().must_not_link(&["vmm"], &[KUBERNETES]);
}

#[test]
fn nothing_depends_on_tests_or_benches() {
    let house = House::look_around();
    let outside: BTreeSet<_> = house
        .rooms()
        .filter(|(_, room)| is_outside(room))
        .map(|(package, _)| package.name.as_str())
        .collect();
    for (package, room) in house.rooms().filter(|(_, room)| !is_outside(room)) {
        let found: Vec<_> =
            house.linked_names(&package.id).into_iter().filter(|name| outside.contains(name)).collect();
        assert!(found.is_empty(), "{room} must not know {found:?}");
    }
}

#[test]
fn the_product_links_what_we_name_ourselves_in_one_version() {
    let house = House::look_around();
    let product = || house.rooms().filter(|(_, room)| !is_outside(room)).map(|(package, _)| package);
    let named: BTreeSet<_> = product()
        .flat_map(|package| &package.dependencies)
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .map(|dependency| dependency.name.as_str())
        .collect();
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for id in product().flat_map(|package| house.links(&package.id)) {
        let package = &house.metadata[id];
        versions.entry(package.name.as_str()).or_default().insert(package.version.to_string());
    }
    let allowed = |name: &str| TWO_VERSIONS.iter().any(|(allowed, _)| *allowed == name);
    let twice: Vec<_> = versions
        .iter()
        .filter(|(name, found)| found.len() > 1 && named.contains(**name) && !allowed(name))
        .collect();
    assert!(twice.is_empty(), "linked in several versions: {twice:?}");
}

#[test]
fn every_dependency_is_named_in_the_sources() {
    let house = House::look_around();
    let files = house.files();
    let mut unused = Vec::new();
    for (package, room) in house.rooms() {
        let sources: String = files
            .iter()
            .filter(|file| file.starts_with(&room) && file.extension().is_some_and(|e| e == "rs"))
            .filter_map(|file| fs::read_to_string(house.root.join(file)).ok())
            .collect();
        let words: BTreeSet<&str> = sources.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
        for dependency in &package.dependencies {
            let name = dependency.rename.as_ref().unwrap_or(&dependency.name).replace('-', "_");
            let excused = UNNAMED.iter().any(|(excused, _)| *excused == dependency.name);
            if !words.contains(name.as_str()) && !excused {
                unused.push(format!("{room}: {}", dependency.name));
            }
        }
    }
    assert!(unused.is_empty(), "dependencies that nothing uses: {unused:#?}");
}

#[test]
fn no_source_file_is_longer_than_800_lines() {
    let house = House::look_around();
    let is_source = |file: &&PathBuf| file.extension().is_some_and(|e| e == "rs" || e == "sh" || e == "py");
    let long: Vec<_> = house
        .files()
        .iter()
        .filter(is_source)
        .filter_map(|file| {
            Some((file.clone(), fs::read_to_string(house.root.join(file)).ok()?.lines().count()))
        })
        .filter(|(_, lines)| *lines > 800)
        .collect();
    assert!(long.is_empty(), "too long to hold: {long:?}");
}

#[test]
fn every_room_says_in_a_readme_what_it_is_for() {
    let house = House::look_around();
    let mut wrong = Vec::new();
    for (_, room) in house.rooms() {
        match fs::read_to_string(house.root.join(&room).join("README.md")) {
            Err(e) => wrong.push(format!("{room}/README.md: {e}")),
            // The table of results is in the README of the benchmarks.
            Ok(text) if room != "benches" && text.lines().count() > 40 => {
                wrong.push(format!("{room}/README.md: {} lines, more than 40", text.lines().count()));
            }
            Ok(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_top_level_holds_the_agreed_rooms_and_nothing_else() {
    const ROOMS: &[&str] = &[
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "agent",
        "api",
        "benches",
        "controller",
        "deploy",
        "devices",
        "firmware",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "tests",
        "vmm",
    ];
    let found: BTreeSet<_> = House::look_around()
        .files()
        .iter()
        .filter_map(|file| Some(file.components().next()?.as_os_str().to_str()?.to_owned()))
        .filter(|name| !name.starts_with('.') && !ROOMS.contains(&name.as_str()))
        .collect();
    assert!(found.is_empty(), "no such rooms were agreed on: {found:?}");
}

#[test]
fn every_known_vulnerability_has_a_test_that_is_there() {
    let house = House::look_around();
    let table = fs::read_to_string(house.root.join("tests/vulnerabilities.tsv")).unwrap();
    for row in table.lines().filter(|line| !line.starts_with('#')) {
        let [_, _, test] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("three columns: {row}") };
        let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("file::test: {row}"));
        let source = fs::read_to_string(house.root.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(source.contains(&format!("fn {name}(")), "{file} has no test {name}");
    }
}
