use redis::Value;

use super::pack::damaged;
use crate::store::StoreError;

/// What a script answered.
#[derive(Debug)]
pub(super) struct Reply(pub(super) Value);

impl Reply {
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.0, Value::Nil)
    }

    pub(super) fn is(&self, word: &str) -> bool {
        self.bytes().is_ok_and(|bytes| bytes == word.as_bytes())
    }

    /// Whether this is a list that begins with a word.
    pub(super) fn starts_with(&self, word: &str) -> bool {
        let Value::Array(values) = &self.0 else { return false };
        matches!(values.first(), Some(Value::BulkString(first)) if first == word.as_bytes())
    }

    pub(super) fn bytes(&self) -> Result<&[u8], StoreError> {
        match &self.0 {
            Value::BulkString(bytes) => Ok(bytes),
            Value::SimpleString(text) => Ok(text.as_bytes()),
            _ => Err(damaged()),
        }
    }

    pub(super) fn number(&self) -> Result<u32, StoreError> {
        match self.0 {
            Value::Int(number) => u32::try_from(number).map_err(|_| damaged()),
            _ => Err(damaged()),
        }
    }

    /// A number that is stored as text.
    pub(super) fn digits(&self) -> Result<u64, StoreError> {
        let digits = std::str::from_utf8(self.bytes()?).map_err(StoreError::corrupt)?;
        digits.parse().map_err(StoreError::corrupt)
    }

    pub(super) fn list(self) -> Result<Vec<Reply>, StoreError> {
        match self.0 {
            Value::Array(values) => Ok(values.into_iter().map(Reply).collect()),
            _ => Err(damaged()),
        }
    }
}

/// Identifiers and records, one behind the other.
pub(super) fn pairs(list: &[Reply]) -> impl Iterator<Item = Result<(&[u8], &[u8]), StoreError>> {
    list.chunks(2).map(|pair| match pair {
        [id, record] => Ok((id.bytes()?, record.bytes()?)),
        _ => Err(damaged()),
    })
}

/// An answer that no script gives.
pub(super) fn unheard_of(reply: &Reply) -> StoreError {
    StoreError::corrupt(format!("Redis answered a script with {:?}", reply.0))
}
