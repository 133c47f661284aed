//! The library's calls below the commands: changing a record, listing, members, quotas.

use std::collections::BTreeMap;

use snapcow::error::{Kind, Stage};
use snapcow::openstack::{ImageChanges, ImageFilter, MemberStatus, NewImage};

use crate::lab::{new_image, run};

#[test]
fn a_record_is_changed_as_a_whole_or_not_at_all() {
    run(|lab| async move {
        let cloud = lab.connect("lab-noranges").await;
        let mut new = new_image("before");
        new.properties =
            [("keep", "1"), ("change", "1"), ("remove/~me", "1")].map(|(k, v)| (k.into(), v.into())).into();
        let id = cloud.create(&new).await.unwrap().image.id;
        let changes = ImageChanges {
            name: Some("after ü".into()),
            protected: Some(true),
            hidden: Some(true),
            min_disk: Some(7),
            min_ram: Some(64),
            tags: Some(vec!["t".into()]),
            set_properties: BTreeMap::from([("change".into(), "2".into()), ("add".into(), "x".into())]),
            remove_properties: vec!["remove/~me".into(), "never there".into()],
            ..ImageChanges::visibility("shared")
        };
        let image = cloud.update_image(&id, &changes).await.unwrap();
        assert_eq!((image.name.as_deref(), image.visibility.as_deref()), (Some("after ü"), Some("shared")));
        assert_eq!((image.protected, image.os_hidden, image.min_disk, image.min_ram), (true, true, 7, 64));
        assert_eq!(image.tags, ["t"]);
        let property = |key: &str| image.properties.get(key).map(String::as_str);
        assert_eq!(
            (property("keep"), property("change"), property("add")),
            (Some("1"), Some("2"), Some("x"))
        );
        assert_eq!(property("remove/~me"), None);
        assert_eq!(cloud.update_image(&id, &changes).await.unwrap().properties, image.properties);

        // A policy forbids one of two: neither is made.
        let both = ImageChanges { name: Some("public".into()), ..ImageChanges::visibility("public") };
        let error = cloud.update_image(&id, &both).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Login, "{error}");
        assert!(error.to_string().contains("snapcow share"), "{error}");
        assert_eq!(cloud.show(&id).await.unwrap().name.as_deref(), Some("after ü"));
        let attribute = BTreeMap::from([("status".to_owned(), "active".to_owned())]);
        let wrong = ImageChanges { set_properties: attribute, ..ImageChanges::default() };
        assert_eq!(cloud.update_image(&id, &wrong).await.unwrap_err().kind(), Kind::Usage);
        let off = ImageChanges { protected: Some(false), ..ImageChanges::default() };
        cloud.update_image(&id, &off).await.unwrap();
        cloud.delete(&id).await.unwrap();
        let gone = cloud.for_stage(Stage::Sink).update_image(&id, &off).await.unwrap_err();
        assert_eq!(gone.kind(), Kind::Target, "{gone}");
    });
}

#[test]
fn another_projects_record_cannot_be_changed_and_says_whose_it_is() {
    run(|lab| async move {
        let (cloud, other) = (lab.connect("lab-noranges").await, lab.connect("lab-b").await);
        let new = NewImage { visibility: Some("shared".into()), ..new_image("not yours") };
        cloud.create(&new).await.unwrap();
        let b = other.own_project().unwrap().to_owned();
        assert_eq!(cloud.add_member(&new.id, &b).await.unwrap().status, MemberStatus::Pending);
        assert_eq!(cloud.add_member(&new.id, &b).await.unwrap().status, MemberStatus::Pending);
        let error = other.update_image(&new.id, &ImageChanges::name("mine")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Login, "{error}");
        assert!(error.to_string().contains(cloud.own_project().unwrap()), "{error}");
        // Only the member itself answers, and only the owner shares.
        let owner = cloud.set_member_status(&new.id, &b, MemberStatus::Accepted).await.unwrap_err();
        assert_eq!(owner.kind(), Kind::Login, "{owner}");
        assert_eq!(other.add_member(&new.id, "0123456789abcdef").await.unwrap_err().kind(), Kind::Login);
        assert!(cloud.remove_member(&new.id, &b).await.unwrap());
        assert!(!cloud.remove_member(&new.id, &b).await.unwrap());
        let gone = other.set_member_status(&new.id, &b, MemberStatus::Accepted).await.unwrap_err();
        assert!(gone.to_string().contains("snapcow share"), "{gone}");
        cloud.delete(&new.id).await.unwrap();
        assert_eq!(cloud.remove_member(&new.id, &b).await.unwrap_err().kind(), Kind::Source);
    });
}

#[test]
fn lists_obey_every_filter_and_stop_where_they_are_told() {
    run(|lab| async move {
        let cloud = lab.connect("lab-noranges").await;
        let name = NewImage::new_id();
        for disk_format in ["raw", "raw", "qcow2"] {
            cloud.create(&NewImage { disk_format: disk_format.into(), ..new_image(&name) }).await.unwrap();
        }
        let named = || ImageFilter { name: Some(name.clone()), ..ImageFilter::default() };
        let all = cloud.list_images(&named(), 10).await.unwrap();
        assert_eq!((all.images.len(), all.complete), (3, true));
        let count = async |filter: ImageFilter| cloud.list_images(&filter, 10).await.unwrap().images.len();
        assert_eq!(count(ImageFilter { disk_format: Some("raw".into()), ..named() }).await, 2);
        assert_eq!(count(ImageFilter { status: Some("active".into()), ..named() }).await, 0);
        assert_eq!(count(ImageFilter { visibility: Some("private".into()), ..named() }).await, 3);
        assert_eq!(count(ImageFilter { owner: cloud.project_id().map(str::to_owned), ..named() }).await, 3);
        assert_eq!(count(ImageFilter { size_min_bytes: Some(1), ..named() }).await, 0);
        assert_eq!(count(ImageFilter { hidden: true, ..named() }).await, 0);
        let some = cloud.list_images(&named(), 2).await.unwrap();
        assert_eq!((some.images.len(), some.complete), (2, false));
        for image in all.images {
            cloud.delete(&image.id).await.unwrap();
        }
    });
}

/// The lab keeps no quotas, and an older Glance does not know the question.
#[test]
fn a_cloud_without_quotas_tells_none() {
    run(|lab| async move {
        assert_eq!(lab.connect("lab-noranges").await.usage().await.unwrap(), None);
    });
}
