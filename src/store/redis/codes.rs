use super::{
    Inner,
    reply::{Reply, unheard_of},
    rows::instant,
    scripts::{PUT_CODE, TRY_CODE},
};
use crate::{
    secret::SecretDigest,
    store::{CodeAttempt, CodeOutcome, OneTimeCode, StoreError},
};

/// One-time codes.
impl Inner {
    pub(super) async fn put_code(
        &self,
        address: &SecretDigest,
        code: &OneTimeCode,
    ) -> Result<(), StoreError> {
        let (address, digest) = (address.to_bytes(), code.digest.to_bytes());
        let tries = code.tries.to_string();
        let arguments: [&[u8]; 4] = [&address, &digest, &instant(code.ends_at), tries.as_bytes()];
        self.change(&PUT_CODE, &arguments, |_| true).await.map(drop)
    }

    pub(super) async fn try_code(&self, guess: &CodeAttempt) -> Result<CodeOutcome, StoreError> {
        let (address, digest) = (guess.address.to_bytes(), guess.digest.to_bytes());
        let took = |reply: &Reply| reply.is("right") || reply.is("wrong");
        let arguments: [&[u8]; 3] = [&address, &digest, &instant(guess.at)];
        let reply = self.change(&TRY_CODE, &arguments, took).await?;
        match reply.bytes()? {
            b"right" => Ok(CodeOutcome::Accepted),
            b"wrong" => Ok(CodeOutcome::Wrong),
            b"late" => Ok(CodeOutcome::Expired),
            b"spent" => Ok(CodeOutcome::NoTriesLeft),
            b"none" => Ok(CodeOutcome::NotFound),
            _ => Err(unheard_of(&reply)),
        }
    }
}
