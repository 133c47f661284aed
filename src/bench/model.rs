//! What the stages' own figures say of a whole: see the text of [`super`].

use serde::{Deserialize, Serialize};

use super::timing::nanos;

/// What one stage has to do in a phase, by its figures alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Name of the stage, with the codec where it has one.
    pub stage: String,
    /// The least time that it takes, alone on the machine, on as many threads as it may use.
    pub alone_seconds: f64,
    /// CPU time that it takes on all threads together.
    pub cpu_seconds: f64,
}

/// Stages that work at the same time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phase {
    /// `survey`, `delivery`, or `all` where there is only one.
    pub phase: String,
    /// Its stages, in the order in which the bytes pass them.
    pub stages: Vec<Work>,
    /// Sum of the stages' CPU time, divided by the cores.
    pub shared_cpu_seconds: f64,
    /// The least time that the phase can take.
    pub bound_seconds: f64,
    /// What sets it: the name of a stage, or `CPU` where all cores together are the limit.
    pub limit: String,
}

/// The least time that a whole can take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// Its phases, one after the other.
    pub phases: Vec<Phase>,
    /// Sum of their bounds.
    pub bound_seconds: f64,
    /// What limits the phase with the largest bound.
    pub limit: String,
    /// The stage that takes most of the CPU time in that phase: the one to improve where the limit
    /// is `CPU`.
    pub dearest_stage: String,
}

/// The name of the limit where no stage is it, but all of them together.
pub(super) const ALL_CORES: &str = "CPU";

/// Puts the bound of a whole together from the work of its stages.
pub fn bound(phases: Vec<(&str, Vec<Work>)>, cores: usize) -> Bound {
    let phases: Vec<Phase> = phases.into_iter().map(|(name, stages)| phase(name, stages, cores)).collect();
    let largest = phases.iter().max_by(|a, b| a.bound_seconds.total_cmp(&b.bound_seconds));
    let dearest = largest
        .and_then(|phase| phase.stages.iter().max_by(|a, b| a.cpu_seconds.total_cmp(&b.cpu_seconds)))
        .map(|work| work.stage.clone());
    Bound {
        bound_seconds: nanos(phases.iter().map(|phase| phase.bound_seconds).sum()),
        limit: largest.map(|phase| phase.limit.clone()).unwrap_or_default(),
        dearest_stage: dearest.unwrap_or_default(),
        phases,
    }
}

fn phase(name: &str, stages: Vec<Work>, cores: usize) -> Phase {
    let cpu_seconds: f64 = stages.iter().map(|work| work.cpu_seconds).sum();
    let shared_cpu_seconds = nanos(cpu_seconds / cores.max(1) as f64);
    let slowest = stages.iter().max_by(|a, b| a.alone_seconds.total_cmp(&b.alone_seconds));
    let (bound_seconds, limit) = match slowest {
        Some(work) if work.alone_seconds >= shared_cpu_seconds => (work.alone_seconds, work.stage.clone()),
        _ => (shared_cpu_seconds, ALL_CORES.into()),
    };
    Phase { phase: name.into(), stages, shared_cpu_seconds, bound_seconds, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(stage: &str, alone_seconds: f64, cpu_seconds: f64) -> Work {
        Work { stage: stage.into(), alone_seconds, cpu_seconds }
    }

    #[test]
    fn the_limit_is_the_slowest_stage_or_all_cores() {
        // Name of the case, work as (stage, alone, CPU), cores, limit, bound, dearest.
        type Case<'a> = (&'a str, &'a [(&'a str, f64, f64)], usize, &'a str, f64, &'a str);
        let table: [Case<'_>; 6] = [
            (
                "a serial stage",
                &[("read", 1.0, 0.1), ("hash", 3.0, 3.0), ("encode", 2.0, 4.0)],
                8,
                "hash",
                3.0,
                "encode",
            ),
            (
                "the same on two cores",
                &[("read", 1.0, 0.1), ("hash", 3.0, 3.0), ("encode", 2.0, 4.0)],
                2,
                "CPU",
                3.55,
                "encode",
            ),
            ("a disk that waits", &[("encode", 2.0, 4.0), ("sink", 9.0, 0.1)], 2, "sink", 9.0, "encode"),
            (
                "one core does all in turn",
                &[("read", 1.0, 1.0), ("encode", 4.0, 4.0)],
                1,
                "CPU",
                5.0,
                "encode",
            ),
            ("one stage alone on all cores", &[("encode", 2.0, 4.0)], 2, "encode", 2.0, "encode"),
            ("nothing", &[], 2, "CPU", 0.0, ""),
        ];
        for (name, stages, cores, limit, seconds, dearest) in table {
            let stages = stages.iter().map(|&(stage, alone, cpu)| work(stage, alone, cpu)).collect();
            let bound = bound(vec![("all", stages)], cores);
            assert_eq!((bound.limit.as_str(), bound.dearest_stage.as_str()), (limit, dearest), "{name}");
            assert!((bound.bound_seconds - seconds).abs() < 1e-9, "{name}: {}", bound.bound_seconds);
        }
    }

    #[test]
    fn phases_add_up_and_the_longest_names_the_limit() {
        let survey = vec![work("network in", 2.0, 1.0), work("hash", 3.0, 3.0)];
        let delivery = vec![work("network out", 5.0, 6.0)];
        let bound = bound(vec![("survey", survey), ("delivery", delivery)], 2);
        assert_eq!((bound.bound_seconds, bound.limit.as_str()), (8.0, "network out"));
        let limits: Vec<_> = bound.phases.iter().map(|phase| phase.limit.as_str()).collect();
        assert_eq!(limits, ["hash", "network out"]);
        assert_eq!(bound.phases[0].shared_cpu_seconds, 2.0);
    }
}
