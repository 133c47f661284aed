//! `snapcow share` and `snapcow unshare`: who else may use an image of this project.
//!
//! Standard output gets a line for each project that was asked for: its ID, its name where that is known, and what it
//! has said to the image.

use clap::Parser;
use snapcow::convert::Cancel;
use snapcow::error::{Error, Kind, Result, Stage};
use snapcow::openstack::{Cloud, Image, ImageChanges, Member, MemberStatus, Project};

use super::args::{CloudArgs, CloudPairArgs};
use super::glance::{Clouds, one_of};
use super::members::table;
use super::{convert, tell};

/// Projects that are named in a note, of however many.
const MOST_NAMED: usize = 5;

#[derive(Clone, Debug, Parser)]
pub struct ShareArgs {
    /// Name or ID of an image of this project
    pub image: String,
    /// The projects to share it with: IDs, or names of projects that you are in or may look up
    #[arg(long, value_name = "PROJECT", num_args = 1.., required_unless_present = "accept_as")]
    pub with: Vec<String>,
    /// Accept it, too, with this cloud of clouds.yaml, whose project must be among those; without --with it is the one
    #[arg(long, value_name = "CLOUD")]
    pub accept_as: Option<String>,
    #[command(flatten)]
    pub cloud: CloudArgs,
}

#[derive(Clone, Debug, Parser)]
pub struct UnshareArgs {
    /// Name or ID of an image of this project
    pub image: String,
    /// The projects to take it back from: IDs, or names of projects that you are in or may look up
    #[arg(long, visible_alias = "from", value_name = "PROJECT", num_args = 1.., required = true)]
    pub with: Vec<String>,
    #[command(flatten)]
    pub cloud: CloudArgs,
}

/// One end of sharing: the owner's cloud and image.
struct Sharing {
    clouds: Clouds,
    cloud: Cloud,
    image: Image,
    quiet: bool,
}

/// Runs `snapcow share`.
pub fn run(options: &ShareArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    let mut sharing = Sharing::open(&options.image, &options.cloud, quiet, cancel)?;
    if let Some(visibility @ ("public" | "community")) = sharing.image.visibility.as_deref() {
        sharing.say(format_args!(
            "image {} is {visibility}: every project may use it already, so there is nothing to share",
            sharing.image.label()
        ));
        return Ok(());
    }
    let mut projects = sharing.projects(&options.with)?;
    let mut members = sharing.members()?;
    let friend = match &options.accept_as {
        Some(name) => Some(sharing.friend(name, &mut projects, &members)?),
        None => None,
    };
    sharing.warn_of_unknown(&projects, &members);
    let made_shared = sharing.make_shared()?;
    if made_shared {
        members = sharing.members_of_before(&projects)?;
    }
    let mut rows = sharing.add(&projects, &members, made_shared)?;
    if let Some((name, friend)) = friend {
        sharing.accept(&name, &friend, &mut rows)?;
    }
    convert::say(&table(&rows))?;
    if rows.iter().any(|(member, _)| member.status == MemberStatus::Pending) {
        sharing.say(format_args!(
            "they can use it by its ID at once; it stands in their lists after: snapcow accept {}",
            sharing.image.id
        ));
    }
    Ok(())
}

/// Runs `snapcow unshare`.
pub fn run_unshare(options: &UnshareArgs, quiet: bool, cancel: &Cancel) -> Result<()> {
    let sharing = Sharing::open(&options.image, &options.cloud, quiet, cancel)?;
    let label = sharing.image.label();
    if let Some(visibility @ ("public" | "community")) = sharing.image.visibility.as_deref() {
        let what = format!("image {label} is {visibility}: every project may use it, members or not");
        return Err(Error::new(Stage::Cloud, Kind::Source, what)
            .advise(format!("make it your own first: openstack image set --private {}", sharing.image.id)));
    }
    let members = sharing.members()?;
    for wanted in &options.with {
        // A project that is no more has no name, but may still be a member.
        let project = match members.iter().find(|member| member.project == *wanted) {
            Some(member) => Project { id: member.project.clone(), name: None, domain: None, confirmed: true },
            None => sharing.clouds.wait(Stage::Cloud, sharing.cloud.find_project(wanted))?,
        };
        let is_member = members.iter().any(|member| member.project == project.id);
        let call = sharing.cloud.remove_member(&sharing.image.id, &project.id);
        let removed = is_member && sharing.clouds.wait(Stage::Cloud, call)?;
        let what = if removed { "is not shared any more with" } else { "was not shared with" };
        sharing.say(format_args!("image {label} {what} project {}", project.label()));
    }
    Ok(())
}

