use clap::{CommandFactory, Parser};
use keyward::client::{
    App, ClientError, CredentialsFile, Profile, ResolvedKey, StoredCredential, cli::AuthCommand,
};

use super::support::{TestUser, format, key};

#[derive(Debug, Parser)]
struct Host {
    #[command(subcommand)]
    command: AuthCommand,
}

#[test]
fn the_commands_mount_into_a_clap_parser() {
    Host::command().debug_assert();
}

#[test]
fn debug_output_hides_keys() {
    let key = key();
    for arguments in [&["--api-key"][..], &["--email", "a@b.c", "--otp"]] {
        let arguments = ["lua", "configure"].iter().chain(arguments).copied();
        let host = Host::parse_from(arguments.chain([key.expose()]));
        assert!(!format!("{host:#?}").contains(&key.expose()[3..]));
    }
    let stored =
        TestUser::new().with_stored_key(&key).credentials_file().load(&Profile::default()).unwrap();
    assert!(!format!("{stored:#?}").contains(&key.expose()[3..]));
    let app = App::new("lua", format());
    let wrong = format!("{}x", key.expose());
    let error = app.parse(&wrong, "here").unwrap_err();
    assert!(!format!("{error:#?} {error}").contains(&key.expose()[3..]));
}

#[test]
fn types_are_send_and_sync() {
    fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<App>();
    assert_send_sync::<AuthCommand>();
    assert_send_sync::<CredentialsFile>();
    assert_send_sync::<ClientError>();
    assert_send_sync::<ResolvedKey>();
    assert_send_sync::<StoredCredential>();
}
