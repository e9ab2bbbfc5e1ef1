//! Network cards.

use orlop_api::config::{NetConfig, RateLimit, TapSource, VmConfig};
use orlop_api::device::DeviceKind;
use orlop_net::Tap;
use orlop_virtio_net::build;

use super::{Built, Controls, DeviceError, Spec, Wanted};
use crate::machine::files::Files;
use crate::machine::plan::{PlanError, check};

/// The most pairs of queues that the configuration may ask for.
const PAIRS_MAX: u16 = 32;
/// The sizes that its queues may have.
const QUEUE_SIZES: std::ops::RangeInclusive<u16> = 2..=1024;
/// The smallest MTU (virtio 1.3 §5.1.4.1).
const MTU_MIN: u16 = 68;

#[derive(Debug)]
struct Net {
    name: String,
    tap: TapSource,
    mac: [u8; 6],
    mtu: Option<u16>,
    queue_pairs: u16,
    queue_size: u16,
    offloads: bool,
    link_up: bool,
    rx_limit: Option<orlop_virtio_net::RateLimit>,
    tx_limit: Option<orlop_virtio_net::RateLimit>,
}

/// A network card for each of the configuration's.
pub fn row(config: &VmConfig) -> Result<Vec<Wanted>, PlanError> {
    config.nets.iter().enumerate().map(|(index, net)| wanted(index, net)).collect()
}

fn wanted(index: usize, net: &NetConfig) -> Result<Wanted, PlanError> {
    let field = format!("nets[{index}]");
    let at = |name: &str| format!("{field}.{name}");
    check::between(net.queue_pairs, 1, PAIRS_MAX, &at("queue_pairs"))?;
    check::queue_size(net.queue_size, *QUEUE_SIZES.start(), *QUEUE_SIZES.end(), &at("queue_size"))?;
    check::limit(net.rx_limit, &at("rx_limit"))?;
    check::limit(net.tx_limit, &at("tx_limit"))?;
    if let Some(mtu) = net.mtu {
        check::between(mtu, MTU_MIN, u16::MAX, &at("mtu"))?;
    }
    if let TapSource::Fds(names) = &net.tap {
        check::ensure(names.len() == usize::from(net.queue_pairs), &at("tap.fds"), || {
            format!("{} descriptors for {} pairs of queues", names.len(), net.queue_pairs)
        })?;
    }
    let mac = check::mac(net.mac.as_deref().unwrap_or_default(), &at("mac"))?;
    let spec = Net {
        name: format!("net{index}"),
        tap: net.tap.clone(),
        mac,
        mtu: net.mtu,
        queue_pairs: net.queue_pairs,
        queue_size: net.queue_size,
        offloads: net.offloads,
        link_up: net.link_up,
        rx_limit: limit(net.rx_limit),
        tx_limit: limit(net.tx_limit),
    };
    Ok(Wanted { id: net.id.clone(), field, kind: DeviceKind::Net, spec: Box::new(spec) })
}

fn limit(limit: Option<RateLimit>) -> Option<orlop_virtio_net::RateLimit> {
    limit.map(|RateLimit { per_second, burst }| orlop_virtio_net::RateLimit {
        bytes_per_second: per_second,
        burst_bytes: burst,
    })
}

impl Spec for Net {
    fn build(self: Box<Self>, files: &mut Files) -> Result<Built, DeviceError> {
        let Self { name, tap, mac, mtu, queue_pairs, queue_size, offloads, link_up, rx_limit, tx_limit } = *self;
        let tap = match tap {
            TapSource::Name(interface) => Tap::open_named(&interface, usize::from(queue_pairs)),
            TapSource::Fds(names) => {
                let fds = names.iter().map(|name| files.descriptor(name)).collect::<Result<_, _>>()?;
                Tap::from_fds(fds)
            }
        };
        let tap = tap.map_err(DeviceError::of)?;
        let tap = if offloads { tap } else { tap.without_offloads() };
        let config = orlop_virtio_net::NetConfig { name, tap, mac, link_up, mtu, queue_size, rx_limit, tx_limit };
        let (parts, handle) = build(config).map_err(DeviceError::of)?;
        let link = Some(Box::new(move |up| handle.set_link(up)) as Box<dyn Fn(bool) + Send>);
        Ok(Built::virtio(parts, Controls { link, ..Controls::default() }))
    }
}