impl Sharing {
    fn open(name: &str, cloud: &CloudArgs, quiet: bool, cancel: &Cancel) -> Result<Self> {
        let mut clouds = Clouds::new(cloud.clone(), cancel.clone());
        let cloud = clouds.cloud(None, Stage::Cloud)?;
        let image = own_image(name, &cloud, &clouds)?;
        Ok(Self { clouds, cloud, image, quiet })
    }

    fn say(&self, line: std::fmt::Arguments<'_>) {
        if !self.quiet {
            tell(format_args!("snapcow: {line}"));
        }
    }

    /// All projects are known before anything is changed.
    fn projects(&self, wanted: &[String]) -> Result<Vec<Project>> {
        let mut projects: Vec<Project> = Vec::new();
        for wanted in wanted {
            let project = self.clouds.wait(Stage::Cloud, self.cloud.find_project(wanted))?;
            if self.image.owner.as_deref() == Some(project.id.as_str()) {
                let what = format!("project {} owns image {}", project.label(), self.image.label());
                return Err(Error::new(Stage::Cloud, Kind::Usage, what).advise("name another project"));
            }
            if projects.iter().all(|known| known.id != project.id) {
                projects.push(project);
            }
        }
        Ok(projects)
    }

    /// A slip in an ID would go unnoticed.
    fn warn_of_unknown(&self, projects: &[Project], members: &[Member]) {
        let is_member = |project: &&Project| members.iter().any(|member| member.project == project.id);
        for project in projects.iter().filter(|project| !project.confirmed && !is_member(project)) {
            self.say(format_args!(
                "note: whether there is a project {} cannot be looked up by this login, and Glance does not look",
                project.label()
            ));
        }
    }

    /// An image of another visibility has none that count.
    fn members(&self) -> Result<Vec<Member>> {
        match self.image.visibility.as_deref() {
            Some("shared") => self.clouds.wait(Stage::Cloud, self.cloud.members(&self.image.id)),
            _ => Ok(Vec::new()),
        }
    }

    /// The cloud that accepts, and its project.
    fn friend(
        &mut self,
        name: &str,
        projects: &mut Vec<Project>,
        members: &[Member],
    ) -> Result<(String, Cloud)> {
        let friend = self.clouds.cloud(Some(name.to_owned()), Stage::Cloud)?;
        let id = friend.own_project()?.to_owned();
        if self.image.owner.as_deref() == Some(id.as_str()) {
            let what =
                format!("cloud `{name}` is a login of the project that owns image {}", self.image.label());
            return Err(Error::new(Stage::Cloud, Kind::Usage, what)
                .advise("give one of another project to --accept-as"));
        }
        let is_known = |id: &str| members.iter().any(|member| member.project == id);
        if let Some(project) = projects.iter_mut().find(|project| project.id == id) {
            project.confirmed = true;
        } else {
            if !projects.is_empty() && !is_known(&id) {
                let what =
                    format!("cloud `{name}` is a login of project {id}, which is not among those of --with");
                return Err(
                    Error::new(Stage::Cloud, Kind::Usage, what).advise(format!("add it: --with {id}"))
                );
            }
            projects.push(Project { id, name: None, domain: None, confirmed: true });
        }
        Ok((name.to_owned(), friend))
    }

    fn make_shared(&self) -> Result<bool> {
        if self.image.visibility.as_deref() == Some("shared") {
            return Ok(false);
        }
        let changes = ImageChanges::visibility("shared");
        self.clouds.wait(Stage::Cloud, self.cloud.update_image(&self.image.id, &changes))?;
        let before = self.image.visibility.as_deref().unwrap_or("not shared");
        self.say(format_args!(
            "image {} was {before}; its visibility is `shared` now: its members see it, and nobody else",
            self.image.label()
        ));
        Ok(true)
    }

