use std::{env, fs, io::Read, path::PathBuf};

use zeroize::Zeroizing;

use super::{App, Error, Profile, Source, Warning, credentials::Stored, dotenv};
use crate::secret::Secret;

/// A key that was found, where it came from, and which other places it hides.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Found {
    /// The key.
    pub key: Secret,
    /// What may be shown of it.
    pub hint: String,
    /// Where it came from.
    pub source: Source,
    /// The places that have a key too, which does not count.
    pub shadowed: Vec<Source>,
    /// The permissions of the credentials file, if the key came from there and the platform has them.
    pub mode: Option<u32>,
    /// What the person should know.
    pub warnings: Vec<Warning>,
}

impl Found {
    /// The hint and eight stars. The mask is as long for every key, so that it tells nothing.
    pub fn masked(&self) -> String {
        format!("{}********", self.hint)
    }
}

impl App {
    /// Finds the key: in the environment variable, then in the credentials file, then in the `.env`
    /// file of the working directory.
    ///
    /// In this order, so that the `.env` of a cloned repository never replaces a person's own
    /// identity. A blank variable counts as absent. The first place that has a text decides: if it is
    /// no key, no later place is taken instead. Nothing is written to the process's environment.
    ///
    /// # Errors
    /// [`NotFound`](super::ErrorKind::NotFound) if no place has a key,
    /// [`Malformed`](super::ErrorKind::Malformed) if the first text is none, and what
    /// [`CredentialsFile::load`](super::CredentialsFile::load) has against the file.
    ///
    /// # Examples
    /// ```no_run
    /// # let app = keyward::client::App::new("lua", keyward::secret::KeyFormat::builder("lk").build()?);
    /// let found = app.find(&Default::default())?;
    /// println!("{} from {}", found.masked(), found.source);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn find(&self, profile: &Profile) -> Result<Found, Error> {
        let mut places = Vec::new();
        let mut warnings = Vec::new();
        places.extend(self.in_variable());
        let mut mode = None;
        match self.in_file(profile) {
            Ok(None) => {}
            Ok(Some(stored)) => {
                let path = stored.path.clone();
                warnings.extend(stored.warning);
                mode = stored.mode;
                places.push((Source::File { path, profile: profile.clone() }, stored.text));
            }
            Err(error) if places.is_empty() => return Err(error),
            Err(error) => warnings.push(Warning::NotLookedAt { message: error.to_string() }),
        }
        match self.in_dotenv() {
            Ok(found) => places.extend(found),
            Err(error) if places.is_empty() => return Err(error),
            Err(error) => warnings.push(Warning::NotLookedAt { message: error.to_string() }),
        }
        let mut places = places.into_iter();
        let Some((source, text)) = places.next() else {
            let file = self.credentials().ok();
            return Err(self.no_key(profile, file.as_ref().map(super::CredentialsFile::path)));
        };
        let key = self.parse(&text, &source.to_string())?;
        Ok(Found {
            hint: self.hint(&key),
            mode: mode.filter(|_| matches!(source, Source::File { .. })),
            shadowed: places.map(|(source, _)| source).collect(),
            key,
            source,
            warnings,
        })
    }

    pub(crate) fn in_variable(&self) -> Option<(Source, Zeroizing<String>)> {
        let text =
            Zeroizing::new(env::var_os(self.variable_name())?.to_string_lossy().into_owned());
        let name = self.variable_name().to_owned();
        (!text.trim().is_empty()).then_some((Source::Variable { name }, text))
    }

    fn in_file(&self, profile: &Profile) -> Result<Option<Stored>, Error> {
        match self.credentials() {
            Ok(file) => file.load(profile),
            // A container without a home folder has no credentials file.
            Err(_) => Ok(None),
        }
    }

    pub(crate) fn in_dotenv(&self) -> Result<Option<(Source, Zeroizing<String>)>, Error> {
        let path = env::current_dir().map_or_else(|_| PathBuf::from(".env"), |at| at.join(".env"));
        // Virtual environments are folders of this name, and a pipe would be waited for.
        if !fs::metadata(&path).is_ok_and(|found| found.is_file()) {
            return Ok(None);
        }
        let mut bytes = Zeroizing::new(Vec::new());
        let file = fs::File::open(&path).map_err(|error| Error::io("read", &path, error))?;
        let read = file.take(MAX_DOTENV).read_to_end(&mut bytes);
        read.map_err(|error| Error::io("read", &path, error))?;
        let name = self.variable_name().to_owned();
        let text = dotenv::value_of(&name, &bytes).map(Zeroizing::new);
        Ok(text.map(|text| (Source::DotEnv { path, name }, text)))
    }
}

/// More than any such file has, and less than would be noticed.
const MAX_DOTENV: u64 = 1 << 20;
