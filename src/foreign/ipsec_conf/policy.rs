//! `type=passthrough`, `drop` and `reject`: a conn without IPsec.

use super::super::Import;
use super::super::policy::Shunt;
use super::parse::Section;

/// Takes it over.
pub(super) fn shunt(from: &Section, kind: &str, ours: &str, what: &str, import: &mut Import) {
    let theirs = if ours == "left" { "right" } else { "left" };
    let value = |key: String| from.settings.get(&key).map(|setting| setting.value.as_str());
    let side = |side: &str| -> Vec<String> {
        let subnets = value(format!("{side}subnet")).or_else(|| value(format!("{side}subnets")));
        let ports = value(format!("{side}protoport")).map(|ports| format!("[{ports}]"));
        let list = match subnets {
            Some(list) => list,
            // What is no address stands for whatever there is.
            None => value(side.to_owned())
                .filter(|text| text.parse::<core::net::IpAddr>().is_ok())
                .unwrap_or("any"),
        };
        let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
        let with_ports = |item: &str| match &ports {
            Some(ports) if !item.contains('[') => format!("{item}{ports}"),
            Some(_) | None => item.to_owned(),
        };
        items.map(with_ports).collect()
    };
    if kind == "reject" {
        import.note(
            &from.at,
            format!("type=reject of {what}"),
            "it is dropped, and nobody is told",
        );
    }
    let auto = value("auto".to_owned()).unwrap_or("ignore");
    import.add_shunt(&Shunt {
        name: &from.name,
        what,
        at: &from.at,
        bypass: kind == "passthrough" || kind == "passthru",
        local: side(ours),
        remote: side(theirs),
        is_installed: ["route", "ondemand", "start"].contains(&auto),
    });
}
