//! Projects by name, and images that are for all: what an administrator of the lab prepares.

use reqwest::Method;
use serde_json::{Value, json};
use snapcow::openstack::NewImage;

use super::{as_a, lab_b, members, stdout};
use crate::lab::command::{run, snapcow, snapcow_in};
use crate::lab::rest::{Named, Rest};
use crate::lab::{Lab, lab, pattern};

/// Things of Keystone that are deleted in the end, the last one first.
struct Made<'a> {
    keystone: &'a Rest,
    paths: Vec<String>,
}

impl<'a> Made<'a> {
    fn new(keystone: &'a Rest) -> Self {
        Self { keystone, paths: Vec::new() }
    }

    /// Makes one, and gives its ID.
    fn make(&mut self, kind: &str, what: Value) -> String {
        let body = json!({ kind: what }).to_string();
        let (status, made) = self.keystone.call(Method::POST, &format!("{kind}s"), "application/json", body);
        assert_eq!(status, 201, "{made}");
        let id = made[kind]["id"].as_str().unwrap().to_owned();
        self.paths.push(format!("{kind}s/{id}"));
        id
    }
}

impl Drop for Made<'_> {
    fn drop(&mut self) {
        for path in self.paths.iter().rev() {
            if path.starts_with("domains/") {
                let disabled = json!({"domain": {"enabled": false}}).to_string();
                self.keystone.call(Method::PATCH, path, "application/json", disabled);
            }
            self.keystone.call(Method::DELETE, path, "application/json", "");
        }
    }
}

fn glance_of_admin(lab: &Lab) -> Rest {
    Rest::of(lab, "admin", format!("{}/v2", lab.text("/variants/noranges/url")))
}

#[test]
fn who_may_look_up_names_shares_by_name_and_a_name_of_several_is_refused() {
    let Some(lab) = lab() else { return };
    let (rest, keystone) = (glance_of_admin(&lab), Rest::identity(&lab));
    let image = Named::new(&rest, "share-names");
    let id = rest.make(&image.name, &pattern(1000), json!({}));
    let share = |project: &str| {
        run(&mut snapcow_in(&lab, "lab-admin", ["share", image.name.as_str(), "--with", project]))
    };

    share("no-such-project").refuses(3, &["no project has the name or ID `no-such-project`"]);
    share("LAB-B").refuses(3, &["did you mean `lab-b`", &lab_b(&lab)]);
    share("00000000000000000000000000000000").refuses(3, &["no project has the ID"]);
    let mut made = Made::new(&keystone);
    let twice = format!("snapcow-test-{}", NewImage::new_id());
    let domain = made.make("domain", json!({"name": twice}));
    let in_default = made.make("project", json!({"name": twice, "domain_id": "default"}));
    let in_other = made.make("project", json!({"name": twice, "domain_id": domain}));
    share(&twice).refuses(3, &["names 2 projects", &in_default, &in_other, &format!("domain {domain}")]);
    assert_eq!(rest.show(&id)["visibility"], "private");

    let ran = share("lab-b").ok();
    assert!(stdout(&ran).contains("lab-b") && !ran.stderr.contains("note: whether"), "{ran:?}");
    assert_eq!(members(&rest, &id), [(lab_b(&lab), "pending".to_owned())]);
    run(&mut snapcow_in(&lab, "lab-admin", ["unshare", image.name.as_str(), "--with", "lab-b"])).ok();
    assert_eq!(members(&rest, &id), []);
}

/// A user without any right but to be in two projects.
#[test]
fn everybody_shares_by_name_with_a_project_that_they_are_in() {
    let Some(lab) = lab() else { return };
    let keystone = Rest::identity(&lab);
    let mut made = Made::new(&keystone);
    let unique = NewImage::new_id();
    let name = |what: &str| format!("snapcow-test-{what}-{unique}");
    let in_default = |what: &str| json!({"name": name(what), "domain_id": "default"});
    let (one, two) = (made.make("project", in_default("one")), made.make("project", in_default("two")));
    let user = made.make("user", json!({"name": name("user"), "domain_id": "default", "password": unique}));
    let (_, roles) = keystone.call(Method::GET, "roles?name=member", "application/json", "");
    let role = roles["roles"][0]["id"].as_str().unwrap();
    for project in [&one, &two] {
        let path = format!("projects/{project}/users/{user}/roles/{role}");
        assert_eq!(keystone.call(Method::PUT, &path, "application/json", "").0, 204);
    }
    let own = |words: &[&str]| {
        let mut command = snapcow(words);
        command
            .env("OS_AUTH_URL", lab.text("/keystone"))
            .env("OS_USERNAME", name("user"))
            .env("OS_PASSWORD", &unique)
            .env("OS_USER_DOMAIN_NAME", "Default")
            .env("OS_PROJECT_ID", &one)
            .env("OS_REGION_NAME", lab.text("/variants/noranges/region"));
        run(&mut command)
    };
    let image = made_by_admin(&lab, &one, &name("image"));
    let ran = own(&["share", &image.id, "--with", &name("two")]).ok();
    assert!(stdout(&ran).contains(&format!("{two}  pending")), "{ran:?}");
    let shown = stdout(&own(&["members", &image.id]).ok());
    assert!(shown.contains(&name("two")), "{shown}");
}

/// An image that an administrator has put into another project.
struct Foreign {
    rest: Rest,
    id: String,
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.rest.delete(&self.id);
    }
}

fn made_by_admin(lab: &Lab, owner: &str, name: &str) -> Foreign {
    let rest = glance_of_admin(lab);
    let id = rest.make(name, &pattern(1000), json!({"owner": owner}));
    Foreign { rest, id }
}

#[test]
fn what_is_for_all_needs_no_sharing() {
    let Some(lab) = lab() else { return };
    let rest = glance_of_admin(&lab);
    let image = Named::new(&rest, "share-public");
    let id = rest.make(&image.name, &pattern(1000), json!({"visibility": "public"}));
    let b = lab_b(&lab);
    let ran = run(&mut snapcow_in(&lab, "lab-admin", ["share", image.name.as_str(), "--with", &b])).ok();
    assert!(ran.stderr.contains("every project may use it already"), "{ran:?}");
    assert_eq!(rest.show(&id)["visibility"], "public");
    run(&mut snapcow_in(&lab, "lab-admin", ["unshare", &id, "--from", &b]))
        .refuses(3, &["is public: every project may use it", "--private"]);
    let accepted = as_a(&lab, &["accept", &image.name]).ok();
    assert!(accepted.stderr.contains("may use it without accepting"), "{accepted:?}");
    as_a(&lab, &["reject", &id]).refuses(3, &["is public", "nothing to reject"]);
    let none = as_a(&lab, &["members", &id]).ok();
    assert!(none.stderr.contains("is public: every project sees it"), "{none:?}");
}
