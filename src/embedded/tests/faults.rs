//! Every fault as a client meets it.

use super::*;

fn with(change: impl FnOnce(&mut Faults)) -> Bench {
    let mut faults = Faults::default();
    change(&mut faults);
    Bench::new(EmbeddedOptions { faults, ranges: true, ..EmbeddedOptions::default() })
}

#[test]
fn downloads_are_cut_where_and_as_often_as_asked() {
    for reset in [false, true] {
        let bench =
            with(|faults| faults.download_cut = Some(Fault::first(2, Cut { after_bytes: 60_000, reset })));
        let file = bench.seed(Arc::new(sample()));
        for _ in 0..2 {
            let (status, body, whole) = bench.download(bench.request("GET", &file));
            assert_eq!((status, &body[..], whole), (200, &sample()[..60_000], false));
        }
        assert_eq!(bench.download(bench.request("GET", &file)), (200, sample().to_vec(), true));
        let finished: Vec<_> =
            bench.glance.records().iter().map(|record| (record.sent_bytes, record.finished)).collect();
        assert_eq!(finished, [(60_000, false), (60_000, false), (100_000, true)]);
    }
}

#[test]
fn downloads_stall_crawl_and_change() {
    let bench = with(|faults| {
        let duration = Duration::from_millis(300);
        faults.download_stall = Some(Fault::first(1, Stall { after_bytes: 10, duration }));
        faults.download_flip = Some(Fault::from_second(77_777));
        faults.download_without_length = Some(Fault::first(1, ()));
    });
    let file = bench.seed(Arc::new(sample()));
    let began = Instant::now();
    assert_eq!(bench.download(bench.request("GET", &file)), (200, sample().to_vec(), true));
    assert!(began.elapsed() >= Duration::from_millis(300));
    let mut changed = sample().to_vec();
    changed[77_777] ^= 1;
    assert_eq!(bench.download(bench.request("GET", &file)).1, changed);
    let ranged = bench.request("GET", &file).header("range", "bytes=77777-77777");
    assert_eq!(bench.download(ranged).1, changed[77_777..77_778]);

    bench.glance.faults().set(Faults { download_rate: Some(200_000), ..Faults::default() });
    let began = Instant::now();
    assert_eq!(bench.download(bench.request("GET", &file)).1, sample());
    assert!(began.elapsed() >= Duration::from_millis(450), "{:?}", began.elapsed());
    bench.glance.faults().update(|faults| faults.download_no_content = Some(Fault::always(())));
    assert_eq!(bench.status(bench.request("GET", &file)), 204);
}

#[test]
fn a_reader_that_takes_too_little_is_reset_and_its_pace_recorded() {
    let window = Duration::from_millis(100);
    let floor = Some(Floor { bytes: 1 << 20, window });
    let bench = Bench::new(EmbeddedOptions {
        faults: Faults { download_floor: floor, ..Faults::default() },
        socket_buffer_bytes: Some(64 << 10),
        pace_window: window,
        ..EmbeddedOptions::default()
    });
    let file = bench.seed(Arc::new(VmImage::new(1, 512 << 20, 0.0)));
    let result = bench.runtime.block_on(async {
        let mut response = bench.request("GET", &file).send().await?;
        response.chunk().await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        while response.chunk().await?.is_some() {}
        Ok::<_, reqwest::Error>(())
    });
    assert!(result.is_err());

    bench.glance.faults().set(Faults::default());
    bench.runtime.block_on(async {
        let mut response = bench.request("GET", &file).send().await.expect("an answer");
        response.chunk().await.expect("bytes");
        tokio::time::sleep(Duration::from_millis(400)).await;
        while response.chunk().await.expect("bytes").is_some() {}
    });
    let record = bench.glance.records().pop().expect("a record");
    assert_eq!((record.finished, record.slowest_window_bytes), (true, Some(0)));
}

