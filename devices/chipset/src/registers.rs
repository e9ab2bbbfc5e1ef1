//! Byte registers on a port bus.

/// A device whose registers are single bytes. A wider access reaches neighbouring registers one after the other, as an
/// 8-bit device on a real bus sees it (each byte is a cycle of its own).
pub(crate) trait ByteRegisters: Send + Sync {
    /// Number of registers.
    const LEN: u8;

    /// Reads register `offset`, below [`Self::LEN`].
    fn read_byte(&self, offset: u8) -> u8;

    /// Writes register `offset`, below [`Self::LEN`].
    fn write_byte(&self, offset: u8, value: u8);
}

/// The register `index` bytes after `offset`, if the device has it.
fn register<T: ByteRegisters>(offset: u64, index: usize) -> Option<u8> {
    let register = offset.checked_add(u64::try_from(index).ok()?)?;
    u8::try_from(register).ok().filter(|&r| r < T::LEN)
}

/// Fills `data` from the registers at `offset`; where there are none, it is all ones.
pub(crate) fn read<T: ByteRegisters>(device: &T, offset: u64, data: &mut [u8]) {
    for (index, byte) in data.iter_mut().enumerate() {
        *byte = register::<T>(offset, index).map_or(0xff, |r| device.read_byte(r));
    }
}

/// Writes `data` to the registers at `offset`; what lies beyond them is dropped.
pub(crate) fn write<T: ByteRegisters>(device: &T, offset: u64, data: &[u8]) {
    for (index, &byte) in data.iter().enumerate() {
        if let Some(register) = register::<T>(offset, index) {
            device.write_byte(register, byte);
        }
    }
}

/// Puts a [`ByteRegisters`] on the bus.
macro_rules! on_the_bus {
    ($device:ty) => {
        impl orlop_bus::BusDevice for $device {
            fn read(&self, offset: u64, data: &mut [u8]) {
                $crate::registers::read(self, offset, data);
            }
            fn write(&self, offset: u64, data: &[u8]) {
                $crate::registers::write(self, offset, data);
            }
        }
    };
}
pub(crate) use on_the_bus;
