use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use tar::EntryType;

use super::*;
use crate::kit::{Layer, Packing, TestImage, pack};
use crate::progress::Quiet;

fn puller(root: &Path) -> Puller {
    let limits = Limits { reserve_bytes: 0, unpacked_bytes: 64 << 20, ..Limits::default() };
    Puller { store: Store::open(&root.join("cache")).unwrap(), limits, progress: Arc::new(Quiet) }
}

/// Imports `image` from a layout.
async fn import(puller: &Puller, image: &TestImage) -> Result<Image, String> {
    let directory = puller.store.root().with_extension("layout");
    drop(fs::remove_dir_all(&directory));
    image.write_layout(&directory, "v1").unwrap();
    let name = format!("oci:{}:v1", directory.display());
    puller
        .get(&name, Some(PullPolicy::Always), &Credentials::Machine)
        .await
        .map_err(|error| error.to_string())
}

fn text(file: &File) -> String {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Every path below a directory.
fn below(directory: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).unwrap().flatten() {
            all.insert(entry.path().strip_prefix(directory).unwrap().display().to_string());
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    all
}

#[tokio::test]
async fn every_form_and_packing_gives_the_same_disk() {
    let root = tempfile::tempdir().unwrap();
    let puller = puller(root.path());
    for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
        let image = TestImage::disk(b"a disk", packing);
        assert_eq!(
            text(&import(&puller, &image).await.unwrap().disk(None).unwrap()),
            "a disk",
            "{packing:?}"
        );
        let archive = root.path().join("image.tar");
        let get = || puller.get("oci-archive:/", Some(PullPolicy::Always), &Credentials::Machine);
        assert!(get().await.is_err());
        image.write_oci_archive(&archive, "v1", packing).unwrap();
        let name = format!("oci-archive:{}", archive.display());
        let found = puller.get(&name, Some(PullPolicy::Always), &Credentials::Machine).await.unwrap();
        assert_eq!(found.id(), image.manifest);
        image.write_docker_archive(&archive, "registry.example/a:v1").unwrap();
        let name = format!("docker-archive:{}:registry.example/a:v1", archive.display());
        let found = puller.get(&name, Some(PullPolicy::Always), &Credentials::Machine).await.unwrap();
        assert_eq!(found.id(), image.config);
        assert_eq!(text(&found.disk(Some("/disk/disk.img")).unwrap()), "a disk");
    }
    assert_eq!(fs::read_dir(root.path().join("cache/files")).unwrap().count(), 1, "one content, one file");
    assert_eq!(fs::read_dir(root.path().join("cache/staging")).unwrap().count(), 0);
}

#[tokio::test]
async fn nothing_that_an_image_says_becomes_a_path_of_this_machine() {
    let root = tempfile::tempdir().unwrap();
    let puller = puller(root.path());
    let before = below(root.path());
    let outside = root.path().join("outside");
    let out = outside.to_str().unwrap();
    let bad = |kind, path: &str, target: &str| {
        let layer = Layer::default().file("disk/a", b"a").entry(kind, path, target, b"");
        TestImage::new(vec![layer.bytes()], Packing::Gzip)
    };
    for (image, said) in [
        (bad(EntryType::Regular, "../../../outside", ""), "leads out of the image"),
        (bad(EntryType::Regular, "disk/../../../../outside", ""), "leads out of the image"),
        (bad(EntryType::Link, "disk/b", "/etc/passwd"), "no file of the image"),
        (bad(EntryType::Link, "disk/b", "../../../etc/passwd"), "leads out of the image"),
        (bad(EntryType::Regular, "disk/a/b", ""), "no directory"),
    ] {
        let error = import(&puller, &image).await.unwrap_err();
        assert!(error.contains("layer 1 of 1: ") && error.contains(said), "{said}: {error}");
    }
    let through = Layer::default().entry(EntryType::Symlink, "d", out, b"").file("d/x", b"x");
    let error = import(&puller, &TestImage::new(vec![through.bytes()], Packing::Plain)).await.unwrap_err();
    assert!(error.contains("'d/x' is below 'd'"), "{error}");
    let links = Layer::default()
        .file(&format!("{out}/absolute"), b"kept inside")
        .entry(EntryType::Symlink, "disk/passwd", "/etc/passwd", b"")
        .entry(EntryType::Symlink, "disk/up", "../../../../etc/passwd", b"")
        .entry(EntryType::Block, "disk/sda", "", b"")
        .entry(EntryType::Fifo, "disk/fifo", "", b"")
        .entry(EntryType::Symlink, ".wh..wh..opq", "/etc", b"");
    let image = import(&puller, &TestImage::new(vec![links.bytes()], Packing::Plain)).await.unwrap();
    for path in ["/disk/passwd", "disk/up", "/disk/sda", "/disk/fifo", "../../etc/passwd"] {
        assert!(image.file(path).is_err(), "{path}");
    }
    assert_eq!(text(&image.file(&format!("{out}/absolute")).unwrap()), "kept inside");
    let after: BTreeSet<_> =
        below(root.path()).into_iter().filter(|path| !path.starts_with("cache")).collect();
    let before: BTreeSet<_> = before.into_iter().filter(|path| !path.starts_with("cache")).collect();
    assert_eq!(after.len(), before.len(), "{after:?}");
    assert!(!outside.exists());
}

