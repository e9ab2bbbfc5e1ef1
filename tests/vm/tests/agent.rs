//! `orlop-agent`: a manifest in, a machine out, and nothing left behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use orlop_kit::{PATIENCE, agent, copy_of, image, scratch};

/// A place for one test: manifests, disks and the agent's run directory.
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

    fn agent(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(agent());
        command.args(arguments).env("ORLOP_RUN_DIR", self.path("run")).env("TMPDIR", scratch());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.agent(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// The small Linux guest, without a network.
    fn small(&self, name: &str) -> PathBuf {
        self.write(
            "small.yaml",
            &format!(
                "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {{name: {name}}}\nspec:\n  \
                 terminationGracePeriodSeconds: 5\n  domain:\n    memory: {{guest: 128Mi}}\n    devices: \
                 {{autoattachPodInterface: false}}\n    firmware: {{kernelBoot: {{kernelArgs: quiet, container: {{image: \
                 {images}, kernelPath: /vmlinux, initrdPath: /initramfs.cpio}}}}}}\n",
                images = image("").display(),
            ),
        )
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A run in the foreground, its console on pipes.
struct Foreground {
    process: Child,
    stdin: Option<ChildStdin>,
    pieces: mpsc::Receiver<String>,
    text: String,
    seen: usize,
}

impl Foreground {
    fn start(command: &mut Command) -> Self {
        let mut process =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (send, pieces) = mpsc::channel();
        for mut stream in [
            Box::new(process.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>,
            Box::new(process.stderr.take().unwrap()),
        ] {
            let send = send.clone();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(len) = stream.read(&mut buffer) {
                    if len == 0 || send.send(String::from_utf8_lossy(&buffer[..len]).into_owned()).is_err() {
                        return;
                    }
                }
            });
        }
        let stdin = process.stdin.take();
        Self { process, stdin, pieces, text: String::new(), seen: 0 }
    }

    fn expect(&mut self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.text[self.seen..].find(what) {
                self.seen += at + what.len();
                return;
            }
            match self.pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(piece) => self.text.push_str(&piece),
                Err(error) => panic!("no '{what}' ({error}):\n{}", self.text),
            }
        }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Its exit code.
    fn wait(mut self) -> Option<i32> {
        wait_until("the run ends", || {
            self.text.extend(self.pieces.try_iter());
            self.process.try_wait().unwrap().ok_or_else(|| self.text.clone())
        })
        .code()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // A test that failed leaves no machine to the next one.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until `done` is, and panics with its last words about what is missing.
fn wait_until<T>(what: &str, mut done: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match done() {
            Ok(value) => return value,
            Err(missing) => assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}: {missing}"),
        }
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// Waits until nothing is there that was not there `before`. What an earlier test left may go meanwhile: the kernel
/// takes a network namespace and its links down some time after their last user.
fn wait_for_nothing_left(before: &BTreeSet<String>) {
    wait_until("nothing is left behind", || {
        let now = surroundings();
        let left: Vec<_> = now.difference(before).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

/// What a run could leave behind: links, tables, processes.
fn surroundings() -> BTreeSet<String> {
    let lines = |program: &str, arguments: &[&str]| -> Vec<String> {
        let output = Command::new(program).args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    };
    let mut all: BTreeSet<String> = fs::read_dir("/sys/class/net")
        .unwrap()
        .map(|link| format!("link {}", link.unwrap().file_name().display()))
        .collect();
    all.extend(lines("nft", &["list", "tables"]));
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if command.contains("orlop-vmm\0serve")
            || command.contains("orlop-agent\0")
            || command.starts_with("nft\0")
        {
            all.insert(format!("process {} {command:?}", entry.file_name().display()));
        }
    }
    all
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

#[test]
fn a_debian_guest_gets_its_name_key_address_and_data_and_powers_off() {
    let place = Place::new();
    let before = surroundings();
    copy_of("debian.raw", &place.path("debian.raw"));
    let key = place.path("key");
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    let manifest = place.write(
        "debian.yaml",
        &DEBIAN
            .replace("@IMAGES@", &image("").display().to_string())
            .replace("@DISK@", &place.path("debian.raw").display().to_string())
            .replace("@KEY@", fs::read_to_string(key.with_extension("pub")).unwrap().trim()),
    );
    let mut run =
        Foreground::start(&mut place.agent(&["run", manifest.to_str().unwrap(), "--publish", "2222:22"]));
    run.expect("its address is 10.0.2.2 and fd10:0:2::2");
    run.expect("falcon login: ");

    let list = String::from_utf8(place.output(&["list"]).stdout).unwrap();
    assert!(
        list.contains("running") && list.contains("10.0.2.2") && list.contains("127.0.0.1:2222:22"),
        "{list}"
    );

    let ssh = |command: &str| {
        let output = Command::new("ssh")
            .args([
                "-p",
                "2222",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-i",
            ])
            .args([key.to_str().unwrap(), "debian@127.0.0.1", command])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), stderr(&output))
    };
    wait_until("sshd takes the key", || match ssh("echo in") {
        (said, _) if said == "in\n" => Ok(()),
        (_, why) => Err(why),
    });
    let (facts, said) = ssh(
        "hostname; cat /etc/from-manifest; ip -o addr show scope global; ip route; ip -6 route; lsblk -dno SERIAL; \
         cloud-init status --wait",
    );
    for fact in [
        "falcon\n",
        "written by cloud-init\n",
        "10.0.2.2/24",
        "default via 10.0.2.1",
        "fd10:0:2::2/128",
        "via fe80::ff:fe00:0",
        "EMPTY01",
        "status: done",
    ] {
        assert!(facts.contains(fact), "{fact:?} in:\n{facts}\n{said}");
    }
    let (ping, said) = ssh("ping -c 2 -W 10 10.0.2.1 >/dev/null && echo reached");
    assert_eq!(ping, "reached\n", "{said}");

    drop(ssh("sudo systemctl poweroff"));
    assert_eq!(run.wait(), Some(0));
    assert!(is_empty(&place.path("run")), "its directory is gone");
    wait_for_nothing_left(&before);
    let check = Command::new("e2fsck").arg("-fn").arg(place.path("debian.raw")).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
}

#[test]
fn a_run_in_the_background_is_listed_reached_and_stopped() {
    let place = Place::new();
    let before = surroundings();
    let manifest = place.small("quiet");
    let manifest = manifest.to_str().unwrap();
    let up = place.output(&["run", "--detach", manifest]);
    assert!(up.status.success(), "{}", stderr(&up));

    let second = place.output(&["run", manifest]);
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("VM quiet is running here already"), "{}", stderr(&second));

    let mut console = Foreground::start(&mut place.agent(&["console", "quiet"]));
    console.expect("orlop-init: commands");
    console.type_line("echo $((6 * 7))");
    console.expect("\n42\r\n");

    let stop = place.output(&["stop", "quiet", "--grace-period", "0"]);
    assert!(stop.status.success(), "{}", stderr(&stop));
    assert_eq!(console.wait(), Some(0), "the console ends with the machine");
    assert!(stderr(&place.output(&["stop", "quiet"])).contains("no VM quiet is running here"));
    assert!(is_empty(&place.path("run")));
    wait_for_nothing_left(&before);
}

#[test]
fn a_machine_whose_vmm_hangs_is_killed() {
    let place = Place::new();
    let before = surroundings();
    let manifest = place.small("hung");
    assert!(place.output(&["run", "--detach", manifest.to_str().unwrap()]).status.success());
    let list = String::from_utf8(place.output(&["list"]).stdout).unwrap();
    let row: Vec<&str> = list.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(row[..2], ["hung", "running"], "{list}");
    assert!(Command::new("kill").args(["-STOP", row[2]]).status().unwrap().success());
    let list = String::from_utf8(place.output(&["list"]).stdout).unwrap();
    assert!(list.contains("unreachable"), "{list}");
    let stop = place.output(&["stop", "hung"]);
    assert!(stop.status.success() && stderr(&stop).contains("killed it"), "{}", stderr(&stop));
    wait_for_nothing_left(&before);
    wait_until("its directory is gone", || {
        if is_empty(&place.path("run")) { Ok(()) } else { Err(format!("{}", place.path("run").display())) }
    });
}

#[test]
fn a_killed_run_leaves_nothing_behind() {
    let place = Place::new();
    let before = surroundings();
    let manifest = place.small("victim");
    let text = fs::read_to_string(&manifest).unwrap().replace("{autoattachPodInterface: false}", "{}");
    let manifest = place.write("networked.yaml", &text);
    let mut run =
        Foreground::start(&mut place.agent(&["run", manifest.to_str().unwrap(), "--publish", "2223:22"]));
    run.expect("orlop-init: commands");
    assert!(surroundings().difference(&before).count() >= 3, "a run has a link, a table and processes");
    run.process.kill().unwrap();
    run.process.wait().unwrap();
    wait_for_nothing_left(&before);
    wait_until("its directory is gone", || {
        if is_empty(&place.path("run")) { Ok(()) } else { Err(format!("{}", place.path("run").display())) }
    });
    let again = place.output(&["run", "--detach", manifest.to_str().unwrap(), "--publish", "2223:22"]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert!(place.output(&["stop", "victim", "--grace-period", "0"]).status.success());
    wait_for_nothing_left(&before);
}

#[test]
fn a_signal_presses_the_power_button() {
    let place = Place::new();
    let manifest = place.small("polite");
    let mut run = Foreground::start(&mut place.agent(&["run", manifest.to_str().unwrap()]));
    run.expect("orlop-init: commands");
    let pid = run.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    run.expect("asked to power off, at most 5 s");
    // This guest does not listen to its button: the machine is ended after the grace period.
    assert_eq!(run.wait(), Some(20));
    assert!(is_empty(&place.path("run")));
}

#[test]
fn mistakes_are_said_in_one_sentence_each() {
    let place = Place::new();
    let good = fs::read_to_string(place.small("a")).unwrap();
    let try_run = |text: &str| {
        let manifest = place.write("bad.yaml", text);
        let output = place.output(&["run", manifest.to_str().unwrap()]);
        (output.status.code(), stderr(&output))
    };
    for (from, to, code, said) in [
        ("memory:", "memroy:", 2, "spec.domain.memroy: unknown field"),
        ("128Mi", "much", 2, "spec.domain.memory.guest"),
        ("kind: VirtualMachineInstance", "kind: VirtualMachineInstanse", 2, "VirtualMachineInstance"),
        ("kernelPath: /vmlinux", "kernelPath: /absent", 1, "kernelPath: "),
        ("kernelPath: /vmlinux", "kernelPath: /../../etc/shadow", 2, "not a path inside the image"),
        ("kernelPath: /vmlinux", "kernelPath: /initramfs.cpio", 1, "initramfs.cpio: kernel is neither"),
        ("guest: 128Mi", "guest: 900Ti", 2, "spec.domain.memory.guest"),
        ("    devices:", "    cpu: {cores: 1000}\n    devices:", 2, "spec.domain.cpu"),
        (
            "{autoattachPodInterface: false}",
            "{autoattachPodInterface: false, tpm: {}}",
            2,
            "spec.domain.devices.tpm",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let (status, message) = try_run(&good.replacen(from, to, 1));
        assert!(message.contains(said) && !message.contains("panicked"), "{to}: {message}");
        assert_eq!(status, Some(code), "{to}: {message}");
    }
    let missing = place.output(&["run", "/absent.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("/absent.yaml: No such file"), "{}", stderr(&missing));
    assert!(is_empty(&place.path("run")), "what never ran left nothing");
}

/// Samples whose machines start by firmware, and what their guests then say of it.
const BY_FIRMWARE: [(&str, &str, &str); 6] = [
    ("bios", "test ! -d /sys/firmware/efi && cat /sys/class/dmi/id/product_serial", "SN-0001"),
    ("uefi", "test -d /sys/firmware/efi && cat /sys/class/dmi/id/product_serial", "SN-0001"),
    ("secure-boot", "dmesg | grep -i 'secure boot'", "Secure boot enabled"),
    ("scsi", "test ! -d /sys/firmware/efi && ls -l /sys/block/sda", "/virtio"),
    ("sata", "test -d /sys/firmware/efi && ls -l /sys/block/sda", "/ata1/"),
    ("cdrom", "mount -r -t iso9660 /dev/sr0 /mnt && test -e /sys/block/vda && ls /mnt", "initramfs.cpio"),
];

#[test]
fn samples_boot_by_their_firmware_from_their_bus() {
    for (name, question, answer) in BY_FIRMWARE {
        let place = Place::new();
        let sample = format!("{}/../../deploy/samples/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let text = fs::read_to_string(sample).unwrap();
        if text.contains("/var/lib/orlop/disks/") {
            let disk = if name == "secure-boot" { "secure.raw" } else { "hybrid.raw" };
            copy_of(disk, &place.path(&format!("{name}.raw")));
        }
        let text = text
            .replace("/var/lib/orlop/images", image("").to_str().unwrap().trim_end_matches('/'))
            .replace("/var/lib/orlop/disks", place.directory.path().to_str().unwrap());
        let manifest = place.write("sample.yaml", &text);
        let mut run = Foreground::start(&mut place.agent(&["run", manifest.to_str().unwrap()]));
        run.expect("orlop-init: commands");
        run.type_line(question);
        run.expect(answer);
        run.expect("orlop-init: exit 0");
        run.type_line("poweroff -f");
        assert_eq!(run.wait(), Some(0), "{name}");
    }
}

const DEBIAN: &str = r##"
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData: {key: "@KEY@"}
---
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata: {name: debian}
spec:
  hostname: falcon
  accessCredentials:
    - sshPublicKey:
        source: {secret: {secretName: keys}}
        propagationMethod: {noCloud: {}}
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
        - {name: seed, disk: {bus: virtio}}
        - {name: empty, serial: EMPTY01, disk: {bus: virtio}}
      interfaces: [{name: default, macAddress: "02:6f:72:6c:6f:70", masquerade: {}}]
  networks: [{name: default, pod: {}}]
  volumes:
    - {name: root, hostDisk: {path: "@DISK@", type: Disk}}
    - name: empty
      emptyDisk: {capacity: 64Mi}
    - name: seed
      cloudInitNoCloud:
        userData: |
          #cloud-config
          write_files:
            - {path: /etc/from-manifest, content: "written by cloud-init\n"}
        networkData: |
          version: 2
          ethernets: {card: {match: {macaddress: "02:6f:72:6c:6f:70"}, dhcp4: true, dhcp6: true}}
"##;