#[test]
fn wrong_answers_to_a_range() {
    let bench = with(|_| {});
    let file = bench.seed(Arc::new(sample()));
    let all = sample();
    for (fault, status, range, body) in [
        (RangeAnswer::WholeBodyAs206, 206, Some("bytes 1000-1999/100000"), &all[..]),
        (RangeAnswer::Whole200, 200, None, &all[..]),
        (RangeAnswer::Shifted, 206, Some("bytes 1512-2511/100000"), &all[1512..2512]),
        (RangeAnswer::WrongContentRange, 206, Some("bytes 1512-2511/100000"), &all[1000..2000]),
    ] {
        bench.glance.faults().update(|faults| faults.range_answer = Some(Fault::first(2, fault)));
        let request = || bench.request("GET", &file).header("range", "bytes=1000-1999");
        let response = bench.send(request()).expect("an answer");
        let header =
            response.headers().get("content-range").map(|value| value.to_str().expect("text").to_owned());
        assert_eq!(header.as_deref(), range, "{fault:?}");
        assert_eq!(bench.download(request()), (status, body.to_vec(), true), "{fault:?}");
        assert_eq!(bench.download(request()).1, all[1000..2000]);
    }
}

#[test]
fn uploads_whose_answer_is_lost_are_stored() {
    for lost in [LostAnswer::Reset, LostAnswer::Status(502)] {
        let bench = with(|faults| {
            faults.upload_lost = Some(Fault::first(1, lost));
            faults.create_lost = Some(Fault::first(1, lost));
        });
        let id = "6a0f1c6e-2f4f-4a57-9c0c-6f5a3b1d2e3f";
        let body = json!({"id": id, "disk_format": "qcow2", "container_format": "bare"}).to_string();
        let answers = [
            bench.send(bench.request("POST", "/v2/images").body(body)),
            bench.send(bench.put(&format!("/v2/images/{id}/file"), qcow2_bytes(70_000))),
        ];
        for answer in answers {
            match lost {
                LostAnswer::Reset => assert!(answer.is_err()),
                LostAnswer::Status(status) => {
                    assert_eq!(answer.expect("an answer").status().as_u16(), status)
                }
            }
        }
        assert_eq!(bench.shown(id, "status"), "active");
    }
}

#[test]
fn uploads_are_cut_refused_and_given_wrong_hashes() {
    let bench = with(|faults| faults.upload_cut = Some(Fault::first(1, 50_000)));
    let (id, file) = bench.queued();
    let put = || bench.put(&file, qcow2_bytes(4 << 20));
    assert!(bench.send(put()).is_err());
    bench.wait_for(&id, "queued");
    for after_bytes in [None, Some(1000), Some(1_000_000), Some(3_000_000)] {
        let refusal = Refusal { status: 413, text: "Quota exceeded".into(), after_bytes };
        bench.glance.faults().update(|faults| faults.upload_refused = Some(Fault::first(1, refusal)));
        assert_eq!(bench.status(put()), 413, "an early answer is not lost to a reset");
        bench.wait_for(&id, "queued");
    }
    let delay = Duration::from_millis(200);
    bench.glance.faults().update(|faults| {
        faults.upload_hash = Some(Fault::always(HashFault::Wrong));
        faults.upload_finish_delay = Some(delay);
    });
    let began = Instant::now();
    assert_eq!(bench.status(put()), 204);
    assert!(began.elapsed() >= delay);
    assert_ne!(bench.shown(&id, "os_hash_value"), Hashes::of(&qcow2_bytes(4 << 20)).sha512);
    bench
        .glance
        .faults()
        .set(Faults { upload_hash: Some(Fault::always(HashFault::Missing)), ..Faults::default() });
    let (id, file) = bench.queued();
    assert_eq!(bench.status(bench.put(&file, qcow2_bytes(600))), 204);
    assert_eq!((bench.shown(&id, "os_hash_value"), bench.shown(&id, "size")), (Value::Null, json!(600)));
}

/// An upload of 2000 bytes with a pause in its middle.
fn halting(pause: Duration) -> reqwest::Body {
    let halves = futures_util::stream::unfold(0, move |half| async move {
        if half == 1 {
            tokio::time::sleep(pause).await;
        }
        let bytes = if half == 0 { qcow2_bytes(1000) } else { Bytes::from_static(&[0; 1000]) };
        (half < 2).then_some((Ok::<_, io::Error>(bytes), half + 1))
    });
    reqwest::Body::wrap_stream(halves)
}

