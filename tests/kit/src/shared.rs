//! A guest that several tests of one target ask.

use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use tokio::runtime::{Builder, Runtime};

use crate::Vm;

/// How a shared guest is started.
pub type Start = fn() -> Pin<Box<dyn Future<Output = Vm>>>;

/// A guest that is booted by the first test that needs it, and anew after a test that failed. It ends with the process.
pub struct Shared {
    start: Start,
    place: Mutex<Option<Running>>,
}

/// The guest goes before the runtime that its connections belong to.
struct Running {
    vm: Vm,
    runtime: Runtime,
}

/// The shared guests that were started: nothing drops what is static.
static STARTED: Mutex<Vec<&'static Shared>> = Mutex::new(Vec::new());

impl Shared {
    /// A guest that `start` starts when it is needed.
    pub const fn new(start: Start) -> Self {
        Self { start, place: Mutex::new(None) }
    }

    /// Runs `test` with the guest. A test that panics takes the guest with it.
    pub fn with(&'static self, test: impl AsyncFnOnce(&mut Vm)) {
        let mut place = locked(&self.place);
        let mut running = place.take().unwrap_or_else(|| self.started());
        running.runtime.block_on(test(&mut running.vm));
        *place = Some(running);
    }

    fn started(&'static self) -> Running {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let vm = runtime.block_on((self.start)());
        let mut started = locked(&STARTED);
        if !started.iter().any(|shared| std::ptr::eq(*shared, self)) {
            started.push(self);
        }
        end_with_the_process();
        Running { vm, runtime }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has every shared guest ended when the test process exits.
fn end_with_the_process() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[expect(unsafe_code, reason = "atexit(3)")]
        // SAFETY: the function is of the type that atexit takes, and lives as long as the program.
        let refused = unsafe { libc::atexit(end_all) };
        assert_eq!(refused, 0, "a shared guest could not be ended with the process");
    });
}

extern "C" fn end_all() {
    for shared in std::mem::take(&mut *locked(&STARTED)) {
        drop(locked(&shared.place).take());
    }
}
