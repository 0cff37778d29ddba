use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use qrcodegen::{QrCode, QrCodeEcc};

use super::TotpSecret;
use crate::{model::one_line, secret::Secret};

/// The URI and QR code that add a secret to an authenticator app. Show them once, on a page sent with
/// `Cache-Control: no-store`.
#[derive(Clone, Debug)]
#[must_use = "the user needs the QR code or the URI"]
pub struct TotpSetup {
    uri: Secret,
}

impl TotpSetup {
    pub(super) fn new(secret: &TotpSecret, issuer: &str, account: &str) -> Self {
        let (issuer, account) = (escape(issuer, MAX_ISSUER_LEN), escape(account, MAX_ACCOUNT_LEN));
        let secret = secret.expose();
        // Allocates once: a string that grows would leave unzeroed copies of the secret in memory.
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

    /// Returns the URI that apps understand: `otpauth://totp/Lumio:ada?secret=…`. On a phone it also works as
    /// a link. Long names are truncated.
    pub fn uri(&self) -> &Secret {
        &self.uri
    }

    /// Returns the URI as a QR code: an SVG element to embed in an HTML page unchanged. It contains no
    /// untrusted text, and is always black on white, as scanners require.
    pub fn qr_svg(&self) -> Secret {
        let code = QrCode::encode_text(self.uri.expose(), QrCodeEcc::Low);
        let code =
            code.expect("names are truncated so that the URI fits the 2,953 bytes of a QR code");
        let size = code.size() + 2 * BORDER;
        // Allocates once, as above: each dark module takes at most 16 bytes.
        let mut svg = String::with_capacity(300 + (code.size() * code.size()) as usize * 16);
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" role="img" shape-rendering="crispEdges"><rect width="{size}" height="{size}" fill="#fff"/><path fill="#000" d=""##
        );
        for y in 0..code.size() {
            for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
                let _ = write!(svg, "M{},{}h1v1h-1z", x + BORDER, y + BORDER);
            }
        }
        svg.push_str(r#""/></svg>"#);
        Secret::from(svg)
    }
}

/// Percent-encodes a name for any part of a URI, and truncates the result to `max_len` bytes.
fn escape(text: &str, max_len: usize) -> String {
    let mut escaped = String::new();
    for character in one_line(text.trim()).chars() {
        let mut bytes = [0; 4];
        let encoded = utf8_percent_encode(character.encode_utf8(&mut bytes), &RESERVED).to_string();
        if escaped.len() + encoded.len() > max_len {
            break;
        }
        escaped.push_str(&encoded);
    }
    escaped
}

/// All characters except those that RFC 3986 calls unreserved.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Maximum lengths in bytes, percent-encoded. The URI contains the issuer twice.
const MAX_ISSUER_LEN: usize = 300;
const MAX_ACCOUNT_LEN: usize = 900;
/// The width of the white border that scanners need, in modules.
const BORDER: i32 = 4;
