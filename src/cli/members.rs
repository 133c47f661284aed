//! `snapcow members`: the projects that an image is shared with, and what they have said to it.
//!
//! `--json` prints one object, `schema` is `snapcow/members/1`; times are Glance's own.

use clap::Parser;
use serde_json::json;
use snapcow::convert::Cancel;
use snapcow::error::{Result, Stage};
use snapcow::openstack::{Image, Member};

use super::args::CloudArgs;
use super::glance::{Clouds, find_image};
use super::table::{Column, Narrow, Table, width};
use super::{convert, tell, terminal};

#[derive(Clone, Debug, Parser)]
pub struct MembersArgs {
    /// Name or ID of an image
    pub image: String,
    /// Print the result as a JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// Runs the command.
pub fn run(options: &MembersArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    let mut clouds = Clouds::new(options.cloud.clone(), cancel.clone());
    let name = options.image.strip_prefix("glance:").unwrap_or(&options.image);
    let (cloud, image) = find_image(name, None, &mut clouds)?;
    let cloud = cloud.for_stage(Stage::Cloud);
    let members = match image.visibility.as_deref() {
        Some("shared") => clouds.wait(Stage::Cloud, cloud.members(&image.id))?,
        _ => Vec::new(),
    };
    // Names are a kindness: those of projects that the user is in are known, others are not asked for.
    let known = match members.is_empty() {
        true => Vec::new(),
        false => clouds.wait(Stage::Cloud, cloud.own_projects()).unwrap_or_default(),
    };
    let name_of = |member: &Member| {
        known.iter().find(|project| project.id == member.project).and_then(|project| project.name.clone())
    };
    let rows: Vec<(Member, Option<String>)> = members
        .into_iter()
        .map(|member| (name_of(&member), member))
        .map(|(name, member)| (member, name))
        .collect();
    if options.json {
        return convert::say(&terminal::escape_json(&format!("{:#}", to_json(&image, &rows))));
    }
    if rows.is_empty() {
        if !quiet {
            tell(format_args!("snapcow: image {} {}", image.label(), why_none(&image)));
        }
        return Ok(());
    }
    convert::say(&table(&rows))
}

fn why_none(image: &Image) -> &'static str {
    match image.visibility.as_deref() {
        Some("public") => "is public: every project sees it, so it has no members",
        Some("community") => "is a community image: every project may use it by its ID, so it has no members",
        Some("shared") => "is shared with nobody yet: snapcow share IMAGE --with PROJECT",
        _ => "is private: it is shared with nobody",
    }
}

fn to_json(image: &Image, rows: &[(Member, Option<String>)]) -> serde_json::Value {
    let members: Vec<_> = rows
        .iter()
        .map(|(member, name)| {
            json!({
                "project_id": member.project,
                "project_name": name,
                "status": member.status.word(),
                "created_at": member.created_at,
                "updated_at": member.updated_at,
            })
        })
        .collect();
    json!({
        "schema": "snapcow/members/1",
        "snapcow_version": env!("CARGO_PKG_VERSION"),
        "image_id": image.id,
        "image_name": image.name,
        "owner": image.owner,
        "visibility": image.visibility,
        "members": members,
    })
}

/// Members, with the names of their projects where they are known.
pub fn table(rows: &[(Member, Option<String>)]) -> String {
    let mut columns = vec![
        Column { title: "PROJECT", right: false, narrow: Narrow::Stays },
        Column { title: "STATUS", right: false, narrow: Narrow::Stays },
    ];
    let named = rows.iter().any(|(_, name)| name.is_some());
    if named {
        columns.push(Column { title: "NAME", right: false, narrow: Narrow::IsCut });
    }
    let mut table = Table::new(&columns);
    for (member, name) in rows {
        let name = named.then(|| name.clone().unwrap_or_default());
        table.row([member.project.clone(), member.status.to_string()].into_iter().chain(name));
    }
    table.render(width())
}