#[tokio::test]
async fn a_wrong_digest_anywhere_is_said_and_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let puller = puller(root.path());
    let good = TestImage::disk(b"a disk", Packing::Gzip);
    for (sha256, what) in [
        (good.manifest.clone(), "the manifest"),
        (good.config.clone(), "the configuration"),
        (
            good.blobs.keys().find(|k| **k != good.manifest && **k != good.config).unwrap().clone(),
            "layer 1 of 1",
        ),
    ] {
        let mut bad = TestImage::disk(b"a disk", Packing::Gzip);
        bad.blobs.get_mut(&sha256).unwrap().push(b' ');
        let error = import(&puller, &bad).await.unwrap_err();
        assert!(error.contains(what) && error.contains(&format!("expected sha256:{sha256}")), "{error}");
    }
    let layer = Layer::default().file("disk/a", b"a").bytes();
    let lie = vec![format!("sha256:{}", "0".repeat(64))];
    let bad = TestImage::with(vec![layer.clone()], vec![pack(&layer, Packing::Gzip)], &lie);
    let error = import(&puller, &bad).await.unwrap_err();
    assert!(error.contains("layer 1 of 1, unpacked, is not what its digest says"), "{error}");
    let bad = TestImage::with(vec![layer.clone()], vec![layer], &[]);
    assert!(import(&puller, &bad).await.unwrap_err().contains("lists 0 layers and its manifest 1"));
    for directory in ["images", "files", "staging"] {
        assert_eq!(
            fs::read_dir(root.path().join("cache").join(directory)).unwrap().count(),
            0,
            "{directory}"
        );
    }
}

#[tokio::test]
async fn bombs_go_off_at_their_limits() {
    let root = tempfile::tempdir().unwrap();
    let puller = puller(root.path());
    let zeroes = vec![0; 65 << 20];
    let bomb = TestImage::disk(&zeroes, Packing::Gzip);
    assert!(bomb.blobs.values().all(|blob| blob.len() < 1 << 20));
    let error = import(&puller, &bomb).await.unwrap_err();
    assert!(error.contains("unpacks to more than 67108864 bytes"), "{error}");
    // Behind the end of the archive.
    let mut behind = Layer::default().file("disk/a", b"a").bytes();
    behind.extend_from_slice(&zeroes);
    let error = import(&puller, &TestImage::new(vec![behind], Packing::Gzip)).await.unwrap_err();
    assert!(error.contains("unpacks to more than"), "{error}");
    // A name that would fill the memory.
    let long = Layer::default().entry(EntryType::GNULongName, "././@LongLink", "", &vec![b'a'; 20 << 20]);
    let error = import(&puller, &TestImage::new(vec![long.bytes()], Packing::Gzip)).await.unwrap_err();
    assert!(error.contains("header is longer than 1048576 bytes"), "{error}");
    let many = |count: usize| {
        let layer = (0..count).fold(Layer::default(), |layer, n| layer.file(&format!("f{n}"), b""));
        TestImage::new(vec![layer.bytes()], Packing::Gzip)
    };
    let mut small = puller.clone();
    small.limits.entries = 50;
    assert!(import(&small, &many(51)).await.unwrap_err().contains("more than 50 entries"));
    small.limits.names_bytes = 100;
    assert!(import(&small, &many(50)).await.unwrap_err().contains("more than 100 bytes together"));
    small.limits.reserve_bytes = u64::MAX / 2;
    let data = TestImage::disk(&[7; 4096], Packing::Plain);
    let error = import(&small, &data).await.unwrap_err();
    assert!(error.contains("stay free"), "{error}");
    assert_eq!(fs::read_dir(root.path().join("cache/staging")).unwrap().count(), 0);
    // A disk of zeroes is one that takes no space.
    let sparse = import(&puller, &TestImage::disk(&zeroes[..16 << 20], Packing::Gzip)).await.unwrap();
    let disk = sparse.disk(None).unwrap().metadata().unwrap();
    assert_eq!((disk.len(), disk.blocks() * 512 < 1 << 20), (16 << 20, true));
}

