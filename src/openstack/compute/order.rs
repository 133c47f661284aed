//! What Nova is told to do: takes a server's ID, gives nothing but the knowledge that the order arrived; holds
//! nothing.
//!
//! None of these orders may simply be sent twice: the second one meets what the first one began. So each is sent
//! once, and after a lost answer the server, or Glance, is asked whether it had arrived.

use serde_json::{Value, json};

use super::Compute;
use crate::error::{Error, Kind, Result};
use crate::openstack::ImageFilter;
use crate::openstack::answer::{Answer, one_line};
use crate::retry::Attempts;

/// An order that changes whether a server runs.
struct Turn {
    action: &'static str,
    doing: &'static str,
    done: &'static str,
}

const STOP: Turn = Turn { action: "os-stop", doing: "powering-off", done: "SHUTOFF" };
const START: Turn = Turn { action: "os-start", doing: "powering-on", done: "ACTIVE" };

impl Compute {
    /// Orders a server to shut down. One that is off, or is on its way there, is fine.
    ///
    /// # Errors
    /// What Nova refused.
    pub async fn stop(&self, id: &str) -> Result<()> {
        self.turn(id, &STOP).await
    }

    /// Orders a server to start. One that runs, or is on its way there, is fine.
    ///
    /// # Errors
    /// What Nova refused.
    pub async fn start(&self, id: &str) -> Result<()> {
        self.turn(id, &START).await
    }

    async fn turn(&self, id: &str, turn: &Turn) -> Result<()> {
        let what = format!("{} server `{}` in `{}`", turn.action, one_line(id), self.cloud.label());
        let mut attempts = Attempts::new(self.cloud.retry);
        loop {
            let mut once = Attempts::new(self.cloud.retry.once());
            let error = match self.act(id, &json!({ turn.action: null }), &what, &mut once).await {
                Ok(answer) if answer.status.is_success() => return Ok(()),
                Ok(answer) if answer.status == 409 && self.is_turned(id, turn).await => return Ok(()),
                Ok(answer) => return Err(self.refuse(&answer, &what)),
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(error),
            };
            let Some(pause) = attempts.after_failure(once.asked()) else { return Err(error) };
            tokio::time::sleep(pause).await;
            if self.is_turned(id, turn).await {
                return Ok(());
            }
        }
    }

    async fn is_turned(&self, id: &str, turn: &Turn) -> bool {
        let Ok(Some(server)) = self.show(id).await else { return false };
        match server.task_state.as_deref() {
            Some(task) => task == turn.doing,
            None => server.status == turn.done,
        }
    }

    /// Orders an image of a server's disk; gives the ID of its record, which Nova makes before it answers.
    ///
    /// `metadata` become properties of the image. The first of them must be on no other image: by it the image is
    /// found after a lost answer.
    ///
    /// # Errors
    /// What Nova refused. Where it is retryable nobody knows whether there will be an image.
    pub async fn create_image(&self, id: &str, name: &str, metadata: &[(&str, &str)]) -> Result<String> {
        let what = format!("take a snapshot of server `{}` in `{}`", one_line(id), self.cloud.label());
        let properties: Value =
            metadata.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
        let body = json!({ "createImage": { "name": name, "metadata": properties } });
        let mark = metadata.first().copied().unwrap_or_default();
        let mut attempts = Attempts::new(self.cloud.retry);
        loop {
            let mut once = Attempts::new(self.cloud.retry.once());
            let error = match self.act(id, &body, &what, &mut once).await {
                Ok(answer) if answer.status.is_success() => match ordered_image(&answer) {
                    Some(image) => return Ok(image),
                    None => self.strange(&what, "it does not name the image").retry(),
                },
                // After a lost answer this may be our own order, under way.
                Ok(answer) if answer.status == 409 && attempts.failures() > 0 => {
                    self.refuse(&answer, &what).retry()
                }
                Ok(answer) => return Err(self.refuse(&answer, &what)),
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(error),
            };
            let pause = attempts.after_failure(once.asked());
            tokio::time::sleep(pause.unwrap_or_default()).await;
            match (self.made_image(mark).await, pause) {
                (Ok(Some(image)), _) => return Ok(image),
                (Ok(_), Some(_)) => {}
                (Ok(_), None) => return Err(error.settled()),
                (Err(_), None) => {
                    let advice = format!("see whether there is an image `{}`, and delete it", one_line(name));
                    return Err(error.advise(advice));
                }
                (Err(error), Some(_)) if !error.is_retryable() => return Err(error),
                (Err(_), Some(_)) => {}
            }
        }
    }

