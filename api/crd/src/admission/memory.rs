//! Memory: requests, limits, the guest's share, huge pages.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::cause::{Causes, Path};
use crate::domain::DomainSpec;
use crate::quantity::{self, QuantityError};

/// The least memory that may be asked for: 1M.
const MIN_BYTES: u64 = 1_000_000;

/// `requests` or `limits` of one resource.
pub(super) fn request<'d>(domain: &'d DomainSpec, name: &str) -> Option<&'d Quantity> {
    domain.resources.as_ref()?.requests.get(name)
}

/// See [`request`].
pub(super) fn limit<'d>(domain: &'d DomainSpec, name: &str) -> Option<&'d Quantity> {
    domain.resources.as_ref()?.limits.get(name)
}

/// The number of bytes; 0 where nothing, or no quantity, is given.
pub(super) fn bytes(quantity: Option<&Quantity>) -> u64 {
    quantity.and_then(|quantity| quantity::bytes(quantity).ok()).unwrap_or_default()
}

/// Says so where a quantity is negative or none at all.
pub(super) fn positive(field: &Path, quantity: Option<&Quantity>, causes: &mut Causes) {
    let Some(quantity) = quantity else { return };
    match quantity::bytes(quantity) {
        Err(QuantityError::Negative(text)) => {
            causes.invalid(field, format!("{field} '{text}': must be greater than or equal to 0."));
        }
        Err(error) => causes.invalid(field, format!("{field} {error}")),
        Ok(_) => {}
    }
}

pub(super) fn check(at: &Path, domain: &DomainSpec, causes: &mut Causes) {
    let (requests, limits) =
        (at.child("domain.resources.requests.memory"), at.child("domain.resources.limits.memory"));
    let (request, limit) = (request(domain, "memory"), limit(domain, "memory"));
    positive(&requests, request, causes);
    if let Some(quantity) = request.filter(|quantity| (1..MIN_BYTES).contains(&bytes(Some(quantity)))) {
        let message = format!("{requests} '{}': must be greater than or equal to 1M.", quantity.0);
        causes.invalid(&requests, message);
    }
    positive(&limits, limit, causes);
    if let (Some(request), Some(limit)) = (request, limit)
        && bytes(Some(limit)) > 0
        && bytes(Some(request)) > bytes(Some(limit))
    {
        let message = format!("{requests} '{}' is greater than {limits} '{}'", request.0, limit.0);
        causes.invalid(&requests, message);
    }
    hugepages(at, domain, causes);
    let guest_field = at.child("domain.memory.guest");
    let guest = domain.memory.as_ref().and_then(|memory| memory.guest.as_ref());
    positive(&guest_field, guest, causes);
    if let (Some(guest), Some(limit)) = (guest, limit)
        && bytes(Some(limit)) != 0
        && bytes(Some(limit)) < bytes(Some(guest))
    {
        causes.invalid(
            &guest_field,
            format!(
                "{guest_field} '{}' must be equal to or less than the memory limit {limits} '{}'",
                guest.0, limit.0
            ),
        );
    }
}

/// Memory is a whole number of huge pages. What the guest has decides, else what is requested.
fn hugepages(at: &Path, domain: &DomainSpec, causes: &mut Causes) {
    let Some(pages) = domain.memory.as_ref().and_then(|memory| memory.hugepages.as_ref()) else { return };
    let size_field = at.child("domain.hugepages.size");
    let text = pages.page_size.clone().unwrap_or_default();
    let page_bytes = match quantity::bytes(&Quantity(text.clone())) {
        Ok(page_bytes) if page_bytes > 0 => page_bytes,
        _ => {
            let format =
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
            causes.invalid(&size_field, format!("{size_field} '{text}': {format}"));
            return;
        }
    };
    let guest = domain.memory.as_ref().and_then(|memory| memory.guest.as_ref());
    let memory =
        [("domain.resources.requests.memory", request(domain, "memory")), ("domain.memory.guest", guest)];
    for (name, quantity) in memory {
        let Some(quantity) = quantity else { continue };
        let field = at.child(name);
        let wanted = bytes(Some(quantity));
        if wanted < page_bytes {
            let message = format!(
                "{field} '{}' must be equal to or larger than page size {size_field} '{text}'",
                quantity.0
            );
            causes.invalid(&field, message);
        } else if !wanted.is_multiple_of(page_bytes) {
            let message =
                format!("{field} '{}' is not a multiple of the page size {size_field} '{text}'", quantity.0);
            causes.invalid(&field, message);
        }
    }
}
