//! `orlop-agent run` and its networks: addresses by DHCP and router advertisement, ports, several cards, a bridge of the
//! machine, hostile packets, and nothing left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use orlop_client::Client;
use orlop_kit::{
    PATIENCE, Transcript, agent, eventually, finished, host, host_job, image, scratch, try_host,
};
use tempfile::TempDir;
use tokio::process::Command;

/// What udhcpc calls: it keeps what it was told, and gives the card its address.
const SCRIPT: &str = r#"printf '#!/bin/sh\n[ "$1" = bound ] || exit 0\nenv >/run/told\n[ -z "$ip" ] || ip addr replace $ip/$mask dev $interface\n[ -z "$router" ] || ip route replace default via $router\n[ -z "$ipv6" ] || ip -6 addr replace $ipv6/128 dev $interface\n' >/run/script; chmod +x /run/script; "#;

/// The card is up, and its own addresses count at once.
const UP: &str = "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up; n=0; \
                  until ip -6 addr show dev eth0 | grep 'scope link' | grep -qv tentative || [ $n = 500 ]; \
                  do usleep 20000; n=$((n+1)); done";

/// Asks for an address, and fails where none is given.
const DHCP4: &str = "(udhcpc -i eth0 -f -q -n -t 30 -s /run/script && cat /run/told) 2>&1";
const DHCP6: &str = "(udhcpc6 -i eth0 -f -q -n -t 30 -s /run/script && cat /run/told) 2>&1";

/// A run in the background, with its guest's console.
struct Run {
    directory: TempDir,
    name: &'static str,
    console: Transcript,
}

impl Run {
    /// Runs a small guest called `name` with the given interfaces and networks.
    async fn start(name: &'static str, interfaces: &str, networks: &str) -> Self {
        let directory = tempfile::tempdir_in(scratch()).expect("a directory");
        let manifest = manifest(&directory, name, interfaces, networks);
        let (said, code) = output(&directory, &["run", "--detach", &manifest]).await;
        assert_eq!(code, Some(0), "{said}");
        let socket = directory.path().join(format!("run/default_{name}/api.sock"));
        let console = Transcript::new(Client::new(socket).console().await.expect("a console"));
        let mut run = Self { directory, name, console };
        run.console.expect("orlop-init: commands", PATIENCE).await;
        run
    }

    /// Lets the guest run `command`: its output; panics when it fails.
    async fn run(&mut self, command: &str) -> String {
        let (output, code) = self.try_run(command).await;
        assert_eq!(code, "0", "'{command}' failed in the guest:\n{output}");
        output
    }

    async fn try_run(&mut self, command: &str) -> (String, String) {
        self.console.send(&format!("{command}\n")).await;
        let output = self.console.expect("orlop-init: exit ", PATIENCE).await.replace('\r', "");
        let code = self.console.expect("\n", PATIENCE).await;
        let output = output.split_once(command).map_or(output.as_str(), |(_, after)| after).trim();
        (output.to_owned(), code.trim().to_owned())
    }

    /// The guest has its addresses, both by their protocols.
    async fn with_addresses(&mut self) {
        self.run(&format!("{SCRIPT} {UP}; {DHCP4} && {DHCP6}")).await;
    }

    /// The machine's and the namespace's address of the way to the guest, of IPv4 and of IPv6.
    async fn way(&self) -> [(String, String); 2] {
        let all = host("ip -o addr show scope global | grep ' ov-'").await;
        let address = |family: &str| {
            let mut words = all.split_whitespace().skip_while(|word| *word != family);
            words.nth(1).and_then(|word| word.split('/').next()).expect("an address").to_owned()
        };
        let (v4, v6) = (address("inet"), address("inet6"));
        let other4 = u32::from(v4.parse::<std::net::Ipv4Addr>().expect("IPv4")) | 1;
        let other6 = u128::from(v6.parse::<std::net::Ipv6Addr>().expect("IPv6")) | 1;
        [
            (v4, std::net::Ipv4Addr::from(other4).to_string()),
            (v6, std::net::Ipv6Addr::from(other6).to_string()),
        ]
    }

    async fn stop(self) {
        let (said, code) = output(&self.directory, &["stop", self.name, "--grace-period", "0"]).await;
        assert_eq!(code, Some(0), "{said}");
    }
}

