//! Sharing, both ends, against the real Keystone and Glance of `tools/openstack`; see `lab`.

mod both_ends;
mod projects;
mod records;
mod refusals;

use crate::lab::Lab;
use crate::lab::command::{Ran, run, snapcow_in};
use crate::lab::rest::Rest;
use reqwest::Method;
use serde_json::Value;

/// The project that images are shared with.
fn lab_b(lab: &Lab) -> String {
    lab.text("/projects/lab-b")
}

/// Glance, as `lab-b`.
fn rest_b(lab: &Lab) -> Rest {
    Rest::of(lab, "lab-b", format!("{}/v2", lab.text("/variants/noranges/url")))
}

fn as_a(lab: &Lab, words: &[&str]) -> Ran {
    run(&mut snapcow_in(lab, "lab-noranges", words))
}

fn as_b(lab: &Lab, words: &[&str]) -> Ran {
    run(&mut snapcow_in(lab, "lab-b", words))
}

/// IDs and statuses of all members, as Glance tells them to the owner.
fn members(rest: &Rest, id: &str) -> Vec<(String, String)> {
    let (status, answer) = rest.call(Method::GET, &format!("images/{id}/members"), "application/json", "");
    assert_eq!(status, 200, "{answer}");
    let text = |member: &Value, key: &str| member[key].as_str().unwrap().to_owned();
    let members = answer["members"].as_array().unwrap();
    members.iter().map(|member| (text(member, "member_id"), text(member, "status"))).collect()
}

fn stdout(ran: &Ran) -> String {
    String::from_utf8(ran.stdout.clone()).unwrap()
}
