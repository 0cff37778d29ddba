use super::{
    Inner,
    reply::{Reply, unheard_of},
    rows::instant,
    scripts::{PUT_CODE, TRY_CODE},
};
use crate::{
    secret::Digest,
    store::{Code, Guess, Guessed, StoreError},
};

/// One-time codes.
impl Inner {
    pub(super) async fn put_code(&self, address: &Digest, code: &Code) -> Result<(), StoreError> {
        let (address, digest) = (address.to_bytes(), code.digest.to_bytes());
        let tries = code.tries.to_string();
        let arguments: [&[u8]; 4] = [&address, &digest, &instant(code.ends_at), tries.as_bytes()];
        self.change(&PUT_CODE, &arguments, |_| true).await.map(drop)
    }

    pub(super) async fn try_code(&self, guess: &Guess) -> Result<Guessed, StoreError> {
        let (address, digest) = (guess.address.to_bytes(), guess.digest.to_bytes());
        let took = |reply: &Reply| reply.is("right") || reply.is("wrong");
        let arguments: [&[u8]; 3] = [&address, &digest, &instant(guess.at)];
        let reply = self.change(&TRY_CODE, &arguments, took).await?;
        match reply.bytes()? {
            b"right" => Ok(Guessed::Right),
            b"wrong" => Ok(Guessed::Wrong),
            b"late" => Ok(Guessed::Late),
            b"spent" => Ok(Guessed::Spent),
            b"none" => Ok(Guessed::Nothing),
            _ => Err(unheard_of(&reply)),
        }
    }
}
