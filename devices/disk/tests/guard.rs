//! Errors of the host, by policy.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};

use orlop_disk::{Completion, Engine, ErrorHandling, ErrorPolicy, Guard, Operation, Stopped};

/// An engine whose operations end as its script says.
struct Scripted {
    done: Vec<Completion<Vec<u8>>>,
    script: Arc<Mutex<Vec<i32>>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Engine<Vec<u8>> for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn event(&self) -> Option<RawFd> {
        None
    }

    fn submit(&mut self, token: u64, operation: Operation<Vec<u8>>) -> Result<(), Operation<Vec<u8>>> {
        self.seen.lock().unwrap().push(format!("{operation:?}"));
        let result = match self.script.lock().unwrap().pop() {
            None | Some(0) => Ok(()),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        };
        let memory = match operation {
            Operation::Read { to, .. } => Some(to),
            Operation::Write { from, .. } => Some(from),
            _ => None,
        };
        self.done.insert(0, Completion { token, result, memory });
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn complete(&mut self) -> Option<Completion<Vec<u8>>> {
        self.done.pop()
    }

    fn wait(&mut self) {}

    fn in_flight(&self) -> usize {
        self.done.len()
    }
}

struct Bench {
    guard: Guard<Vec<u8>>,
    script: Arc<Mutex<Vec<i32>>>,
    seen: Arc<Mutex<Vec<String>>>,
    told: Arc<Mutex<Vec<String>>>,
}

/// A guard with `policy` over an engine whose operations end with `script`, the first one first.
fn bench(policy: ErrorPolicy, script: &[i32]) -> Bench {
    let script: Arc<Mutex<Vec<i32>>> = Arc::new(Mutex::new(script.iter().rev().copied().collect()));
    let (seen, told) = (Arc::default(), Arc::<Mutex<Vec<String>>>::default());
    let engine = Scripted { done: Vec::new(), script: Arc::clone(&script), seen: Arc::clone(&seen) };
    let heard = Arc::clone(&told);
    let tell = Arc::new(move |stopped: &Stopped<'_>| {
        heard.lock().unwrap().push(format!("{} at {}", stopped.operation, stopped.offset));
    });
    Bench { guard: Guard::new(Box::new(engine), ErrorHandling::new(policy, tell)), script, seen, told }
}

fn write(offset: u64) -> Operation<Vec<u8>> {
    Operation::Write { offset, from: vec![7; 512] }
}

/// The results of everything that is finished, by token.
fn finished(guard: &mut Guard<Vec<u8>>) -> Vec<(u64, Option<i32>)> {
    std::iter::from_fn(|| guard.complete())
        .map(|done| (done.token, done.result.err().map(|error| error.raw_os_error().unwrap())))
        .collect()
}

#[test]
fn each_policy_does_what_it_says() {
    let errors = [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EINVAL, libc::EROFS];
    for (policy, expected) in [
        (ErrorPolicy::Report, "reported reported reported reported reported"),
        (ErrorPolicy::Ignore, "ignored ignored ignored reported reported"),
        (ErrorPolicy::Stop, "held held held reported reported"),
        (ErrorPolicy::StopWhenFull, "reported held held reported reported"),
    ] {
        let found = errors.map(|errno| {
            let mut bench = bench(policy, &[errno]);
            bench.guard.submit(5, write(512)).unwrap();
            match (finished(&mut bench.guard).as_slice(), bench.guard.held()) {
                ([(5, None)], 0) => "ignored",
                ([(5, Some(reported))], 0) if *reported == errno => "reported",
                ([], 1) => "held",
                other => panic!("{policy:?}, {errno}: {other:?}"),
            }
        });
        assert_eq!(found.join(" "), expected, "{policy:?}");
    }
}

#[test]
fn what_is_held_is_tried_again_after_a_standstill_and_not_before() {
    let mut bench = bench(ErrorPolicy::Stop, &[libc::EIO, 0, libc::EIO, libc::ENOSPC, 0, 0]);
    for token in 0..3 {
        bench.guard.submit(token, write(token * 512)).unwrap();
    }
    assert_eq!(finished(&mut bench.guard), [(1, None)]);
    assert_eq!((bench.guard.held(), bench.guard.in_flight()), (2, 0));
    bench.guard.go_on();
    assert_eq!(bench.guard.held(), 2, "the machine has not stood still yet");
    bench.guard.stand_still();
    bench.guard.go_on();
    // One of the two fails again, and is tried again.
    assert_eq!(finished(&mut bench.guard).len(), 1);
    assert_eq!(*bench.told.lock().unwrap(), ["write at 0", "write at 0"]);
    bench.guard.stand_still();
    bench.guard.go_on();
    assert_eq!(finished(&mut bench.guard), [(0, None)]);
    let seen = bench.seen.lock().unwrap();
    assert_eq!(seen.len(), 6);
    assert!(
        seen[5].contains("offset: 0") && seen[5].contains("7, 7, 7"),
        "the same operation, with its memory"
    );
    assert!(bench.script.lock().unwrap().is_empty());
}

#[test]
fn every_kind_of_operation_is_held_and_tried_again() {
    for operation in [
        Operation::Read { offset: 4096, to: vec![1; 512] },
        write(1024),
        Operation::Flush,
        Operation::Discard { offset: 512, len: 512 },
        Operation::WriteZeroes { offset: 512, len: 1024, unmap: true },
    ] {
        let mut bench = bench(ErrorPolicy::Stop, &[libc::EIO]);
        bench.guard.submit(9, operation).unwrap();
        assert!(finished(&mut bench.guard).is_empty());
        bench.guard.stand_still();
        bench.guard.go_on();
        assert_eq!(finished(&mut bench.guard), [(9, None)]);
        let seen = bench.seen.lock().unwrap();
        assert_eq!(seen[0], seen[1]);
    }
}

#[test]
fn a_reset_forgets_what_is_held() {
    let mut bench = bench(ErrorPolicy::Stop, &[libc::EIO]);
    bench.guard.submit(1, write(0)).unwrap();
    assert!(finished(&mut bench.guard).is_empty());
    bench.guard.forget();
    bench.guard.stand_still();
    bench.guard.go_on();
    assert!(finished(&mut bench.guard).is_empty() && bench.seen.lock().unwrap().len() == 1);
}
