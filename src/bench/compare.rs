//! Two reports side by side.

use std::fmt::Write;

use super::report::{Report, find};
use super::table::{aligned, rate, row, seconds};
use super::timing::at_least;

/// A table of what is in both reports, with the ratio of new to old: rates of stages, where more is
/// better, and wall times of routes, where less is. Says first what makes them hard to compare.
pub fn compare(old: &Report, new: &Report) -> String {
    let mut text = String::new();
    for difference in differences(old, new) {
        let _ = writeln!(text, "note: {difference}");
    }
    let mut stages = vec![row(["stage alone, in all (more is better)", "old", "new", "new/old"])];
    for figure in &new.stages {
        let Some(before) = find(&old.stages, &figure.stage, &figure.variant) else { continue };
        let (was, is) = (before.best().bytes_per_second, figure.best().bytes_per_second);
        stages.push(vec![figure.name(), rate(was), rate(is), ratio(is, was)]);
    }
    let mut routes = vec![row(["whole, wall (less is better)", "old", "new", "new/old"])];
    for figure in &new.routes {
        let Some(before) = old.routes.iter().find(|before| before.route == figure.route) else { continue };
        let (was, is) = (before.timing.median_wall_seconds, figure.timing.median_wall_seconds);
        routes.push(vec![figure.route.clone(), seconds(was), seconds(is), ratio(is, was)]);
    }
    for rows in [stages, routes] {
        if rows.len() > 1 {
            let _ = writeln!(text, "{}", aligned(&rows));
        }
    }
    let only = |these: &Report, those: &Report| {
        let stages = these
            .stages
            .iter()
            .filter(|figure| find(&those.stages, &figure.stage, &figure.variant).is_none());
        let routes =
            these.routes.iter().filter(|figure| those.routes.iter().all(|other| other.route != figure.route));
        stages
            .map(|figure| figure.name())
            .chain(routes.map(|figure| figure.route.clone()))
            .collect::<Vec<_>>()
    };
    for (which, names) in [("old", only(old, new)), ("new", only(new, old))] {
        if !names.is_empty() {
            let _ = writeln!(text, "only in the {which} one: {}", names.join("; "));
        }
    }
    text
}

fn ratio(new: f64, old: f64) -> String {
    format!("{:.2}", new / at_least(old))
}

/// What else has changed between the two, one sentence each.
fn differences(old: &Report, new: &Report) -> Vec<String> {
    let mut differences = Vec::new();
    let mut differ = |what: &str, old: String, new: String| {
        if old != new {
            differences.push(format!("{what}: {old} became {new}"));
        }
    };
    differ("the processor", old.machine.cpu_model.clone(), new.machine.cpu_model.clone());
    differ("cores", old.machine.cores.to_string(), new.machine.cores.to_string());
    differ("the kernel", old.machine.kernel.clone(), new.machine.kernel.clone());
    differ("snapcow", old.versions.snapcow.clone(), new.versions.snapcow.clone());
    differ("threads", old.parameters.threads.to_string(), new.parameters.threads.to_string());
    differ("files were durable", old.parameters.durable.to_string(), new.parameters.durable.to_string());
    if old.workload != new.workload || old.parameters.seed != new.parameters.seed {
        differences.push("the disks are not the same: times of routes cannot be compared".into());
    }
    differences
}
