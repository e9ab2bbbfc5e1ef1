//! Images and generated disks: from a real registry to the bytes that a guest reads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use orlop_kit::{agent, eventually, finished, host, host_job, image, scratch, try_host};
use orlop_oci::kit::{Layer, Packing, TestImage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

/// A place for one test: its cache, its runs, its files.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir_in(scratch()).unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The agent's command line for a shell, with this place's directories.
    fn command(&self, arguments: &str) -> String {
        let directory = self.directory.path().display();
        format!(
            "HOME={directory} ORLOP_IMAGE_DIR={directory}/cache ORLOP_RUN_DIR={directory}/run TMPDIR={} {} {arguments}",
            scratch().display(),
            agent().display()
        )
    }

    async fn run(&self, arguments: &str) -> String {
        host(&self.command(arguments)).await
    }

    /// Its last line, when it fails.
    async fn refused(&self, arguments: &str) -> String {
        let (said, code) = try_host(&self.command(arguments)).await;
        assert_eq!(code, Some(1), "{arguments}: {said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("orlop-agent: "), "{arguments}: {said}");
        last.to_owned()
    }

    /// A small guest with these volumes, each behind a virtio disk, that does `script` and powers off.
    fn manifest(&self, name: &str, script: &str, volumes: &[(&str, &str)], more: &str) -> PathBuf {
        let disks: String =
            volumes.iter().map(|(name, _)| format!("{{name: {name}, disk: {{bus: virtio}}}}, ")).collect();
        let volumes: String =
            volumes.iter().map(|(name, of)| format!("    - {{name: {name}, {of}}}\n")).collect();
        let images = image("");
        let images = images.display();
        let run =
            if script.is_empty() { String::new() } else { format!(" console=ttyS0 orlop.run=\"{script}\"") };
        let text = format!(
            "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata:\n  name: {name}\n  labels: {{tier: \
             gold, app: web}}\nspec:\n  terminationGracePeriodSeconds: 0\n  domain:\n    memory: {{guest: 192Mi}}\n    \
             devices:\n      autoattachPodInterface: false\n      disks: [{disks}]\n    firmware:\n      kernelBoot:\n        \
             kernelArgs: >-\n          quiet{run}\n        container: {{image: {images}, kernelPath: /vmlinux, initrdPath: \
             /initramfs.cpio}}\n  volumes:\n{volumes}{more}"
        );
        self.write(&format!("{name}.yaml"), &text)
    }

    /// What the guest said.
    async fn guest(&self, manifest: &Path) -> String {
        let said = self.run(&format!("run {} </dev/null", manifest.display())).await.replace('\r', "");
        assert!(said.contains("orlop-init: exit 0"), "{said}");
        said
    }
}

/// Debian's registry on a loopback port.
struct Registry {
    process: Child,
    host: String,
}

impl Registry {
    async fn start(place: &Place, more: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let root = place.path("registry");
        let config = place.write(
            "registry.yaml",
            &format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \
                 '127.0.0.1:{port}'}}\n{more}",
                root.display()
            ),
        );
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("docker-registry (Debian package docker-registry)");
        let host = format!("127.0.0.1:{port}");
        eventually("the registry listens", async || tokio::net::TcpStream::connect(&host).await.is_ok())
            .await;
        Self { process, host }
    }

    /// Puts an image there; gives its full name.
    async fn push(&self, place: &Place, image: &TestImage, name: &str, login: &str) -> String {
        let (repository, tag) = name.split_once(':').unwrap();
        let base = format!("http://{}/v2/{repository}", self.host);
        for (sha256, bytes) in image.blobs.iter().filter(|(sha256, _)| **sha256 != image.manifest) {
            let file = place.path("blob");
            fs::write(&file, bytes).unwrap();
            host(&format!(
                "set -e; to=$(curl -sSf {login} -X POST -D - -o /dev/null {base}/blobs/uploads/ | tr -d '\\r' | sed -n \
                 's/^[Ll]ocation: //p'); curl -sSf {login} -X PUT -H 'Content-Type: application/octet-stream' --data-binary @{} \"$to&digest=sha256:{sha256}\"",
                file.display()
            ))
            .await;
        }
        let file = place.path("manifest");
        fs::write(&file, &image.blobs[&image.manifest]).unwrap();
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
        host(&format!(
            "curl -sSf {login} -X PUT -H '{kind}' --data-binary @{} {base}/manifests/{tag}",
            file.display()
        ))
        .await;
        format!("{}/{name}", self.host)
    }
}