    /// Glance keeps the members of an image that was made private, and they come back with its visibility.
    fn members_of_before(&self, projects: &[Project]) -> Result<Vec<Member>> {
        let call = self.cloud.members(&self.image.id);
        let members = self.clouds.wait(Stage::Cloud, call).map_err(|error| self.made_private_again(error))?;
        let is_asked = |member: &&Member| projects.iter().any(|project| project.id == member.project);
        let others: Vec<&str> =
            members.iter().filter(|member| !is_asked(member)).map(|member| member.project.as_str()).collect();
        if !others.is_empty() {
            let more = others.len().saturating_sub(MOST_NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let named = others.iter().take(MOST_NAMED).copied().collect::<Vec<_>>().join(", ");
            self.say(format_args!(
                "note: members since before, who can use it again: {named}{more}; snapcow unshare takes it back"
            ));
        }
        Ok(members)
    }

    /// Adds those that are no members yet. Where not even the first could be added, the visibility is as before.
    fn add(
        &self,
        projects: &[Project],
        members: &[Member],
        made_shared: bool,
    ) -> Result<Vec<(Member, Option<String>)>> {
        let mut rows = Vec::new();
        for project in projects {
            let known = members.iter().find(|member| member.project == project.id);
            let member = match known {
                Some(member) => {
                    self.say_of_known(member, project);
                    member.clone()
                }
                None => {
                    let call = self.cloud.add_member(&self.image.id, &project.id);
                    match self.clouds.wait(Stage::Cloud, call) {
                        Ok(member) => member,
                        Err(error) if made_shared && rows.is_empty() => {
                            return Err(self.made_private_again(error));
                        }
                        Err(error) => {
                            self.say_how_far(&rows);
                            return Err(error);
                        }
                    }
                }
            };
            rows.push((member, project.name.clone()));
        }
        Ok(rows)
    }

    /// What stays after a failure, or a signal.
    fn say_how_far(&self, rows: &[(Member, Option<String>)]) {
        if !rows.is_empty() {
            let ids: Vec<&str> = rows.iter().map(|(member, _)| member.project.as_str()).collect();
            self.say(format_args!("image {} is shared with {}", self.image.label(), ids.join(", ")));
        }
    }

    fn say_of_known(&self, member: &Member, project: &Project) {
        let more = match member.status {
            MemberStatus::Rejected => {
                "; it has rejected the image, and may still accept it, or be asked again after: snapcow unshare"
            }
            MemberStatus::Accepted => "; it has accepted",
            MemberStatus::Pending => "; it has not answered yet",
        };
        self.say(format_args!(
            "image {} is already shared with project {}{more}",
            self.image.label(),
            project.label()
        ));
    }

    /// After a failure, which may have been a signal.
    fn made_private_again(&self, error: Error) -> Error {
        let uninterrupted = Clouds::new(CloudPairArgs::default(), Cancel::new());
        let Some(before) = self.image.visibility.as_deref() else { return error };
        let changes = ImageChanges::visibility(before);
        match uninterrupted.wait(Stage::Cloud, self.cloud.update_image(&self.image.id, &changes)) {
            Ok(_) => {
                self.say(format_args!("image {} is {before} again", self.image.label()));
                error
            }
            Err(left) => error.advise(format!("its visibility is still `shared`, without members: {left}")),
        }
    }

    fn accept(&self, name: &str, friend: &Cloud, rows: &mut [(Member, Option<String>)]) -> Result<()> {
        let project = friend.own_project()?;
        let known = rows.iter_mut().find(|(member, _)| member.project == project);
        let Some((member, _)) = known.filter(|(member, _)| member.status != MemberStatus::Accepted) else {
            return Ok(());
        };
        let id = &self.image.id;
        let call = friend.set_member_status(id, project, MemberStatus::Accepted);
        *member = self.clouds.wait(Stage::Cloud, call).map_err(|error| {
            error
                .advise(format!("it is shared, but not accepted; try: snapcow accept {id} --os-cloud {name}"))
        })?;
        Ok(())
    }
}

/// The image of this project with that name or ID. Those of others are left aside unless there is nothing else.
pub fn own_image(name: &str, cloud: &Cloud, clouds: &Clouds) -> Result<Image> {
    let name = name.strip_prefix("glance:").unwrap_or(name);
    let found = clouds.wait(Stage::Cloud, cloud.find_images(name))?;
    let is_own = |image: &Image| cloud.project_id().is_none_or(|own| image.owner.as_deref() == Some(own));
    let (own, foreign): (Vec<_>, Vec<_>) = found.into_iter().partition(is_own);
    match foreign.first() {
        Some(image) if own.is_empty() => {
            let owner = image.owner.as_deref().unwrap_or("unknown");
            let what = format!("image {} belongs to project {owner}, not to this one", image.label());
            Err(Error::new(Stage::Cloud, Kind::Login, what)
                .advise("only its owner shares it: ask there, or give a cloud of that project by --os-cloud"))
        }
        _ => one_of(own, name, cloud, clouds, Stage::Cloud),
    }
}
