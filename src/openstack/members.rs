//! Sharing: takes an image and a project, gives who may use the image and whether they want to; holds the
//! members of one image.
//!
//! Image API v2, «Sharing». Only images of the visibility `shared` have members, only the owner adds and removes
//! them, and only the member itself says what it thinks of it. A member that has not answered yet may use the image
//! already by its ID; lists leave it out until it is accepted (both measured with Glance 33).

use std::fmt;

use serde_json::{Value, json};

use super::answer::{Answer, kind_of, one_line};
use super::{Cloud, record};
use crate::error::{Error, Kind, Result};

/// What a project has said to an image that is shared with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberStatus {
    /// Nothing yet.
    Pending,
    /// The image stands in its lists.
    Accepted,
    /// It does not want to see it; it may still use it by its ID.
    Rejected,
}

impl MemberStatus {
    /// As Glance writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
        }
    }
}

impl fmt::Display for MemberStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A project that an image is shared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The project's ID, or whatever the owner took for it: Glance does not look whether there is such a project.
    pub project: String,
    /// What it has said.
    pub status: MemberStatus,
    /// When it became a member, as Glance writes it.
    pub created_at: Option<String>,
    /// When it last said something.
    pub updated_at: Option<String>,
}

impl Member {
    fn from_json(json: &Value) -> Result<Self, String> {
        let text = |key: &str| json.get(key).and_then(Value::as_str);
        let project = text("member_id").filter(|id| !id.is_empty()).ok_or("a member has no member_id")?;
        let status = match text("status") {
            Some("pending") => MemberStatus::Pending,
            Some("accepted") => MemberStatus::Accepted,
            Some("rejected") => MemberStatus::Rejected,
            _ => return Err("a member has a status that is none".into()),
        };
        Ok(Self {
            project: project.to_owned(),
            status,
            created_at: text("created_at").map(str::to_owned),
            updated_at: text("updated_at").map(str::to_owned),
        })
    }
}

impl Cloud {
    /// The projects that an image is shared with; only the owner sees all of them.
    ///
    /// # Errors
    /// What Glance refused: an image that is not shared has no members (403).
    pub async fn members(&self, image: &str) -> Result<Vec<Member>> {
        let what = format!("list the members of image `{}` in `{}`", one_line(image), self.label());
        let url = self.url(["images", image, "members"]);
        let answer = self.ask(&what, |client| client.get(url.clone())).await?;
        if answer.status != 200 {
            return Err(self.refuse_sharing(&answer, &what));
        }
        let json = answer.json(self.stage, &what)?;
        let Some(Value::Array(members)) = json.get("members") else {
            return Err(self.strange(&what, "there is no list of members in it"));
        };
        members
            .iter()
            .map(Member::from_json)
            .collect::<Result<_, _>>()
            .map_err(|why| self.strange(&what, &why))
    }

    /// What a project has said to an image; `None` if the image is not shared with it, or nobody may know.
    ///
    /// # Errors
    /// What Glance refused.
    pub async fn member(&self, image: &str, project: &str) -> Result<Option<Member>> {
        let what = format!("look whether image `{}` is shared with `{}`", one_line(image), one_line(project));
        let url = self.url(["images", image, "members", project]);
        let answer = self.ask(&what, |client| client.get(url.clone())).await?;
        match answer.status.as_u16() {
            200 => self.member_of(&answer, &what).map(Some),
            404 => Ok(None),
            _ => Err(self.refuse_sharing(&answer, &what)),
        }
    }