fn manifest(directory: &TempDir, name: &str, interfaces: &str, networks: &str) -> String {
    let path: PathBuf = directory.path().join("vm.yaml");
    let text = format!(
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {{name: {name}}}\nspec:\n  \
         domain:\n    memory: {{guest: 128Mi}}\n    devices: {{interfaces: [{interfaces}]}}\n    \
         firmware: {{kernelBoot: {{kernelArgs: quiet, container: {{image: {images}, kernelPath: /vmlinux, initrdPath: \
         /initramfs.cpio}}}}}}\n  networks: [{networks}]\n",
        images = image("").display(),
    );
    fs::write(&path, text).expect("a manifest");
    path.display().to_string()
}

/// What the agent says, and its exit code.
async fn output(directory: &TempDir, arguments: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new(agent());
    command.args(arguments).env("ORLOP_RUN_DIR", directory.path().join("run")).env("TMPDIR", scratch());
    let output = command.stdin(Stdio::null()).output().await.expect("the agent");
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

/// Links, tables and processes that a run could leave behind.
async fn surroundings() -> BTreeSet<String> {
    let all = "ls /sys/class/net; nft list tables; pgrep -af 'orlop-vmm serve|orlop-agent|nft -i' | grep -v pgrep; true";
    host(all).await.lines().map(str::to_owned).collect()
}

/// Waits until nothing is there that was not there `before`; what an earlier test left may go meanwhile.
async fn wait_for_nothing_left(before: &BTreeSet<String>) {
    eventually("nothing is left behind", async || surroundings().await.is_subset(before)).await;
}

/// The host sends a line to `address` and hears it back from the guest's echo at that port.
async fn is_answered(address: &str) -> bool {
    try_host(&format!("echo hello | timeout 20 socat -t 10 - {address}")).await.0 == "hello"
}

#[tokio::test]
async fn a_guest_gets_addresses_and_options_and_is_reached_both_ways_in_both_families() {
    let before = surroundings().await;
    let mut run = Run::start(
        "both",
        "{name: net, masquerade: {}, macAddress: '02:00:00:0a:0b:0c', dhcpOptions: {bootFileName: boot.efi, \
         tftpServerName: 192.0.2.7, ntpServers: [192.0.2.123], privateOptions: [{option: 240, value: private}]}}",
        "{name: net, pod: {}}",
    )
    .await;
    run.run(&format!("{SCRIPT} {UP}")).await;
    assert_eq!(run.run("cat /sys/class/net/eth0/address").await, "02:00:00:0a:0b:0c");
    let told = run.run(DHCP4).await;
    for line in [
        "ip=10.0.2.2",
        "subnet=255.255.255.0",
        "router=10.0.2.1",
        "serverid=10.0.2.1",
        "mtu=1500",
        "hostname=both",
        "ntpsrv=192.0.2.123",
        "tftp=192.0.2.7",
        "bootfile=boot.efi",
        "opt240=70726976617465",
    ] {
        assert!(told.lines().any(|found| found == line), "{line} in\n{told}");
    }
    let told = run.run(DHCP6).await;
    assert!(told.contains("ipv6=fd10:0000:0002:0000:0000:0000:0000:0002"), "{told}");
    // The kernel's own: a router, and the network on its link.
    let routes = run.run("n=0; until ip -6 route | grep -q ^default || [ $n = 300 ]; do usleep 100000; n=$((n+1)); done; ip -6 route").await;
    assert!(routes.contains("default via fe80::ff:fe00:0"), "{routes}");
    assert!(routes.contains("fd10:0:2::/120 dev eth0"), "{routes}");

    let [(host4, inside4), (host6, inside6)] = run.way().await;
    for (ping, address) in
        [("ping", "10.0.2.1"), ("ping", &host4), ("ping6", "fd10:0:2::1"), ("ping6", &host6)]
    {
        run.run(&format!("{ping} -c 2 -W 20 {address}")).await;
    }
    // From the guest to the machine, under the namespace's address.
    for (listen, connect, inside) in
        [("TCP4-LISTEN:5941", &host4, &inside4), ("TCP6-LISTEN:5942", &host6, &inside6)]
    {
        let port = &listen[listen.len() - 4..];
        let peer = host_job(&format!(
            "timeout 100 socat {listen},reuseaddr SYSTEM:'cat >/dev/null; echo $SOCAT_PEERADDR >{}/peer'",
            run.directory.path().display()
        ));
        eventually("the host listens", async || !host(&format!("ss -Hltn sport = :{port}")).await.is_empty())
            .await;
        run.run(&format!("echo hello | nc {connect} {port}")).await;
        finished(peer).await;
        let seen = fs::read_to_string(run.directory.path().join("peer")).expect("the peer's address");
        let seen: std::net::IpAddr = seen.trim().trim_matches(['[', ']']).parse().expect("an address");
        assert_eq!(seen, inside.parse::<std::net::IpAddr>().unwrap());
    }
    // And from the machine to the guest, at the namespace's address.
    run.run("(while true; do nc -l -p 5943 -e cat; done) </dev/null >/dev/null 2>&1 &").await;
    for address in [format!("TCP4:{inside4}:5943"), format!("TCP6:[{inside6}]:5943")] {
        eventually("the guest answers", async || is_answered(&address).await).await;
    }
    host(&format!("ping -c 2 -W 20 {inside4} && ping -6 -c 2 -W 20 {inside6}")).await;
    run.stop().await;
    wait_for_nothing_left(&before).await;
}

#[tokio::test]
async fn only_the_ports_that_are_named_lead_to_the_guest() {
    let interface = "{name: net, masquerade: {}, ports: [{port: 5951}], portRanges: [{start: 5953, end: 5954, protocol: TCP}]}";
    let mut run = Run::start("ports", interface, "{name: net, pod: {}}").await;
    run.with_addresses().await;
    for port in [5951, 5952, 5953] {
        run.run(&format!("(while true; do nc -l -p {port} -e cat; done) </dev/null >/dev/null 2>&1 &")).await;
    }
    let [(_, inside4), (_, inside6)] = run.way().await;
    for port in [5951, 5953] {
        for address in [format!("TCP4:{inside4}:{port}"), format!("TCP6:[{inside6}]:{port}")] {
            eventually("the guest answers", async || is_answered(&address).await).await;
        }
    }
    for address in [format!("TCP4:{inside4}:5952"), format!("TCP6:[{inside6}]:5952")] {
        let (said, code) = try_host(&format!("echo hello | socat - {address}")).await;
        assert!(code != Some(0) && said.contains("refused"), "{said}");
    }
    // The way out is open all the same.
    run.run("ping -c 1 -W 20 10.0.2.1").await;
    let path = run.directory.path().join("vm.yaml").display().to_string();
    let (said, code) = output(&run.directory, &["run", &path, "--publish", "2295:5952"]).await;
    assert_eq!(code, Some(2));
    assert!(
        said.contains("--publish 127.0.0.1:2295:5952: the interface's ports do not name TCP port 5952"),
        "{said}"
    );
    run.stop().await;
}

/// A bridge of the machine, gone when dropped.
struct Bridge(&'static str);

impl Bridge {
    async fn new(name: &'static str) -> Self {
        host(&format!(
            "ip link del {name} 2>/dev/null; ip link add {name} mtu 1400 type bridge && ip addr add 10.217.30.1/24 dev {name} \
             && ip addr add fd77::1/64 dev {name} nodad && ip link set {name} up"
        ))
        .await;
        Self(name)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        drop(std::process::Command::new("ip").args(["link", "del", self.0]).output());
    }
}

#[tokio::test]
async fn a_second_card_is_on_a_bridge_of_the_machine_and_a_killed_run_leaves_nothing() {
    let bridge = Bridge::new("orlopbr0").await;
    let before = surroundings().await;
    let mut run = Run::start(
        "two",
        "{name: lan, bridge: {}, macAddress: '02:00:00:00:30:02'}, {name: net, masquerade: {}}",
        "{name: net, pod: {}}, {name: lan, multus: {networkName: orlopbr0}}",
    )
    .await;
    let seen =
        run.run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu /sys/class/net/eth1/mtu").await;
    assert_eq!(
        seen, "02:00:00:00:30:02\n1400\n1500",
        "the cards have the manifest's order and their networks' MTU"
    );
    run.run(
        "ip addr add 10.217.30.2/24 dev eth0; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip link set eth0 up; ip -6 addr add fd77::2/64 dev eth0; \
         ip link set eth1 up; ip addr add 10.0.2.2/24 dev eth1",
    )
    .await;
    for ping in ["ping -c 2 -W 20 10.217.30.1", "ping6 -c 2 -W 20 fd77::1", "ping -c 2 -W 20 10.0.2.1"] {
        run.run(ping).await;
    }
    host("ping -c 2 -W 20 10.217.30.2 && ping -6 -c 2 -W 20 fd77::2").await;
    run.run("(while true; do nc -l -p 5961 -e cat; done) </dev/null >/dev/null 2>&1 &").await;
    for address in ["TCP4:10.217.30.2:5961", "TCP6:[fd77::2]:5961"] {
        eventually("the guest answers", async || is_answered(address).await).await;
    }
    let record =
        fs::read_to_string(run.directory.path().join("run/default_two/instance.json")).expect("a record");
    let record: serde_json::Value = serde_json::from_str(&record).expect("a record");
    host(&format!("kill -9 {}", record["pid"])).await;
    wait_for_nothing_left(&before).await;
    assert_eq!(host("ls /sys/class/net/orlopbr0/brif").await, "", "the bridge has no ports left");
    drop(bridge);
}

#[tokio::test]
async fn a_bridge_that_is_not_there_is_said() {
    let directory = tempfile::tempdir_in(scratch()).expect("a directory");
    let before = surroundings().await;
    for (name, said) in [("orlopbr9", "there is no bridge 'orlopbr9'"), ("lo", "there is no bridge 'lo'")] {
        let networks = format!("{{name: lan, multus: {{networkName: {name}}}}}");
        let manifest = manifest(&directory, "absent", "{name: lan, bridge: {}}", &networks);
        let (found, code) = output(&directory, &["run", &manifest]).await;
        assert!(code == Some(1) && found.contains(said), "{code:?} {found}");
    }
    wait_for_nothing_left(&before).await;
}

#[tokio::test]
async fn hostile_packets_to_the_servers_get_no_answer_and_do_not_stop_them() {
    let mut run = Run::start("hostile", "{name: net, masquerade: {}}", "{name: net, pod: {}}").await;
    run.with_addresses().await;
    // A DISCOVER whose address claims 255 bytes (RFC 2131 §2, hlen), one of another card, and one cut off.
    let discover = |length: &str, len: usize| {
        format!(
            "(printf '\\001\\001\\{length}\\000'; head -c 232 /dev/zero; printf '\\143\\202\\123\\143\\065\\001\\001\\377') \
             | head -c {len} | nc -u -w 1 10.0.2.1 67; "
        )
    };
    run.try_run(&format!("{}{}{}", discover("377", 244), discover("006", 244), discover("006", 200))).await;
    let router = "fe80::ff:fe00:0%eth0";
    for (address, port) in [("10.0.2.1", 67), ("fd10:0:2::1", 547), (router, 547)] {
        run.try_run(&format!("head -c 300k /dev/urandom | nc -u -w 1 {address} {port}")).await;
    }
    // Messages that look right at their beginning: a SOLICIT and a REQUEST with noise for options.
    for kind in ["001", "003"] {
        run.try_run(&format!("(printf '\\{kind}'; head -c 900 /dev/urandom) | nc -u -w 1 {router} 547"))
            .await;
    }
    run.try_run("ping6 -f -c 3000 -W 5 ff02::2%eth0; ping -f -c 3000 -W 5 10.0.2.1").await;
    // The same answers as before, and the router is still there.
    run.run("ip addr flush dev eth0; rm /run/told; ip link set eth0 down").await;
    run.run(UP).await;
    assert!(run.run(DHCP4).await.contains("ip=10.0.2.2"));
    assert!(run.run(DHCP6).await.contains("ipv6=fd10:0000:0002:0000:0000:0000:0000:0002"));
    let routes = run.run("n=0; until ip -6 route | grep -q ^default || [ $n = 300 ]; do usleep 100000; n=$((n+1)); done; ip -6 route").await;
    assert!(routes.contains("default via fe80::ff:fe00:0"), "{routes}");
    run.stop().await;
}