#[tokio::test]
async fn what_is_cut_off_or_garbage_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let puller = puller(root.path());
    let layer = Layer::default().file("disk/a", &[7; 3000]).bytes();
    let of = |packed: Vec<u8>| {
        let diff_id = format!("sha256:{}", crate::manifest::sha256(&packed));
        TestImage::with(vec![layer.clone()], vec![packed], &[diff_id])
    };
    for len in [1, 100, 511, 512, 513, 2000, 3511] {
        let error = import(&puller, &of(layer[..len].to_vec())).await.unwrap_err();
        assert!(error.starts_with("image oci:"), "{len}: {error}");
    }
    for packing in [Packing::Gzip, Packing::Zstd] {
        let packed = pack(&layer, packing);
        assert!(import(&puller, &of(packed[..packed.len() - 9].to_vec())).await.is_err(), "{packing:?}");
    }
    assert!(
        import(&puller, &of(b"no archive at all, but long enough for something".repeat(40))).await.is_err()
    );
    let archive = root.path().join("cut.tar");
    TestImage::disk(&[7; 5000], Packing::Plain).write_docker_archive(&archive, "x:v1").unwrap();
    let whole = fs::read(&archive).unwrap();
    for len in [0, 1, 700, whole.len() / 2] {
        fs::write(&archive, &whole[..len]).unwrap();
        let name = format!("docker-archive:{}", archive.display());
        let error = puller.get(&name, None, &Credentials::Machine).await.unwrap_err().to_string();
        assert!(error.starts_with("image docker-archive:"), "{error}");
    }
}

#[tokio::test]
async fn a_layout_cannot_lead_out_of_its_directory() {
    let root = tempfile::tempdir().unwrap();
    let puller = puller(root.path());
    let layout = root.path().join("layout");
    TestImage::disk(b"x", Packing::Plain).write_layout(&layout, "v1").unwrap();
    let index = layout.join("index.json");
    let name = format!("oci:{}", layout.display());
    let get = || puller.get(&name, Some(PullPolicy::Always), &Credentials::Machine);
    fs::rename(&index, root.path().join("index.json")).unwrap();
    std::os::unix::fs::symlink("../index.json", &index).unwrap();
    assert!(get().await.is_err());
    fs::remove_file(&index).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &index, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(get().await.unwrap_err().to_string().contains("not a regular file"));
}

#[tokio::test]
async fn the_policy_decides_whether_the_origin_is_asked() {
    let root = tempfile::tempdir().unwrap();
    let puller = puller(root.path());
    let layout = root.path().join("layout");
    let name = format!("oci:{}", layout.display());
    let get = async |policy| {
        let image =
            puller.get(&name, policy, &Credentials::Machine).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(text(&image.disk(None).unwrap()))
    };
    TestImage::disk(b"one", Packing::Plain).write_layout(&layout, "v1").unwrap();
    assert!(get(Some(PullPolicy::Never)).await.unwrap_err().contains("imagePullPolicy is Never"));
    assert_eq!(get(None).await.unwrap(), "one");
    fs::remove_dir_all(&layout).unwrap();
    TestImage::disk(b"two", Packing::Plain).write_layout(&layout, "v1").unwrap();
    assert_eq!(get(Some(PullPolicy::IfNotPresent)).await.unwrap(), "one");
    assert_eq!(get(Some(PullPolicy::Never)).await.unwrap(), "one");
    assert_eq!(get(Some(PullPolicy::Always)).await.unwrap(), "two");
    assert_eq!(get(Some(PullPolicy::Never)).await.unwrap(), "two");
    let listed = puller.store.list().unwrap();
    assert_eq!(
        listed.iter().map(|image| image.names.len()).collect::<Vec<_>>(),
        [1, 0],
        "the old one lost its name"
    );
    let pruned = puller.store.prune(false).unwrap();
    assert_eq!(pruned.images.len(), 1);
    assert_eq!(get(Some(PullPolicy::Never)).await.unwrap(), "two");
}

