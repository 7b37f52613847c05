//! Writes a change of a window into the configuration file of the relay that is asked: `hapax windows set --save`.
//!
//! This command writes the file, with the rights of the user who calls it, and not the relay (`docs/adr/0042-reload.md`). It must therefore run on
//! the relay's host. The relay says which file it reads and in which version. A file of the same name on another host has another version.
//!
//! All that can fail comes before the relay is changed: the file is read, changed, written beside the old one and synced. Then the
//! window is changed. Then the new file takes the old one's place.

mod edit;
mod replace;

use super::ApiClient;
use super::args::SetArgs;
use super::client::Path;
use crate::tools::reach::Failure;
use crate::tools::text::clean;
use edit::{Cannot, Edited, Line};
use replace::{Original, Replacement};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{self, Write};

/// The part of `/api/v1/config` that says which file the relay reads.
#[derive(Deserialize)]
struct Told {
    file: Option<String>,
    file_version: Option<String>,
}

/// A change that is ready to take the file's place.
#[derive(Debug)]
pub(super) struct Save {
    file: String,
    lines: Vec<Line>,
    /// none if the file says so already
    replacement: Option<Replacement>,
}

fn settings(set: &SetArgs) -> Vec<(&'static str, toml::Value)> {
    let capacity = set.capacity.map(|capacity| match capacity.to_json() {
        Value::Number(ids) => toml::Value::Integer(ids.as_i64().unwrap_or(i64::MAX)),
        other => toml::Value::String(other.as_str().unwrap_or_default().to_owned()),
    });
    let ttl = set.ttl.clone().map(toml::Value::String);
    let mode = set.mode.map(|mode| toml::Value::String(mode.word().to_owned()));
    let all = [("capacity", capacity), ("ttl", ttl), ("mode", mode)];
    all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
}

/// Says what to do where it can't be done here.
fn unsaved(what: String, set: &SetArgs) -> Failure {
    let lines: Vec<String> =
        settings(set).into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let fix = format!(
        "nothing was changed; run it without --save, and write {} into [[window]] {:?} of the file yourself",
        lines.join(", "),
        clean(&set.name)
    );
    Failure::Unsaved { what, fix }
}

impl Save {
    /// Prepares the file. Nothing is changed yet.
    pub(super) fn prepare(client: &ApiClient, set: &SetArgs) -> Result<Save, Failure> {
        let told: Told = client.read(&Path::new("config"))?;
        let Some(file) = told.file else {
            return Err(unsaved("the relay runs without a configuration file".to_owned(), set));
        };
        let file = clean(&file);
        let failed = |error: io::Error| unsaved(format!("{file} can't be read here: {error}"), set);
        let original = Original::read(file.as_ref()).map_err(failed)?;
        if told.file_version.as_deref() != Some(original.version()) {
            let what = format!(
                "{file} is not the file that the relay at {} reads (--save works on the relay's host), or it was changed just now",
                client.url()
            );
            return Err(unsaved(what, set));
        }
        let Edited { text, lines } =
            edit::set(&original.text, &set.name, &settings(set)).map_err(|cannot| {
                let what = match cannot {
                    Cannot::Parse { line, why } => {
                        format!("{file}:{line}: this is not TOML: {}", clean(&why))
                    }
                    Cannot::Windows(0) => {
                        format!("{file} has no [[window]] with name = {:?}", clean(&set.name))
                    }
                    Cannot::Windows(_) => {
                        format!("{file} has several [[window]] with name = {:?}", clean(&set.name))
                    }
                    Cannot::Unsure => format!("{file} is written in a way that this command can't change"),
                };
                unsaved(what, set)
            })?;
        let failed = |error: io::Error| unsaved(format!("{file} can't be replaced: {error}"), set);
        let replacement = match lines.is_empty() {
            true => None,
            false => Some(original.prepare(&text).map_err(failed)?),
        };
        Ok(Save { file, lines, replacement })
    }

    /// Puts it in place, after the relay has made the change. Returns it as JSON.
    pub(super) fn put(&mut self) -> Result<Value, Failure> {
        if let Some(replacement) = self.replacement.take() {
            replacement.put().map_err(|error| Failure::Unsaved {
                what: format!("the window is changed, but {} is not: {error}", self.file),
                fix: "write it into the file, or run the same command again".to_owned(),
            })?;
        }
        Ok(json!({ "file": self.file, "lines": self.lines }))
    }

    /// Says what was written.
    pub(super) fn say(&self, out: &mut dyn Write) -> io::Result<()> {
        let Save { file, lines, .. } = self;
        if lines.is_empty() {
            return writeln!(out, "{file}: it says so already");
        }
        for Line { line, key, from, to } in lines {
            match from {
                Some(from) => writeln!(out, "{file}:{line}: {key} = {} → {to}", clean(from))?,
                None => writeln!(out, "{file}:{line}: {key} = {to} (new line)")?,
            }
        }
        Ok(())
    }
}
