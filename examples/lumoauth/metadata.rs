//! Client metadata (RFC 7591, section 2): the fields that LumoAuth supports.

use std::{borrow::Cow, net::Ipv6Addr};

use axum::http::Uri;
use keyward::model::one_line;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::RegistrationError;

/// The validated metadata of a client, with defaults for omitted fields.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ClientMetadata {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    redirect_uris: Vec<String>,
    token_endpoint_auth_method: String,
    grant_types: Vec<String>,
    response_types: Vec<String>,
    scope: String,
    /// Fields that are only stored and returned.
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl ClientMetadata {
    /// Validates the requested metadata. Unknown fields are ignored.
    pub fn read(requested: Map<String, Value>) -> Result<Self, RegistrationError> {
        let mut requested = RequestedMetadata(requested);
        let grant_types = requested.choices("grant_types", &GRANT_TYPES)?;
        let grant_types = grant_types.unwrap_or_else(|| vec![CODE_GRANT.into()]);
        let granted = |wanted: &str| grant_types.iter().any(|grant| grant == wanted);
        let code = granted(CODE_GRANT);
        let response_types = requested.choices("response_types", &RESPONSE_TYPES)?;
        // A client that does not use the authorization endpoint needs no response type.
        let response_types =
            response_types.unwrap_or_else(|| if code { vec!["code".into()] } else { Vec::new() });
        if code == response_types.is_empty() {
            return Err(RegistrationError::metadata(
                "grant_types must contain authorization_code if and only if response_types contains code",
            ));
        }
        if grant_types.is_empty() || granted("refresh_token") && !code {
            return Err(RegistrationError::metadata(
                "grant_types must contain authorization_code, or client_credentials without refresh_token",
            ));
        }
        let method = requested.text("token_endpoint_auth_method", MAX_TEXT)?;
        let method = method.unwrap_or_else(|| "client_secret_basic".into());
        if !AUTH_METHODS.contains(&method.as_str()) {
            return Err(invalid_choice("token_endpoint_auth_method", &AUTH_METHODS));
        }
        if method == "none" && granted("client_credentials") {
            return Err(RegistrationError::metadata(
                "client_credentials requires a client authentication method other than none",
            ));
        }
        let redirect_uris = requested.redirect_uris(code)?;
        let scope = requested.scope()?;
        let more = requested.more()?;
        if method == "private_key_jwt"
            && !more.contains_key("jwks")
            && !more.contains_key("jwks_uri")
        {
            return Err(RegistrationError::metadata("private_key_jwt requires jwks or jwks_uri"));
        }
        Ok(Self {
            redirect_uris,
            token_endpoint_auth_method: method,
            grant_types,
            response_types,
            scope,
            more,
        })
    }

    /// Returns whether the client authenticates with a secret.
    pub fn needs_secret(&self) -> bool {
        self.token_endpoint_auth_method.starts_with("client_secret_")
    }

    /// Adds the software statement, which is returned unmodified.
    pub fn with_statement(mut self, statement: String) -> Self {
        self.more.insert("software_statement".into(), statement.into());
        self
    }
}

/// The requested fields that are not yet processed.
struct RequestedMetadata(Map<String, Value>);

