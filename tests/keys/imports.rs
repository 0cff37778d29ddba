//! What is stored of a key that is imported.

use std::sync::Arc;

use keyward::{
    Actor, ApiKeys, Checksum, ErrorKind, Formats, Hasher as _, KeyFormat, MemoryStore, NewKey,
    Sha256Hasher,
};

use crate::support::{format, owner};

/// The shortest secret that a format can have is as long as the longest hint.
#[tokio::test]
async fn a_hint_that_is_a_whole_secret_of_an_older_format_is_not_stored() {
    let short = |prefix: &str| {
        let format = KeyFormat::builder(prefix).bits(128).checksum(Checksum::None);
        format.build().unwrap()
    };
    for formats in [
        Formats::new(format()).accept(short("k")).unwrap(),
        Formats::new(format()).accept(short("o")).unwrap().accept(short("k")).unwrap(),
        Formats::new(short("k")).accept(format()).unwrap(),
    ] {
        let keys = ApiKeys::builder_on(Arc::new(MemoryStore::new()), formats).build();
        let (ada, by) = (owner("acme", "ada"), Actor::system("import"));
        let old = short("k").generate().unwrap();
        let text = old.expose();
        let digest = Sha256Hasher.digest(text.as_bytes());
        let import = async |hint: &str| {
            keys.import(NewKey::new(&ada, "old").unwrap(), digest, hint, &by).await
        };
        for hint in [text.to_owned(), format!(" {text}\n")] {
            let refused = import(&hint).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid);
            assert!(refused.to_string().contains("the whole secret"), "{refused}");
            assert!(!refused.to_string().contains(text), "{refused}");
        }
        let imported = import(&text[..8]).await.unwrap();
        assert_eq!(imported.hint, &text[..8]);
    }
}
