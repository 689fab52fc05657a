//! Secrets: a password from a flag or a file, that nothing prints.

use std::fmt;
use std::fs::File;
use std::io::Read;

use subtle::ConstantTimeEq;

/// A password. Neither `Debug` nor an error shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Largest secret file, in bytes: more is a file given by mistake.
const MAX_BYTES: u64 = 64 * 1024;

impl Secret {
    /// The password itself, for the client that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether a given password is this one, in a time that says nothing about where they differ.
    pub fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[secret]")
    }
}

/// Reads a password from a file, without the newlines at its end: a parser for flags. So the file is read
/// once, at start, before an agent gives up the privilege that may be needed for it.
///
/// # Errors
/// If the file cannot be read, or there is no password in it.
pub fn secret_file(path: &str) -> Result<Secret, String> {
    let text = read(path)?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err("it is empty: write the password to it".to_owned());
    }
    Ok(Secret(password.to_owned()))
}

/// A small file's text, for the parsers of flags that name one.
///
/// # Errors
/// If the file cannot be read, is no UTF-8, or has more than 64 KiB.
pub fn read(path: &str) -> Result<String, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| format!("cannot read it: {error}"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes: is it the right file?"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(content: &[u8]) -> Result<Secret, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, content).unwrap();
        secret_file(path.to_str().unwrap())
    }

    #[test]
    fn a_file_is_a_password_without_the_newline_that_editors_add() {
        for content in ["hunter2", "hunter2\n", "hunter2\r\n"] {
            assert_eq!(parsed(content.as_bytes()).unwrap().expose(), "hunter2");
        }
        // Blanks may be meant.
        assert_eq!(parsed(b" hunter2 ").unwrap().expose(), " hunter2 ");
    }

    #[test]
    fn what_is_no_password_is_an_error_without_its_content() {
        assert!(parsed(b"\n").unwrap_err().contains("empty"));
        assert!(parsed(b"hunter2\xff").is_err_and(|error| !error.contains("hunter2")));
        let large = vec![b'x'; MAX_BYTES as usize + 1];
        assert!(parsed(&large).is_err_and(|error| error.contains("the right file")));
        assert!(secret_file("/nowhere/password").unwrap_err().contains("cannot read it"));
    }

    #[test]
    fn only_the_whole_password_is_the_password() {
        let secret = Secret::from("hunter2".to_owned());
        assert!(secret.is(b"hunter2"));
        for other in ["", "hunter", "hunter22", "hunter3", "Hunter2"] {
            assert!(!secret.is(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn it_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::from("hunter2".to_owned())), "[secret]");
    }
}
