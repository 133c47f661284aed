//! Projects by name: takes what a person calls a project, gives its ID; holds the projects of one answer.
//!
//! Names are Keystone's business (Identity API v3, «Projects»), and by its default policy only administrators may look
//! up any. Everybody may list the projects that they are in themselves (`/v3/auth/projects`), which is where
//! most images go. A name is unique only within a domain.

use serde_json::Value;

use super::answer::{Answer, kind_of, one_line};
use super::{Cloud, record};
use crate::error::{Error, Kind, Result};

/// A project, as far as this login may know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    /// Its ID.
    pub id: String,
    /// Its name, where Keystone has told it.
    pub name: Option<String>,
    /// The ID of its domain.
    pub domain: Option<String>,
    /// Whether Keystone has confirmed that there is such a project.
    pub confirmed: bool,
}

/// What Keystone said to a question that it may not want to answer.
enum Told<T> {
    This(T),
    Nothing,
    Forbidden,
}

impl Project {
    /// Name and ID, for messages.
    pub fn label(&self) -> String {
        match &self.name {
            Some(name) => format!("`{}` ({})", one_line(name), self.id),
            None => format!("`{}`", self.id),
        }
    }

    fn from_json(json: &Value) -> Option<Self> {
        let text = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
        let id = text("id").filter(|id| record::is_plain(id))?;
        Some(Self { id, name: text("name"), domain: text("domain_id"), confirmed: true })
    }
}

impl Cloud {
    /// The project of that ID or name. An ID that Keystone does not let us look at is taken as it is, unconfirmed.
    ///
    /// # Errors
    /// `Source` or `Target`, by the stage, for a project that there is not, and for a name that several have;
    /// [`Kind::Login`] for a name where this login may not look up names.
    pub async fn find_project(&self, id_or_name: &str) -> Result<Project> {
        if !looks_like_an_id(id_or_name) {
            return self.project_called(id_or_name).await;
        }
        match self.project_of_id(id_or_name).await? {
            Told::This(project) => Ok(project),
            Told::Nothing => Err(self.no_project(format!("no project has the ID `{id_or_name}`"))),
            Told::Forbidden => {
                let own = self.own_projects().await?.into_iter().find(|project| project.id == id_or_name);
                let unconfirmed =
                    Project { id: id_or_name.to_owned(), name: None, domain: None, confirmed: false };
                Ok(own.unwrap_or(unconfirmed))
            }
        }
    }

    /// The projects that the user of this login is in; none where Keystone does not tell.
    ///
    /// # Errors
    /// Of the connection and the login.
    pub async fn own_projects(&self) -> Result<Vec<Project>> {
        let what = format!("list your projects in `{}`", one_line(self.label()));
        Ok(match self.ask_identity(&["auth", "projects"], None, &what).await? {
            Told::This(json) => projects(&json),
            Told::Nothing | Told::Forbidden => Vec::new(),
        })
    }

    async fn project_of_id(&self, id: &str) -> Result<Told<Project>> {
        let what = format!("look up project `{}` in `{}`", one_line(id), one_line(self.label()));
        Ok(match self.ask_identity(&["projects", id], None, &what).await? {
            Told::This(json) => {
                let project = json.get("project").and_then(Project::from_json);
                Told::This(project.ok_or_else(|| self.strange(&what, "there is no project in it"))?)
            }
            Told::Nothing => Told::Nothing,
            Told::Forbidden => Told::Forbidden,
        })
    }

    async fn project_called(&self, name: &str) -> Result<Project> {
        let shown = one_line(name);
        let what = format!("look up project `{shown}` in `{}`", one_line(self.label()));
        let mut seen = self.own_projects().await?;
        let told = self.ask_identity(&["projects"], Some(("name", name)), &what).await?;
        if let Told::This(json) = &told {
            seen.extend(projects(json));
        }
        let mut found: Vec<Project> =
            seen.iter().filter(|project| project.name.as_deref() == Some(name)).cloned().collect();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found.dedup_by(|a, b| a.id == b.id);
        match (found.len(), told) {
            (1, _) => return Ok(found.remove(0)),
            (0, Told::Forbidden) => {}
            (0, _) => return self.project_of_odd_id(name, seen, &what).await,
            (count, _) => {
                let listed: Vec<String> = found.iter().take(10).map(with_domain).collect();
                let what = format!("`{shown}` names {count} projects: {}", listed.join(", "));
                return Err(
                    Error::new(self.stage, kind_of(self.stage), what).advise("give the ID of one of them")
                );
            }
        }
        let what = format!("{what}: it is none of yours, and this login may not look up the names of others");
        Err(Error::new(self.stage, Kind::Login, what)
            .advise("give its ID, which its users see by: openstack token issue -f value -c project_id"))
    }

