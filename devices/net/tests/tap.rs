//! Taps against the kernel's own, in a network namespace of each test's own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use orlop_net::kit::Namespace;
use orlop_net::{DescriptorProblem, FRAME_MAX_BYTES, HEADER_BYTES, Offloads, Tap, TapError, TapQueue};

const MULTI: i32 = libc::IFF_MULTI_QUEUE;
const VNET: i32 = libc::IFF_VNET_HDR;

fn read(queue: &TapQueue) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; HEADER_BYTES + FRAME_MAX_BYTES];
    let iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    #[expect(unsafe_code, reason = "reads into a buffer of its own")]
    // SAFETY: the buffer lives across the call.
    let len = unsafe { queue.read_vectored(&[iovec]) }?;
    buffer.truncate(len);
    Ok(buffer)
}

fn write(queue: &TapQueue, bytes: &[u8]) -> io::Result<usize> {
    let iovec = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    #[expect(unsafe_code, reason = "writes a buffer of its own")]
    // SAFETY: the bytes live across the call and are only read.
    unsafe {
        queue.write_vectored(&[iovec])
    }
}

/// A frame between two stations with a type for experiments, behind a header of `header` bytes.
fn frame(header: usize, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; header];
    frame.extend([0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x88, 0xb5]);
    frame.extend(payload);
    frame
}

/// Descriptors as another process would pass them.
fn fds_of(tap: Tap) -> Vec<OwnedFd> {
    tap.into_queues().iter().map(|queue| queue.as_fd().try_clone_to_owned().unwrap()).collect()
}

