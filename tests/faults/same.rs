//! The image is a pure function of the source and the options: neither route nor network shows in it.

use std::sync::Arc;

use snapcow::convert::RouteTaken;
use snapcow::embedded::{EmbeddedOptions, Faults, VmImage};

use super::bench::{Bench, MIB, Tune, with};

#[test]
fn neither_ranges_nor_network_nor_route_nor_threads_show_in_the_image() {
    let disk = Arc::new(VmImage::new(21, 40 * MIB + 4_321, 0.35));
    let on_disk = Tune { spool_memory_bytes: 2 * MIB, spool_disk_bytes: 128 * MIB, ..Tune::spool() };
    let mut first: Option<Vec<u8>> = None;
    for ranges in [false, true] {
        for socket_buffer_bytes in [None, Some(64 << 10)] {
            let bench = Bench::new(
                EmbeddedOptions { ranges, socket_buffer_bytes, ..with(Faults::default()) },
                disk.clone(),
            );
            for (threads, tune) in [1, 2, 8].into_iter().zip([&on_disk, &Tune::spool(), &Tune::reread()]) {
                let outcome = bench.convert(&Tune { threads, ..tune.clone() });
                let receipt = outcome.result.unwrap();
                let id = outcome.id.unwrap();
                let dropped = tune.spool_memory_bytes == 2 * MIB && tune.spool_disk_bytes == 0;
                assert_eq!(receipt.route == Some(RouteTaken::Reread), dropped);
                let bytes = bench.bytes(&id);
                match &first {
                    None => {
                        bench.prove(&id);
                        first = Some(bytes);
                    }
                    Some(first) => assert!(
                        *first == bytes,
                        "ranges {ranges}, buffers {socket_buffer_bytes:?}, {threads} threads, {:?}: another image",
                        receipt.route
                    ),
                }
            }
        }
    }
}
