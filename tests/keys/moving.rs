//! Rows of other systems, in their formats, are imported as the manual says: the client's secret works as before.
//!
//! Where a system's own tests contain an example, the row is that example.

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{HeaderValue, header::AUTHORIZATION},
    middleware::map_request,
    routing::get,
};
use keyward::{
    Actor, Alphabet, ApiKeys, Checksum, ErrorKind, Formats, Hasher, HmacSha256Hasher, KeyFormat,
    MemoryStore, NewKey, Pepper, SecretDigest, Sha256Hasher, VerifyError, VerifyRequest,
    http::Guard,
    secret::{FormatError, HasherTag, Sha512Hasher},
    verify::DeniedReason,
};
use sha2::{Digest as _, Sha256};
use tower::ServiceExt as _;

use crate::support::owner;

/// The format of the imported keys: a prefix, and a body of this many characters.
fn old_format(prefix: &str, body: usize) -> Result<KeyFormat, FormatError> {
    let format = KeyFormat::builder(prefix).checksum(Checksum::None);
    format.total_len(prefix.len() + 1 + body).build()
}

/// A service that issues `new_live_…` and accepts other formats beside it.
fn service(old: impl IntoIterator<Item = KeyFormat>, hasher: Option<Box<dyn Hasher>>) -> ApiKeys {
    let new = KeyFormat::builder("new").environment("live").build().unwrap();
    let formats = old.into_iter().fold(Formats::new(new), |all, old| all.accept(old).unwrap());
    let builder = ApiKeys::builder(MemoryStore::new(), formats);
    match hasher {
        Some(hasher) => builder.also_accept(Boxed(hasher)).build(),
        None => builder.build(),
    }
}

struct Boxed(Box<dyn Hasher>);

impl Hasher for Boxed {
    fn digest(&self, presented: &[u8]) -> SecretDigest {
        self.0.digest(presented)
    }

    fn tag(&self) -> HasherTag {
        self.0.tag()
    }
}

/// Imports a row, and checks that its secret works, also again after its digest was replaced, and that it cannot be
/// imported twice.
async fn moves(keys: &ApiKeys, digest: SecretDigest, secret: &str) {
    let (ada, by) = (owner("acme", "ada"), Actor::system("import"));
    let new = || NewKey::new(&ada, "old").unwrap();
    let key = keys.import(new(), digest, &secret[..9], &by).await.unwrap();
    let twice = keys.import(new(), digest, &secret[..9], &by).await.unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::AlreadyExists);
    for _ in 0..2 {
        let verified = keys.verify(secret, &VerifyRequest::new()).await.unwrap();
        assert_eq!((verified.key_id(), verified.owner()), (key.id, &ada));
        keys.flush().await.unwrap();
    }
    let last = secret.chars().last().unwrap();
    let other = if last == '9' { '8' } else { '9' };
    let wrong = format!("{}{other}", &secret[..secret.len() - 1]);
    assert_eq!(denied(keys, &wrong).await, DeniedReason::Unknown);
}

