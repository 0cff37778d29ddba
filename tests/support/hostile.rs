//! 500 hostile names and addresses.

/// Texts that attack spreadsheets, terminals and readers, all different.
pub fn for_tables() -> Vec<String> {
    let prefixes = [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        " =1",
        "\u{a0}+1",
        "\u{feff}=1",
        "\u{200b}@a",
        "＝1",
        "＠a",
        "'=1",
        "'",
        "\"",
        "\",=1",
        ";=1",
        ",",
        "\\",
        "\u{1b}[2J",
        "\u{202e}gpj",
        "ada@example.com",
        "{\"a\":",
        "<script>",
    ];
    let suffixes = [
        "",
        "\r\n",
        "\n=cmd|' /C calc'!A0",
        "\"",
        "\"\"",
        ",\"=1\"",
        "\t",
        "\\",
        "\\u0022",
        "\\n",
        "\u{2028}",
        "\u{7f}",
        "\u{85}",
        "\u{e0041}",
        "💥",
        "\r\nBcc: x@y",
        "</script>",
        "'",
        ";-1",
        "\u{2066}",
    ];
    let combine = |prefix: &&str| suffixes.map(|suffix| format!("{prefix}{suffix}"));
    prefixes.iter().flat_map(combine).collect()
}

/// Returns the `n`th of the texts that attack e-mail headers, HTML and envelopes. All are different, and at
/// most 60 characters long. They combine an attack with a position in the text.
pub fn for_emails(n: u32) -> String {
    let attack = ATTACKS[n as usize % ATTACKS.len()];
    match n / ATTACKS.len() as u32 % 4 {
        0 => format!("{attack}{n}"),
        1 => format!("ci {n}{attack}"),
        2 => format!("é{attack}{n}{attack}"),
        _ => format!("{n}\r\n{attack}"),
    }
}

const ATTACKS: [&str; 24] = [
    "\r\nBcc: eve@example.com\r\n",
    "\nBcc: eve@example.com",
    "\rBcc: eve@example.com",
    "\r\n\r\n<script>alert(1)</script>",
    "\r\n.\r\nMAIL FROM:<eve@e.com>",
    "=?utf-8?q?=0d=0aBcc:_eve@e.com?=",
    "=?utf-8?b?DQpCY2M6IGVAZS5jb20=?=",
    "\u{85}Bcc: eve@example.com",
    "\u{2028}Bcc: eve@example.com",
    "\0",
    "\u{1b}[2J\u{7}",
    "\u{202e}moc.elpmaxe",
    "\u{200b}",
    "<img src=x onerror=alert(1)>",
    "\"><script>alert(1)</script>",
    "' onmouseover='alert(1)",
    "&lt;b&gt;",
    "> , <eve@example.com",
    ",eve@example.com",
    "@eve.example.com,a",
    "(comment) ",
    "\\\r\n x",
    "\u{b}\u{c}\t",
    "ok",
];
