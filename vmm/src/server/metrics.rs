//! `GET /metrics`: numbers for Prometheus, made anew for every scrape.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CONTENT_TYPE;
use orlop_api::device::DeviceInfo;
use orlop_api::problem::Problem;
use orlop_api::state::{VmInfo, VmState};
use orlop_api::vcpu::VcpuInfo;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::Api;
use super::refused::Refused;

/// The media type of the text (OpenMetrics 1.0).
const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;

/// Metrics in the text format of OpenMetrics, which Prometheus reads.
#[utoipa::path(get, path = "/metrics", tag = "process", responses(
    (status = 200, description = "The metrics", body = String,
        content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn scrape(
    State(api): State<Api>,
) -> Result<([(HeaderName, &'static str); 1], String), Refused> {
    let info = api.handle.info().await?;
    let vcpus = api.handle.vcpus().await?;
    let devices = api.handle.devices().await?;
    Ok(([(CONTENT_TYPE, TEXT)], text(&info, &vcpus, &devices)))
}

fn text(info: &VmInfo, vcpus: &[VcpuInfo], devices: &[DeviceInfo]) -> String {
    let mut registry = Registry::with_prefix("orlop");
    registry.register("vmm", "The program", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
    machine(&mut registry, info);
    exits(&mut registry, vcpus);
    device_counters(&mut registry, devices);
    let mut text = String::new();
    // A String takes everything that is written to it.
    let _ = encode(&mut text, &registry);
    text
}

fn machine(registry: &mut Registry, info: &VmInfo) {
    let states = Family::<Labels, Gauge>::default();
    let all = [VmState::NotCreated, VmState::Created, VmState::Running, VmState::Paused, VmState::Stopped];
    for state in all {
        let is = i64::from(state == info.state);
        states.get_or_create(&vec![("state", state.name().to_owned())]).set(is);
    }
    registry.register("vm_state", "1 for the state that the machine is in, 0 for the others", states);
    registry.register("vm_resets", "Resets of the machine", counter(info.resets));
    if let Some(config) = &info.config {
        let gauge = |value: u64| {
            let gauge = Gauge::<i64>::default();
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
            gauge
        };
        let named = Info::new(vec![("name", config.name.clone())]);
        registry.register("vm", "The machine", named);
        registry.register("vm_memory_bytes", "Size of the guest's memory", gauge(config.memory.size_bytes));
    }
}

fn exits(registry: &mut Registry, vcpus: &[VcpuInfo]) {
    let exits = Family::<Labels, Counter>::default();
    for vcpu in vcpus {
        for (reason, count) in &vcpu.exits {
            let labels = vec![("vcpu", vcpu.index.to_string()), ("reason", reason.clone())];
            exits.get_or_create(&labels).inc_by(*count);
        }
    }
    registry.register("vcpu_exits", "Returns from the guest to the VMM, by reason", exits);
}

/// One family per name of a counter, with a series per device that counts it.
fn device_counters(registry: &mut Registry, devices: &[DeviceInfo]) {
    let mut families: BTreeMap<&str, Family<Labels, Counter>> = BTreeMap::new();
    for device in devices {
        for (name, count) in &device.counters {
            let labels = vec![("device", device.id.clone())];
            families.entry(name).or_default().get_or_create(&labels).inc_by(*count);
        }
    }
    for (name, family) in families {
        let help = format!("Device counter '{name}'");
        registry.register(format!("device_{name}"), help, family);
    }
}

fn counter(value: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(value);
    counter
}

#[cfg(test)]
mod tests {
    use orlop_api::device::DeviceKind;

    use super::*;

    #[test]
    fn every_number_is_a_series_with_its_labels() {
        let info = VmInfo {
            state: VmState::Paused,
            config: None,
            booted_at_unix_ms: None,
            resets: 2,
            process_id: 1,
        };
        let vcpus = [VcpuInfo {
            index: 1,
            apic_id: 1,
            thread_id: None,
            exits: BTreeMap::from([("hlt".to_owned(), 7)]),
        }];
        let counters = BTreeMap::from([("read_bytes".to_owned(), 4096)]);
        let devices = ["vda", "vdb"].map(|id| DeviceInfo {
            id: id.to_owned(),
            kind: DeviceKind::Block,
            pci_address: None,
            virtio: None,
            tray: None,
            counters: counters.clone(),
        });
        let text = text(&info, &vcpus, &devices);
        for line in [
            r#"orlop_vm_state{state="paused"} 1"#,
            r#"orlop_vm_state{state="running"} 0"#,
            "orlop_vm_resets_total 2",
            r#"orlop_vcpu_exits_total{vcpu="1",reason="hlt"} 7"#,
            r#"orlop_device_read_bytes_total{device="vda"} 4096"#,
            r#"orlop_device_read_bytes_total{device="vdb"} 4096"#,
        ] {
            assert!(text.lines().any(|have| have == line), "no '{line}' in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
