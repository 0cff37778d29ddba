use http::{HeaderValue, Request, header::AUTHORIZATION};
use keyward::{
    Secret,
    client::{SendKey, bearer},
};

use super::support::key;

#[test]
fn a_request_has_one_credential_and_debug_hides_it() {
    let key = key();
    let old = HeaderValue::from_static("Basic b2xk");
    let request =
        Request::get("http://x/").header(AUTHORIZATION, &old).api_key(&key).body(()).unwrap();
    let sent: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
    assert_eq!(sent, [format!("Bearer {}", key.expose()).as_str()]);
    assert!(!format!("{request:?}").contains(&key.expose()[3..]));

    let client = reqwest::Client::new();
    let builder = client.get("http://x/").header(AUTHORIZATION, old).api_key(&key);
    assert!(!format!("{builder:?}").contains(&key.expose()[3..]));
    let request = builder.build().unwrap();
    let sent: Vec<_> = request.headers().get_all(AUTHORIZATION).iter().collect();
    assert_eq!(sent, [format!("Bearer {}", key.expose()).as_str()]);
    assert!(sent[0].is_sensitive());
}

#[test]
fn an_invalid_header_value_fails_the_request_without_showing_it() {
    let key = Secret::from("lk_a\nb".to_owned());
    for error in [
        bearer(&key).unwrap_err().to_string(),
        Request::get("http://x/").api_key(&key).body(()).unwrap_err().to_string(),
        reqwest::Client::new().get("http://x/").api_key(&key).build().unwrap_err().to_string(),
    ] {
        assert!(!error.contains("lk_"), "{error}");
    }
}
