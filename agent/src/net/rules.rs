//! The rules of nftables, as text; pure.

use super::plan::{InsidePlan, Ports, Transport, UplinkPlan};

/// One family's words and addresses.
struct Family {
    table: &'static str,
    guest: String,
    gateway: String,
    loopback: &'static str,
}

/// The rules inside a namespace: KubeVirt's masquerade recipe, in each family that the guest has; and what a guest sends
/// under an address that it was not given goes nowhere.
pub fn inside(plan: &InsidePlan) -> String {
    let v4 = Family {
        table: "ip",
        guest: plan.v4.guest.to_string(),
        gateway: plan.v4.gateway.to_string(),
        loopback: "127.0.0.1",
    };
    let v6 = plan.v6.map(|v6| Family {
        table: "ip6",
        guest: v6.guest.to_string(),
        gateway: v6.gateway.to_string(),
        loopback: "::1",
    });
    std::iter::once(v4).chain(v6).map(|family| family_rules(plan, &family)).collect()
}

fn family_rules(plan: &InsidePlan, family: &Family) -> String {
    let Family { table, guest, gateway, loopback } = family;
    let InsidePlan { uplink, bridge, ports, .. } = plan;
    // What leads to the guest: everything, or some ports.
    let which: Vec<String> =
        if ports.is_empty() { vec![String::new()] } else { ports.iter().map(matching).collect() };
    let each = |rule: &dyn Fn(&str) -> String| -> String { which.iter().map(|ports| rule(ports)).collect() };
    let arriving = each(&|ports| format!("\t\t{ports}dnat to {guest}\n"));
    let from_here = each(&|ports| format!("\t\t{table} daddr {loopback} {ports}dnat to {guest}\n"));
    let towards = each(&|ports| format!("\t\t{table} saddr {loopback} {ports}snat to {gateway}\n"));
    format!(
        "table {table} nat {{\n\
         \tchain prerouting {{\n\
         \t\ttype nat hook prerouting priority dstnat;\n\
         \t\tiifname \"{uplink}\" jump KUBEVIRT_PREINBOUND\n\
         \t}}\n\
         \tchain output {{\n\
         \t\ttype nat hook output priority dstnat;\n\
         {from_here}\
         \t}}\n\
         \tchain postrouting {{\n\
         \t\ttype nat hook postrouting priority srcnat;\n\
         \t\t{table} saddr {guest} oifname \"{uplink}\" masquerade\n\
         \t\toifname \"{bridge}\" jump KUBEVIRT_POSTINBOUND\n\
         \t}}\n\
         \tchain forward {{\n\
         \t\ttype filter hook forward priority filter;\n\
         \t\tiifname \"{bridge}\" {table} saddr != {guest} drop\n\
         \t}}\n\
         \tchain KUBEVIRT_PREINBOUND {{\n\
         {arriving}\
         \t}}\n\
         \tchain KUBEVIRT_POSTINBOUND {{\n\
         {towards}\
         \t}}\n\
         }}\n"
    )
}

/// The words that match `ports`, with a space behind.
fn matching(ports: &Ports) -> String {
    let Ports { transport, first, last } = ports;
    let transport = match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    if first == last {
        format!("{transport} dport {first} ")
    } else {
        format!("{transport} dport {first}-{last} ")
    }
}

/// The rules on the machine: what comes from the namespace leaves under the machine's address. A table belongs to the
/// process that makes it (`flags owner`), and the kernel removes it when that process ends. One family on one line each,
/// as the interactive mode of `nft` reads them.
pub fn machine(uplink: &UplinkPlan) -> String {
    let link = &uplink.host_link;
    let table = |family: &str, inside: String| {
        format!(
            "table {family} orlop-{link} {{ flags owner; chain postrouting {{ \
             type nat hook postrouting priority srcnat ; \
             {family} saddr {inside} oifname != \"{link}\" masquerade ; }} ; }}\n"
        )
    };
    let v4 = table("ip", uplink.v4.inside.to_string());
    let v6 = uplink.v6.map(|ends| table("ip6", ends.inside.to_string()));
    std::iter::once(v4).chain(v6).collect()
}

#[cfg(test)]
mod tests {
    use super::super::plan::{self, Surroundings};
    use super::super::subnet::Subnet;
    use super::*;

    fn plan(ports: Vec<Ports>) -> InsidePlan {
        InsidePlan {
            uplink: "eth0",
            bridge: "k6t-eth0",
            tap: "tap0",
            queue_pairs: 1,
            mtu: 1500,
            v4: Subnet::<std::net::Ipv4Addr>::parse(None).unwrap(),
            v6: Some(Subnet::<std::net::Ipv6Addr>::parse(None).unwrap()),
            ports,
        }
    }

    #[test]
    fn without_ports_everything_that_arrives_leads_to_the_guest() {
        let rules = inside(&plan(Vec::new()));
        for rule in [
            "table ip nat {",
            "table ip6 nat {",
            "\t\tdnat to 10.0.2.2\n",
            "\t\tdnat to fd10:0:2::2\n",
            "ip saddr 10.0.2.2 oifname \"eth0\" masquerade",
            "ip6 saddr fd10:0:2::2 oifname \"eth0\" masquerade",
            "ip saddr 127.0.0.1 snat to 10.0.2.1",
            "iifname \"k6t-eth0\" ip saddr != 10.0.2.2 drop",
            "iifname \"k6t-eth0\" ip6 saddr != fd10:0:2::2 drop",
        ] {
            assert!(rules.contains(rule), "{rule} in\n{rules}");
        }
    }

    #[test]
    fn with_ports_only_those_lead_to_the_guest() {
        let rules = inside(&plan(vec![
            Ports { transport: Transport::Tcp, first: 22, last: 22 },
            Ports { transport: Transport::Udp, first: 5000, last: 5010 },
        ]));
        for rule in [
            "\t\ttcp dport 22 dnat to 10.0.2.2\n",
            "\t\tudp dport 5000-5010 dnat to fd10:0:2::2\n",
            "ip daddr 127.0.0.1 tcp dport 22 dnat to 10.0.2.2",
            "ip6 saddr ::1 udp dport 5000-5010 snat to fd10:0:2::1",
        ] {
            assert!(rules.contains(rule), "{rule} in\n{rules}");
        }
        assert!(!rules.contains("\t\tdnat to"), "{rules}");
    }

    #[test]
    fn the_machines_tables_belong_to_their_process() {
        let here = Surroundings { mtu: 1500, ipv6: true, name_servers: Vec::new(), search: Vec::new() };
        let rules = machine(&plan::uplink("default/a", &here, 0));
        assert_eq!(rules.lines().count(), 2);
        assert!(rules.lines().all(|line| line.contains("flags owner") && line.contains("oifname != \"ov-")));
    }
}
