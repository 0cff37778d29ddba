//! E-mail messages to owners, sent to a real mail server.

pub mod hostile;
mod messages;
mod outages;
mod support;

use keyward::email::Mailer;

#[test]
fn urls_without_tls_are_rejected_unless_the_server_is_local() {
    let accepts = |url| Mailer::builder(url, "a@example.com".parse().unwrap()).is_ok();
    let encrypted = ["smtps://mail.example.com", "smtp://u:p@m.example.com:587?tls=required"];
    let local =
        ["smtp://localhost", "smtp://127.0.0.1:25", "smtp://[::1]:25", "smtp://u:p@localhost:1/"];
    assert!(encrypted.into_iter().chain(local).all(accepts));
    let rejected = [
        "smtp://mail.example.com",
        "smtp://m.example.com?tls=opportunistic",
        "http://localhost",
        "",
        "smtp://localhost@m.example.com",
        "smtp://m.example.com/?x=@localhost",
        "smtp://",
        "smtps://",
        "smtp://localhost:x@m.example.com:25/",
        "smtp://m.example.com#@localhost",
        "smtp://m.example.com\\@localhost",
        "SMTP://m.example.com",
        "smtp://m.example.com?a&tls=required",
    ];
    for url in rejected {
        assert!(!accepts(url), "{url}");
    }
}