async fn denied(keys: &ApiKeys, presented: &str) -> DeniedReason {
    match keys.verify(presented, &VerifyRequest::new()).await {
        Err(VerifyError::Denied(denied)) => denied.reason(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn rows_of_unkey_are_imported() {
    let keys = service([old_format("acme", 22).unwrap(), old_format("unkey", 57).unwrap()], None);
    for (secret, hash) in [
        ("acme_3ZZ7faUrkfv1YAhffAcnKW", "w+tlE+nXGOfSVZggZ0XV8FGbv98mL5cI4EgqCqRatiE="),
        // The known vector of Unkey's own tests.
        (
            "unkey_111thX6Lunkeyv1ZfHDZZKUs92febYZhYRcXddmzfzF2NvTkPNE18n8B8",
            "g+ivRdWzNjjEqTHWO03MAGU0a4/jAyRLSc+d72MpGlY=",
        ),
    ] {
        moves(&keys, SecretDigest::from_sha256_text(hash).unwrap(), secret).await;
    }
    // Too short for 128 random bits.
    let short = old_format("acme", 21);
    assert!(matches!(short, Err(FormatError::TooFewBits { .. })), "{short:?}");
}

#[tokio::test]
async fn rows_of_better_auth_are_imported() {
    let secret = "acme_kXqTzGfPnRbVmYcWsDhJlLaEiOuCrNpQxZvBtFgHyMwSdKjUoAeIyTkXqTzGfPnR";
    let hash = SecretDigest::from_sha256_text("e9P4gwZ9nKrWEk1onOTgVVrMpaRT_6JY9PS23FRNopo");
    let keys = service([old_format("acme", 64).unwrap()], None);
    moves(&keys, hash.unwrap(), secret).await;
    let without_prefix = &secret["acme_".len()..];
    assert!(matches!(denied(&keys, without_prefix).await, DeniedReason::Malformed(_)));
}

#[tokio::test]
async fn rows_of_laravel_sanctum_are_imported_and_a_layer_removes_their_number() {
    let token = "acme_7fKq2LmXvT9bRzYcW1nPdH4sGjU6oAeE3iB8xVwZca2cb8f8";
    let hash = "4afc054534aee81797b1983d7c72c1b5896727967c1034156a844cf427df653f";
    let keys = service([old_format("acme", 48).unwrap()], None);
    moves(&keys, SecretDigest::from_sha256_text(hash).unwrap(), token).await;

    let app = Router::<()>::new()
        .route("/", get(|| async { "4711" }))
        .layer(keyward::axum::layer(Guard::new(keys.clone())))
        .layer(map_request(without_row_number));
    let status = async |sent: &[String]| {
        let request = sent
            .iter()
            .fold(http::Request::builder(), |request, value| request.header(AUTHORIZATION, value));
        let request = request.body(Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    let bearer = |text: &str| format!("Bearer {text}");
    assert_eq!(status(&[bearer(&format!("12|{token}"))]).await, 200);
    assert_eq!(status(&[bearer(token)]).await, 200);
    assert_eq!(status(&[bearer(&format!("x|{token}"))]).await, 401);
    assert_eq!(status(&[bearer(&format!("12|{token}")), bearer(token)]).await, 400);
}

/// As in the manual.
async fn without_row_number(mut request: Request) -> Request {
    let mut sent = request.headers().get_all(AUTHORIZATION).iter();
    if let (Some(value), None) = (sent.next(), sent.next())
        && let Some(token) = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "))
        && let Some((number, token)) = token.split_once('|')
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(mut value) = HeaderValue::try_from(format!("Bearer {token}"))
    {
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    request
}

/// The examples are those of the tests of the packages for JavaScript and Rust.
#[tokio::test]
async fn rows_of_prefixed_api_key_are_imported_with_a_hasher_of_the_long_token() {
    for (secret, hash) in [
        (
            "mycompany_BRTRKFsL_51FwqftsmMDHHbJAMEXXHCgG",
            "d70d981d87b449c107327c2a2afbf00d4b58070d6ba571aac35d7ea3e7c79f37",
        ),
        (
            "mycompany_CEUsS4psCmc_BddpcwWyCT3EkDjHSSTRaSK1dxtuQgbjb",
            "0f01ab6e0833f280b73b2b618c16102d91c0b7c585d42a080d6e6603239a8bee",
        ),
    ] {
        // The body contains a `_`.
        let old = KeyFormat::builder("mycompany").alphabet(Alphabet::Base64Url);
        let old = old.checksum(Checksum::None).total_len(secret.len()).build().unwrap();
        let keys = service([old], Some(Box::new(LongToken)));
        let hash: [u8; 32] = hex(hash).try_into().unwrap();
        moves(&keys, SecretDigest::from_parts(LongToken.tag(), hash), secret).await;
    }
}

struct LongToken;

impl Hasher for LongToken {
    fn digest(&self, presented: &[u8]) -> SecretDigest {
        let long = presented.rsplit(|byte| *byte == b'_').next().unwrap_or_default();
        SecretDigest::from_parts(self.tag(), Sha256::digest(long).into())
    }

    fn tag(&self) -> HasherTag {
        HasherTag::custom(1)
    }
}

#[tokio::test]
async fn keys_of_djangorestframework_api_key_have_no_format() {
    let secret = "Zq3nT8vK.b7XcM2pLr9WfJ5hYdS1gN6tQeR4uVxPa";
    let hash = "69db5ccefcde52aa5a434b6a96626cc3340dfe5c40b47dcd7acd3ca074e00e340b2572534b57633c3fe06ff7c9c7c377099864eed4789b620dc1f261e03379c3";
    // The hash itself is one that can be imported.
    assert_eq!(
        SecretDigest::from_sha512_text(hash).unwrap(),
        Sha512Hasher.digest(secret.as_bytes())
    );
    let (prefix, body) = secret.split_once('.').unwrap();
    let keys = service([old_format(prefix, body.len()).unwrap()], Some(Box::new(Sha512Hasher)));
    assert!(matches!(denied(&keys, secret).await, DeniedReason::Malformed(_)));
}

#[tokio::test]
async fn rows_of_a_home_made_table_are_imported() {
    let secret = "acme_9dd4e461268c8034f5c8564e155c67a6";
    let format = || old_format("acme", 32).unwrap();
    let sha256 = "47b2e91bdf7a964c22c193273530e63b690631693391eee4c76310bb80b52ceb";
    let digest = SecretDigest::from_sha256(&hex(sha256)).unwrap();
    moves(&service([format()], None), digest, secret).await;
    // The key itself was stored.
    moves(&service([format()], None), Sha256Hasher.digest(secret.as_bytes()), secret).await;

    let pepper = b"thirty-two bytes or more, from a vault".as_slice();
    let hasher = HmacSha256Hasher::new(Pepper::new(1, pepper).unwrap());
    let hmac = "f6b7a76e9f496a67aa988d96410f4106a2f54ccf2360a52e1f04ccc6cfe165fb";
    let digest = SecretDigest::from_parts(hasher.tag(), hex(hmac).try_into().unwrap());
    moves(&service([format()], Some(Box::new(hasher))), digest, secret).await;

    let secret = "acme_q9q9q9q9q9q9q9q9q9q9q9q9q9q9q9q9q9q9q9q9";
    let sha512 = "ca50dcd7b3513d358e3df5d48ac07027f90a47e820f8ed5ab6c7d9ba434842f24f349cddaa985b26ab9d4fd3dfff713ab88ae7ebc8fe0cfb5325f431c5cc36ef";
    let digest = SecretDigest::from_sha512_text(sha512).unwrap();
    let keys = service([old_format("acme", 40).unwrap()], Some(Box::new(Sha512Hasher)));
    moves(&keys, digest, secret).await;
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