#[test]
fn slow_uploads_are_recorded_and_cut_off() {
    let bench = with(|_| {});
    let (_, file) = bench.queued();
    assert_eq!(bench.status(bench.put(&file, halting(Duration::from_millis(300)))), 204);
    let record = bench.glance.records().pop().expect("a record");
    assert!((200..600).contains(&record.longest_silence.as_millis()), "{:?}", record.longest_silence);
    assert_eq!((record.received_bytes, record.status), (2000, Some(204)));

    let silence = Some(Duration::from_millis(150));
    bench.glance.faults().set(Faults { upload_silence: silence, ..Faults::default() });
    let (id, file) = bench.queued();
    let answer = bench.send(bench.put(&file, halting(Duration::from_millis(600))));
    assert!(answer.map_or(true, |response| response.status().as_u16() == 500));
    bench.wait_for(&id, "queued");

    bench.glance.faults().set(Faults {
        upload_rate: Some(1 << 20),
        upload_stall: Some(Fault::always(Stall { after_bytes: 1000, duration: Duration::from_millis(200) })),
        ..Faults::default()
    });
    let began = Instant::now();
    assert_eq!(bench.status(bench.put(&file, qcow2_bytes(400 << 10))), 204);
    assert!(began.elapsed() >= Duration::from_millis(390), "{:?}", began.elapsed());
}

#[test]
fn any_route_can_answer_with_an_error_for_a_while() {
    let bench = with(|faults| {
        let busy = Answer { retry_after: Some(3), ..Answer::status(503) };
        faults.answers.push((Some(Route::Show), Fault::first(1, busy)));
        faults.answers.push((Some(Route::Delete), Fault::first(2, Answer::status(500))));
        faults.answers.push((Some(Route::Upload), Fault::first(1, Answer::status(401))));
        faults.forbidden_properties = vec!["locked".into()];
    });
    let (id, file) = bench.queued();
    let path = format!("/v2/images/{id}");
    let response = bench.send(bench.request("GET", &path)).expect("an answer");
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].as_bytes()), (503, &b"3"[..]));
    assert_eq!(bench.status(bench.request("GET", &path)), 200);
    assert_eq!(bench.status(bench.put(&file, qcow2_bytes(600))), 401);
    assert_eq!([500, 500, 204].map(|_| bench.status(bench.request("DELETE", &path))), [500, 500, 204]);
    assert_eq!(bench.create(json!({"locked": "x"})).0, 403);
    let old = bench.glance.token();
    assert_ne!(bench.glance.renew_token(), old);
    assert_eq!(
        bench.status(
            bench.client.get(format!("{}/v2/images", bench.glance.endpoint())).header("x-auth-token", old)
        ),
        401
    );
    assert_eq!(bench.status(bench.request("GET", "/v2/images")), 200);
}

#[test]
fn a_single_worker_serves_one_request_to_its_end_before_the_next() {
    let bench = with(|faults| faults.single_worker = true);
    let file = bench.seed(Arc::new(VmImage::new(1, 256 << 20, 0.0)));
    bench.runtime.block_on(async {
        let mut download = bench.request("GET", &file).send().await.expect("an answer");
        let list = bench.request("GET", "/v2/images").send();
        let waited = tokio::time::timeout(Duration::from_millis(200), list).await;
        assert!(waited.is_err(), "answered beside a download that is not over");
        while download.chunk().await.expect("bytes").is_some() {}
        let list = bench.request("GET", "/v2/images").send();
        let answer =
            tokio::time::timeout(Duration::from_secs(5), list).await.expect("in time").expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        // A client that goes away frees the worker as well.
        let download = bench.request("GET", &file).send().await.expect("an answer");
        drop(download);
        let list = bench.request("GET", "/v2/images").send();
        assert!(tokio::time::timeout(Duration::from_secs(5), list).await.is_ok());
    });
}