/// A container disk with an ext4 file system that holds `hello`, which says `text`.
async fn hello(place: &Place, text: &str) -> TestImage {
    let disk = place.path("hello.raw");
    host(&format!(
        "set -e; tree=$(mktemp -d); printf %s '{text}' >$tree/hello; rm -f {0}; truncate -s 16M {0}; mkfs.ext4 -q -d $tree {0}",
        disk.display()
    ))
    .await;
    TestImage::disk(&fs::read(&disk).unwrap(), Packing::Gzip)
}

#[tokio::test]
async fn a_container_disk_of_a_registry_is_shared_and_each_guest_writes_to_a_copy() {
    let place = Place::new();
    let registry = Registry::start(&place, "").await;
    let name = registry.push(&place, &hello(&place, "from the registry").await, "disks/hello:v1", "").await;
    let imported = place.run(&format!("image import {name}")).await;
    assert!(
        imported.contains("fetching layer 1 of 1") && imported.contains("imported as sha256:"),
        "{imported}"
    );
    let volume = format!("containerDisk: {{image: '{name}'}}");
    let volumes = [("root", volume.as_str())];

    let waits = place.manifest("waits", "", &volumes, "");
    place.run(&format!("run --detach {}", waits.display())).await;
    let list = place.run("image list").await;
    assert!(list.lines().any(|line| line.ends_with(&format!("yes    {name}"))), "{list}");
    let in_use = place.refused(&format!("image rm {name}")).await;
    assert!(in_use.contains("in use by a running VM"), "{in_use}");
    assert!(place.run("image prune --all").await.contains("freed 0 B"));

    // Two guests after each other, beside a third one: each finds what was pushed.
    let script = "mount /dev/vda /mnt && cat /mnt/hello && echo ruined >/mnt/hello && sync && cat /mnt/hello";
    for guest in ["one", "two"] {
        let said = place.guest(&place.manifest(guest, script, &volumes, "")).await;
        assert!(said.contains("from the registry") && said.contains("ruined"), "{said}");
    }
    // The image may be gone from its origin: the cache has it.
    drop(registry);
    let read_only = place.manifest("three", "mount -o ro /dev/vda /mnt && cat /mnt/hello", &volumes, "");
    let text = fs::read_to_string(&read_only)
        .unwrap()
        .replace("disk: {bus: virtio}", "disk: {bus: virtio, readonly: true}");
    fs::write(&read_only, text).unwrap();
    assert!(place.guest(&read_only).await.contains("from the registry"));

    place.run("stop waits --grace-period 0").await;
    assert!(place.run(&format!("image rm {name}")).await.contains("removed sha256:"));
    assert_eq!(fs::read_dir(place.path("cache/files")).unwrap().count(), 0);
    let run = place.refused(&format!("run {}", read_only.display())).await;
    assert!(
        run.contains("spec.volumes[0].containerDisk: image") && run.contains("cannot be reached"),
        "{run}"
    );
}

