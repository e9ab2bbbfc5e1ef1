//! Names as Kubernetes wants them (apimachinery `util/validation`), with its words for those that are not.

/// RFC 1123 §2.1 with RFC 1035's length.
const LABEL_MAX_BYTES: usize = 63;
/// RFC 1035 §2.3.4, without the final dot and length.
const SUBDOMAIN_MAX_BYTES: usize = 253;
/// RFC 6335 §5.1.
const PORT_NAME_MAX_BYTES: usize = 15;

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
     start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
     '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

/// What is wrong with a DNS label; nothing where it is one.
pub(super) fn label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX_BYTES {
        wrong.push(format!("must be no more than {LABEL_MAX_BYTES} bytes"));
    }
    if !is_label(text) {
        wrong.push(LABEL.to_owned());
    }
    wrong
}

/// What is wrong with a DNS subdomain; nothing where it is one.
pub(super) fn subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_MAX_BYTES {
        wrong.push(format!("must be no more than {SUBDOMAIN_MAX_BYTES} bytes"));
    }
    if !text.split('.').all(is_label) {
        wrong.push(SUBDOMAIN.to_owned());
    }
    wrong
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().copied().is_some_and(alphanumeric)
        && bytes.last().copied().is_some_and(alphanumeric)
        && bytes.iter().all(|&c| alphanumeric(c) || c == b'-')
}

/// Whether it is an IANA service name.
pub(super) fn is_port_name(text: &str) -> bool {
    text.len() <= PORT_NAME_MAX_BYTES
        && is_label(text)
        && !text.contains("--")
        && text.bytes().any(|c| c.is_ascii_lowercase())
}

/// Whether it is made of what a serial number may hold.
pub(super) fn is_serial(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.+-".contains(&c))
}

/// Whether it is a PCI address: domain, bus, device and function, such as `0000:05:00.0`.
pub(super) fn is_pci_address(text: &str) -> bool {
    let hex = |part: &str, digits: usize| part.len() == digits && part.bytes().all(|c| c.is_ascii_hexdigit());
    let mut parts = text.split(':');
    let (Some(domain), Some(bus), Some(rest), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    rest.split_once('.').is_some_and(|(device, function)| {
        hex(domain, 4)
            && hex(bus, 2)
            && hex(device, 2)
            && function.len() == 1
            && matches!(function.as_bytes()[0], b'0'..=b'7')
    })
}

/// The bytes of a hardware address: pairs with colons or dashes, or fours with dots, of 6, 8 or 20 bytes (as Go's
/// `net.ParseMAC` reads it).
pub(super) fn mac(text: &str) -> Option<Vec<u8>> {
    let separator = text.chars().find(|c| !c.is_ascii_hexdigit())?;
    let digits = match separator {
        ':' | '-' => 2,
        '.' => 4,
        _ => return None,
    };
    let mut bytes = Vec::new();
    for group in text.split(separator) {
        if group.len() != digits || !group.bytes().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        for at in (0..digits).step_by(2) {
            bytes.push(u8::from_str_radix(group.get(at..at + 2)?, 16).ok()?);
        }
    }
    matches!(bytes.len(), 6 | 8 | 20).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_lower_case_and_short() {
        assert!(label("a-1").is_empty());
        for text in ["", "-a", "a-", "A", "a.b", "ä"] {
            assert_eq!(label(text), [LABEL], "{text}");
        }
        assert_eq!(label(&"a".repeat(64)), ["must be no more than 63 bytes"]);
    }

    #[test]
    fn a_subdomain_is_labels_with_dots() {
        assert!(subdomain("a.b-c.d").is_empty());
        assert_eq!(subdomain("a..b"), [SUBDOMAIN]);
    }

    #[test]
    fn port_names_are_iana_service_names() {
        for (text, want) in [("http", true), ("a-1", true), ("1", false), ("a--b", false), ("a-", false)] {
            assert_eq!(is_port_name(text), want, "{text}");
        }
        assert!(!is_port_name("abcdefghijklmnop"));
    }

    #[test]
    fn hardware_addresses_are_read_as_go_does() {
        assert_eq!(mac("02:00:00:00:00:01").unwrap().len(), 6);
        assert_eq!(mac("02-00-00-00-00-01").unwrap().len(), 6);
        assert_eq!(mac("0200.0000.0001").unwrap().len(), 6);
        assert_eq!(mac("02:00:00:00:00:00:00:01").unwrap().len(), 8);
        for text in
            ["", "02", "02:00", "02:00:00:00:00:0g", "02:00:00:00:00:+1", "020000000001", "é2:00:00:00:00:01"]
        {
            assert_eq!(mac(text), None, "{text}");
        }
    }

    #[test]
    fn pci_addresses_have_all_four_parts() {
        assert!(is_pci_address("0000:05:1f.7"));
        for text in ["", "05:00.0", "0000:05:00", "0000:05:00.8", "0000:05:00.0:1", "00x0:05:00.0"] {
            assert!(!is_pci_address(text), "{text}");
        }
    }
}
