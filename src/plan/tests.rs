use super::*;

fn facts(access: Access, remote: bool, order: SinkOrder) -> Facts {
    Facts {
        source: SourceFacts { name: "a".into(), len: Some(10 << 30), access, is_remote: remote },
        sink: SinkFacts { name: "b".into(), order },
        machine: MachineFacts {
            cores: 2,
            memory_bytes: 2 << 30,
            spool_free_bytes: Some(10 << 30),
            spool_is_memory: false,
        },
        wishes: Wishes {
            cluster_size: ClusterSize::DEFAULT,
            threads: None,
            connections: None,
            memory_bytes: 256 << 20,
            spool_disk: SpoolDisk::Auto,
        },
    }
}

#[test]
fn the_table_of_routes() {
    use Access::{Once, Random, Sequential};
    use SinkOrder::InOrder;
    for (access, order, route) in [
        (Once, SinkOrder::Random, Route::Direct),
        (Sequential, SinkOrder::Random, Route::Direct),
        (Random, SinkOrder::Random, Route::Direct),
        (Once, InOrder, Route::Spool(Overflow::Stop)),
        (Sequential, InOrder, Route::Spool(Overflow::RereadFromStart)),
        (Random, InOrder, Route::Spool(Overflow::RereadParts)),
    ] {
        assert_eq!(Plan::new(facts(access, true, order)).unwrap().route, route, "{access:?} {order:?}");
    }
}

#[test]
fn the_shares_never_exceed_the_memory() {
    for memory_mib in [64u64, 96, 128, 256, 1024, 8192] {
        for threads in [1usize, 2, 8, 64, 500] {
            let mut facts = facts(Access::Random, true, SinkOrder::InOrder);
            facts.wishes.memory_bytes = memory_mib << 20;
            facts.wishes.threads = Some(threads);
            let Ok(plan) = Plan::new(facts) else { continue };
            let b = plan.budget;
            let sum = (b.chunk_buffers + b.room_buffers) as u64 * (2 << 20)
                + b.threads as u64 * (6 << 20)
                + b.upload_queue_bytes
                + b.spool_memory_bytes;
            assert!(sum <= memory_mib << 20, "{memory_mib} MiB, {threads} threads: {sum}");
            assert_eq!(plan.notes.is_empty(), b.threads == threads);
        }
    }
}

#[test]
fn too_little_memory_names_what_is_enough() {
    let mut facts = facts(Access::Sequential, true, SinkOrder::InOrder);
    facts.wishes.memory_bytes = 16 << 20;
    let error = Plan::new(facts.clone()).unwrap_err().to_string();
    let mib: u64 = error.split("--memory ").nth(1).unwrap().split("MiB").next().unwrap().parse().unwrap();
    facts.wishes.memory_bytes = mib << 20;
    assert!(Plan::new(facts).is_ok(), "{error}");
}

#[test]
fn the_spool_leaves_a_gib_and_half_of_the_disk() {
    for (free, share) in [(10u64 << 30, 5u64 << 30), (3 << 29, 1 << 29), (1 << 29, 0), (0, 0)] {
        let mut facts = facts(Access::Sequential, true, SinkOrder::InOrder);
        facts.machine.spool_free_bytes = Some(free);
        assert_eq!(Plan::new(facts.clone()).unwrap().budget.spool_disk_bytes, share);
        facts.machine.spool_is_memory = true;
        assert_eq!(Plan::new(facts).unwrap().budget.spool_disk_bytes, 0);
    }
}

#[test]
fn a_disk_too_large_for_its_clusters_names_the_cluster_size() {
    let mut facts = facts(Access::Random, false, SinkOrder::Random);
    facts.source.len = Some(16 << 40);
    facts.wishes.cluster_size = ClusterSize::from_bytes(4096).unwrap();
    facts.machine.memory_bytes = 1 << 40;
    let error = Plan::new(facts.clone()).unwrap_err().to_string();
    assert!(error.contains("--cluster-size 8k"), "{error}");

    facts.wishes.cluster_size = ClusterSize::DEFAULT;
    facts.machine.memory_bytes = 1 << 30;
    let error = Plan::new(facts).unwrap_err().to_string();
    assert!(error.contains("image map") && error.contains("--cluster-size 512k"), "{error}");
}

#[test]
fn a_plan_reads_well() {
    let text = Plan::new(facts(Access::Sequential, true, SinkOrder::InOrder)).unwrap().to_string();
    assert!(text.contains("route    spool"), "{text}");
    assert!(text.contains("read once more"), "{text}");
}
