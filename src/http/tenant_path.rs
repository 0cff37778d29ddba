use percent_encoding::percent_decode_str;

use crate::model::Invalid;

/// Where in the path of a URL the name of a tenant stands: `/t/{tenant}`.
#[derive(Clone, Debug)]
pub(super) struct TenantPath {
    before: Box<[Box<str>]>,
}

impl TenantPath {
    pub(super) fn new(template: &str) -> Result<Self, Invalid> {
        let expected = || {
            let why = "write it as /t/{tenant}: whole segments, the last one in braces";
            Invalid::new("path of tenants", why)
        };
        let (before, last) = template.rsplit_once('/').ok_or_else(expected)?;
        let name = last.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        name.filter(|name| !name.is_empty() && !is_pattern(name)).ok_or_else(expected)?;
        let mut words = before.split('/');
        if words.next() != Some("") || words.clone().any(|word| word.is_empty() || is_pattern(word))
        {
            return Err(expected());
        }
        Ok(Self { before: words.map(Into::into).collect() })
    }

    /// The tenant that a path names, as a router would tell it to a handler: decoded once.
    pub(super) fn find(&self, path: &str) -> String {
        self.segment(path).unwrap_or_else(|| NOBODY.into())
    }

    fn segment(&self, path: &str) -> Option<String> {
        let mut segments = path.strip_prefix('/')?.split('/');
        for word in &self.before {
            segments.next().filter(|segment| *segment == &**word)?;
        }
        let segment = segments.next().filter(|segment| has_good_escapes(segment))?;
        let name = percent_decode_str(segment).decode_utf8().ok()?;
        // The empty text is the tenant of accounts that have none.
        (!name.is_empty()).then(|| name.into_owned())
    }
}

/// Where one is no good, routers do not read alike: actix-web decodes around it, and then once more.
fn has_good_escapes(segment: &str) -> bool {
    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let mut escapes = segment.split('%').skip(1).map(str::as_bytes);
    escapes.all(|rest| is_digit(rest.first()) && is_digit(rest.get(1)))
}

fn is_pattern(word: &str) -> bool {
    word.contains(['{', '}', '*'])
}

/// A tenant of this name cannot be: an [`Owner`](crate::model::Owner) holds no NUL. So no key passes, and the
/// answer is that for an unknown one.
const NOBODY: &str = "\0";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_the_tenant_that_a_router_would_tell() {
        let place = TenantPath::new("/t/{tenant}").unwrap();
        for (path, tenant) in [
            ("/t/acme", "acme"),
            ("/t/acme/users", "acme"),
            ("/t/%61cme/", "acme"),
            ("/t/%2561cme", "%61cme"),
            ("/t/acme%2Fother", "acme/other"),
            ("/t/gr%C3%BCn", "grün"),
            ("/t/../t/acme", ".."),
            ("/t/%00", NOBODY),
            ("/t//acme", NOBODY),
            ("/t/", NOBODY),
            ("/t", NOBODY),
            ("/T/acme", NOBODY),
            ("//t/acme", NOBODY),
            ("/x/t/acme", NOBODY),
            ("/t/%ff", NOBODY),
            ("/t/a%zz", NOBODY),
            ("/t/a%", NOBODY),
            ("/t/a%4", NOBODY),
            ("/t/%%36%31cme", NOBODY),
            ("t/acme", NOBODY),
            ("*", NOBODY),
            ("", NOBODY),
        ] {
            assert_eq!(place.find(path), tenant, "{path}");
        }
        assert_eq!(TenantPath::new("/{tenant}").unwrap().find("/acme/x"), "acme");
    }

    #[test]
    fn a_template_without_a_place_for_the_tenant_is_refused() {
        for template in [
            "", "/", "/t", "{t}", "/t/{}", "/t/{t}/", "//{t}", "t/{t}", "/t/x{t}", "/{a}/{b}",
            "/t/{*t}",
        ] {
            assert!(TenantPath::new(template).is_err(), "{template}");
        }
    }
}
