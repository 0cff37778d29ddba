/// A user agent in words: "Firefox on Linux". What is not known here is told by its first word, if
/// that is plain letters.
pub(super) fn device(user_agent: &str) -> String {
    let known = |words: &[(&'static str, &'static str)]| {
        words.iter().find(|(mark, _)| user_agent.contains(mark)).map(|(_, word)| *word)
    };
    let program = known(&BROWSERS).map(str::to_owned).or_else(|| first_word(user_agent));
    match (program, known(&SYSTEMS)) {
        (Some(program), Some(system)) => format!("{program} on {system}"),
        (Some(program), None) => program,
        (None, Some(system)) => format!("an unknown program on {system}"),
        (None, None) => "an unknown device".into(),
    }
}

/// `curl` of `curl/8.5.0`. `Mozilla` says nothing: they all claim it.
fn first_word(user_agent: &str) -> Option<String> {
    let end = user_agent.find(['/', ' ']).unwrap_or(user_agent.len());
    let word = &user_agent[..end];
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let fits = (1..=MAX_WORD).contains(&word.len()) && word.chars().all(plain);
    (fits && word != "Mozilla").then(|| word.into())
}

/// The first that fits: browsers claim to be those that came before them.
const BROWSERS: [(&str, &str); 12] = [
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Vivaldi/", "Vivaldi"),
    ("FxiOS/", "Firefox"),
    ("Firefox/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
];
const SYSTEMS: [(&str, &str); 8] = [
    ("iPhone", "an iPhone"),
    ("iPad", "an iPad"),
    ("Android", "Android"),
    ("CrOS", "ChromeOS"),
    ("Windows", "Windows"),
    ("Macintosh", "a Mac"),
    ("Mac OS X", "a Mac"),
    ("Linux", "Linux"),
];
const MAX_WORD: usize = 40;

#[cfg(test)]
mod tests {
    use super::device;

    #[test]
    fn user_agents_become_words() {
        let mozilla = "Mozilla/5.0 ";
        let webkit = "AppleWebKit/537.36 (KHTML, like Gecko) ";
        let cases = [
            ("(X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "", "Firefox on Linux"),
            (
                "(Windows NT 10.0; Win64; x64) ",
                "Chrome/140.0.0.0 Safari/537.36",
                "Chrome on Windows",
            ),
            (
                "(Windows NT 10.0; Win64; x64) ",
                "Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
                "Edge on Windows",
            ),
            (
                "(Macintosh; Intel Mac OS X 10_15_7) ",
                "Version/18.5 Safari/605.1.15",
                "Safari on a Mac",
            ),
            (
                "(iPhone; CPU iPhone OS 18_5 like Mac OS X) ",
                "CriOS/140.0 Mobile/15E148 Safari/604.1",
                "Chrome on an iPhone",
            ),
            ("(Linux; Android 15) ", "Chrome/140.0.0.0 Mobile Safari/537.36", "Chrome on Android"),
        ];
        for (system, browser, words) in cases {
            assert_eq!(device(&format!("{mozilla}{system}{webkit}{browser}")), words);
        }
        assert_eq!(device("curl/8.5.0"), "curl");
        assert_eq!(device("python-requests/2.32 Linux/6.1"), "python-requests on Linux");
    }

    #[test]
    fn what_is_no_word_is_not_repeated() {
        for hostile in
            ["", "Mozilla/5.0", "\r\nBcc: eve@example.com", "<b>/1", "é/1", "\u{202e}x", "a.b"]
        {
            assert_eq!(device(hostile), "an unknown device", "{hostile:?}");
        }
        assert_eq!(device("<script> Windows"), "an unknown program on Windows");
    }
}