#[test]
fn frames_pass_both_ways() {
    let net = Namespace::enter().unwrap();
    net.add_tap("tap0", MULTI).unwrap();
    let tap = Tap::open_named("tap0", 1).unwrap();
    net.set_up("tap0", true).unwrap();
    let wire = net.wire("tap0").unwrap();
    let queue = &tap.into_queues()[0];
    assert_eq!(read(queue).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    write(queue, &frame(HEADER_BYTES, b"to the host, with at least forty-six bytes in it")).unwrap();
    assert!(wire.receive().unwrap().ends_with(b"forty-six bytes in it"));
    wire.send(&frame(10, b"to the guest")).unwrap();
    assert!(read(queue).unwrap().ends_with(b"to the guest"));
}

#[test]
fn a_tap_is_never_made() {
    let net = Namespace::enter().unwrap();
    assert!(matches!(Tap::open_named("tap0", 1), Err(TapError::Gone(name)) if name == "tap0"));
    assert!(net.wire("tap0").is_err());
}

#[test]
fn what_is_not_a_tap_is_refused_by_name() {
    let net = Namespace::enter().unwrap();
    assert_eq!(Tap::open_named("lo", 1).unwrap_err().to_string(), "interface 'lo' is not a tap");
    net.add_tap("single", 0).unwrap();
    let error = Tap::open_named("single", 2).unwrap_err();
    assert_eq!(error.to_string(), "tap 'single' has a single queue, not 2: create it with 'multi_queue'");
    for name in ["", "a/b", "tap%d", "a b", "sixteen-letters-", ".."] {
        assert!(matches!(Tap::open_named(name, 1), Err(TapError::BadName(_))), "{name}");
    }
    for count in [0, 257] {
        assert!(matches!(Tap::open_named("single", count), Err(TapError::BadQueueCount(_))));
    }
}

#[test]
fn a_tap_in_use_is_busy() {
    let net = Namespace::enter().unwrap();
    net.add_tap("single", 0).unwrap();
    let held = Tap::open_named("single", 1).unwrap();
    assert!(matches!(Tap::open_named("single", 1), Err(TapError::Busy(_))));
    drop(held);
    Tap::open_named("single", 1).unwrap();
}

#[test]
fn passed_descriptors_are_examined() {
    let net = Namespace::enter().unwrap();
    net.add_tap("tap0", MULTI).unwrap();
    net.add_tap("tap1", MULTI).unwrap();
    let tap = Tap::from_fds(fds_of(Tap::open_named("tap0", 2).unwrap())).unwrap();
    assert_eq!((tap.name(), tap.queue_count()), ("tap0", 2));

    let problem = |fds: Vec<OwnedFd>| match Tap::from_fds(fds) {
        Err(TapError::Descriptor { position, problem, .. }) => (position, problem),
        other => panic!("{other:?}"),
    };
    let mut fds = fds_of(tap);
    fds.push(File::open("/dev/null").unwrap().into());
    assert_eq!(problem(fds), (2, DescriptorProblem::NotTap));

    let fresh = || OwnedFd::from(File::options().read(true).write(true).open("/dev/net/tun").unwrap());
    assert_eq!(problem(vec![fresh()]), (0, DescriptorProblem::Detached));

    let mut fds = fds_of(Tap::open_named("tap0", 1).unwrap());
    fds.extend(fds_of(Tap::open_named("tap1", 1).unwrap()));
    let (first, found) = ("tap0".to_owned(), "tap1".to_owned());
    assert_eq!(problem(fds), (1, DescriptorProblem::OtherInterface { first, found }));
    assert!(matches!(Tap::from_fds(Vec::new()), Err(TapError::BadQueueCount(0))));
}

#[test]
fn a_descriptor_without_virtio_header_is_refused() {
    let net = Namespace::enter().unwrap();
    net.add_tap("tap0", MULTI).unwrap();
    let error = Tap::from_fds(vec![net.attach("tap0", MULTI).unwrap()]).unwrap_err();
    assert!(error.to_string().ends_with("has no virtio header: open it with IFF_VNET_HDR"), "{error}");
    Tap::from_fds(vec![net.attach("tap0", MULTI | VNET).unwrap()]).unwrap();
}

#[test]
fn a_tap_that_somebody_uses_otherwise_is_busy() {
    let net = Namespace::enter().unwrap();
    net.add_tap("tap0", MULTI).unwrap();
    let other = net.attach("tap0", MULTI).unwrap();
    assert!(matches!(Tap::open_named("tap0", 1), Err(TapError::Busy(_))));
    drop(other);
    Tap::open_named("tap0", 1).unwrap();
}

#[test]
fn a_detached_queue_gets_no_frames() {
    let net = Namespace::enter().unwrap();
    net.add_tap("tap0", MULTI).unwrap();
    let queues = Tap::open_named("tap0", 2).unwrap().into_queues();
    net.set_up("tap0", true).unwrap();
    let wire = net.wire("tap0").unwrap();
    queues[1].set_attached(false).unwrap();
    queues[1].set_attached(false).unwrap();
    for n in 0..32u8 {
        wire.send(&frame(10, &[n; 60])).unwrap();
    }
    for n in 0..32u8 {
        assert!(read(&queues[0]).unwrap().ends_with(&[n; 60]));
    }
    assert_eq!(read(&queues[1]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    queues[1].set_attached(true).unwrap();
}

#[test]
fn a_queue_that_was_passed_in_detached_is_attached_again() {
    let net = Namespace::enter().unwrap();
    net.add_tap("tap0", MULTI).unwrap();
    let tap = Tap::open_named("tap0", 2).unwrap();
    let queues = tap.into_queues();
    queues[1].set_attached(false).unwrap();
    let fds = queues.iter().map(|q| q.as_fd().try_clone_to_owned().unwrap()).collect();
    let queues = Tap::from_fds(fds).unwrap().into_queues();
    queues[1].set_attached(false).unwrap();
}

#[test]
fn a_tap_that_vanishes_is_an_error_to_read_and_write() {
    let net = Namespace::enter().unwrap();
    net.add_tap("tap0", MULTI).unwrap();
    let queues = Tap::open_named("tap0", 1).unwrap().into_queues();
    net.set_up("tap0", true).unwrap();
    net.delete("tap0").unwrap();
    assert_eq!(read(&queues[0]).unwrap_err().raw_os_error(), Some(libc::EBADFD));
    assert_eq!(
        write(&queues[0], &frame(HEADER_BYTES, &[0; 60])).unwrap_err().raw_os_error(),
        Some(libc::EBADFD)
    );
}

#[test]
fn offloads_that_the_kernel_knows_are_accepted() {
    let net = Namespace::enter().unwrap();
    net.add_tap("tap0", MULTI).unwrap();
    let tap = Tap::open_named("tap0", 1).unwrap();
    let supported = tap.supported_offloads();
    assert!(supported.contains(Offloads::CSUM | Offloads::TSO4 | Offloads::TSO6));
    let queues = tap.into_queues();
    queues[0].set_offloads(supported).unwrap();
    queues[0].set_offloads(Offloads::empty()).unwrap();
}
