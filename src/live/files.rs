//! The file of the configuration, and those that it names: read so that nothing waits for them for ever.

use super::Refused;
use crate::config::{Config, Loaded, Overrides};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;

/// A file that changes within this time is being written.
const SETTLES: Duration = Duration::from_millis(200);
/// How long the files that a configuration names may take to be read. A folder of the network may never answer.
const FILES_WITHIN: Duration = Duration::from_secs(15);

/// Where the configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// the file, if there is one
    pub file: Option<PathBuf>,
    /// values of flags and the environment, which are the same at each reload
    pub overrides: Overrides,
}

/// The files of the configuration.
#[derive(Debug)]
pub struct ConfigFiles {
    source: Source,
    /// Held by the thread that reads files. If it hangs, no other one is started.
    reading: Arc<AsyncMutex<()>>,
}

impl ConfigFiles {
    /// Reads nothing yet.
    pub(super) fn new(source: Source) -> ConfigFiles {
        ConfigFiles { source, reading: Arc::default() }
    }

    /// Returns the file, if there is one.
    pub fn path(&self) -> Option<&PathBuf> {
        self.source.file.as_ref()
    }

    /// Returns what tells the file, as it is, from any other.
    pub async fn version(&self) -> Option<String> {
        let file = self.source.file.clone()?;
        let about = self.read(move || std::fs::metadata(file)).await;
        about.ok()?.ok().map(|about| crate::config::version(&about))
    }

    /// Reads the file. An operator, or a program, may be about to write it: what does not stand still is refused.
    pub(super) async fn load(&self) -> Result<Loaded, Refused> {
        let overrides = self.source.overrides.clone();
        let Some(path) = self.source.file.clone() else {
            return Ok(Config::load(None, &overrides)?);
        };
        let read = |path: PathBuf| self.read(move || Config::read(&path));
        let first = read(path.clone()).await??;
        tokio::time::sleep(SETTLES).await;
        let text = read(path.clone()).await??;
        let place = path.display();
        if text != first {
            let text = format!("{place}: the file is being written; reload again when it is saved");
            return Err(Refused::Wrong(vec![text]));
        }
        if text.trim().is_empty() {
            let text = format!(
                "{place}: the file is empty, so all windows of it would go; to run with the defaults, restart without a file"
            );
            return Err(Refused::Wrong(vec![text]));
        }
        let place = place.to_string();
        // Files with tokens and secrets are read here, too.
        let parsed = self.read(move || Config::parse(Some(&place), &text, &overrides)).await?;
        Ok(parsed?)
    }

    /// Reads files on a thread that may wait for them.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let reading = async {
            let alone = Arc::clone(&self.reading).lock_owned().await;
            tokio::task::spawn_blocking(move || {
                let done = read();
                drop(alone);
                done
            })
            .await
        };
        match tokio::time::timeout(FILES_WITHIN, reading).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(Refused::Busy("reading the files has failed within Hapax: please report it")),
            Err(_) => Err(Refused::Wrong(vec![format!(
                "the files were not read within {} s; see to the disk, or to the network's folder, that has them",
                FILES_WITHIN.as_secs()
            )])),
        }
    }
}