#[tokio::test]
async fn a_kernel_comes_out_of_an_image_and_a_disk_from_its_path() {
    let place = Place::new();
    let layers = vec![
        Layer::default()
            .file("boot/vmlinux", &fs::read(image("vmlinux")).unwrap())
            .file("boot/initrd", &fs::read(image("initramfs.cpio")).unwrap())
            .bytes(),
        Layer::default().file("disk/a", &[b'a'; 512]).file("disk/b", &[b'b'; 1024]).bytes(),
    ];
    let image = TestImage::new(layers, Packing::Plain);
    image.write_layout(&place.path("layout"), "v1").unwrap();
    let name = format!("oci:{}:v1", place.path("layout").display());
    let volume = format!("containerDisk: {{image: '{name}', path: /disk/b}}");
    let manifest = place.manifest("kernel", "head -c 4 /dev/vda", &[("b", &volume)], "");
    let directory = orlop_kit::image("").display().to_string();
    let text = fs::read_to_string(&manifest)
        .unwrap()
        .replace(&format!("image: {directory}"), &format!("image: '{name}'"))
        .replace("/vmlinux", "/boot/vmlinux")
        .replace("/initramfs.cpio", "boot/initrd");
    fs::write(&manifest, &text).unwrap();
    assert!(place.guest(&manifest).await.contains("bbbb"));
    for (from, to, said) in [
        ("path: /disk/b", "path: /disk/c", "there is no /disk/c in the image"),
        (", path: /disk/b", "", "exactly one file in /disk; this image holds /disk/a, /disk/b"),
        ("/boot/vmlinux", "/boot/none", "kernelPath: image oci:"),
        ("path: /disk/b}", "path: /disk/b, imagePullPolicy: Never}", ""),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(&manifest, text.replace(from, to)).unwrap();
        if said.is_empty() {
            place.guest(&manifest).await;
        } else {
            let refused = place.refused(&format!("run {}", manifest.display())).await;
            assert!(refused.contains(said), "{refused}");
        }
    }
    let packed = [b"\xfd7zXZ\0\0\x04".as_slice(), &[0; 504]].concat();
    TestImage::disk(&packed, Packing::Gzip).write_layout(&place.path("packed"), "v1").unwrap();
    let volume = format!("containerDisk: {{image: 'oci:{}'}}", place.path("packed").display());
    let manifest = place.manifest("packed", "true", &[("a", &volume)], "");
    let refused = place.refused(&format!("run {}", manifest.display())).await;
    assert!(
        refused.contains("spec.volumes[0].containerDisk: ") && refused.contains("xz format"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_container_disk_in_qcow2_is_what_qemu_img_put_into_it() {
    let place = Place::new();
    let (raw, qcow2) = (place.path("raw"), place.path("qcow2"));
    host(&format!(
        "head -c 3M /dev/urandom >{0} && truncate -s 8M {0} && qemu-img convert -c -O qcow2 {0} {1}",
        raw.display(),
        qcow2.display()
    ))
    .await;
    let sum = host(&format!("sha256sum <{} | cut -d' ' -f1", raw.display())).await;
    TestImage::disk(&fs::read(&qcow2).unwrap(), Packing::Gzip)
        .write_layout(&place.path("image"), "v1")
        .unwrap();
    let volume = format!("containerDisk: {{image: 'oci:{}'}}", place.path("image").display());
    let script =
        format!("sha256sum /dev/vda | grep -q {} && echo new | dd of=/dev/vda conv=fsync", sum.trim());
    // Both runs see the disk of the image: what the first one writes is its own.
    for run in ["first", "second"] {
        place.guest(&place.manifest(run, &script, &[("a", &volume)], "")).await;
    }
}

#[tokio::test]
async fn a_registry_that_asks_for_a_login_gets_the_one_of_the_docker_configuration() {
    let place = Place::new();
    // me:secret
    place.write("htpasswd", "me:$2b$05$5IH42T7rKGgg1jkdxGnZKe9jRAIa/SkV1o2bA6GNl0MzDVjTJaE7y\n");
    let htpasswd = place.path("htpasswd");
    let auth = format!("auth: {{htpasswd: {{realm: here, path: {}}}}}\n", htpasswd.display());
    let registry = Registry::start(&place, &auth).await;
    let name = registry.push(&place, &hello(&place, "locked").await, "disks/a:v1", "-u me:secret").await;

    let import = format!("image import {name}");
    let none = place.refused(&import).await;
    assert!(none.contains(&format!(
        "(401), and the docker configuration has none for it: docker login {}",
        registry.host
    )));
    let configuration = async |password: &str| {
        let auth = host(&format!("printf me:{password} | base64")).await;
        format!(r#"{{"auths": {{"{}": {{"auth": "{auth}"}}}}}}"#, registry.host)
    };
    fs::create_dir_all(place.path(".docker")).unwrap();
    place.write(".docker/config.json", &configuration("wrong").await);
    let wrong = place.refused(&import).await;
    assert!(wrong.contains("refuses the login that there is for it (401)"), "{wrong}");
    // A pull secret beats the machine's configuration.
    let volume = format!("containerDisk: {{image: '{name}', imagePullSecret: pull}}");
    let secret = format!(
        "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: pull}}\nstringData:\n  .dockerconfigjson: '{}'\n",
        configuration("secret").await
    );
    let manifest =
        place.manifest("pull", "mount /dev/vda /mnt && cat /mnt/hello", &[("a", &volume)], &secret);
    assert!(place.guest(&manifest).await.contains("locked"));
    place.write(".docker/config.json", &configuration("secret").await);
    assert!(place.run(&import).await.contains("is in the cache"));
    let absent = place.refused(&format!("image import {}/disks/none:v1", registry.host)).await;
    assert!(absent.contains("has no image disks/none:v1 (404)"), "{absent}");
    let Registry { mut process, .. } = registry;
    process.kill().await.unwrap();
    let gone = place.refused(&import).await;
    assert!(gone.contains("cannot be reached") && gone.contains("refused"), "{gone}");
}

#[tokio::test]
async fn imports_at_once_unpack_once_and_a_killed_one_leaves_nothing_half() {
    let place = Place::new();
    let registry = Registry::start(&place, "").await;
    let image = hello(&place, "many").await;
    let name = registry.push(&place, &image, "disks/many:v1", "").await;
    let import = place.command(&format!("image import {name}"));
    let jobs: Vec<_> = (0..4).map(|_| host_job(&import)).collect();
    let mut unpacked = 0;
    for job in jobs {
        unpacked += finished(job).await.matches("unpacking layer").count();
    }
    assert_eq!(unpacked, 1);
    place.run(&format!("image rm {name}")).await;

    // One that sends half of the layer and then nothing more: the import hangs in the middle.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let half = format!("{}/disks/many:v1", listener.local_addr().unwrap());
    let blobs = image.blobs.clone();
    let manifest = image.manifest.clone();
    let largest = image.blobs.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap().0.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let len = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..len]).into_owned();
            let asked = request.split_whitespace().nth(1).unwrap_or_default();
            let sha256 = asked.rsplit("sha256:").next().filter(|sha256| blobs.contains_key(*sha256));
            let bytes = &blobs[sha256.unwrap_or(&manifest)];
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", bytes.len());
            stream.write_all(head.as_bytes()).await.unwrap();
            if sha256 == Some(largest.as_str()) {
                stream.write_all(&bytes[..bytes.len() / 2]).await.unwrap();
                tokio::spawn(
                    async move { while stream.read(&mut [0; 64]).await.is_ok_and(|len| len > 0) {} },
                );
            } else {
                stream.write_all(bytes).await.unwrap();
            }
        }
    });
    let mut killed = host_job(&format!("exec env {}", place.command(&format!("image import {half}"))));
    let staging = place.path("cache/staging").join(&image.manifest);
    let mut said = killed.stdout.take().unwrap();
    let mut text = String::new();
    while !text.contains("fetching layer") {
        let mut piece = [0; 256];
        let len = said.read(&mut piece).await.unwrap();
        assert!(len > 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&piece[..len]));
    }
    assert!(staging.exists());
    killed.kill().await.unwrap();
    assert_eq!(place.run("image list").await.lines().count(), 1, "only the heading");
    assert_eq!(fs::read_dir(place.path("cache/files")).unwrap().count(), 0);
    assert!(place.run(&format!("image import {name}")).await.contains("imported as"));
    assert_eq!(fs::read_dir(place.path("cache/staging")).unwrap().count(), 0);
    assert!(place.run("image list").await.contains(&name));
}

