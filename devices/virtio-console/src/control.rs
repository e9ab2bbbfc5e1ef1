//! Control messages (virtio 1.3 §5.3.6.2).

use orlop_virtio::Buffers;

/// `struct virtio_console_control`: le32 id, le16 event, le16 value.
pub(crate) const MESSAGE_BYTES: usize = 8;

const DEVICE_READY: u16 = 0;
const PORT_ADD: u16 = 1;
const PORT_READY: u16 = 3;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// What the device says about a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToGuest {
    /// It exists.
    Add,
    /// What it is called.
    Name,
    /// A host peer came or went.
    Open(bool),
}

impl ToGuest {
    /// The message about port `id`.
    pub(crate) fn encode(self, id: u32, name: &str) -> Vec<u8> {
        let (event, value) = match self {
            Self::Add => (PORT_ADD, 1),
            Self::Name => (PORT_NAME, 1),
            Self::Open(open) => (PORT_OPEN, u16::from(open)),
        };
        let mut message = Vec::with_capacity(MESSAGE_BYTES);
        message.extend(id.to_le_bytes());
        message.extend(event.to_le_bytes());
        message.extend(value.to_le_bytes());
        if self == Self::Name {
            message.extend(name.as_bytes());
        }
        message
    }
}

/// What the driver says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromGuest {
    /// It wants to hear of the ports; or it gave up.
    DeviceReady(bool),
    /// It has set the port up; or it could not.
    PortReady(u32, bool),
    /// A program opened the port, or closed it.
    PortOpen(u32, bool),
}

impl FromGuest {
    /// Reads a message; `None` if it is short or unknown.
    pub(crate) fn decode(message: &Buffers) -> Option<Self> {
        let mut raw = [0; MESSAGE_BYTES];
        message.copy_to(&mut raw).ok()?;
        let [i0, i1, i2, i3, e0, e1, v0, v1] = raw;
        let id = u32::from_le_bytes([i0, i1, i2, i3]);
        let yes = u16::from_le_bytes([v0, v1]) == 1;
        match u16::from_le_bytes([e0, e1]) {
            DEVICE_READY => Some(Self::DeviceReady(yes)),
            PORT_READY => Some(Self::PortReady(id, yes)),
            PORT_OPEN => Some(Self::PortOpen(id, yes)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_specified() {
        assert_eq!(ToGuest::Add.encode(2, "x"), [2, 0, 0, 0, 1, 0, 1, 0]);
        assert_eq!(ToGuest::Open(true).encode(1, "x"), [1, 0, 0, 0, 6, 0, 1, 0]);
        assert_eq!(ToGuest::Open(false).encode(1, "x"), [1, 0, 0, 0, 6, 0, 0, 0]);
        assert_eq!(ToGuest::Name.encode(3, "ab"), [3, 0, 0, 0, 7, 0, 1, 0, b'a', b'b']);
    }
}
