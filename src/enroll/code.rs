use crate::{
    secret::Secret,
    system::{EntropyError, random},
};

/// Six digits from the operating system's generator.
pub(super) fn generate() -> Result<Secret, EntropyError> {
    generate_from(random::fill)
}

/// Private: a generator supplied from outside could be seeded, cloned or shared.
fn generate_from(
    mut fill: impl FnMut(&mut [u8]) -> Result<(), EntropyError>,
) -> Result<Secret, EntropyError> {
    loop {
        let mut bytes = [0; 4];
        fill(&mut bytes)?;
        let number = u32::from_be_bytes(bytes);
        // The rest of a division prefers small codes, unless the last, incomplete million is left
        // out.
        if number < u32::MAX / CODES * CODES {
            return Ok(Secret::from(format!("{:06}", number % CODES)));
        }
    }
}

/// What was typed as a code: six digits, with spaces or a dash between them if one likes.
pub(crate) fn read(text: &str) -> Option<Secret> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    let fits = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| Secret::from(digits))
}

const CODES: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// The code that is made of these numbers, of which it takes as many as it needs.
    fn of<const N: usize>(numbers: [u32; N]) -> String {
        let mut numbers = numbers.into_iter();
        let fill = |bytes: &mut [u8]| {
            let Some(next) = numbers.next() else { return random::fail(bytes) };
            bytes.copy_from_slice(&next.to_be_bytes());
            Ok(())
        };
        generate_from(fill).unwrap().expose().to_owned()
    }

    #[test]
    fn every_code_stands_for_as_many_numbers() {
        let whole = 4_294 * CODES;
        assert_eq!(of([0]), "000000");
        assert_eq!(of([7]), "000007");
        assert_eq!(of([CODES]), "000000");
        assert_eq!(of([whole - 1]), "999999");
        assert_eq!(of([whole, u32::MAX, 42]), "000042", "the incomplete million is left out");
    }

    #[test]
    fn a_failing_generator_is_an_error_and_never_a_weak_code() {
        assert!(generate_from(random::fail).is_err());
    }

    #[test]
    fn a_code_is_read_as_people_type_it() {
        for typed in ["123456", " 123 456\n", "123-456"] {
            assert_eq!(read(typed).unwrap().expose(), "123456", "{typed:?}");
        }
        for typed in ["", "12345", "1234567", "12345a", "١٢٣٤٥٦", "-12345", "123456\0"] {
            assert!(read(typed).is_none(), "{typed:?}");
        }
    }
}