    /// Some clouds have IDs of another kind than Keystone makes today. If it is none, a name of which only the case
    /// differs is proposed, or one that has this one in it; Keystone finds both.
    async fn project_of_odd_id(&self, id: &str, mut seen: Vec<Project>, what: &str) -> Result<Project> {
        if record::is_plain(id)
            && let Told::This(project) = self.project_of_id(id).await?
        {
            return Ok(project);
        }
        if let Ok(Told::This(json)) =
            self.ask_identity(&["projects"], Some(("name__icontains", id)), what).await
        {
            seen.extend(projects(&json));
        }
        let wanted = id.to_lowercase();
        let lower = |project: &Project| project.name.as_ref().map(|name| name.to_lowercase());
        let same = seen.iter().find(|project| lower(project).as_ref() == Some(&wanted));
        let near = || seen.iter().find(|project| lower(project).is_some_and(|name| name.contains(&wanted)));
        let error = self.no_project(format!("no project has the name or ID `{}`", one_line(id)));
        Err(match same.or_else(near).filter(|_| !wanted.is_empty()) {
            Some(near) => error.advise(format!("did you mean {}?", near.label())),
            None => error,
        })
    }

    fn no_project(&self, what: String) -> Error {
        Error::new(self.stage, kind_of(self.stage), format!("{what} in `{}`", one_line(self.label())))
            .advise("ask its users for the ID: openstack token issue -f value -c project_id")
    }

    /// A GET of Keystone's, by the token and at the address of the login.
    async fn ask_identity(
        &self,
        path: &[&str],
        filter: Option<(&str, &str)>,
        what: &str,
    ) -> Result<Told<Value>> {
        let Some(mut url) = self.shared.login.as_ref().and_then(super::auth::Login::identity) else {
            return Ok(Told::Forbidden);
        };
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }
        if let Some((key, value)) = filter {
            url.query_pairs_mut().append_pair(key, value);
        }
        let answer: Answer = self.ask_service(&url, what, |client| client.get(url.clone())).await?;
        match answer.status.as_u16() {
            200 => answer.json(self.stage, what).map(Told::This),
            403 => Ok(Told::Forbidden),
            404 => Ok(Told::Nothing),
            _ => Err(self.refuse(&answer, what)),
        }
    }
}

fn projects(json: &Value) -> Vec<Project> {
    let all = json.get("projects").and_then(Value::as_array);
    all.into_iter().flatten().filter_map(Project::from_json).collect()
}

fn with_domain(project: &Project) -> String {
    let domain = project.domain.as_deref().map(one_line).unwrap_or_default();
    format!("{} (domain {domain})", project.id)
}

/// Keystone makes IDs of 32 hexadecimal digits; some clouds write them as UUIDs.
fn looks_like_an_id(text: &str) -> bool {
    matches!(text.len(), 32 | 36) && uuid::Uuid::try_parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_told_from_names() {
        for id in ["62d5565359db4b899ed2e793e1157552", "62d55653-59db-4b89-9ed2-e793e1157552"] {
            assert!(looks_like_an_id(id), "{id}");
        }
        for name in
            ["", "demo", "62d5565359db4b899ed2e793e115755", "g2d5565359db4b899ed2e793e1157552", "default"]
        {
            assert!(!looks_like_an_id(name), "{name}");
        }
    }

    #[test]
    fn what_is_no_project_is_left_out() {
        let json = json!({"projects": [{"id": "../x", "name": "n"}, {"id": "a", "name": "n", "domain_id": "d"}, 5, {}]});
        let found = projects(&json);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].label().as_str(), with_domain(&found[0]).as_str()), ("`n` (a)", "a (domain d)"));
        assert!(projects(&json!(null)).is_empty());
    }
}
