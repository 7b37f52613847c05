//! Presets: where clients of a kind have the id of a message.

use hapax_core::wire::{IdPart, IdSource};

/// The clients of a window, where Hapax knows what they send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Preset {
    /// Celery's message protocol 2, the default since Celery 4
    Celery,
}

impl Preset {
    /// Returns where the id is.
    pub(super) fn id(self) -> IdSource {
        match self {
            // A retry has the id of its task, and one retry more. A task that takes the place of another (`Task.replace`) has the same id, too.
            Preset::Celery => headers(["id", "task", "retries", "replaced_task_nesting"]),
        }
    }
}

fn headers<const N: usize>(names: [&str; N]) -> IdSource {
    IdSource::Parts(names.map(|name| IdPart::Header(name.into())).into())
}
