use clap::{CommandFactory, Parser};
use keyward::client::{App, CredentialsFile, Error, Found, Profile, Stored, cli::AuthCommand};

use super::support::{Person, format, key};

#[derive(Debug, Parser)]
struct Host {
    #[command(subcommand)]
    command: AuthCommand,
}

#[test]
fn the_commands_fit_into_a_host() {
    Host::command().debug_assert();
}

#[test]
fn no_debug_shows_a_key() {
    let key = key();
    for arguments in [&["--api-key"][..], &["--email", "a@b.c", "--otp"]] {
        let arguments = ["lua", "configure"].iter().chain(arguments).copied();
        let host = Host::parse_from(arguments.chain([key.expose()]));
        assert!(!format!("{host:#?}").contains(&key.expose()[3..]));
    }
    let stored = Person::new().with_stored(&key).file().load(&Profile::default()).unwrap();
    assert!(!format!("{stored:#?}").contains(&key.expose()[3..]));
    let app = App::new("lua", format());
    let wrong = format!("{}x", key.expose());
    let error = app.parse(&wrong, "here").unwrap_err();
    assert!(!format!("{error:#?} {error}").contains(&key.expose()[3..]));
}

#[test]
fn the_types_can_go_between_threads() {
    fn between<T: Send + Sync>() {}
    between::<App>();
    between::<AuthCommand>();
    between::<CredentialsFile>();
    between::<Error>();
    between::<Found>();
    between::<Stored>();
}