    /// Shares an image, whose visibility must be `shared`, with a project. One that is a member already stays what
    /// it is.
    ///
    /// # Errors
    /// What Glance refused: another visibility or owner (403), no such image (404), too many members (413).
    pub async fn add_member(&self, image: &str, project: &str) -> Result<Member> {
        let what = format!("share image `{}` with project `{}`", one_line(image), one_line(project));
        let url = self.url(["images", image, "members"]);
        let body = json!({ "member": project });
        let answer = self.ask(&what, |client| client.post(url.clone()).json(&body)).await?;
        match answer.status.as_u16() {
            200..300 => self.member_of(&answer, &what),
            409 => match self.member(image, project).await? {
                Some(member) => Ok(member),
                None => Err(self.refuse_sharing(&answer, &what)),
            },
            _ => Err(self.refuse_sharing(&answer, &what)),
        }
    }

    /// Takes an image back from a project; whether it was a member.
    ///
    /// # Errors
    /// What Glance refused: no such image (404), another visibility or owner (403).
    pub async fn remove_member(&self, image: &str, project: &str) -> Result<bool> {
        let what = format!("take image `{}` back from project `{}`", one_line(image), one_line(project));
        let url = self.url(["images", image, "members", project]);
        let answer = self.ask(&what, |client| client.delete(url.clone())).await?;
        match answer.status.as_u16() {
            200..300 => Ok(true),
            // Either there is no such member, or no such image.
            404 if self.peek(image, &what).await?.is_some() => Ok(false),
            _ => Err(self.refuse_sharing(&answer, &what)),
        }
    }

    /// Says what a project thinks of an image. Only that project itself may.
    ///
    /// # Errors
    /// What Glance refused: the image is not shared with the project (404), or this is not its login (403).
    pub async fn set_member_status(
        &self,
        image: &str,
        project: &str,
        status: MemberStatus,
    ) -> Result<Member> {
        let what = format!("set image `{}` to {status} for project `{}`", one_line(image), one_line(project));
        let url = self.url(["images", image, "members", project]);
        let body = json!({ "status": status.word() });
        let answer = self.ask(&what, |client| client.put(url.clone()).json(&body)).await?;
        match answer.status.as_u16() {
            200..300 => self.member_of(&answer, &what),
            404 => {
                Err(Error::new(self.stage, kind_of(self.stage), format!("{what}: it is not shared with it"))
                    .advise(format!(
                        "ask its owner for: snapcow share {} --with {}",
                        one_line(image),
                        one_line(project)
                    )))
            }
            _ => Err(self.refuse_sharing(&answer, &what)),
        }
    }

    fn member_of(&self, answer: &Answer, what: &str) -> Result<Member> {
        Member::from_json(&answer.json(self.stage, what)?).map_err(|why| self.strange(what, &why))
    }

    /// The general refusal, with the advice that sharing needs.
    fn refuse_sharing(&self, answer: &Answer, what: &str) -> Error {
        let refused = self.refuse(answer, what);
        match answer.status.as_u16() {
            403 => {
                refused.advise("only the owner shares an image, and only while its visibility is `shared`")
            }
            413 => refused.advise("take it back from other projects first: snapcow unshare"),
            _ => refused,
        }
    }

    /// The project of the login.
    ///
    /// # Errors
    /// [`Kind::Login`] where only a token was given: nobody has said for which project.
    pub fn own_project(&self) -> Result<&str> {
        self.project_id().filter(|id| record::is_plain(id)).ok_or_else(|| {
            let what =
                format!("which project `{}` is of cannot be told: only a token was given", self.label());
            Error::new(self.stage, Kind::Login, what).advise("use a cloud with credentials, by --os-cloud")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_read_and_what_is_none_is_refused() {
        let json = json!({"member_id": "p", "image_id": "i", "status": "accepted", "created_at": "c", "schema": "s"});
        let member = Member::from_json(&json).unwrap();
        assert_eq!((member.project.as_str(), member.status.word()), ("p", "accepted"));
        for json in [
            json!(null),
            json!({"status": "pending"}),
            json!({"member_id": "", "status": "pending"}),
            json!({"member_id": "p", "status": "Pending"}),
            json!({"member_id": ["p"], "status": "pending"}),
        ] {
            assert!(Member::from_json(&json).is_err(), "{json}");
        }
    }
}
