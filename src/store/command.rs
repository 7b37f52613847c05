//! `hapax store`: looks at what stores have kept in folders of this host. Nothing is changed.

use super::disk::look::{self, Content, SegmentContent, WindowFolder};
use crate::clock::wall;
use clap::{Args, Subcommand};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::SystemTime;

/// The commands of `hapax store`.
#[derive(Subcommand, Clone, PartialEq, Eq, Debug)]
pub enum StoreCommand {
    /// Say what a folder holds: how many ids, since when, and in which files
    Inspect(LookArgs),
    /// Read everything and check its checksums; exit code 1 if something is damaged
    Verify(LookArgs),
    /// Print each id that is remembered as a line of JSON: window, key, at, until, body
    Export(DirArgs),
}

/// A folder to look at.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct DirArgs {
    /// A `state_dir`, or the folder of one window in it; a relay may be at work there
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// A folder to look at, and in which form.
#[derive(Args, Clone, PartialEq, Eq, Debug)]
pub struct LookArgs {
    #[command(flatten)]
    dir: DirArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl StoreCommand {
    /// Runs the command. Returns false if something is damaged.
    pub fn run(&self, out: &mut dyn Write) -> io::Result<bool> {
        let now = wall();
        match self {
            StoreCommand::Export(args) => {
                let mut out = io::BufWriter::new(out);
                for folder in windows(&args.dir)? {
                    look::export(&folder, now, &mut out).map_err(|error| named(&folder, error))?;
                }
                out.flush()?;
                Ok(true)
            }
            StoreCommand::Inspect(args) => {
                print(args, now, out, &inspected)?;
                Ok(true)
            }
            StoreCommand::Verify(args) => print(args, now, out, &verified),
        }
    }
}

fn windows(dir: &std::path::Path) -> io::Result<Vec<WindowFolder>> {
    look::windows(dir).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", dir.display())))
}

fn named(folder: &WindowFolder, error: io::Error) -> io::Error {
    // A closed pipe is the reader's choice.
    if error.kind() == io::ErrorKind::BrokenPipe {
        return error;
    }
    io::Error::new(error.kind(), format!("{}: {error}", folder.path.display()))
}

/// Prints all windows. Returns true if nothing is damaged.
fn print(
    args: &LookArgs,
    now: SystemTime,
    out: &mut dyn Write,
    text: &dyn Fn(&Content, &mut dyn Write) -> io::Result<()>,
) -> io::Result<bool> {
    let mut contents = Vec::new();
    for folder in windows(&args.dir.dir)? {
        contents.push(look::content(&folder, now).map_err(|error| named(&folder, error))?);
    }
    if args.json {
        serde_json::to_writer_pretty(&mut *out, &contents)?;
        writeln!(out)?;
    } else {
        contents.iter().try_for_each(|content| text(content, out))?;
    }
    Ok(contents.iter().all(|content| content.damaged == 0 && foreign(content).is_none()))
}

fn foreign(content: &Content) -> Option<u8> {
    content.segments.iter().find_map(|segment| segment.foreign_format)
}

fn inspected(content: &Content, out: &mut dyn Write) -> io::Result<()> {
    let Content { window, folder, bytes, records, ids, damaged, segments, .. } = content;
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    writeln!(out, "window {window}")?;
    writeln!(out, "  folder    {}", folder.display())?;
    writeln!(out, "  format    {}", or(&content.format.map(|format| format.to_string())))?;
    writeln!(out, "  identity  {}", or(&content.identity))?;
    writeln!(out, "  ids       {ids} (records: {records})")?;
    writeln!(out, "  since     {}", or(&content.since))?;
    writeln!(out, "  until     {}", or(&content.until))?;
    writeln!(out, "  bytes     {bytes}")?;
    writeln!(out, "  damaged   {damaged}")?;
    for SegmentContent { file, bytes, batches, records, .. } in segments {
        writeln!(out, "  {file}  {bytes} bytes, {batches} batches, {records} records")?;
    }
    Ok(())
}

fn verified(content: &Content, out: &mut dyn Write) -> io::Result<()> {
    let window = &content.window;
    for segment in &content.segments {
        let file = content.folder.join(&segment.file);
        for (at, length) in &segment.damaged {
            writeln!(out, "{window}: {}: damaged at byte {at}, {length} bytes", file.display())?;
        }
        if let Some(at) = segment.incomplete_at {
            writeln!(
                out,
                "{window}: {}: ends within a batch, from byte {at} on (a relay writes it, or was killed while it did)",
                file.display()
            )?;
        }
        if let Some(format) = segment.foreign_format {
            writeln!(
                out,
                "{window}: {}: has format {format}, which this version does not read",
                file.display()
            )?;
        }
    }
    let result = if content.damaged == 0 && foreign(content).is_none() { "whole" } else { "damaged" };
    writeln!(
        out,
        "{window}: {result} ({} segments, {} bytes, {} records)",
        content.segments.len(),
        content.bytes,
        content.records
    )
}
