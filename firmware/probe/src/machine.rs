//! The machine as the probe sees it: physical memory, time, power.

use crate::Failure;
use crate::acpi::Fadt;
use crate::ports;
use crate::serial::say;
use crate::start_info::{CommandLine, StartInfo};

/// End of what the start code maps to itself.
const MAPPED_END: u64 = 64 << 30;
/// Memory that the probe may hand to devices, from the end of its image.
const ARENA_BYTES: u64 = 8 << 20;
/// The PM timer (ACPI 6.5 §4.8.2.1): ticks in a millisecond, and how much of the counter surely exists.
const TICKS_PER_MS: u32 = 3580;
const TICKS_MASK: u32 = 0xff_ffff;
/// How many polls make a millisecond where there is no timer.
const POLLS_PER_MS: u32 = 1000;
/// The port of pvpanic, and the event it is told.
const PVPANIC: u16 = 0x505;
const PVPANIC_PANICKED: u8 = 1;
/// The keyboard controller's command port, and its reset.
const I8042_COMMAND: u16 = 0x64;
const I8042_RESET: u8 = 0xFE;

/// What the processor pushed for an exception.
#[derive(Debug, Clone, Copy)]
pub struct Exception {
    /// Its number.
    pub number: u64,
    /// Its error code; 0 for those that have none.
    pub code: u64,
    /// Where it happened.
    pub rip: u64,
}

/// Physical memory, mapped to itself.
#[derive(Debug, Clone, Copy)]
pub struct Physical {
    /// Nothing of this program lies at or above.
    floor: u64,
}

macro_rules! physical_access {
    ($read:ident, $write:ident, $type:ty, $class:ident, $operand:literal) => {
        /// Reads memory or a device's registers, at any alignment.
        #[expect(unsafe_code, reason = "physical addresses are not Rust's")]
        pub fn $read(&self, address: u64) -> $type {
            assert!(address < MAPPED_END - 8, "a read at {address:#x} is not mapped");
            let value;
            // SAFETY: the address is mapped (checked above; `Machine::new` promises the mapping), and any bytes are
            // a valid integer.
            unsafe {
                core::arch::asm!(concat!("mov ", $operand, ", [{1}]"), out($class) value, in(reg) address,
                    options(nostack, readonly, preserves_flags));
            }
            value
        }

        /// Writes memory or a device's registers, at any alignment.
        #[expect(unsafe_code, reason = "physical addresses are not Rust's")]
        pub fn $write(&self, address: u64, value: $type) {
            let allowed = address >= self.floor && address < MAPPED_END - 8;
            assert!(allowed, "a write at {address:#x} is not mapped or hits the probe itself");
            // SAFETY: the address is mapped and nothing of this program lies there (checked above; `Machine::new`
            // promises both).
            unsafe {
                core::arch::asm!(concat!("mov [{1}], ", $operand), in($class) value, in(reg) address,
                    options(nostack, preserves_flags));
            }
        }
    };
}

impl Physical {
    physical_access!(read8, write8, u8, reg_byte, "{0}");
    physical_access!(read16, write16, u16, reg, "{0:x}");
    physical_access!(read32, write32, u32, reg, "{0:e}");
    physical_access!(read64, write64, u64, reg, "{0:r}");

    /// Whether [`Self::read8`] and its sisters may be called for `len` bytes at `address`.
    pub fn is_mapped(&self, address: u64, len: u64) -> bool {
        address.checked_add(len).is_some_and(|end| end < MAPPED_END - 8)
    }

    /// Whether [`Self::write8`] and its sisters may be called for `len` bytes at `address`.
    pub fn is_writable(&self, address: u64, len: u64) -> bool {
        address >= self.floor && self.is_mapped(address, len)
    }

    /// Fills memory.
    pub fn fill(&self, address: u64, len: u64, value: u8) {
        for offset in 0..len {
            self.write8(address + offset, value);
        }
    }
}

