/// The value that a `.env` file gives to one variable, if it gives one.
///
/// As a shell does, the last line that sets it counts; a blank value is none.
// Not `dotenvy`: it expands `$` within a value, and stops at the first line of the file that it
// cannot read, so that somebody else's broken line would hide the key.
pub(crate) fn value_of(name: &str, file: &[u8]) -> Option<String> {
    let file = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let lines = file.split(|&byte| byte == b'\n');
    let value =
        lines.filter_map(|line| value_in(name, std::str::from_utf8(line).ok()?)).next_back()?;
    (!value.is_empty()).then(|| value.to_owned())
}

fn value_in<'a>(name: &str, line: &'a str) -> Option<&'a str> {
    let line = line.trim();
    let line = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with(char::is_whitespace) => rest.trim_start(),
        _ => line,
    };
    let value = line.strip_prefix(name)?.trim_start().strip_prefix('=')?.trim_start();
    for quote in ['"', '\''] {
        if let Some((inside, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote))
        {
            return Some(inside.trim());
        }
    }
    let comment =
        value.find('#').filter(|&at| at == 0 || value[..at].ends_with(char::is_whitespace));
    Some(value[..comment.unwrap_or(value.len())].trim_end())
}

#[cfg(test)]
mod tests {
    use super::value_of;

    #[test]
    fn the_one_line_is_read_as_a_shell_would() {
        for (file, value) in [
            ("KEY=lk_1", Some("lk_1")),
            ("KEY=lk_1\n", Some("lk_1")),
            ("KEY=lk_1\r\nOTHER=2\r\n", Some("lk_1")),
            ("\u{feff}KEY=lk_1", Some("lk_1")),
            ("export KEY=lk_1", Some("lk_1")),
            ("export\tKEY = lk_1 ", Some("lk_1")),
            ("KEY=\"lk_1\" # mine", Some("lk_1")),
            ("KEY=' lk_1 '", Some("lk_1")),
            ("KEY=lk_1 # mine", Some("lk_1")),
            ("KEY=lk_1#2", Some("lk_1#2")),
            ("KEY=l$HOME", Some("l$HOME")),
            ("KEY=\"unclosed", Some("\"unclosed")),
            ("KEY=lk_1\nKEY=lk_2", Some("lk_2")),
            ("= nonsense ${\n'\nKEY=lk_1\n\"", Some("lk_1")),
            ("KEY=lk_1\nKEY=", None),
            ("KEY=", None),
            ("KEY=  ", None),
            ("KEY=\"\"", None),
            ("KEY= # none", None),
            ("#KEY=lk_1", None),
            ("MYKEY=lk_1", None),
            ("KEYS=lk_1", None),
            ("exportKEY=lk_1", None),
            ("KEY", None),
            ("", None),
        ] {
            assert_eq!(value_of("KEY", file.as_bytes()).as_deref(), value, "{file:?}");
        }
        assert_eq!(value_of("KEY", b"A=\xff\xfe\nKEY=lk_1\n").as_deref(), Some("lk_1"));
    }
}
