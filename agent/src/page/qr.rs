//! A text as a QR code, drawn as one path.

use std::fmt::Write as _;

use qrcodegen::{QrCode, QrCodeEcc};

/// Light modules around the code, which readers need to find it.
const QUIET: i32 = 4;
/// Longest text in bytes; a device's id is far shorter.
const TEXT_BYTES_MAX: usize = 256;

/// `text` as inline SVG; `None` if it is too long to be read from a small screen.
pub(super) fn svg(text: &str) -> Option<String> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let side = code.size() + 2 * QUIET;
    let mut path = String::new();
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            let _ = write!(path, "M{},{}h1v1h-1z", x + QUIET, y + QUIET);
        }
    }
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" role=\"img\" \
         aria-label=\"the device's id as a QR code\" shape-rendering=\"crispEdges\">\
         <path fill=\"#fff\" d=\"M0,0h{side}v{side}h-{side}z\"/>\
         <path fill=\"#000\" d=\"{path}\"/></svg>"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dark_module_is_drawn_inside_a_quiet_zone() {
        let text = "pump-07";
        let code = QrCode::encode_text(text, QrCodeEcc::Medium).unwrap();
        let dark = (0..code.size())
            .flat_map(|y| (0..code.size()).map(move |x| (x, y)))
            .filter(|(x, y)| code.get_module(*x, *y));
        let drawn = svg(text).unwrap();
        for (x, y) in dark.clone() {
            let module = format!("M{},{}h1v1h-1z", x + QUIET, y + QUIET);
            assert!(drawn.contains(&module), "{x} {y}");
        }
        assert_eq!(drawn.matches("h1v1h-1z").count(), dark.count());
        let side = code.size() + 2 * QUIET;
        assert!(drawn.contains(&format!("viewBox=\"0 0 {side} {side}\"")));
    }

    #[test]
    fn a_text_that_is_too_long_is_not_drawn() {
        assert_eq!(svg(""), None);
        assert_eq!(svg(&"a".repeat(TEXT_BYTES_MAX + 1)), None);
    }
}