#[tokio::test]
async fn every_generated_disk_holds_what_the_manifest_says() {
    let place = Place::new();
    let long = "k".repeat(200);
    let block = "b".repeat(2048);
    let data = format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map}}\ndata:\n  UPPER.Case_and-more: 'one'\n  {long}: \
         'two'\n  block: '{block}'\n  empty: ''\nbinaryData: {{bytes: AAECAw==}}\n---\napiVersion: v1\nkind: \
         Secret\nmetadata: {{name: hidden}}\nstringData: {{password: 's3cret', userdata: '#cloud-config', networkdata: \
         'version: 2'}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: answers}}\ndata: {{Autounattend.xml: \
         '<unattend/>'}}\n"
    );
    let volumes = [
        ("map", "configMap: {name: map, volumeLabel: my-map}"),
        ("hidden", "secret: {secretName: hidden}"),
        ("none", "configMap: {name: none, optional: true}"),
        (
            "about",
            "downwardAPI: {fields: [{path: me/name, fieldRef: {fieldPath: metadata.name}}, {path: labels, fieldRef: {fieldPath: metadata.labels}}]}",
        ),
        ("answers", "sysprep: {configMap: {name: answers}}"),
        ("cloud", "cloudInitNoCloud: {secretRef: {name: hidden}, networkDataSecretRef: {name: hidden}}"),
        ("drive", "cloudInitConfigDrive: {userDataBase64: I2Nsb3VkLWNvbmZpZw==, networkData: '{}'}"),
        ("empty", "emptyDisk: {capacity: 1000001}"),
    ];
    let script = "for disk in vda vdb vdc vdd vde vdf vdg; do mount -t iso9660 -o ro /dev/$disk /mnt && echo label=$(dd if=/dev/$disk bs=1 skip=32808 count=32 2>/dev/null) && echo disk $disk && \
                  (cd /mnt && find . -type f -exec sha256sum {} +) && umount /mnt; done; cat /sys/block/vdh/size";
    let manifest = place.manifest("disks", script, &volumes, &data);
    let said = place.guest(&manifest).await;
    let sum = |text: &str| {
        let text = text.to_owned();
        async move { host(&format!("printf %s '{text}' | sha256sum")).await.split(' ').next().unwrap().to_owned() }
    };
    let of = |disk: &str| -> Vec<String> {
        let rest =
            said.split(&format!("disk {disk}\n")).nth(1).unwrap_or_else(|| panic!("no {disk} in {said}"));
        let lines = rest.lines().take_while(|line| line.contains("  ./"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort_by(|a, b| a[64..].cmp(&b[64..]));
        lines
    };
    let bytes = host("printf '\\000\\001\\002\\003' | sha256sum").await[..64].to_owned();
    let uuid_free =
        |lines: Vec<String>| lines.into_iter().filter(|line| !line.contains("meta")).collect::<Vec<_>>();
    for (disk, files) in [
        (
            "vda",
            vec![
                ("UPPER.Case_and-more", "one"),
                ("block", block.as_str()),
                ("empty", ""),
                (long.as_str(), "two"),
            ],
        ),
        ("vdb", vec![("networkdata", "version: 2"), ("password", "s3cret"), ("userdata", "#cloud-config")]),
        ("vdc", vec![]),
        ("vdd", vec![("labels", "app=\"web\"\ntier=\"gold\""), ("me/name", "disks")]),
        ("vde", vec![("Autounattend.xml", "<unattend/>")]),
        ("vdf", vec![("network-config", "version: 2"), ("user-data", "#cloud-config")]),
        (
            "vdg",
            vec![
                ("openstack/latest/network_data.json", "{}"),
                ("openstack/latest/user_data", "#cloud-config"),
            ],
        ),
    ] {
        let mut expected = Vec::new();
        for (name, text) in files {
            expected.push(format!("{}  ./{name}", sum(text).await));
        }
        if disk == "vda" {
            expected.push(format!("{bytes}  ./bytes"));
        }
        expected.sort_by(|a, b| a[64..].cmp(&b[64..]));
        assert_eq!(uuid_free(of(disk)), expected, "{disk} in {said}");
    }
    for label in ["my-map", "cfgdata", "unattendCD", "cidata", "config-2"] {
        assert!(said.contains(&format!("label={label}\n")), "{label} in {said}");
    }
    assert!(said.contains("\n1954\n"), "the empty disk in whole sectors: {said}");
}

#[tokio::test]
async fn a_debian_guest_is_set_up_by_a_config_drive() {
    let place = Place::new();
    orlop_kit::copy_of("debian.raw", &place.path("debian.raw"));
    let key = place.path("key");
    host(&format!("ssh-keygen -q -t ed25519 -N '' -f {}", key.display())).await;
    let images = image("");
    let text = DEBIAN
        .replace("@IMAGES@", &images.display().to_string())
        .replace("@DISK@", &place.path("debian.raw").display().to_string())
        .replace("@KEY@", fs::read_to_string(key.with_extension("pub")).unwrap().trim());
    let manifest = place.write("debian.yaml", &text);
    place.run(&format!("run --detach {} --publish 2230:22", manifest.display())).await;
    let ssh = |command: &str| {
        format!(
            "ssh -p 2230 -o BatchMode=yes -o ConnectTimeout=20 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o \
             LogLevel=ERROR -i {} debian@127.0.0.1 '{command}'",
            key.display()
        )
    };
    eventually("sshd takes the key", async || try_host(&ssh("echo in")).await == ("in".to_owned(), Some(0)))
        .await;
    let facts =
        host(&ssh("cloud-init status --wait; hostname; cat /etc/from-drive; cloud-init query subplatform"))
            .await;
    for fact in ["status: done", "\nheron", "written from a config drive", "config-disk (/dev/vdb)"] {
        assert!(facts.contains(fact), "{fact:?} in:\n{facts}");
    }
    place.run("stop drive --grace-period 0").await;
}

const DEBIAN: &str = r##"
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {key: "@KEY@"}
---
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: drive}
spec:
  hostname: heron
  accessCredentials:
    - sshPublicKey:
        source: {secret: {secretName: keys}}
        propagationMethod: {configDrive: {}}
  domain:
    memory: {guest: 512Mi}
    firmware:
      kernelBoot:
        kernelArgs: root=/dev/vda rw quiet
        container: {image: "@IMAGES@", kernelPath: /debian.vmlinuz, initrdPath: /debian.initrd}
    devices:
      rng: {}
      disks:
        - {name: root, disk: {bus: virtio}}
        - {name: drive, disk: {bus: virtio}}
      interfaces: [{name: default, masquerade: {}, macAddress: "02:00:00:12:34:56"}]
  networks: [{name: default, pod: {}}]
  volumes:
    - {name: root, hostDisk: {path: "@DISK@", type: Disk}}
    - name: drive
      cloudInitConfigDrive:
        userData: |
          #cloud-config
          write_files:
            - {path: /etc/from-drive, content: "written from a config drive\n"}
        networkData: |
          {"links": [{"id": "card", "type": "phy", "ethernet_mac_address": "02:00:00:12:34:56"}],
           "networks": [{"id": "net", "type": "ipv4_dhcp", "link": "card"}], "services": []}
"##;
