//! Which end of a connection is ours: both hosts may have the same file.

use core::net::IpAddr;

use super::parse::Section;
use crate::foreign::Import;

/// `left` or `right`. Of two addresses neither of which is this host's it is `left`, and a note says so.
pub(super) fn ours(section: &Section, addresses: &[IpAddr], import: &mut Import) -> &'static str {
    let value = |side: &str| section.settings.get(side).map(|setting| setting.value.as_str());
    let address = |side| value(side).and_then(|text| text.parse::<IpAddr>().ok());
    let is_ours = |side| {
        value(side) == Some("%defaultroute")
            || address(side).is_some_and(|it| addresses.contains(&it))
    };
    if is_ours("left") {
        return "left";
    }
    if is_ours("right") {
        return "right";
    }
    if let (Some(left), Some(right)) = (address("left"), address("right")) {
        let why = format!(
            "neither {left} nor {right} is an address of this host: left was taken; if right is, import with --address {right}"
        );
        import.note(&section.at, format!("which end of conn `{}` is ours", section.name), why);
    }
    "left"
}
