//! What must be true of any text that somebody takes for a configuration file. The fuzz target `config` uses this, too.

use hapax::config::{Config, Overrides};

/// Reads a text as a configuration file. It is refused, and the message says what to do; or what is shown of it (`hapax check`) is a file
/// with the same settings.
pub(crate) fn check(text: &str) {
    let overrides = Overrides::default();
    match Config::parse(None, text, &overrides) {
        Err(problems) => {
            let said = problems.to_string();
            assert!(said.contains("fix: "), "{said}");
            let json = problems.to_json();
            assert!(json.starts_with('{'), "{json}");
        }
        Ok(loaded) => {
            let shown = loaded.to_toml();
            let again = Config::parse(None, &shown, &overrides);
            let again =
                again.unwrap_or_else(|problems| panic!("{problems}\n--- of\n{shown}\n--- of\n{text}"));
            assert_eq!(format!("{:?}", again.config), format!("{:?}", loaded.config), "{text}");
            let json = loaded.to_json();
            assert!(json.starts_with('{'), "{json}");
        }
    }
}
