use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use qrcodegen::{QrCode, QrCodeEcc};

use super::TotpSecret;
use crate::{model::one_line, secret::Secret};

/// What a person needs to put a secret into an authenticator app. Show it once, on a page that no cache
/// keeps.
#[derive(Clone, Debug)]
#[must_use = "it is there to be shown"]
pub struct TotpSetup {
    uri: Secret,
}

impl TotpSetup {
    pub(super) fn new(secret: &TotpSecret, issuer: &str, account: &str) -> Self {
        let (issuer, account) = (escaped(issuer, MAX_ISSUER), escaped(account, MAX_ACCOUNT));
        let secret = secret.expose();
        // The full capacity at once: a growing string would leave parts of the secret behind.
        let mut uri = String::with_capacity(100 + secret.len() + 2 * issuer.len() + account.len());
        uri.push_str("otpauth://totp/");
        if !issuer.is_empty() {
            uri.extend([issuer.as_str(), ":"]);
        }
        uri.extend([account.as_str(), "?secret=", secret]);
        if !issuer.is_empty() {
            uri.extend(["&issuer=", issuer.as_str()]);
        }
        uri.push_str("&algorithm=SHA1&digits=6&period=30");
        Self { uri: Secret::from(uri) }
    }

    /// The address that apps understand: `otpauth://totp/Lumio:ada?secret=…`, also for a link on the
    /// phone itself. Long names are cut.
    pub fn uri(&self) -> &Secret {
        &self.uri
    }

    /// The address as a QR code: an SVG picture to be put into a page as it is. It holds no text of
    /// anyone, and its colours are its own: black on white, as scanners want it.
    pub fn qr_svg(&self) -> Secret {
        let code = QrCode::encode_text(self.uri.expose(), QrCodeEcc::Low);
        let code = code.expect("names are cut so that all fits into the 2,953 bytes of a QR code");
        let size = code.size() + 2 * QUIET;
        // Again all at once: a dark square takes 16 bytes at most.
        let mut svg = String::with_capacity(300 + (code.size() * code.size()) as usize * 16);
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" role="img" shape-rendering="crispEdges"><rect width="{size}" height="{size}" fill="#fff"/><path fill="#000" d=""##
        );
        for y in 0..code.size() {
            for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
                let _ = write!(svg, "M{},{}h1v1h-1z", x + QUIET, y + QUIET);
            }
        }
        svg.push_str(r#""/></svg>"#);
        Secret::from(svg)
    }
}

/// One line that is nothing but text, wherever it stands in an address, and no longer than `max`.
fn escaped(text: &str, max: usize) -> String {
    let mut escaped = String::new();
    for character in one_line(text.trim()).chars() {
        let mut bytes = [0; 4];
        let part = utf8_percent_encode(character.encode_utf8(&mut bytes), &OUTSIDE).to_string();
        if escaped.len() + part.len() > max {
            break;
        }
        escaped.push_str(&part);
    }
    escaped
}

/// All but what RFC 3986 calls unreserved.
const OUTSIDE: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// In bytes, escaped. The issuer is there twice.
const MAX_ISSUER: usize = 300;
const MAX_ACCOUNT: usize = 900;
/// The empty border that a scanner needs.
const QUIET: i32 = 4;