impl RequestedMetadata {
    /// Removes and returns a field. `null` counts as omitted.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name).filter(|value| !value.is_null())
    }

    fn text(&mut self, name: &str, max: usize) -> Result<Option<String>, RegistrationError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if is_line(&text, max) => Ok(Some(text)),
            Some(_) => Err(RegistrationError::metadata(format!(
                "{name} must be one line of 1 to {max} characters"
            ))),
        }
    }

    fn list(&mut self, name: &str) -> Result<Option<Vec<String>>, RegistrationError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let texts = value.as_array().filter(|all| all.len() <= MAX_LIST).and_then(|all| {
            let text = |value: &Value| Some(value.as_str()?.to_owned());
            all.iter().map(text).collect::<Option<Vec<_>>>()
        });
        let expected = || {
            RegistrationError::metadata(format!(
                "{name} must be an array of at most {MAX_LIST} strings"
            ))
        };
        texts.map(Some).ok_or_else(expected)
    }

    fn choices(
        &mut self,
        name: &str,
        known: &[&str],
    ) -> Result<Option<Vec<String>>, RegistrationError> {
        let Some(mut list) = self.list(name)? else { return Ok(None) };
        list.sort_unstable();
        list.dedup();
        let all_known = list.iter().all(|wanted| known.contains(&wanted.as_str()));
        if all_known { Ok(Some(list)) } else { Err(invalid_choice(name, known)) }
    }

    fn redirect_uris(&mut self, needed: bool) -> Result<Vec<String>, RegistrationError> {
        let bad = |why: &str| RegistrationError::RedirectUri(format!("redirect_uris: {why}"));
        let list =
            self.list("redirect_uris").map_err(|_| bad("must be a short array of strings"))?;
        let list = list.unwrap_or_default();
        if needed && list.is_empty() {
            return Err(bad("authorization_code requires at least one"));
        }
        if !list.iter().all(|uri| is_https(uri) || is_loopback(uri)) {
            return Err(bad(
                "use absolute https URLs, or http URLs of the loopback interface, without fragment",
            ));
        }
        Ok(list)
    }

    /// Returns the requested scopes that exist, or the default scope if there are none.
    fn scope(&mut self) -> Result<String, RegistrationError> {
        let Some(requested) = self.text("scope", MAX_URL)? else { return Ok(SCOPES[0].into()) };
        let token = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if !requested.split(' ').all(|scope| !scope.is_empty() && scope.bytes().all(token)) {
            return Err(RegistrationError::metadata(
                "scope must be a list of words separated by single spaces",
            ));
        }
        let requested: Vec<_> = requested.split(' ').collect();
        let known: Vec<_> = SCOPES.into_iter().filter(|known| requested.contains(known)).collect();
        Ok(if known.is_empty() { SCOPES[0].into() } else { known.join(" ") })
    }

    /// Validates all other known fields. Human-readable fields may have a language tag: `client_name#de`.
    fn more(&mut self) -> Result<Map<String, Value>, RegistrationError> {
        let mut more = Map::new();
        for name in self.0.keys().cloned().collect::<Vec<_>>() {
            let (base, language) = name.split_once('#').unwrap_or((&name, "en"));
            let value = match base {
                _ if !is_language(language) => None,
                "client_name" => self.text(&name, MAX_TEXT)?.map(Value::from),
                "client_uri" | "logo_uri" | "tos_uri" | "policy_uri" => self.link(&name, is_web)?,
                _ if base != name => None,
                "jwks_uri" => self.link(&name, is_https)?,
                "jwks" => self.take(&name).map(public_keys).transpose()?,
                "software_id" | "software_version" => self.text(&name, MAX_TEXT)?.map(Value::from),
                "contacts" => self.contacts()?,
                _ => None,
            };
            more.extend(value.map(|value| (name, value)));
        }
        if more.contains_key("jwks") && more.contains_key("jwks_uri") {
            return Err(RegistrationError::metadata("jwks and jwks_uri must not both be present"));
        }
        Ok(more)
    }

    fn link(
        &mut self,
        name: &str,
        fits: fn(&str) -> bool,
    ) -> Result<Option<Value>, RegistrationError> {
        let link = self.text(name, MAX_URL)?;
        if link.as_deref().is_none_or(fits) {
            Ok(link.map(Value::from))
        } else {
            Err(RegistrationError::metadata(format!(
                "{name} must be an absolute http or https URL"
            )))
        }
    }

    fn contacts(&mut self) -> Result<Option<Value>, RegistrationError> {
        let contacts = self.list("contacts")?;
        if contacts.iter().flatten().all(|contact| is_line(contact, MAX_TEXT)) {
            Ok(contacts.map(Value::from))
        } else {
            Err(RegistrationError::metadata(format!(
                "contacts must be lines of 1 to {MAX_TEXT} characters"
            )))
        }
    }
}

fn invalid_choice(name: &str, known: &[&str]) -> RegistrationError {
    RegistrationError::metadata(format!("{name} must be one of {}", known.join(", ")))
}

/// Checks that the value is a JWK Set without private keys.
fn public_keys(set: Value) -> Result<Value, RegistrationError> {
    let is_public = |key: &Value| {
        let private = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
        key["kty"].is_string() && private.iter().all(|part| key.get(part).is_none())
    };
    let keys = set.get("keys").and_then(Value::as_array);
    if keys.is_some_and(|keys| keys.iter().all(is_public)) {
        Ok(set)
    } else {
        Err(RegistrationError::metadata("jwks must be a JWK Set of public keys"))
    }
}

fn is_line(text: &str, max: usize) -> bool {
    let is_one_line = matches!(one_line(text), Cow::Borrowed(_));
    is_one_line && !text.trim().is_empty() && text.chars().count() <= max
}

/// Checks the approximate syntax of an RFC 5646 language tag.
fn is_language(tag: &str) -> bool {
    let subtag = |part: &str| {
        (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    tag.len() <= 35 && tag.split('-').all(subtag)
}

fn is_web(text: &str) -> bool {
    host_of(text).is_some()
}

fn is_https(text: &str) -> bool {
    host_of(text).is_some_and(|(scheme, _)| scheme == "https")
}

/// Checks for a loopback URL, which native apps use (RFC 8252).
fn is_loopback(text: &str) -> bool {
    host_of(text)
        .is_some_and(|(_, host)| ["127.0.0.1", "[::1]", "localhost"].contains(&host.as_str()))
}

/// Returns the scheme and host of an absolute http or https URL. Rejects a fragment, user information, and
/// characters that browsers would normalize.
fn host_of(text: &str) -> Option<(String, String)> {
    let allowed = |b: u8| b.is_ascii_graphic() && !br##"#"<>\^`{|}"##.contains(&b);
    if text.len() > MAX_URL || !text.bytes().all(allowed) {
        return None;
    }
    let uri: Uri = text.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let host = authority.host();
    let named =
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let numbered = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let known = named || numbered.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    let whole = match authority.port_u16() {
        Some(_) => authority.as_str().strip_prefix(host)?.starts_with(':'),
        None => authority.as_str() == host,
    };
    let web = matches!(scheme, "https" | "http");
    (web && known && whole).then(|| (scheme.to_owned(), host.to_owned()))
}

pub const GRANT_TYPES: [&str; 3] = [CODE_GRANT, "client_credentials", "refresh_token"];
pub const RESPONSE_TYPES: [&str; 1] = ["code"];
pub const AUTH_METHODS: [&str; 4] =
    ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"];
pub const SCOPES: [&str; 3] = ["openid", "profile", "email"];
const CODE_GRANT: &str = "authorization_code";
const MAX_TEXT: usize = 200;
const MAX_URL: usize = 2_000;
const MAX_LIST: usize = 20;