#[tokio::test]
async fn an_image_in_use_stays_until_it_is_not() {
    let root = tempfile::tempdir().unwrap();
    let puller = puller(root.path());
    let image = import(&puller, &TestImage::disk(b"a disk", Packing::Plain)).await.unwrap();
    let id = image.id().to_owned();
    let store = &puller.store;
    assert!(store.list().unwrap()[0].in_use);
    let refused = store.remove(&id[..12], "").unwrap_err();
    assert!(refused.to_string().contains("in use by a running VM"), "{refused}");
    assert_eq!(store.prune(true).unwrap(), crate::Removed::default());
    drop(image);
    assert!(!store.list().unwrap()[0].in_use);
    assert!(matches!(store.remove("0000", "x"), Err(StoreError::Absent(_))), "too few digits");
    let removed = store.remove(&format!("sha256:{}", &id[..12]), "").unwrap();
    assert_eq!(removed.images, [id]);
    assert!(removed.freed_bytes > 0);
    assert_eq!(store.list().unwrap(), []);
    assert_eq!(fs::read_dir(store.root().join("files")).unwrap().count(), 0);
}

#[tokio::test]
async fn two_images_share_what_they_have_in_common() {
    let root = tempfile::tempdir().unwrap();
    let puller = puller(root.path());
    let two = |extra: &[u8]| {
        let layers =
            [Layer::default().file("disk/a", b"common").bytes(), Layer::default().file("x", extra).bytes()];
        TestImage::new(layers.to_vec(), Packing::Gzip)
    };
    let first = import(&puller, &two(b"1")).await.unwrap().id().to_owned();
    let second = import(&puller, &two(b"2")).await.unwrap();
    let files = || fs::read_dir(puller.store.root().join("files")).unwrap().count();
    assert_eq!(files(), 3);
    puller.store.remove(&first, "").unwrap();
    assert_eq!((files(), text(&second.disk(None).unwrap())), (2, "common".to_owned()));
}

#[tokio::test]
async fn what_a_killed_import_left_is_cleared_away_by_the_next() {
    let root = tempfile::tempdir().unwrap();
    let puller = puller(root.path());
    let image = TestImage::disk(b"a disk", Packing::Plain);
    // What is there after a kill in the middle: a directory that nobody holds, and a file that no image names.
    for id in [image.manifest.clone(), "f".repeat(64)] {
        let left = puller.store.root().join("staging").join(id);
        fs::create_dir_all(&left).unwrap();
        fs::write(left.join("lock"), "").unwrap();
        fs::write(left.join("new"), "half").unwrap();
    }
    fs::write(puller.store.root().join("files").join("e".repeat(64)), "orphan").unwrap();
    let found = import(&puller, &image).await.unwrap();
    assert_eq!(text(&found.disk(None).unwrap()), "a disk");
    assert_eq!(fs::read_dir(puller.store.root().join("staging")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(puller.store.root().join("files")).unwrap().count(), 1);
}

#[tokio::test]
async fn two_imports_of_one_image_unpack_it_once() {
    let root = tempfile::tempdir().unwrap();
    let puller = puller(root.path());
    let layout = root.path().join("layout");
    let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let image = TestImage::disk(&bytes, Packing::Gzip);
    image.write_layout(&layout, "v1").unwrap();
    let name = format!("oci:{}", layout.display());
    let get = || puller.get(&name, Some(PullPolicy::Always), &Credentials::Machine);
    let (a, b, c) = tokio::join!(get(), get(), get());
    for found in [a, b, c] {
        assert_eq!(found.unwrap().id(), image.manifest);
    }
    assert_eq!(puller.store.list().unwrap().len(), 1);
    assert_eq!(fs::read_dir(puller.store.root().join("staging")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_damaged_cache_is_said() {
    let root = tempfile::tempdir().unwrap();
    let puller = puller(root.path());
    let image = import(&puller, &TestImage::disk(b"a disk", Packing::Plain)).await.unwrap();
    for file in fs::read_dir(puller.store.root().join("files")).unwrap().flatten() {
        fs::remove_file(file.path()).unwrap();
        fs::write(file.path(), "half").unwrap();
    }
    let error = image.disk(None).unwrap_err().to_string();
    assert!(error.contains("damaged") && error.contains("import it again"), "{error}");
}
