//! Who does the jobs: one thread, or one for each.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, Scope};

use super::jobs::{Job, Work};
use super::{Findings, judge};
use crate::error::{Error, Kind, Result, Stage};
use crate::free::stream::Passing;
use crate::free::{Disk, Limits};

/// Stack of a thread: readers recurse little.
const STACK_BYTES: usize = 1 << 20;

pub(super) fn one_by_one(disk: &dyn Disk, len: u64, limits: Limits) -> Result<Findings> {
    let work = Work::new(disk, len, limits);
    let mut queue = VecDeque::from([Job::Table]);
    while let Some(job) = queue.pop_front() {
        run(&work, job, &mut |next| queue.push_back(next));
    }
    judge::findings(work)
}

pub(super) fn at_once(disk: &dyn Disk, len: u64, limits: Limits) -> Result<Findings> {
    let work = Work::new(disk, len, limits);
    let counted = Counted(disk);
    std::thread::scope(|scope| {
        begin(scope, &work, Job::Table);
        // This thread waits for the others, not for the disk.
        drop(counted);
    });
    judge::findings(work)
}

pub(super) fn while_passing(
    passing: &Passing,
    len: u64,
    limits: Limits,
    pass: impl FnOnce() -> Result<()>,
) -> Result<Findings> {
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| at_once(passing, len, limits));
        let passed = pass();
        passing.end();
        let findings = looking.join().map_err(|_| {
            Error::new(Stage::Source, Kind::Other, "looking at filesystems panicked")
                .advise("please report this")
        });
        passed?;
        findings?
    })
}

/// A thread that the disk counts as a reader.
struct Counted<'a>(&'a dyn Disk);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

fn begin<'scope, 'env>(scope: &'scope Scope<'scope, 'env>, work: &'scope Work<'env>, job: Job) {
    // Counted before it begins, by one that is counted: so there is no moment at which the disk sees nobody.
    work.disk.enter();
    let counted = Counted(work.disk);
    let task = move || {
        let _counted = counted;
        run(work, job, &mut |next| begin(scope, work, next));
    };
    if Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, task).is_err() {
        // The closure is gone, and its count with it: the job is left undone, and what it was for is left whole.
        work.undone(None);
    }
}

fn run(work: &Work<'_>, job: Job, next: &mut dyn FnMut(Job)) {
    let name = job.place();
    if catch_unwind(AssertUnwindSafe(|| work.run(job, next))).is_err() {
        work.undone(name);
    }
}
