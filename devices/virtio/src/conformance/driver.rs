//! A guest's driver: it knows the device only through configuration space, BAR and rings.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use orlop_pci::{Bdf, Function, PciRoot, Windows};
use vm_memory::{Bytes, GuestAddress};

use super::messages::Messages;
use super::ring::Ring;
use crate::{Parts, Platform, Ram, VirtioPci, layout};

/// Where messages go.
pub(super) const MSI_ADDRESS: u64 = 0xfee0_0000;
/// First byte of guest memory's hole, which ends where the upper region starts.
pub const HOLE: u64 = 16 << 20;
/// The upper region of guest memory.
pub const UPPER: u64 = 32 << 20;
/// Length of the upper region in bytes.
pub const UPPER_BYTES: u64 = 8 << 20;
const RINGS: u64 = 0x10000;
const BUFFERS: u64 = 8 << 20;
const BAR_ADDRESS: u64 = 0xe000_0000;
const BDF: Bdf = Bdf { bus: 0, device: 1, function: 0 };
const DEADLINE: Duration = Duration::from_secs(20);

/// A descriptor table entry (virtio 1.3 §2.7.5).
#[derive(Debug, Clone, Copy, Default)]
pub struct Descriptor {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
    /// Flags; `NEXT` comes by itself inside a chain.
    pub flags: u16,
    /// Next entry, for the last of a chain.
    pub next: u16,
}

impl Descriptor {
    /// The chain goes on at `next`.
    pub const NEXT: u16 = 1;
    /// The device writes.
    pub const WRITE: u16 = 2;
    /// The buffer is a table of descriptors.
    pub const INDIRECT: u16 = 4;

    /// As it is in memory.
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }
}

/// A chain that the device returned.
#[derive(Debug, Clone)]
pub struct Used {
    /// Its head.
    pub head: u16,
    /// How many bytes the device says it wrote.
    pub written: usize,
    /// The whole writable part.
    pub data: Vec<u8>,
}

struct NoWindows;

impl Windows for NoWindows {
    fn map(&self, _: &Arc<dyn Function>, _: u8, _: u64, _: u64) {}
    fn unmap(&self, _: &Arc<dyn Function>, _: u8, _: u64) {}
}

/// The driver with its memory.
pub struct Driver {
    /// The device as the machine has it.
    pub function: Arc<VirtioPci>,
    /// Guest memory: 16 MiB from 0, then a hole, then [`UPPER_BYTES`] from [`UPPER`].
    pub ram: Arc<Ram>,
    /// The interrupts that came.
    pub messages: Arc<Messages>,
    root: Arc<PciRoot>,
    rings: Vec<Ring>,
    next_buffer: u64,
    /// Told instead of the device when the next notification is made.
    interceptor: RefCell<Option<Sender<()>>>,
}

impl Driver {
    /// Powers a machine with the device on.
    pub fn new(parts: Parts) -> Self {
        let regions = [(GuestAddress(0), HOLE as usize), (GuestAddress(UPPER), UPPER_BYTES as usize)];
        let ram = Arc::new(Ram::from_ranges(&regions).unwrap());
        let messages = Arc::new(Messages::default());
        let (function, root) = plug(parts, &ram, &messages);
        Self {
            function,
            ram,
            messages,
            root,
            rings: Vec::new(),
            next_buffer: BUFFERS,
            interceptor: RefCell::default(),
        }
    }

    /// The same guest with another device in the place of this one, as after a restore: rings and buffers go on.
    #[must_use]
    pub fn replug(self, parts: Parts) -> Self {
        let (function, root) = plug(parts, &self.ram, &self.messages);
        Self { function, root, ..self }
    }

    /// Reads `N` bytes of configuration space.
    pub fn config<const N: usize>(&self, offset: u16) -> [u8; N] {
        let mut data = [0; N];
        self.root.config_read(BDF, offset, &mut data);
        data
    }

