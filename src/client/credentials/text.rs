use zeroize::Zeroizing;

use super::profile::{DEFAULT, Profile};
use crate::secret::Secret;

/// What the file says: each line with the profile that it stands below.
pub(super) struct Text<'a> {
    lines: Vec<Line<'a>>,
}

struct Line<'a> {
    text: &'a [u8],
    profile: &'a str,
    is: Is<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Is<'a> {
    Header,
    Key(&'a str),
    Other,
}

impl<'a> Text<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Self {
        let mut profile = DEFAULT;
        let mut headed = false;
        let mut lines = Vec::new();
        for text in bytes.split_inclusive(|&byte| byte == b'\n') {
            let line = std::str::from_utf8(text).unwrap_or_default().trim();
            let is = match header(line) {
                Some(name) => {
                    (profile, headed) = (name, true);
                    Is::Header
                }
                None => key(line, headed).map_or(Is::Other, Is::Key),
            };
            lines.push(Line { text, profile, is });
        }
        Self { lines }
    }

    pub(super) fn get(&self, profile: &Profile) -> Option<Zeroizing<String>> {
        let mut keys = self.lines.iter().filter(|line| line.profile == profile.as_str());
        keys.rfind(|line| matches!(line.is, Is::Key(_))).and_then(|line| match line.is {
            Is::Key(text) => Some(Zeroizing::new(text.to_owned())),
            Is::Header | Is::Other => None,
        })
    }

    /// The whole text with another key for one profile.
    pub(super) fn set(&self, profile: &Profile, key: &Secret) -> Zeroizing<String> {
        let line = Zeroizing::new(format!("api_key = {}\n", key.expose()));
        let mut new = Writer::for_lines(&self.lines, line.len() + profile.as_str().len());
        let mut set = false;
        for old in &self.lines {
            let mine = old.profile == profile.as_str();
            if !(mine && matches!(old.is, Is::Key(_))) {
                new.line(old.text);
            }
            if mine && old.is == Is::Header && !set {
                new.line(line.as_bytes());
                set = true;
            }
        }
        if !set {
            new.line(format!("[{profile}]\n").as_bytes());
            new.line(line.as_bytes());
        }
        new.0
    }

    /// The text without a profile, or none if no other profile has a key.
    pub(super) fn without(&self, profile: &Profile) -> Option<Zeroizing<String>> {
        let kept = || self.lines.iter().filter(|line| line.profile != profile.as_str());
        if !kept().any(|line| matches!(line.is, Is::Key(_))) {
            return None;
        }
        let mut new = Writer::for_lines(&self.lines, 0);
        kept().for_each(|line| new.line(line.text));
        Some(new.0)
    }
}

/// Has its full capacity at once: a growing string would leave parts of the keys behind.
struct Writer(Zeroizing<String>);

impl Writer {
    fn for_lines(lines: &[Line<'_>], more: usize) -> Self {
        // A byte that is not UTF-8 becomes three.
        let len = lines.iter().map(|line| 3 * line.text.len()).sum::<usize>();
        Self(Zeroizing::new(String::with_capacity(len + more + 8)))
    }

    fn line(&mut self, text: &[u8]) {
        if !self.0.is_empty() && !self.0.ends_with('\n') {
            self.0.push('\n');
        }
        self.0.push_str(&String::from_utf8_lossy(text));
    }
}

fn header(line: &str) -> Option<&str> {
    line.strip_prefix('[')?.strip_suffix(']').map(str::trim)
}

fn key(line: &str, headed: bool) -> Option<&str> {
    if line.is_empty() || line.starts_with(['#', ';']) {
        return None;
    }
    let value = match line.split_once('=') {
        Some((name, value)) => (name.trim() == "api_key").then(|| value.trim()),
        // The whole file may be a key, pasted by hand or written by another program.
        None => (!headed).then_some(line),
    };
    value.filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(name: &str) -> Profile {
        name.parse().unwrap()
    }

    fn get(text: &str, name: &str) -> Option<String> {
        Text::parse(text.as_bytes()).get(&profile(name)).map(|text| text.to_string())
    }

    #[test]
    fn keys_stand_below_their_profiles() {
        let text = "# mine\n[default]\napi_key = lk_1\n\n[work]\nother=3\n api_key=lk_2 \r\n[empty]\napi_key=\n";
        assert_eq!(get(text, "default").as_deref(), Some("lk_1"));
        assert_eq!(get(text, "work").as_deref(), Some("lk_2"));
        assert_eq!(get(text, "empty"), None);
        assert_eq!(get(text, "absent"), None);
        assert_eq!(get("lk_3\n", "default").as_deref(), Some("lk_3"));
        assert_eq!(get("lk_3", "work"), None);
        assert_eq!(get("", "default"), None);
    }

    #[test]
    fn a_new_key_replaces_the_old_one_and_nothing_else() {
        let set = |text: &str, name: &str| {
            Text::parse(text.as_bytes())
                .set(&profile(name), &Secret::from("NEW".to_owned()))
                .to_string()
        };
        assert_eq!(set("", "default"), "[default]\napi_key = NEW\n");
        assert_eq!(set("old", "default"), "[default]\napi_key = NEW\n");
        assert_eq!(set("old", "work"), "old\n[work]\napi_key = NEW\n");
        assert_eq!(
            set("# a\n[default]\napi_key=old\nb=1\n[work]\napi_key = kept", "default"),
            "# a\n[default]\napi_key = NEW\nb=1\n[work]\napi_key = kept"
        );
        assert_eq!(
            set("[a]\napi_key=1\n[b]\n[a]\napi_key=2\n", "a"),
            "[a]\napi_key = NEW\n[b]\n[a]\n"
        );
    }

    #[test]
    fn a_profile_goes_and_the_others_stay() {
        let without = |text: &str, name: &str| {
            Text::parse(text.as_bytes()).without(&profile(name)).map(|text| text.to_string())
        };
        let two = "[default]\napi_key = 1\n[work]\napi_key = 2\n";
        assert_eq!(without(two, "default").as_deref(), Some("[work]\napi_key = 2\n"));
        assert_eq!(without("old\n[work]\napi_key = 2\n", "work").as_deref(), Some("old\n"));
        assert_eq!(without("# only this\n[default]\napi_key = 1\n", "default"), None);
    }
}