/// The machine.
pub struct Machine {
    /// Physical memory.
    pub memory: Physical,
    /// What PVH told.
    pub start_info: Option<StartInfo>,
    /// What ACPI tells of power and time.
    pub fadt: Option<Fadt>,
    arena_start: u64,
    arena_next: u64,
}

impl Machine {
    /// The machine, from the address of its start info.
    ///
    /// # Safety
    /// The first 64 GiB of physical memory are mapped to themselves, and nothing of this program lies at or above
    /// `image_end`.
    #[expect(unsafe_code, reason = "its promise is what the rest builds on")]
    pub unsafe fn new(start_info: u64, image_end: u64) -> Self {
        let floor = image_end.next_multiple_of(4096);
        let memory = Physical { floor };
        let start_info = StartInfo::at(&memory, start_info);
        let fadt = start_info.and_then(|info| Fadt::find(&memory, info.rsdp(&memory)));
        Self { memory, start_info, fadt, arena_start: floor, arena_next: floor }
    }

    /// The command line that the guest was started with.
    pub fn command_line(&self) -> CommandLine {
        match self.start_info {
            Some(info) => info.command_line(&self.memory),
            None => CommandLine::default(),
        }
    }

    /// End of usable memory below 4 GiB.
    pub fn low_memory_end(&self) -> u64 {
        let ranges = self.start_info.into_iter().flat_map(|info| info.usable(&self.memory));
        ranges.map(|r| r.end).filter(|&end| end <= 1 << 32).max().unwrap_or(0)
    }

    /// Gives all memory back that [`Self::allocate`] has handed out.
    pub fn free_all(&mut self) {
        self.arena_next = self.arena_start;
    }

    /// `len` bytes of zeroed memory for devices.
    pub fn allocate(&mut self, len: u64, alignment: u64) -> Result<u64, Failure> {
        let address = self.arena_next.next_multiple_of(alignment);
        let end = address + len;
        if end > self.low_memory_end().min(self.arena_start + ARENA_BYTES) {
            return Err("the machine has too little memory for this test");
        }
        self.arena_next = end;
        self.memory.fill(address, len, 0);
        Ok(address)
    }

    /// Asks `ready` until it says yes or `ms` milliseconds have passed; whether it did.
    pub fn wait(&self, ms: u32, mut ready: impl FnMut() -> bool) -> bool {
        let Some(timer) = self.fadt.and_then(|f| f.pm_timer) else {
            return (0..ms.saturating_mul(POLLS_PER_MS)).any(|_| ready());
        };
        let start = ports::read32(timer);
        let ticks = ms.saturating_mul(TICKS_PER_MS).min(TICKS_MASK / 2);
        loop {
            if ready() {
                return true;
            }
            if ports::read32(timer).wrapping_sub(start) & TICKS_MASK > ticks {
                return false;
            }
        }
    }

    /// Powers the machine off through ACPI; resets it where that has no effect.
    pub fn power_off(&self) -> ! {
        if let Some(fadt) = self.fadt {
            ports::write8(fadt.sleep_control, fadt.power_off);
            self.wait(1000, || false);
        }
        say!("fail power-off: the machine is still on");
        self.reset()
    }

    /// Resets the machine through ACPI's reset register, or else the keyboard controller.
    pub fn reset(&self) -> ! {
        if let Some(fadt) = self.fadt {
            ports::write8(fadt.reset, fadt.reset_value);
            self.wait(1000, || false);
            say!("fail reset: the reset register does nothing");
        }
        ports::write8(I8042_COMMAND, I8042_RESET);
        self.wait(1000, || false);
        say!("fail reset: the keyboard controller does nothing");
        ports::triple_fault()
    }

    /// Says that the kernel panicked, as Linux's pvpanic driver does, and stops.
    pub fn report_panic(&self) -> ! {
        ports::write8(PVPANIC, PVPANIC_PANICKED);
        ports::halt_forever()
    }
}
