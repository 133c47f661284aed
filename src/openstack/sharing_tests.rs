//! Lists, changes and members against a scripted server: answers that are lost, hostile or endless.

use super::*;

/// The parts of an answer that a test does not care about.
fn image(number: usize) -> String {
    format!(r#"{{"id": "i-{number}", "status": "active", "name": "n{number}"}}"#)
}

#[test]
fn an_endless_list_ends_where_it_was_to_end_and_holds_no_more() {
    run(async {
        let page = |n: usize| {
            reply("200 OK", &format!(r#"{{"images": [{}], "next": "/v2/images?marker={n}"}}"#, image(n)))
        };
        let server = Script::start(move |n, _| page(n)).await;
        let listed = server.cloud().list_images(&ImageFilter::default(), 7).await.unwrap();
        assert_eq!((listed.images.len(), listed.complete, server.count("GET")), (7, false, 8));
        // Nothing of it fits.
        let filter = ImageFilter { name: Some("other".into()), ..ImageFilter::default() };
        let error = server.cloud().list_images(&filter, 7).await.unwrap_err();
        assert!(error.to_string().contains("does not end"), "{error}");
        // Few images, but each of them as long as an answer may be.
        let long = "x".repeat(answer::MOST_JSON_BYTES - 200);
        let server = Script::start(move |n, _| {
            let image = format!(r#"{{"id": "i", "status": "active", "x": "{long}"}}"#);
            reply("200 OK", &format!(r#"{{"images": [{image}], "next": "?marker={n}"}}"#))
        })
        .await;
        let listed = server.cloud().list_images(&ImageFilter::default(), 10_000).await.unwrap();
        assert!(!listed.complete && listed.images.len() < 20, "{}", listed.images.len());
    });
}

#[test]
fn a_removal_whose_answer_was_lost_is_not_taken_for_a_failure() {
    run(async {
        let changes = ImageChanges { remove_properties: vec!["x".into()], ..ImageChanges::default() };
        let patches = AtomicUsize::new(0);
        let server = Script::start(move |n, head| {
            let image = |more: &str| reply("200 OK", &format!(r#"{{"id": "a", "status": "active"{more}}}"#));
            match (head.starts_with("PATCH"), n) {
                (false, 0) => image(r#", "x": "1""#),
                (false, _) => image(""),
                (true, _) if patches.fetch_add(1, Ordering::SeqCst) == 0 => String::new(),
                (true, _) => reply("409 Conflict", "Property x does not exist."),
            }
        })
        .await;
        let image = server.cloud().update_image("a", &changes).await.unwrap();
        assert!(image.properties.is_empty());
        assert_eq!((server.count("PATCH"), server.count("GET")), (2, 2));
        // A conflict that stays is told.
        let server = Script::start(|_, head| match head.starts_with("PATCH") {
            true => reply("409 Conflict", "busy"),
            false => reply("200 OK", r#"{"id": "a", "status": "active", "x": "1"}"#),
        })
        .await;
        let error = server.cloud().update_image("a", &changes).await.unwrap_err();
        assert!(error.kind() == Kind::Source && error.to_string().contains("busy"), "{error}");
        assert_eq!(server.count("PATCH"), 2);
    });
}

#[test]
fn a_member_whose_answer_was_lost_is_one() {
    run(async {
        let posts = AtomicUsize::new(0);
        let server = Script::start(move |_, head| match head.starts_with("POST") {
            true if posts.fetch_add(1, Ordering::SeqCst) == 0 => String::new(),
            true => reply("409 Conflict", "duplicated"),
            false => reply("200 OK", r#"{"member_id": "p", "status": "pending"}"#),
        })
        .await;
        assert_eq!(server.cloud().add_member("a", "p").await.unwrap().status, MemberStatus::Pending);
        // The same conflict, of an image that does not know the member: nothing is made up.
        let server = Script::start(|_, head| match head.starts_with("POST") {
            true => reply("409 Conflict", "something else"),
            false => reply("404 Not Found", ""),
        })
        .await;
        let error = server.cloud().add_member("a", "p").await.unwrap_err();
        assert!(error.to_string().contains("something else"), "{error}");
    });
}

#[test]
fn hostile_members_projects_and_quotas_are_errors_or_nothing() {
    run(async {
        for body in ["", "[]", "null", r#"{"members": {}}"#, r#"{"members": [{"member_id": 5}]}"#] {
            let server = Script::start(move |_, _| reply("200 OK", body)).await;
            assert_eq!(server.cloud().members("a").await.unwrap_err().kind(), Kind::Network, "{body}");
            assert_eq!(server.cloud().member("a", "p").await.unwrap_err().kind(), Kind::Network, "{body}");
        }
        for (status, body) in [("404 No", ""), ("403 No", ""), ("200 OK", r#"{"usage": {}}"#)] {
            let server = Script::start(move |_, _| reply(status, body)).await;
            assert_eq!(server.cloud().usage().await.unwrap(), None, "{status}");
        }
        let server = Script::start(|_, _| {
            reply("200 OK", r#"{"usage": {"image_size_total": {"usage": 5, "limit": 7}}}"#)
        })
        .await;
        let usage = server.cloud().usage().await.unwrap().unwrap();
        assert_eq!(usage.total_bytes.unwrap().free(), Some(2 << 20));
    });
}

/// A token alone leads to no Keystone: names cannot be looked up, IDs are taken as they are.
#[test]
fn a_bare_token_shares_by_ids_only() {
    run(async {
        let server = Script::start(|_, _| reply("200 OK", IMAGE)).await;
        let cloud = server.cloud();
        let error = cloud.find_project("demo").await.unwrap_err();
        assert!(error.kind() == Kind::Login && error.to_string().contains("give its ID"), "{error}");
        let project = cloud.find_project("62d5565359db4b899ed2e793e1157552").await.unwrap();
        assert!(!project.confirmed);
        assert_eq!(cloud.own_project().unwrap_err().kind(), Kind::Login);
        assert_eq!(server.count(""), 0);
    });
}
