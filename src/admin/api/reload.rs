//! `/api/v1/reload` and `/api/v1/config`: puts the configuration file in force, and shows how it differs from what holds.

use super::query::Query;
use crate::admin::Admin;
use crate::admin::auth::Caller;
use crate::admin::complaint::{Complaint, ComplaintBody};
use crate::config::{Change, Diff, Effect};
use crate::live::{Refused, one_line};
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::{Extension, Json};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// A reload, or what one would do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(super) struct Reload {
    /// true if the changes are in force now
    applied: bool,
    /// true if a reload would refuse them, because one of them needs a restart
    needs_restart: bool,
    /// the changes, in the order of the file
    changes: Vec<Change>,
    /// settings that are allowed, but probably not meant
    warnings: Vec<String>,
}

/// The configuration, and where file and process differ.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(super) struct ConfigState {
    /// the configuration file; null: there is none
    file: Option<String>,
    /// changes whenever the file does; null: it can't be found
    file_version: Option<String>,
    /// true if the last reload was applied
    last_reload_successful: bool,
    /// when a configuration was put in force last
    last_success_at: String,
    /// what was changed in windows since then, by the API or by another relay, and is not in the file; a reload or a restart
    /// undoes it
    changed_live: Vec<Change>,
    /// what a reload would change; empty if the file has nothing new
    not_loaded: Vec<Change>,
    /// what is wrong with the file as it is now
    file_errors: Vec<String>,
}

impl Admin {
    fn reloader(&self) -> Result<&Arc<crate::live::Reloader>, Complaint> {
        let text = "this process can't read its configuration again";
        self.reloader.as_ref().ok_or_else(|| Complaint::new(StatusCode::SERVICE_UNAVAILABLE, text))
    }
}

fn complaint(refused: Refused) -> Complaint {
    match refused {
        Refused::Busy(text) => Complaint::new(StatusCode::CONFLICT, text),
        Refused::Wrong(errors) => {
            let count = match errors.len() {
                1 => "1 error".to_owned(),
                n => format!("{n} errors"),
            };
            let text = format!(
                "the reload is refused, and the old configuration stays: {count}: {}",
                errors.join("; ")
            );
            Complaint::of_many(StatusCode::UNPROCESSABLE_ENTITY, text, errors)
        }
    }
}

/// Read the configuration file again, and put it in force: all of it, or nothing
///
/// Changes by the API are undone. A change that needs a restart refuses the whole reload. With `dry_run=true`, nothing is
/// changed.
#[utoipa::path(post, path = "/api/v1/reload", tag = "process", security(("admin" = [])),
    params(("dry_run" = Option<bool>, Query, description = "only say what would change (false)")),
    responses((status = 200, body = Reload), (status = 400, body = ComplaintBody), (status = 401, body = ComplaintBody),
        (status = 403, body = ComplaintBody), (status = 409, body = ComplaintBody), (status = 415, body = ComplaintBody),
        (status = 422, body = ComplaintBody), (status = 503, body = ComplaintBody)))]
pub(super) async fn reload(
    State(admin): State<Arc<Admin>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Json<Reload>, Complaint> {
    let query = Query::of(&uri, &["dry_run"])?;
    let dry_run = match query.get("dry_run") {
        None => false,
        Some(text) if text == b"true" => true,
        Some(text) if text == b"false" => false,
        Some(_) => return Err(super::query::bad("?dry_run= is neither true nor false".to_owned())),
    };
    let reloader = Arc::clone(admin.reloader()?);
    if !dry_run {
        admin.journal.reload_is_for(caller);
        tracing::info!(peer = %caller, by = caller.by, "asked to reload the configuration");
    }
    // It goes on to its end, even if the client is gone: it must not stop half way.
    let work = tokio::spawn(async move { reloader.reload(dry_run, false).await });
    let done = work.await.unwrap_or(Err(Refused::Busy("this has failed within Hapax: please report it")));
    let done = done.map_err(complaint)?;
    let Diff(changes) = done.diff;
    let needs_restart = changes.iter().any(|change| change.effect == Effect::Restart);
    let warnings = done.warnings.iter().map(one_line).collect();
    Ok(Json(Reload { applied: !dry_run, needs_restart, changes, warnings }))
}

/// Show how the file and the process differ
#[utoipa::path(get, path = "/api/v1/config", tag = "process", security(("token" = [])),
    responses((status = 200, body = ConfigState), (status = 401, body = ComplaintBody), (status = 403, body = ComplaintBody)))]
pub(super) async fn config(State(admin): State<Arc<Admin>>) -> Json<ConfigState> {
    let (pending, file, file_version) = match &admin.reloader {
        Some(reloader) => {
            let files = reloader.files();
            (reloader.pending().await, files.path(), files.version().await)
        }
        None => (Ok(Diff::default()), None, None),
    };
    let (not_loaded, file_errors) = match pending {
        Ok(Diff(changes)) => (changes, Vec::new()),
        Err(Refused::Wrong(errors)) => (Vec::new(), errors),
        Err(Refused::Busy(text)) => (Vec::new(), vec![text.to_owned()]),
    };
    let last = admin.running.last_reload();
    let Diff(mut changed_live) = admin.running.changed_live();
    if file.is_some() && file_errors.is_empty() {
        // What the file has, too, stays.
        changed_live.retain(|change| not_loaded.iter().any(|other| other.key == change.key));
    }
    Json(ConfigState {
        file: file
            .map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone()).display().to_string()),
        file_version,
        last_reload_successful: last.is_success,
        last_success_at: humantime::format_rfc3339_millis(last.succeeded_at).to_string(),
        changed_live,
        not_loaded,
        file_errors,
    })
}