    /// Writes configuration space.
    pub fn set_config(&self, offset: u16, data: &[u8]) {
        self.root.config_write(BDF, offset, data);
    }

    /// Reads the BAR.
    pub fn bar<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        self.function.bar_read(layout::BAR, offset, &mut data);
        data
    }

    /// Writes the BAR.
    pub fn set_bar(&self, offset: u64, data: &[u8]) {
        self.function.bar_write(layout::BAR, offset, data);
    }

    /// The offset in the BAR and the length of the structure of type `kind` (virtio 1.3 §4.1.4).
    pub fn structure(&self, kind: u8) -> (u64, u32) {
        let at = self.capability(|id, body| id == 9 && body[3] == kind).expect("a vendor capability");
        let offset = u32::from_le_bytes(self.config(at + 8));
        (u64::from(offset), u32::from_le_bytes(self.config(at + 12)))
    }

    /// The offset of the first capability that `wanted` says yes to, given its id and first four bytes.
    pub fn capability(&self, wanted: impl Fn(u8, [u8; 4]) -> bool) -> Option<u16> {
        let [mut at] = self.config(0x34);
        for _ in 0..48 {
            if at == 0 {
                return None;
            }
            let header: [u8; 4] = self.config(u16::from(at));
            if wanted(header[0], header) {
                return Some(u16::from(at));
            }
            at = header[1];
        }
        panic!("the capability list does not end");
    }

    /// Reads the common configuration.
    pub fn common<const N: usize>(&self, offset: u64) -> [u8; N] {
        self.bar(self.structure(1).0 + offset)
    }

    /// Writes the common configuration.
    pub fn set_common(&self, offset: u64, data: &[u8]) {
        self.set_bar(self.structure(1).0 + offset, data);
    }

    /// Device status.
    pub fn status(&self) -> u8 {
        self.common::<1>(0x14)[0]
    }

    /// Writes the device status and returns what it is then.
    pub fn set_status(&self, status: u8) -> u8 {
        self.set_common(0x14, &[status]);
        self.status()
    }

    /// Whether `DEVICE_NEEDS_RESET` is set.
    pub fn is_broken(&self) -> bool {
        self.status() & 64 != 0
    }

    /// Reads `N` bytes of the device-specific configuration.
    pub fn device_config<const N: usize>(&self, offset: u64) -> [u8; N] {
        self.bar(self.structure(4).0 + offset)
    }

    /// Writes the device-specific configuration.
    pub fn set_device_config(&self, offset: u64, data: &[u8]) {
        self.set_bar(self.structure(4).0 + offset, data);
    }

    /// The features that the device offers.
    pub fn offered(&self) -> u64 {
        let half = |select: u32| {
            self.set_common(0, &select.to_le_bytes());
            u64::from(u32::from_le_bytes(self.common(4)))
        };
        half(0) | half(1) << 32
    }

    /// Writes the features that the driver accepts.
    pub fn set_features(&self, features: u64) {
        for (select, word) in [(0u32, features as u32), (1, (features >> 32) as u32)] {
            self.set_common(8, &select.to_le_bytes());
            self.set_common(0xc, &word.to_le_bytes());
        }
    }

    /// How many queues the device has.
    pub fn queue_count(&self) -> u16 {
        u16::from_le_bytes(self.common(0x12))
    }

    /// Selects `queue` and returns its size.
    pub fn select(&self, queue: u16) -> u16 {
        self.set_common(0x16, &queue.to_le_bytes());
        u16::from_le_bytes(self.common(0x18))
    }

    /// Resets the device (virtio 1.3 §3.1.1) and forgets the rings.
    pub fn reset(&mut self) {
        assert_eq!(self.set_status(0), 0, "a device that was reset shows another status than zero");
        self.rings.clear();
        self.next_buffer = BUFFERS;
    }

    /// From power-on or reset to `DRIVER_OK`, accepting everything that is offered.
    pub fn start(&mut self) {
        self.start_with(self.offered());
    }

    /// From power-on or reset to `DRIVER_OK`, accepting `features`.
    pub fn start_with(&mut self, features: u64) {
        self.agree(features);
        self.set_up_queues();
        assert_eq!(self.set_status(0xf), 0xf, "the device is not ready: {:?}", self.function.inspect().fault);
    }

    /// From power-on or reset to `FEATURES_OK`, with memory decoding, bus mastering and MSI-X on.
    pub fn agree(&mut self, features: u64) {
        let [command, _] = self.config(4);
        self.set_config(4, &[command | 6, 4]);
        self.enable_interrupts();
        self.set_status(1);
        self.set_status(3);
        self.set_features(features);
        assert_eq!(self.set_status(0xb), 0xb, "features {features:#x} were refused");
    }

    /// Points vector N at message N, unmasks all and enables MSI-X.
    pub fn enable_interrupts(&self) {
        for vector in 0..=self.queue_count() {
            let entry = layout::TABLE + 16 * u64::from(vector);
            self.set_bar(entry, &MSI_ADDRESS.to_le_bytes());
            self.set_bar(entry + 8, &u32::from(vector).to_le_bytes());
            self.set_bar(entry + 12, &0u32.to_le_bytes());
        }
        self.set_msix_control(1 << 15);
    }

    /// Writes the message control register of MSI-X.
    pub fn set_msix_control(&self, control: u16) {
        let at = self.capability(|id, _| id == 0x11).expect("MSI-X");
        self.set_config(at + 2, &control.to_le_bytes());
    }

    /// Puts the rings of every queue into memory and enables them.
    pub fn set_up_queues(&mut self) {
        self.set_common(0x10, &0u16.to_le_bytes());
        let mut base = RINGS;
        for queue in 0..self.queue_count() {
            let size = self.select(queue);
            let ring = Ring::new(&self.ram, base, size);
            base += Ring::bytes(size);
            assert!(base < BUFFERS, "the rings fill the driver's memory");
            self.set_common(0x1a, &(queue + 1).to_le_bytes());
            assert_eq!(u16::from_le_bytes(self.common(0x1a)), queue + 1, "the device refused a vector");
            self.set_common(0x20, &ring.desc.to_le_bytes());
            self.set_common(0x28, &ring.avail.to_le_bytes());
            self.set_common(0x30, &ring.used.to_le_bytes());
            self.set_common(0x1c, &1u16.to_le_bytes());
            self.rings.push(ring);
        }
    }

    /// A piece of memory that the device does not have, filled with `data`.
    pub fn buffer(&mut self, data: &[u8]) -> u64 {
        let len = (data.len() as u64).max(1).next_multiple_of(16);
        let mut at = self.next_buffer;
        // Skip what is lent; twice round means that everything is.
        for _ in 0..100_000 {
            if at + len > HOLE {
                at = BUFFERS;
            }
            let lent = self.rings.iter().flat_map(Ring::lent).find(|(a, l)| *a < at + len && at < a + l);
            match lent {
                Some((address, len)) => at = (address + len).next_multiple_of(16),
                None => {
                    self.next_buffer = at + len;
                    self.ram.write_slice(data, GuestAddress(at)).unwrap();
                    return at;
                }
            }
        }
        panic!("all memory for buffers is lent to the device");
    }

    /// Makes a chain of `parts` available on `queue`, as they are. Returns its head.
    pub fn post_chain(&mut self, queue: u16, parts: &[Descriptor]) -> u16 {
        self.rings[usize::from(queue)].post(&self.ram, parts)
    }

    /// Makes a request available: a readable part and a writable one, each left out where empty.
    pub fn post(&mut self, queue: u16, readable: &[u8], writable: usize) -> u16 {
        let mut parts = Vec::new();
        if !readable.is_empty() {
            let address = self.buffer(readable);
            parts.push(Descriptor { address, len: readable.len() as u32, ..Descriptor::default() });
        }
        if writable > 0 {
            let address = self.buffer(&vec![0; writable]);
            let flags = Descriptor::WRITE;
            parts.push(Descriptor { address, len: writable as u32, flags, next: 0 });
        }
        self.post_chain(queue, &parts)
    }

    /// The next notification does not reach the device, as if it had come right before a pause and been lost in it;
    /// the receiver hears of it. Dropping the receiver lets notifications pass again.
    pub fn intercept_kick(&self) -> Receiver<()> {
        let (sender, receiver) = channel();
        self.interceptor.replace(Some(sender));
        receiver
    }

    /// Makes `head` available on `queue` whether or not the device has it.
    pub fn offer(&mut self, queue: u16, head: u16) {
        self.rings[usize::from(queue)].offer(&self.ram, head);
    }

    /// Notifies the device about `queue`.
    pub fn kick(&self, queue: u16) {
        if self.interceptor.take().is_some_and(|interceptor| interceptor.send(()).is_ok()) {
            return;
        }
        let (notify, _) = self.structure(2);
        self.select(queue);
        let off = u64::from(u16::from_le_bytes(self.common(0x1e)));
        self.set_bar(notify + off * u64::from(layout::NOTIFY_MULTIPLIER), &queue.to_le_bytes());
    }

    /// The next chain that the device returned on `queue`, if there is one already.
    pub fn poll(&mut self, queue: u16) -> Option<Used> {
        self.rings[usize::from(queue)].take_used(&self.ram)
    }

    /// Waits until the device returns a chain on `queue`.
    pub fn wait(&mut self, queue: u16) -> Used {
        let mut used = None;
        let what = format!("queue {queue} to return a request");
        let messages = Arc::clone(&self.messages);
        Self::wait_until(&messages, &what, || {
            used = self.poll(queue);
            assert!(used.is_some() || !self.is_broken(), "{:?}", self.function.inspect().fault);
            used.is_some()
        });
        used.unwrap()
    }

    /// Makes a request, notifies, and waits until it is returned. Other requests on the queue must not be in flight.
    pub fn request(&mut self, queue: u16, readable: &[u8], writable: usize) -> Used {
        let head = self.post(queue, readable, writable);
        self.kick(queue);
        let used = self.wait(queue);
        assert_eq!(used.head, head, "another request was returned");
        used
    }

    /// Waits until `done`, looking again after every message and at least every millisecond, for 20 s.
    pub fn wait_for(&self, what: &str, done: impl FnMut() -> bool) {
        Self::wait_until(&self.messages, what, done);
    }

    fn wait_until(messages: &Messages, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !done() {
            assert!(Instant::now() < deadline, "waited too long for {what}");
            messages.nap();
        }
    }

    /// On return the device has looked at every queue at least once since the call: a resume looks at all of them
    /// before it hears of the pause.
    pub fn settle(&self) {
        self.function.pause();
        self.function.resume();
        self.function.pause();
        self.function.resume();
    }

    pub(super) fn ring(&mut self, queue: u16) -> (&mut Ring, &Ram) {
        (&mut self.rings[usize::from(queue)], &self.ram)
    }
}

fn plug(parts: Parts, ram: &Arc<Ram>, messages: &Arc<Messages>) -> (Arc<VirtioPci>, Arc<PciRoot>) {
    let platform = Platform {
        ram: Arc::clone(ram),
        msi: Arc::clone(messages) as _,
        hook: Arc::new(|kind| assert!(kind.starts_with("virtio-"))),
        bar_address: BAR_ADDRESS,
    };
    let function = VirtioPci::new(parts, platform).unwrap();
    let root = PciRoot::new(Arc::new(NoWindows));
    root.insert(BDF, Arc::clone(&function) as _).unwrap();
    (function, root)
}