    /// The project's image that bears the mark of an order. Anybody may put anything on an image of theirs and let
    /// everybody see it, so the owner counts too.
    ///
    /// # Errors
    /// Of the request.
    pub async fn made_image(&self, (key, value): (&str, &str)) -> Result<Option<String>> {
        let filter = ImageFilter {
            owner: self.cloud.project_id().map(str::to_owned),
            property: Some((key.to_owned(), value.to_owned())),
            ..ImageFilter::default()
        };
        Ok(self.cloud.list_images(&filter, 1).await?.images.pop().map(|image| image.id))
    }

    /// Puts a note on a server.
    ///
    /// # Errors
    /// What Nova refused.
    pub async fn set_metadata(&self, id: &str, key: &str, value: &str) -> Result<()> {
        let what = format!("put a note on server `{}`", one_line(id));
        let url = self.url(["servers", id, "metadata"]);
        let body = json!({ "metadata": { key: value } }).to_string();
        let answer = self
            .ask(&url, &what, &mut Attempts::new(self.cloud.retry), |client| {
                client.post(url.clone()).header("Content-Type", "application/json").body(body.clone())
            })
            .await?;
        if answer.status.is_success() { Ok(()) } else { Err(self.refuse(&answer, &what)) }
    }

    /// Takes a note off a server; one that is not there is fine.
    ///
    /// # Errors
    /// What Nova refused.
    pub async fn remove_metadata(&self, id: &str, key: &str) -> Result<()> {
        let what = format!("take a note off server `{}`", one_line(id));
        let url = self.url(["servers", id, "metadata", key]);
        let answer = self
            .ask(&url, &what, &mut Attempts::new(self.cloud.retry), |client| client.delete(url.clone()))
            .await?;
        match answer.status.as_u16() {
            200..300 | 404 => Ok(()),
            _ => Err(self.refuse(&answer, &what)),
        }
    }

    async fn act(&self, id: &str, body: &Value, what: &str, attempts: &mut Attempts) -> Result<Answer> {
        let url = self.url(["servers", id, "action"]);
        let body = body.to_string();
        self.ask(&url, what, attempts, |client| {
            client.post(url.clone()).header("Content-Type", "application/json").body(body.clone())
        })
        .await
    }

    /// What to say where a server that was there is not any more.
    pub fn vanished(&self, id: &str) -> Error {
        let what = format!("server `{}` is gone: somebody deleted it meanwhile", one_line(id));
        Error::new(self.cloud.stage, Kind::Source, what)
    }
}

/// The image in the answer to `createImage`: in the body from 2.45 on, before that the end of `Location`.
fn ordered_image(answer: &Answer) -> Option<String> {
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let told = json.get("image_id").and_then(Value::as_str);
    let id = told.or_else(|| answer.location.as_deref()?.trim_end_matches('/').rsplit('/').next())?;
    uuid::Uuid::try_parse(id).ok().filter(|_| id.len() == 36)?;
    Some(id.to_owned())
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    #[test]
    fn the_image_is_named_by_the_body_or_by_the_location() {
        const ID: &str = "70a599e0-31e7-49b7-b260-868f441e862b";
        let answer = |body: &str, location: Option<&str>| Answer {
            status: StatusCode::ACCEPTED,
            stream: None,
            body: body.into(),
            retry_after: None,
            subject_token: None,
            location: location.map(str::to_owned),
        };
        let location = format!("http://glance:9292/images/{ID}");
        assert_eq!(ordered_image(&answer("", Some(&location))).as_deref(), Some(ID));
        assert_eq!(ordered_image(&answer("", Some(&format!("{location}/")))).as_deref(), Some(ID));
        assert_eq!(ordered_image(&answer(&format!("{{\"image_id\": \"{ID}\"}}"), None)).as_deref(), Some(ID));
        for (body, location) in
            [("", None), ("{\"image_id\": \"../x\"}", None), ("[]", Some("http://x/y")), ("", Some(""))]
        {
            assert_eq!(ordered_image(&answer(body, location)), None, "{body} {location:?}");
        }
    }
}
